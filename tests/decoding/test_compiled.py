"""A compiled decoder that is missing, damaged, or of another version or platform costs time, and no more."""

from __future__ import annotations

import _ctypes
import json
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

import marketfetch
from marketfetch.decoding import compiled
from marketfetch.testing import GeneratedMarket, SimulatedExchange

pytestmark = pytest.mark.skipif(compiled.COMPILED is None, reason="nothing is compiled here")


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A copy of the library, with its source and its checksums beside it."""
    for kind in (".c", ".so", ".sha256"):
        shutil.copy(compiled.LIBRARY.with_suffix(kind), tmp_path)
    return tmp_path / compiled.LIBRARY.name


def sign(path: Path) -> None:
    """Write the checksums, as those who built such a file would have done."""
    files = (path.with_suffix(".c"), path)
    lines = [f"{sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    path.with_suffix(".sha256").write_text("".join(lines), newline="\n")


def refused(path: Path, message: str) -> None:
    """Assert that nothing is loaded, and that one warning says why and what to do."""
    with pytest.warns(RuntimeWarning, match=message) as warned:
        assert compiled.load(path) is None
    (warning,) = warned
    assert str(path) in str(warning.message)
    assert "pip install --force-reinstall --no-deps marketfetch" in str(warning.message)


def test_a_library_is_loaded_with_its_functions(installed: Path) -> None:
    found = compiled.load(installed)
    assert found is not None
    assert found.marketfetch_count(b"a,b,c", 5, b",") == 2


def test_where_nothing_was_compiled_nothing_is_said(tmp_path: Path) -> None:
    assert compiled.load(tmp_path / "_rows.so") is None


@pytest.mark.parametrize("kind", [".c", ".so", ".sha256"])
def test_a_file_is_missing(installed: Path, kind: str) -> None:
    missing = installed.with_suffix(kind)
    missing.unlink()
    with pytest.warns(RuntimeWarning, match=f"No such file or directory: '{missing}'"):
        assert compiled.load(installed) is None


@pytest.mark.parametrize("part", [0, 0.01, 0.3, 0.5, 0.9, 0.9999])
def test_a_truncated_library_is_not_loaded(installed: Path, part: float) -> None:
    content = installed.read_bytes()
    installed.write_bytes(content[: int(part * len(content))])
    refused(installed, "is damaged or of another version")


@pytest.mark.parametrize("at", [0, 4, 18, 5_000, -1])
def test_a_library_with_one_other_byte_is_not_loaded(installed: Path, at: int) -> None:
    content = bytearray(installed.read_bytes())
    content[at] ^= 1
    installed.write_bytes(content)
    refused(installed, "is damaged or of another version")


def test_a_library_of_another_version_is_not_loaded(installed: Path) -> None:
    source = installed.with_suffix(".c")
    source.write_bytes(source.read_bytes() + b"/* newer */\n")
    refused(installed, "is damaged or of another version")


@pytest.mark.parametrize("content", [b"", b"\xff\n", b"0" * 64 + b"  _rows.so\n"])
def test_checksums_that_say_nothing_of_the_library_allow_nothing(installed: Path, content: bytes) -> None:
    installed.with_suffix(".sha256").write_bytes(content)
    with pytest.warns(RuntimeWarning, match="cannot be used"):
        assert compiled.load(installed) is None


@pytest.mark.parametrize("begin", [b"MZ", b"\xcf\xfa\xed\xfe", b"\x7fELF\x02\x02", b"text"])
def test_a_whole_library_of_another_platform_is_not_loaded(installed: Path, begin: bytes) -> None:
    installed.write_bytes(begin + installed.read_bytes()[len(begin) :])
    sign(installed)
    refused(installed, "cannot be used")


def test_a_library_without_the_functions_is_not_used(installed: Path) -> None:
    shutil.copy(_ctypes.__file__, installed)
    sign(installed)
    refused(installed, "marketfetch_csv")


def test_a_run_on_a_damaged_installation_is_complete_and_says_so(tmp_path: Path) -> None:
    package = shutil.copytree(
        Path(marketfetch.__file__).parent, tmp_path / "marketfetch", ignore=shutil.ignore_patterns("*.pyc")
    )
    damaged = package / "decoding" / "_rows.so"
    damaged.write_bytes(damaged.read_bytes()[:8_000])

    def output_of(*words: str) -> str:
        command = [sys.executable, "-m", "marketfetch", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=250, check=True)
        assert done.stderr.count("marketfetch: marketfetch decodes in Python") == 1
        assert "RuntimeWarning" not in done.stderr
        assert str(damaged) in done.stderr
        return done.stdout

    assert output_of("--version").endswith("\ndecoder: Python\n")
    hour = (
        "--exchange binance-usdm --symbol BTCUSDT --start 2026-06-01 --end 2026-06-01T01:00Z --to sqlite:m.db"
    )
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"])) as exchange:
        report = json.loads(output_of("backfill", *hour.split(), "--base-url", exchange.base_url, "--json"))
    assert (report["complete"], report["rows_written"], report["decoder"]) == (True, 60, "Python")
