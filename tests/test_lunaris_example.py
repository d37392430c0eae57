"""The example with awkward traits, and the adapter of the tutorial, against a server with these traits."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

import marketfetch as mf
from marketfetch.adapter import Exchange
from marketfetch.errors import PaginationError
from tests.support.lunaris import SYMBOLS, LunarisServer

PROJECT = Path(__file__).parents[1]
LUNARIS = PROJECT / "examples" / "lunaris"


@pytest.fixture
def lunaris(httpserver: HTTPServer) -> LunarisServer:
    server = LunarisServer()
    httpserver.expect_request("/v1/symbols").respond_with_handler(server.respond)
    httpserver.expect_request("/v1/candles", method="POST").respond_with_handler(server.respond)
    return server


def of_example() -> type[Exchange]:
    kind: type[Exchange] = import_module("lunaris").Lunaris
    return kind


def of_tutorial() -> type[Exchange]:
    document = Sybil(parsers=[PythonCodeBlockParser(), SkipParser()]).parse(PROJECT / "docs" / "adapters.md")
    for example in document.examples():
        example.evaluate()
    kind: type[Exchange] = document.namespace["Lunaris"]
    return kind


@pytest.fixture(params=[of_example, of_tutorial], ids=["example", "tutorial"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Exchange]]:
    monkeypatch.syspath_prepend(LUNARIS)
    yield request.param()
    sys.modules.pop("lunaris", None)


@pytest.mark.parametrize(
    ("interval", "rows"),
    [("1m", 31 * 1440 // 10), ("10m", 31 * 144), ("1d+08:00", 31)],
    ids=lambda each: each,
)
def test_each_of_its_grids_is_fetched_within_both_limits(
    kind: type[Exchange], lunaris: LunarisServer, httpserver: HTTPServer, interval: str, rows: int
) -> None:
    end = "2026-05-04T18:24Z" if interval == "1m" else "2026-06-01T16:00Z"
    exchange, start = kind(httpserver.url_for("")), "2026-05-01T16:00Z"
    table = mf.fetch(exchange, "ohlcv", "BTC/USD", interval=interval, start=start, end=end, board=None)
    assert table.report.complete
    assert len(table) == rows
    assert lunaris.refused == 0
    assert lunaris.served >= rows / 100


def test_every_page_of_its_listing_is_read(
    kind: type[Exchange], lunaris: LunarisServer, httpserver: HTTPServer
) -> None:
    found = mf.instruments(kind(httpserver.url_for("")), board=None)
    assert found.symbols == SYMBOLS
    assert lunaris.served == 3


def test_a_listing_that_does_not_end_is_named(
    kind: type[Exchange], lunaris: LunarisServer, httpserver: HTTPServer
) -> None:
    lunaris.cursors_end = False
    with pytest.raises(PaginationError, match=r"its listing does not end: after 2 pages .*cursor=2"):
        mf.instruments(kind(httpserver.url_for("")), board=None)
    assert lunaris.served == 2


@pytest.mark.slow  # processes of their own, on a machine that may be busy
def test_its_answers_are_recorded_once_and_kept(
    lunaris: LunarisServer, httpserver: HTTPServer, tmp_path: Path
) -> None:
    for name in ("lunaris.py", "test_lunaris.py"):
        shutil.copy(LUNARIS / name, tmp_path)
    arguments = [
        "-m",
        "pytest",
        "-q",
        "-c",
        "/dev/null",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
    ]

    def run(**variables: str) -> str:
        result = subprocess.run(
            [sys.executable, *arguments, "-k", "test_08 or test_10 or test_18 or test_20", str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **variables},
        )
        return result.stdout

    assert "run this test once with MARKETFETCH_RECORD=1" in run()
    recorded = run(MARKETFETCH_RECORD=httpserver.url_for(""))
    assert "failed" not in recorded, recorded
    asked = lunaris.served
    assert asked >= 10
    assert lunaris.refused == 0
    assert "failed" not in run()
    assert lunaris.served == asked
    kept = {file.name: file.read_bytes() for file in (tmp_path / "answers").iterdir()}
    assert kept.items() <= {file.name: file.read_bytes() for file in (LUNARIS / "answers").iterdir()}.items()
