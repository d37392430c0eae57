"""A file that comes byte by byte, or not at all, meets the limits of time; and no file costs weight."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any, Literal
from urllib.request import urlopen

import pytest

import marketfetch as mf
from marketfetch.adapters.binance_usdm import BinanceUsdm
from marketfetch.api.pipeline import Pipeline
from marketfetch.engine.archives import waves
from marketfetch.events import Event as RunEvent
from marketfetch.events import RequestFailed
from marketfetch.fetchers.curl import CurlFetcher
from marketfetch.sinks.memory import MemorySink
from marketfetch.values.http import Egress, Request, Response
from marketfetch.values.series import Series
from tests.support.sites import Site, site
from tests.support.worlds import assert_holds, run, span_of

SERIES = Series.of("binance-usdm", "ohlcv", "BTCUSDT", "1h")


@contextmanager
def trickling(archive: str, how: Literal["byte by byte", "not at all"]) -> Iterator[str]:
    """Serve what an archive serves, but files never come to their end."""
    closing = Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_file = self.path.endswith(".zip")
            with urlopen(f"{archive}{self.path}") as answer:  # the simulated archive on loopback
                body = answer.read()
            if is_file and how == "not at all":
                closing.wait()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if not is_file:
                self.wfile.write(body)
                return
            for at in range(len(body)):
                if closing.wait(0.02):
                    return
                try:
                    self.wfile.write(body[at : at + 1])
                except OSError:
                    return  # the client has given up

        def log_message(self, *args: Any) -> None:
            """Write nothing to the console."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _ShortForFiles:
    """Waits for files for a while, and for all other answers, which have to come, much longer."""

    def __init__(self, timeout: float) -> None:
        self._files, self._others = CurlFetcher(timeout=timeout), CurlFetcher(timeout=60.0)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[None]:
        async with self._files.session(), self._others.session():
            yield

    async def fetch(self, request: Request, egress: Egress) -> Response:
        fetcher = self._files if request.path.endswith(".zip") else self._others
        return await fetcher.fetch(request, egress)


def fetched(
    place: Site, archive: str, store: MemorySink, *, timeout: float, deadline: float, sources: str = "auto"
) -> tuple[mf.Report, list[str]]:
    """Run two days from files; return the report and the messages of requests that failed."""
    events: list[RunEvent] = []
    query = mf.Query(symbols="BTCUSDT", interval="1h", start="2026-02-01", end="2026-02-03", sources=sources)
    settings = mf.Settings(
        clock=lambda: place.clock,
        deadline=deadline,
        retries=mf.RetryPolicy(attempts=2, initial=0.001, cap=0.002),
    )
    pipeline = Pipeline(
        BinanceUsdm(place.exchange.base_url, archive_url=archive),
        query,
        store,
        fetcher=_ShortForFiles(timeout),
        settings=settings,
        listeners=[events.append],
    )
    report = run(pipeline)
    return report, [event.message for event in events if isinstance(event, RequestFailed)]


@pytest.mark.parametrize("how", ["byte by byte", "not at all"])
@pytest.mark.parametrize(("timeout", "deadline"), [(60.0, 1.0), (1.0, 60.0)], ids=["deadline", "timeout"])
def test_a_file_that_does_not_end_is_given_up_and_the_api_has_its_rows(
    how: Literal["byte by byte", "not at all"],
    timeout: float,
    deadline: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waves, "files_end_sooner", lambda *_: True)
    monkeypatch.setattr(waves, "_MIN_PAGES", 0)
    store = MemorySink()
    with site() as place, trickling(place.archive.base_url, how) as archive:
        report, failed = fetched(place, archive, store, timeout=timeout, deadline=deadline)
        assert_holds(store, place.market, SERIES, span_of("2026-02-01", "2026-02-03"))
    assert report.complete
    assert not report.archive.files
    assert report.archive.rejected
    assert failed
    assert all("no complete answer within 1 s" in message for message in failed)


def test_requests_for_files_have_no_weight() -> None:
    store = MemorySink()
    with site() as place:
        url = place.archive.base_url
        report, _ = fetched(place, url, store, timeout=60.0, deadline=60.0, sources="archive")
        seen = place.exchange.request_log.latest
        assert report.archive.files == 2
        assert report.requests == len(seen) + len(place.archive.request_log.latest)
        assert report.weight == sum(each.weight for each in seen)
