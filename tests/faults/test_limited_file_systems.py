"""Calls that a file system does not have are done without; an error of those that it has is raised."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from marketfetch.errors import SinkError
from marketfetch.protocols import Store
from marketfetch.sinks.files.atomic_files import create_atomically, make_folder, replace_file
from marketfetch.sinks.parquet.sink import ParquetSink
from marketfetch.sinks.urls import sink_from
from tests.support.batches import EVER, batch, candles

LACKING = [errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF]
BROKEN = [errno.EIO, errno.ENOSPC, errno.EROFS]


def name_of(number: int) -> str:
    return errno.errorcode[number]


def failing_sync(number: int, kind: Callable[[int], bool]) -> Callable[[int], None]:
    """An fsync that fails for folders, or for files."""
    synchronise = os.fsync

    def fsync(handle: int) -> None:
        if kind(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))
        synchronise(handle)

    return fsync


def filled(url: str) -> Store:
    store = sink_from(url)
    assert isinstance(store, Store)
    store.prepare([candles().dataset])
    with store.writer() as take:
        take(batch(candles(), range(10), open=1))
    assert len(store.read(candles(), EVER)) == 10
    return store


@pytest.mark.parametrize("of", [stat.S_ISDIR, stat.S_ISREG], ids=["folders", "files"])
@pytest.mark.parametrize("number", LACKING, ids=name_of)
@pytest.mark.parametrize("kind", ["parquet", "duckdb"])
def test_without_a_way_to_synchronise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, number: int, of: Callable[[int], bool]
) -> None:
    monkeypatch.setattr(os, "fsync", failing_sync(number, of))
    filled(f"{kind}:{tmp_path / 'market'}")


@pytest.mark.parametrize("of", [stat.S_ISDIR, stat.S_ISREG], ids=["folders", "files"])
@pytest.mark.parametrize("number", BROKEN, ids=name_of)
def test_a_disk_that_is_broken_or_full_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, of: Callable[[int], bool]
) -> None:
    monkeypatch.setattr(os, "fsync", failing_sync(number, of))
    with pytest.raises(SinkError, match=os.strerror(number)):
        filled(f"parquet:{tmp_path / 'market'}")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EISDIR, errno.EINVAL], ids=name_of)
@pytest.mark.parametrize("kind", ["parquet", "duckdb"])
def test_folders_that_cannot_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, number: int
) -> None:
    """As on Windows, and where one may look for names in a folder but not list them."""
    opened = os.open

    def refusing(path: str, flags: int, mode: int = 0o777, **further: int) -> int:
        if os.path.isdir(path) and not flags & getattr(os, "O_TMPFILE", 0):  # noqa: PTH112
            raise OSError(number, os.strerror(number), str(path))
        return opened(path, flags, mode, **further)

    monkeypatch.setattr(os, "open", refusing)
    filled(f"{kind}:{tmp_path / 'market'}")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EBADF], ids=name_of)
def test_without_locks_of_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Of folders there are none on NFS, and none at all where the server has no lock daemon."""
    import fcntl

    def refusing(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refusing)
    monkeypatch.setattr(fcntl, "lockf", refusing)
    filled(f"parquet:{tmp_path / 'market'}")


def test_a_dataset_may_be_on_another_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folder is a link or a mount: nothing can be renamed into it from the rest of the store."""
    replace, crossed = Path.replace, list[Path]()

    def across(self: Path, target: Path) -> Path:
        if self.parent != target.parent:
            crossed.append(target)
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(self))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", across)
    store = filled(f"parquet:{tmp_path / 'market'}")
    with store.writer() as take:
        take(batch(candles(), range(5, 15), open=2))
    assert len(store.read(candles(), EVER)) == 15
    assert crossed
    left = [path.name for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".parquet"]
    assert not left


def test_on_a_disk_of_memory(tmp_path: Path) -> None:
    memory = Path("/dev/shm")  # another disk than that of tmp_path, on nearly all systems
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other disk here")
    place = Path(tempfile.mkdtemp(prefix="marketfetch-", dir=memory))
    try:
        (tmp_path / "market").mkdir()
        (tmp_path / "market" / "ohlcv").symlink_to(place)
        store = filled(f"parquet:{tmp_path / 'market'}")
        assert store.ledger()
    finally:
        shutil.rmtree(place)


def test_only_what_is_not_supported_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(path: object, flags: int) -> int:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(os, "open", gone)
    with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
        make_folder(tmp_path / "market")


def test_two_writings_of_one_file_have_two_names_aside(tmp_path: Path) -> None:
    file, seen = tmp_path / "x.parquet", list[Path]()

    def make(aside: Path) -> None:
        seen.append(aside)
        aside.write_bytes(b"outer")
        if len(seen) == 1:
            create_atomically(file, make)  # another process, amid the first
            assert aside.read_bytes() == b"outer", "what is written aside is taken away"

    create_atomically(file, make)
    assert seen[0] != seen[1]
    assert [path.name for path in tmp_path.iterdir()] == ["x.parquet"]
    replace_file(file, lambda target: target.write(b"new"))
    assert file.read_bytes() == b"new"
    assert isinstance(ParquetSink(tmp_path), Store)
