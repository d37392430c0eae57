"""What Windows does otherwise, simulated: files that are open elsewhere, and its shell."""

from __future__ import annotations

import os
import shlex
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from marketfetch.common import local_resources, platforms
from marketfetch.common.local_resources import resource_remedy
from marketfetch.common.platforms import command_text, retry_while_open_elsewhere
from marketfetch.common.processes import ProcessIdentity
from marketfetch.errors import SinkUnavailable
from marketfetch.listeners.terminals import takes_escapes
from marketfetch.sinks.files.lock_files import try_lock
from marketfetch.sinks.parquet.sink import ParquetSink
from marketfetch.values.spans import format_utc
from tests.support.batches import EVER, batch, candles


def refused(code: int) -> PermissionError:
    """Return the error of Windows with a code."""
    error = PermissionError(13, "The process cannot access the file")
    error.winerror = code  # type: ignore[attr-defined]  # only Windows has it
    return error


def throw(error: OSError) -> None:
    raise error


class Refusals:
    """Lets the first calls of a method fail as Windows does while a file is open, for paths with an end."""

    def __init__(self, method: Any, end: str, codes: list[int]) -> None:
        self.method, self.end, self.codes = method, end, iter(codes)
        self.left = len(codes)

    def on(self, patch: pytest.MonkeyPatch) -> Refusals:
        def call(path: Path, *arguments: Any, **options: Any) -> Any:
            for place in (path, *arguments):
                if str(place).endswith(self.end) and (code := next(self.codes, None)):
                    self.left -= 1
                    raise refused(code)
            return self.method(path, *arguments, **options)

        patch.setattr(Path, self.method.__name__, call)
        return self


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock of `retry_while_open_elsewhere` that only sleeping moves; the list has the pauses."""
    made: list[float] = []
    monkeypatch.setattr(platforms, "sleep", made.append)
    monkeypatch.setattr(platforms, "monotonic", lambda: sum(made))
    return made


@pytest.mark.parametrize("code", [5, 32, 33])
def test_a_file_that_is_open_for_a_moment_is_replaced_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float], code: int
) -> None:
    store = ParquetSink(tmp_path)
    store.prepare([])
    with store.writer() as take, monkeypatch.context() as patch:
        refusals = Refusals(Path.replace, ".parquet", [code] * 5).on(patch)
        take(batch(candles(), range(10), open=1))
    assert (refusals.left, len(pauses)) == (0, 5)
    assert len(store.read(candles(), EVER)) == 10


def test_a_file_that_stays_open_is_a_store_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    store = ParquetSink(tmp_path)
    store.prepare([])
    with store.writer() as take:
        with monkeypatch.context() as patch:
            Refusals(Path.replace, ".parquet", [32] * 1_000).on(patch)
            with pytest.raises(SinkUnavailable, match="close what has it open, or make it writable"):
                take(batch(candles(), range(10), open=1))
        assert 2 <= sum(pauses) < 3
        assert not [*tmp_path.rglob("*.lock"), *tmp_path.rglob("aside/*")], "left behind"
        take(batch(candles(), range(10), open=1))
    assert len(store.read(candles(), EVER)) == 10


def test_other_refusals_are_not_repeated(pauses: list[float]) -> None:
    for error in (PermissionError(13, "Permission denied"), refused(2), FileNotFoundError(2, "No such file")):
        with pytest.raises(OSError, match=str(error.strerror)):
            retry_while_open_elsewhere(partial(throw, error))
    assert not pauses


def test_a_file_that_another_process_reads_is_forgotten_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    store = ParquetSink(tmp_path)
    store.prepare([])
    with store.writer() as take:
        take(batch(candles(), range(10), open=1))
    with monkeypatch.context() as patch:
        refusals = Refusals(Path.unlink, "2020-01.parquet", [32] * 3).on(patch)
        store.forget(candles(), store.coverage([candles()])[candles()].covered, rows=True)
    assert refusals.left == 0
    assert not list(tmp_path.rglob("2020*.parquet"))


@pytest.mark.parametrize("method", [Path.read_text, Path.unlink])
def test_a_lock_that_others_look_at_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float], method: Any
) -> None:
    """A process that polls a lock has the file open, so its holder cannot remove it, or it cannot be read."""
    store = ParquetSink(tmp_path)
    store.prepare([])
    with store.writer() as take, monkeypatch.context() as patch:
        refusals = Refusals(method, ".lock", [32, 5]).on(patch)
        take(batch(candles(), range(10), open=1))
        take(batch(candles(), range(10, 20), open=1))
    assert refusals.left == 0
    assert not list(tmp_path.rglob("*.lock*"))


def test_a_lock_of_this_process_is_known_where_nobody_tells_which_processes_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could not be removed at its release; nobody has to wait for its lease."""
    monkeypatch.setattr(ProcessIdentity, "is_alive", None)
    lock = tmp_path / "x.lock"
    first = try_lock(lock)
    assert first is not None
    assert try_lock(lock) is None
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda _: throw(PermissionError(13, "no")))
        first.release()
    assert lock.exists()
    second = try_lock(lock)
    assert second is not None
    second.release()
    assert not lock.exists()


WORDS = ["marketfetch", "forget", "--to", r"parquet:C:\my data", "--symbol", 'A"B', "--rows"]


def test_a_command_is_written_for_the_shell_of_the_system() -> None:
    assert shlex.split(command_text(WORDS, "linux")) == shlex.split(command_text(WORDS, "darwin")) == WORDS
    assert (
        command_text(WORDS, "win32") == r'marketfetch forget --to "parquet:C:\my data" --symbol A\"B --rows'
    )


class Terminal:
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("system", "variable", "takes"),
    [
        ("linux", "", True),
        ("darwin", "", True),
        ("win32", "", False),
        ("win32", "WT_SESSION", True),
        ("win32", "TERM_PROGRAM", True),
        ("win32", "ConEmuANSI", True),
    ],
)
def test_the_old_console_of_windows_gets_no_escape_sequences(
    system: str, variable: str, takes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TERM", "TERM_PROGRAM", "WT_SESSION", "ConEmuANSI"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, "1")
    assert takes_escapes(Terminal(), system) is takes  # type: ignore[arg-type]


def test_an_unknown_error_is_not_taken_for_a_lack_of_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows says 'Unknown error' for each errno of its network."""
    monkeypatch.setattr(os, "strerror", lambda number: "Unknown error")
    assert resource_remedy(None, "Recv failure: Unknown error 10054") is None
    assert not local_resources.has_no_route(None, "Unknown error")


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (-1, "1969-12-31T23:59:59.999Z"),
        (-62_135_596_800_000, "0001-01-01T00:00:00Z"),
        (32_536_850_400_001, "3001-01-19T22:00:00.001Z"),
        (253_402_300_800_000, "253402300800000ms"),
        (2**63, "9223372036854775808ms"),
    ],
)
def test_moments_that_the_calendar_of_windows_lacks_are_written(moment: int, text: str) -> None:
    """The C library of Windows has neither times before 1970 nor times after the year 3000."""
    assert format_utc(moment) == text
