"""Run every example as a reader would, against exchanges on loopback."""

from __future__ import annotations

import hashlib
import io
import json
import os
import runpy
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

import marketfetch as mf
from marketfetch.api.plugins import exchanges
from tests.support.loopback import exchanges_on_loopback

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
TIDEBIT, KELPDAX, LUNARIS = (EXAMPLES / name for name in ("tidebit", "kelpdax", "lunaris"))
START = 1_780_272_000  # 2026-06-01, in Tidebit's seconds
FUNDING_STEP = 8 * 3600


@pytest.fixture(autouse=True)
def unblocked_loop() -> None:
    """Disabled: example code may import modules inside its event loop, which blocks it."""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_script_runs(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with exchanges_on_loopback(monkeypatch) as exchange:
        code: object = 0
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as end:
            code = end.code
    assert not code
    assert capsys.readouterr().out
    assert exchange.request_log.total > 0
    assert set(exchange.request_log.statuses) == {200}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder like site-packages after `pip install ./examples/tidebit`, made without pip."""
    project = tomllib.loads((TIDEBIT / "pyproject.toml").read_text())["project"]
    site = tmp_path / "site-packages"
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    groups = project["entry-points"].items()
    lines = [
        line for group, names in groups for line in (f"[{group}]", *(f"{k} = {v}" for k, v in names.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    (site / "tidebit.py").write_bytes((TIDEBIT / "tidebit.py").read_bytes())
    monkeypatch.syspath_prepend(site)
    yield site
    sys.modules.pop("tidebit", None)


@pytest.fixture
def tidebit(httpserver: HTTPServer) -> HTTPServer:
    """A server with Tidebit's API: times in seconds, columns, newest funding first, errors with HTTP 200."""

    def asked(request: Request) -> tuple[int, int, int]:
        return int(request.args["since"]), int(request.args["until"]), int(request.args["count"])

    def reply(content: object) -> Response:
        return Response(json.dumps(content, separators=(",", ":")), content_type="application/json")

    def bars(request: Request) -> Response:
        if request.args["market"] != "BTC_USD":
            return reply({"error": "unknown market"})
        since, until, count = asked(request)
        step = int(request.args["step"])
        times = list(range(-(-since // step) * step, until, step))[:count]
        price = [str(70_000 + time // step % 1000) for time in times]
        return reply(
            {"bars": {"t": times, "o": price, "h": price, "l": price, "c": price, "v": ["1.5"] * len(times)}}
        )

    def funding(request: Request) -> Response:
        since, until, count = asked(request)
        times = list(range(-(-since // FUNDING_STEP) * FUNDING_STEP, until, FUNDING_STEP))[::-1][:count]
        return reply({"events": [{"at": time, "rate": str(time % 7 / 1e4)} for time in times]})

    markets = {"markets": [{"name": "BTC_USD", "base": "BTC", "quote": "USD"}]}
    httpserver.expect_request("/v2/bars").respond_with_handler(bars)
    httpserver.expect_request("/v2/funding").respond_with_handler(funding)
    httpserver.expect_request("/v2/markets").respond_with_handler(lambda _: reply(markets))
    return httpserver


def test_an_exchange_from_outside_is_found_by_its_name(installed: Path, tidebit: HTTPServer) -> None:
    assert "tidebit" in exchanges()
    url = tidebit.url_for("")
    candles = mf.fetch("tidebit", "ohlcv", "BTC/USD", start="2026-06-01", end="2026-06-02", base_url=url)
    assert candles.report.complete
    times = candles.of("BTC_USD").times
    assert times.tolist() == [1000 * (START + 60 * minute) for minute in range(1440)]
    rates = mf.fetch("tidebit", "funding_rate", "BTC_USD", start="2026-01-01", end="2026-06-01", base_url=url)
    assert rates.report.complete
    assert len(rates) == 151 * 3


def test_the_command_line_knows_it_too(installed: Path, tidebit: HTTPServer, tmp_path: Path) -> None:
    start = (
        "import sys; sys.path.insert(0, sys.argv.pop(1));"
        "from marketfetch.cli.main import main; sys.exit(main())"
    )
    arguments = ["backfill", "--exchange", "tidebit", "--symbol", "BTC_USD", "--interval", "1h", "--json"]
    arguments += ["--start", "2026-06-01", "--end", "2026-06-02", "--base-url", tidebit.url_for("")]
    arguments += ["--to", f"sqlite:{tmp_path / 'tidebit.sqlite'}"]
    result = subprocess.run(
        [sys.executable, "-c", start, str(installed), *arguments], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["rows_written"] == 24


def test_an_unknown_symbol_of_it_is_named(installed: Path, tidebit: HTTPServer) -> None:
    with pytest.warns(mf.errors.IncompleteWarning, match="BTC_USDT: unknown symbol; did you mean 'BTC_USD'"):
        table = mf.fetch(
            "tidebit", "ohlcv", "BTC_USDT", start="2026-06-01", end="2026-06-02", base_url=tidebit.url_for("")
        )
    assert table.report.unknown == {"BTC_USDT": "unknown symbol; did you mean 'BTC_USD'?"}


@pytest.mark.slow  # a process of its own, on a machine that may be busy
@pytest.mark.parametrize("example", [TIDEBIT, KELPDAX, LUNARIS], ids=lambda each: each.name)
def test_the_example_is_tested_as_its_author_would(example: Path, tmp_path: Path) -> None:
    arguments = ["-m", "pytest", "-q", "-c", "/dev/null", "-p", "no:cacheprovider", "--rootdir", str(example)]
    result = subprocess.run(
        [sys.executable, *arguments, str(example)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,  # where hypothesis leaves what it remembers
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert result.returncode == 0, result.stdout
    assert " passed" in result.stdout


def test_the_example_is_as_short_as_is_promised() -> None:
    assert len((TIDEBIT / "tidebit.py").read_text().splitlines()) < 80
    assert len((TIDEBIT / "test_tidebit.py").read_text().splitlines()) < 30
    assert sum(len(path.read_text().splitlines()) for path in KELPDAX.glob("*.py")) < 120


HOUR = 3_600_000
EIGHT_HOURS = np.timedelta64(8, "h")


class KelpdaxServer:
    """Kelpdax's API and archive: candles of 1h, a file of May and one for each day of June in Singapore."""

    def __init__(self, httpserver: HTTPServer) -> None:
        self.files: dict[str, bytes] = {}
        self._add("month", "2026-05", "2026-05-01", "2026-06-01")
        for day in range(1, 4):
            self._add("day", f"2026-06-{day:02}", f"2026-06-{day:02}", f"2026-06-{day + 1:02}")
        httpserver.expect_request("/").respond_with_handler(self._listing)
        httpserver.expect_request("/candles").respond_with_handler(self._candles)
        for key, body in self.files.items():
            httpserver.expect_request(f"/{key}").respond_with_data(body)
            line = f"{hashlib.sha256(body).hexdigest()}  {key.rpartition('/')[2]}\n"
            httpserver.expect_request(f"/{key}.CHECKSUM").respond_with_data(line)

    def _add(self, grain: str, label: str, first: str, after: str) -> None:
        name, body = f"BTC_USD-{label}", io.BytesIO()
        start, end = (
            int((np.datetime64(day, "ms") - EIGHT_HOURS).astype(np.int64)) for day in (first, after)
        )
        rows = [self._row(time) for time in range(start, end, HOUR)]
        text = "".join(f"{t // 1000},{c},{h},{low},{o},{v}\n" for t, o, h, low, c, v in rows)
        with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr(f"{name}.csv", text)
        self.files[f"candles/{grain}/BTC_USD/1hour/{name}.zip"] = body.getvalue()

    @staticmethod
    def _row(time: int) -> tuple[int, str, str, str, str, str]:
        price = 70_000 + time // HOUR % 1000
        return time, f"{price}.5", f"{price + 3}", f"{price - 2}", f"{price + 1}", "12.5"

    def _candles(self, request: Request) -> Response:
        start, until = int(request.args["from"]), int(request.args["until"])
        times = range(-(-start // HOUR) * HOUR, until, HOUR)[: int(request.args["limit"])]
        return Response(json.dumps([self._row(time) for time in times]), content_type="application/json")

    def _listing(self, request: Request) -> Response:
        prefix, after = request.args["prefix"], request.args.get("marker", "")
        entries = "".join(
            f"<Contents><Key>{key}</Key><LastModified>2026-06-05T00:00:00.000Z</LastModified>"
            f"<Size>{len(body)}</Size></Contents>"
            for key, body in sorted(self.files.items())
            if key.startswith(prefix) and key > after
        )
        return Response(
            f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>",
            content_type="application/xml",
        )


def test_an_archive_from_outside_has_the_rows_of_the_api(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(KELPDAX)
    server, url = KelpdaxServer(httpserver), httpserver.url_for("")
    exchange = import_module("kelpdax").Kelpdax(url, archive_url=url)
    tables = {
        sources: mf.fetch(
            exchange,
            "ohlcv",
            "BTC_USD",
            interval="1h",
            start="2026-05-01",
            end="2026-06-03T16:00Z",
            sources=sources,
        )
        for sources in ("archive", "rest")
    }
    files, rest = (table.of("BTC_USD") for table in tables.values())
    assert files.times.tolist() == rest.times.tolist()
    assert np.array_equal(files.values, rest.values, equal_nan=True)
    assert len(files) == (33 * 24) + 16
    read = tables["archive"].report.archive
    assert (read.files, read.unverified, read.rejected) == (len(server.files), 0, 0)
    assert read.rows == len(files)
    assert tables["rest"].report.archive.files == 0
