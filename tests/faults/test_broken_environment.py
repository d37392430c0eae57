"""What is wrong around a run, such as its folders and certificates, is one clear error and never a defect."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
import trustme
from curl_cffi.curl import DEFAULT_CACERT

import marketfetch as mf
from marketfetch.cli.runner import describe_crash
from marketfetch.errors import ConfigurationError
from marketfetch.fetchers import ca_bundle
from marketfetch.fetchers.ca_bundle import ca_file

GOOD = ["--exchange", "binance-usdm", "--start", "2026-06-01", "--end", "2026-06-02"]


def run(*words: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in {"HOME", "TMPDIR"}}
    source = Path(mf.__file__).parents[1]
    return subprocess.run(
        [sys.executable, "-m", "marketfetch", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
        cwd=cwd,
        env={**kept, "PYTHONPATH": str(source), **environment},
    )


def refused(result: subprocess.CompletedProcess[str]) -> str:
    assert (result.returncode, result.stdout) == (2, ""), result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert "defect" not in result.stderr
    assert "Errno" not in result.stderr
    return result.stderr


@pytest.mark.parametrize("scheme", ["sqlite", "duckdb", "parquet"])
@pytest.mark.parametrize("command", ["coverage", "verify"])
def test_home_that_nobody_knows_is_refused(scheme: str, command: str, tmp_path: Path) -> None:
    message = refused(run(command, "--to", f"{scheme}:~nobody-of-this-name/x", cwd=tmp_path))
    assert "begins with a home folder that this system does not know; set HOME" in message


@pytest.mark.parametrize("scheme", ["sqlite", "duckdb", "parquet"])
def test_folder_that_was_removed_under_the_process_is_named(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    sink = {"sqlite": mf.SQLiteSink, "duckdb": mf.DuckDBSink, "parquet": mf.ParquetSink}[scheme]("market")
    gone.rmdir()
    with pytest.raises(ConfigurationError, match="the folder that this process works in was removed"):
        sink.prepare([])


def _pem(folder: Path, content: bytes) -> Path:
    file = folder / "ca.pem"
    file.write_bytes(content)
    return file


async def test_temporary_folder_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = _pem(tmp_path, trustme.CA().cert_pem.bytes())
    for folder in ("/proc", str(tmp_path / "missing")):
        monkeypatch.setattr(tempfile, "tempdir", folder)
        with pytest.raises(ConfigurationError, match=r"certificate: no temporary file.*set TMPDIR"):
            async with ca_file(authority):
                pass


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, empty."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


async def test_full_disk_leaves_no_certificates_behind_and_is_named(
    temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = _pem(tmp_path, trustme.CA().cert_pem.bytes())
    usual = Path(DEFAULT_CACERT)
    monkeypatch.setattr("marketfetch.fetchers.ca_bundle.DEFAULT_CACERT", str(_large(tmp_path, usual)))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limit[1]))
        with pytest.raises(
            ConfigurationError, match=rf"the temporary file .*File too large.* in {temporary}$"
        ):
            async with ca_file(authority):
                pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    assert _names(temporary) == []


def _names(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


def _large(folder: Path, usual: Path) -> Path:
    file = folder / "usual.pem"
    file.write_bytes(usual.read_bytes() + b"\n" * 2**20)
    return file


@pytest.mark.parametrize("step", ["_joined", "_write"])
async def test_cancelled_task_leaves_no_certificates_behind(
    temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A task of asyncio that is cancelled does not wait for its worker thread, which goes on."""
    authority = _pem(tmp_path, trustme.CA().cert_pem.bytes())
    begun, resume, ended = threading.Event(), threading.Event(), threading.Event()
    original = getattr(ca_bundle, step)

    def late(*arguments: object) -> object:
        begun.set()
        assert resume.wait(30)
        try:
            return original(*arguments)
        finally:
            ended.set()

    async def use() -> None:
        async with ca_file(authority):
            raise AssertionError("it was cancelled before")

    monkeypatch.setattr(ca_bundle, step, late)
    task = asyncio.create_task(use())
    assert await anyio.to_thread.run_sync(begun.wait, 30)
    task.cancel()
    for _ in range(5):
        await asyncio.sleep(0)  # it is cancelled now, and its worker thread goes on
    resume.set()
    with suppress(asyncio.CancelledError):
        await task
    assert await anyio.to_thread.run_sync(ended.wait, 30)
    assert _names(temporary) == []


