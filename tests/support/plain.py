"""A minimal exchange over HTTP on loopback: windows of candles or events, and a listing.

It has no request for the first row. The test chooses its rows, how it fills a page, and its listing.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

import attrs

import marketfetch.adapter as mf
from marketfetch.api.pipeline import Pipeline
from marketfetch.reports import Report, SeriesReport
from marketfetch.sinks.memory import MemorySink
from marketfetch.values.query import Query
from marketfetch.values.settings import Settings
from marketfetch.values.spans import SpanSet
from tests.support.worlds import run

__all__ = ["Backwards", "Events", "Forwards", "PlainExchange", "PlainServer", "filled", "union"]

_CALL = mf.Cost(mf.LimitPool("plain calls", 100_000, 1000))
_PAGE = 100


class _Route(mf.Endpoint, abstract=True):
    page_sizes = (_PAGE,)

    def cost(self, rows: int) -> mf.Cost:
        return _CALL

    def request(self, part: mf.Slice) -> mf.Request:
        params: dict[str, str | int] = {"from": part.span.start, "to": part.span.end, "limit": part.rows}
        return mf.Request(f"/{self.dataset}", params | {"step": part.series.interval.name}, cost=_CALL)

    def decode(self, body: bytes, part: mf.Slice) -> mf.DecodedRows:
        columns = {column.name: at for at, column in enumerate(part.series.dataset.columns, start=1)}
        return mf.RowLayout(columns, width=1 + len(columns)).decode(body, part.series.dataset)


class Forwards(_Route):
    """Candles, pages filled from the start of the window."""

    dataset = "mark_price"
    intervals: ClassVar = {"1m": "1m", "15m": "15m", "1h": "1h", "1d": "1d"}


class Backwards(_Route):
    """Candles, pages filled from the end of the window."""

    dataset = "index_price"
    intervals = Forwards.intervals
    paginator = mf.TimeWindowPaginator(anchor="end")


class Events(_Route):
    """Events, newest first."""

    dataset = "funding_rate"
    paginator = mf.CursorPaginator(newest_first=True)


class PlainExchange(mf.Exchange):
    name = "plain"
    default_url = "https://plain.example"
    sources: ClassVar[Sequence[type[mf.Endpoint]]] = (Forwards, Backwards, Events)

    def listing_requests(self) -> Sequence[mf.Request]:
        return (mf.Request("/listing", cost=_CALL),)

    def decode_listing(self, body: bytes) -> Iterable[mf.Instrument]:
        with mf.decode_errors_as("a list of instruments"):
            for entry in mf.parse_json(body):
                yield mf.Instrument(**entry)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # with the usual 5, twenty clients at once would wait a second to connect


@attrs.define
class PlainServer:
    """The server of the exchange: the sorted times of its rows, and its listing."""

    times: Sequence[int]
    listed_at: int | None = None
    delisted_at: int | None = None
    keeps_from: int = 0
    """Older rows are silently left out."""
    cap: int = _PAGE
    questions: list[dict[str, str]] = attrs.field(factory=list)
    address: str = ""

    def answer(self, path: str, asked: dict[str, str]) -> Any:
        if path == "/listing":
            dates = {"listed_at": self.listed_at, "delisted_at": self.delisted_at}
            return [{"symbol": "AB", "base": "A", "quote": "B", **dates}]
        self.questions.append(asked)
        start, end = max(int(asked["from"]), self.keeps_from), int(asked["to"])
        inside = self.times[bisect_left(self.times, start) : bisect_left(self.times, end)]
        most = min(self.cap, int(asked["limit"]))
        given = inside[:most] if path == "/mark_price" else inside[-most:]
        width = 3 if path == "/funding_rate" else 4
        return [[time, *["1.5"] * width] for time in given]

    @contextmanager
    def serving(self) -> Iterator[PlainServer]:
        """Serve on loopback until the block is left."""
        plain = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # one packet: a second one would wait for the client's acknowledgement

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                body = json.dumps(plain.answer(parts.path, dict(parse_qsl(parts.query)))).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                """Write nothing to the console."""

        server = _Server(("127.0.0.1", 0), Handler)
        thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        self.address = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def filled(
    server: PlainServer,
    dataset: str,
    store: MemorySink | None = None,
    *,
    kind: type[mf.Exchange] = PlainExchange,
    now: int,
    concurrency: int = 20,
    **query: Any,
) -> tuple[Report, SeriesReport, int]:
    """Run a query; return the report, its only series, and the number of page requests."""
    before = len(server.questions)
    asked = Query(symbols="AB", datasets=dataset, **query)
    settings = Settings(clock=lambda: now, concurrency=concurrency)
    report = run(Pipeline(kind(server.address), asked, store or MemorySink(), settings=settings))
    (line,) = report.series
    return report, line, len(server.questions) - before


def union(spans: Iterable[SpanSet]) -> SpanSet:
    """Return the union of span sets."""
    return SpanSet(tuple(span for each in spans for span in each))
