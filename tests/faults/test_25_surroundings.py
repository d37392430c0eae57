"""What is wrong around a run, such as its folders and certificates, is one clear error and never a defect."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import anyio
import pytest
import trustme

import marketfetch as mf
from marketfetch.cli.runner import describe_crash
from marketfetch.errors import ConfigurationError
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
        timeout=50,
        cwd=cwd,
        env={**kept, "PYTHONPATH": str(source), **environment},
    )


def refused(said: subprocess.CompletedProcess[str]) -> str:
    assert (said.returncode, said.stdout) == (2, ""), said.stderr
    assert len(said.stderr.splitlines()) == 1, said.stderr
    assert "defect" not in said.stderr
    assert "Errno" not in said.stderr
    return said.stderr


@pytest.mark.parametrize("scheme", ["sqlite", "duckdb", "parquet"])
@pytest.mark.parametrize("command", ["coverage", "verify"])
def test_home_that_nobody_knows_is_refused(scheme: str, command: str, tmp_path: Path) -> None:
    said = refused(run(command, "--to", f"{scheme}:~nobody-of-this-name/x", cwd=tmp_path))
    assert "begins with a home folder that this system does not know; set HOME" in said


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
    ("content", "said"),
    [
        (b"", "holds no certificate"),
        (b"\x00\xff\xfe", "holds no certificate"),
        (BEGIN + b"\ncut off", "holds no certificate"),
        (BEGIN + b"\nbm90aGluZw==\n" + END, "is damaged"),
        (BEGIN + b"\n\xff\xfe\n" + END, "is damaged"),
    ],
)
def test_certificate_that_is_none_is_refused_before_anything_is_sent(
    content: bytes, said: str, tmp_path: Path
) -> None:
    file = _pem(tmp_path, content)
    told = refused(
        run("backfill", *GOOD, "--symbol", "X", "--to", "memory:", "--certificate", file, cwd=tmp_path)
    )
    assert f"--certificate: {file} {said}" in told


async def test_comment_in_a_certificate_is_no_damage(tmp_path: Path) -> None:
    mixed = "# Prüfstelle\n".encode() + trustme.CA().cert_pem.bytes() + b"trailing words\n"
    async with ca_file(_pem(tmp_path, mixed)) as bundle:
        assert mixed in await anyio.Path(bundle).read_bytes()


@pytest.mark.parametrize(
    ("option", "content", "said"),
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
    option: str, content: bytes | None, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.mkdir() if content is None else file.write_bytes(content)
    symbol = [] if option == "--symbols-from" else ["--symbol", "BTCUSDT"]
    told = refused(run("backfill", *GOOD, *symbol, "--to", "memory:", option, file, cwd=tmp_path))
    assert said.format(file) in told


def test_what_the_system_refuses_elsewhere_is_no_defect() -> None:
    said = describe_crash(PermissionError(13, "Permission denied", "/srv/x"))
    assert "defect" not in said
    assert "'/srv/x'; mend what it names" in said
    assert "defect" in describe_crash(_raised(KeyError("x")))


def _raised(error: Exception) -> Exception:
    try:
        raise error
    except KeyError as raised:
        return raised