async def test_usual_authorities_that_cannot_be_read_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("marketfetch.fetchers.ca_bundle.DEFAULT_CACERT", str(tmp_path / "none.pem"))
    with pytest.raises(
        ConfigurationError, match=r"certificate: the usual authorities in .*none.pem cannot be"
    ):
        async with ca_file(_pem(tmp_path, trustme.CA().cert_pem.bytes())):
            pass


BEGIN, END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"


@pytest.mark.parametrize(
    ("content", "expected_message"),
    [
        (b"", "holds no certificate"),
        (b"\x00\xff\xfe", "holds no certificate"),
        (BEGIN + b"\ncut off", "holds no certificate"),
        (BEGIN + b"\nbm90aGluZw==\n" + END, "is damaged"),
        (BEGIN + b"\n\xff\xfe\n" + END, "is damaged"),
    ],
)
def test_certificate_that_is_none_is_refused_before_anything_is_sent(
    content: bytes, expected_message: str, tmp_path: Path
) -> None:
    file = _pem(tmp_path, content)
    message = refused(
        run("backfill", *GOOD, "--symbol", "X", "--to", "memory:", "--certificate", file, cwd=tmp_path)
    )
    assert f"--certificate: {file} {expected_message}" in message


async def test_comment_in_a_certificate_is_no_damage(tmp_path: Path) -> None:
    mixed = "# Prüfstelle\n".encode() + trustme.CA().cert_pem.bytes() + b"trailing words\n"
    async with ca_file(_pem(tmp_path, mixed)) as bundle:
        assert mixed in await anyio.Path(bundle).read_bytes()


@pytest.mark.parametrize(
    ("option", "content", "expected_message"),
    [
        ("--proxies-from", None, "--proxies-from: {} cannot be read: Is a directory"),
        ("--symbols-from", None, "--symbols-from: {} cannot be read: Is a directory"),
        ("--certificate", None, "--certificate: {} cannot be read (Is a directory)"),
        (
            "--proxies-from",
            "BTCUSDT".encode("utf-16"),
            "--proxies-from: {} cannot be read: it is not UTF-8 text",
        ),
        (
            "--symbols-from",
            "BTCUSDT".encode("utf-16"),
            "--symbols-from: {} cannot be read: it is not UTF-8 text",
        ),
        ("--symbols-from", b"BTC\x00USDT\n", "--symbols-from: line 1 of {} is not text"),
        ("--symbols-from", b"BTCUSDT\n\x7fELF\x02\n", "--symbols-from: line 2 of {} is not text"),
    ],
)
def test_file_that_is_something_else_is_refused(
    option: str, content: bytes | None, expected_message: str, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.mkdir() if content is None else file.write_bytes(content)
    symbol = [] if option == "--symbols-from" else ["--symbol", "BTCUSDT"]
    message = refused(run("backfill", *GOOD, *symbol, "--to", "memory:", option, file, cwd=tmp_path))
    assert expected_message.format(file) in message


def test_what_the_system_refuses_elsewhere_is_no_defect() -> None:
    message = describe_crash(PermissionError(13, "Permission denied", "/srv/x"))
    assert "defect" not in message
    assert "'/srv/x'; mend what it names" in message
    broken = describe_crash(ImportError("libduck.so: cannot open shared object file"))
    assert broken.startswith("a package cannot be imported: libduck.so: cannot open")
    assert broken.endswith("; install it again, or what it names")
    assert "defect" in describe_crash(_raised(KeyError("x")))


def _raised(error: Exception) -> Exception:
    try:
        raise error
    except KeyError as raised:
        return raised
