"""What this machine runs out of is named as such, and nobody else is blamed for it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from curl_cffi import CurlECode

from marketfetch.cli.main import main
from marketfetch.common.local_resources import resource_remedy
from marketfetch.errors import LocalResourceError, ProxyError, TransportError
from marketfetch.events import RunFinished
from marketfetch.fetchers.curl_errors import CurlFailure, translate
from marketfetch.protocols import Writer
from marketfetch.ratelimit.circuit_breaker import CircuitBreaker
from marketfetch.redaction import Secret
from marketfetch.sinks.memory import MemorySink
from marketfetch.testing import GeneratedMarket, SimulatedExchange
from marketfetch.testing.proxies.local_proxy import LocalProxies
from marketfetch.values.http import Egress
from marketfetch.values.pages import Batch
from tests.support.worlds import World, run

PROXY = Egress("Proxy 1", Secret("http://10.0.0.1:3128"))
DIRECT = Egress("Direct")
FEW = "too many open files: raise ulimit -n (now "

# What it prints is the report, or the error, of a process that may open no more than so many files.
CHILD = """
import os, resource, sys
import marketfetch as mf
from marketfetch.api.run_sync import run_sync
from marketfetch.sinks.urls import sink_from

limit, free, store, base_url, *proxies = sys.argv[1:]
import duckdb, pyarrow.parquet, curl_cffi, marketfetch.sinks.postgres  # reading a library needs a file, too
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (int(limit), hard))


def use_up_files():
    held = []
    try:
        while free != "all":
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        for _ in range(int(free)):
            os.close(held.pop())


try:
    sink = sink_from(store)
    pool = mf.RotatingProxies(proxies, direct=not proxies)
    settings = mf.Settings(concurrency=150, retries=mf.RetryPolicy(attempts=8, cap=0.5))
    query = mf.Query(symbols="BTCUSDT", start="2026-06-01", end="2026-10-15")
    pipeline = mf.Pipeline("binance-usdm", query, sink, proxies=pool, base_url=base_url, settings=settings)
    use_up_files()
    if proxies:
        report = run_sync(pipeline.run)
        print("complete" if report.complete else report)
    else:
        sink.prepare(query.datasets)
except mf.MarketfetchError as error:
    print(type(error).__name__, error)
print("failures", sum(egress.failures for egress in pool.statistics()))
print("states", {egress.state for egress in pool.statistics()})
"""


def child(*arguments: object) -> str:
    result = subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_many_proxies_and_few_files_make_a_complete_run_in_which_no_proxy_fails() -> None:
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"])) as exchange, LocalProxies(150) as proxies:
        output = child(96, "all", "memory:", exchange.base_url, *proxies.urls)
    assert output.splitlines() == ["complete", "failures 0", "states {'ready'}"]


@pytest.mark.parametrize("free", range(7))
def test_no_file_left_for_a_connection_is_said_and_no_proxy_rests(free: int) -> None:
    proxies = [f"http://127.0.0.1:{port}" for port in range(1, 20)]
    output = child(100, free, "memory:", "http://127.0.0.1:9", *proxies)
    assert output.startswith("LocalResourceError"), output
    assert f"{FEW}100)" in output
    assert "check that it is up" not in output
    assert "circuit open" not in output


@pytest.mark.parametrize(
    "store", ["sqlite:{}/a", "duckdb:{}/a", "parquet:{}/a", "postgresql://ann@127.0.0.1:9/a"]
)
def test_no_file_left_for_a_store_is_said(store: str, tmp_path: Path) -> None:
    output = child(100, 0, store.format(tmp_path), "http://127.0.0.1:9")
    assert output.startswith("SinkUnavailable"), output
    assert f"{FEW}100)" in output
    assert "writable" not in output


@pytest.mark.parametrize("egress", [PROXY, DIRECT], ids=str)
@pytest.mark.parametrize(
    ("failure", "expected_message"),
    [
        (CurlFailure(7, "curl: (7) failed to open socket: Too many open files. See https://curl.se"), FEW),
        (CurlFailure(7, "curl: (7) Could not connect. See https://curl.se", number=errno.EMFILE), FEW),
        (CurlFailure(6, "curl: (6) Could not resolve host: x. See https://curl.se", starved=True), FEW),
        (CurlFailure(5, "curl: (5) Could not resolve proxy: x. See https://curl.se", starved=True), FEW),
        (CurlFailure(77, "curl: (77) error adding trust anchors. See https://curl.se", starved=True), FEW),
        (CurlFailure(7, "", on_setup=True, number=errno.ENFILE), "too many open files on this machine"),
        (CurlFailure(7, "", on_setup=True, number=errno.EADDRNOTAVAIL), "no local address or port is free"),
        (CurlFailure(7, "", on_setup=True, number=errno.ENOBUFS), "no room for network buffers"),
        (CurlFailure(7, "", on_setup=True, number=errno.ENOMEM), "out of memory"),
        (CurlFailure(CurlECode.OUT_OF_MEMORY, ""), "out of memory"),
    ],
)
def test_what_the_machine_lacks_is_nobody_elses_fault(
    egress: Egress, failure: CurlFailure, expected_message: str
) -> None:
    error = translate(failure, egress, 1)
    assert isinstance(error, LocalResourceError)
    assert expected_message in str(error)
    breaker = CircuitBreaker()
    for _ in range(20):
        breaker.failed(error, "https://e.org", sent=0, now=5, jitter=1.0)
    assert (breaker.state(now=5), breaker.exhausted("https://e.org")) == ("ready", False)


def test_network_that_is_down_is_told_from_a_proxy_that_is_down() -> None:
    direct = translate(CurlFailure(7, "", number=errno.ENETUNREACH), DIRECT, 1)
    assert type(direct) is TransportError
    assert "this machine has no route to the exchange; check its network" in str(direct)
    through = translate(CurlFailure(7, "", on_setup=True, number=errno.ENETUNREACH), PROXY, 1)
    assert isinstance(through, ProxyError)
    assert "check this machine's network" in str(through)
    refused = translate(CurlFailure(7, "", on_setup=True, number=errno.ECONNREFUSED), PROXY, 1)
    assert "check that it is up" in str(refused)


class RunningOutOfFiles(MemorySink):
    """A store that can write one batch."""

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        with super().writer() as write:
            writers = iter([write])

            def write_once(batch: Batch) -> None:
                next(writers, _no_file)(batch)

            yield write_once


def _no_file(_: Batch) -> None:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_a_run_that_the_machine_ends_has_a_report_and_a_last_event() -> None:
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"])) as exchange:
        world, store = World(exchange), RunningOutOfFiles()
        with pytest.raises(LocalResourceError, match="too many open files") as ended:
            run(world.pipeline(store, end="2026-06-20"))
    report = ended.value.report
    assert report is not None
    assert report.requests > 0
    assert report.rows_written > 0
    assert report.error == str(ended.value)
    assert [event.report for event in world.events_of(RunFinished)] == [report]
    assert isinstance(world.events[-1], RunFinished)


def test_the_command_line_prints_the_report_of_a_run_that_the_machine_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("marketfetch.sinks.urls.sink_from", lambda _: RunningOutOfFiles())
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"])) as exchange:
        span = ["--start", "2026-06-01", "--end", "2026-06-20"]
        places = ["--base-url", exchange.base_url, "--to", "memory:", "--board", "none"]
        code = main(["backfill", "--exchange", "binance-usdm", "--symbol", "BTCUSDT", *span, *places])
    captured = capsys.readouterr()
    assert code == 1
    assert "BTCUSDT" in captured.out
    assert FEW in captured.err


def test_words_of_the_system_are_known_wherever_they_are_quoted() -> None:
    for number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL):
        assert resource_remedy(number) == resource_remedy(
            None, f'IO Error: Cannot open file "x": {os.strerror(number)}'
        )
    assert resource_remedy(errno.EACCES) is None
    assert resource_remedy(None, "") is None
