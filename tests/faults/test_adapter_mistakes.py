"""Each mistake of an adapter's author is named: when the class is made, by the contract, or by the run."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import attrs
import numpy as np
import pytest
from _pytest.outcomes import Failed

import marketfetch.adapter as mf
from marketfetch.adapters.binance_usdm import BinanceUsdm, Ohlcv, UsdmOhlcvFiles
from marketfetch.api.pipeline import Pipeline
from marketfetch.archives.file_reader import FileContent, FileReader
from marketfetch.archives.listing import ListingRequest
from marketfetch.archives.periods import CalendarPeriod
from marketfetch.decoding.csv_layouts import CsvLayout
from marketfetch.errors import AdapterError
from marketfetch.sinks.memory import MemorySink
from marketfetch.sinks.sqlite import SQLiteSink
from marketfetch.testing.contracts.exchange import ExchangeContract
from marketfetch.values.intervals import Interval
from marketfetch.values.query import Query
from marketfetch.values.series import Series
from marketfetch.values.settings import Settings
from tests.support.plain import Events, Forwards, PlainExchange, PlainServer
from tests.support.sites import site
from tests.support.worlds import DAY, MINUTE, run

START = 1_780_272_000_000
MINUTES = Interval.parse("1m")
CANDLES = Series.of("binance-usdm", "ohlcv", "BTCUSDT", "1m")
DAY_ONE = CalendarPeriod.parse("2026-06-01")
COST = mf.Cost(mf.LimitPool("calls", 10, 1000))


def made(base: type[Any], **attributes: Any) -> Any:
    """Make a class as an author does: the checks are those of a class statement."""
    return type("Mine", (base,), attributes)


async def asynchronous(*_: object) -> None:
    """As if there were something to wait for."""


ENDPOINTS: dict[str, tuple[dict[str, Any], str]] = {
    "dataset is not a text": ({"dataset": 5}, r"Mine.dataset: found 5 \(int\); write the name of a dataset"),
    "dataset is a class": ({"dataset": mf.Dataset}, r"Mine.dataset: found .*; write the name"),
    "intervals are a list": (
        {"intervals": ["1m"]},
        r"Mine.intervals: found \['1m'\] \(list\); map our names",
    ),
    "intervals are text": ({"intervals": "1m"}, "Mine.intervals: found '1m'"),
    "an interval is a number": ({"intervals": {"1m": 60}}, r"Mine.intervals\['1m'\]: found 60 .* as '60'"),
    "page_sizes is a number": (
        {"page_sizes": 500},
        r"Mine.page_sizes: found 500 \(int\); .* such as \(500,\)",
    ),
    "page_sizes is text": ({"page_sizes": "500"}, "Mine.page_sizes: found '500'"),
    "page_sizes are texts": ({"page_sizes": ("500",)}, "Mine.page_sizes: found .* whole numbers"),
    "page_sizes are fractions": ({"page_sizes": (1.5,)}, "Mine.page_sizes: found .* whole numbers"),
    "page_sizes descend": ({"page_sizes": (500, 100)}, "must be positive and ascending"),
    "publish_delay in seconds": (
        {"publish_delay": 60},
        r"Mine.publish_delay: found 60 \(int\); write milliseconds .* 60_000",
    ),
    "publish_delay is negative": ({"publish_delay": -1}, "Mine.publish_delay: found -1"),
    "publish_delay is a fraction": ({"publish_delay": 0.5}, "Mine.publish_delay: found 0.5"),
    "retention is not a number": (
        {"retention": "30d"},
        "Mine.retention: found '30d' .* 30 days, or None for everything",
    ),
    "retention in seconds": ({"retention": 30 * 86_400}, "Mine.retention: found 2592000"),
    "retention in days": ({"retention": 30}, "Mine.retention: found 30 "),
    "paginator is a class": (
        {"paginator": mf.TimeWindowPaginator},
        r"Mine.paginator: TimeWindowPaginator is a class; write TimeW.*\(\)",
    ),
    "paginator is text": ({"paginator": "windows"}, "Mine.paginator: found 'windows'"),
    "a cursor on a grid": (
        {"paginator": mf.CursorPaginator()},
        r"Mine.paginator: found Cursor.* rows on a grid have TimeWindowPaginator\(\)",
    ),
    "decode is async": ({"decode": asynchronous}, "Mine.decode is async: adapters do no I/O"),
    "request is async": ({"request": asynchronous}, "Mine.request is async"),
    "cost is a number": ({"cost": 5}, "Mine.cost: found 5 .* def cost"),
}


@pytest.mark.parametrize("what", ENDPOINTS)
def test_an_endpoint_is_refused_when_its_class_is_made(what: str) -> None:
    attributes, message = ENDPOINTS[what]
    with pytest.raises(AdapterError, match=message):
        made(Forwards, **attributes)


def test_windows_for_events_are_refused() -> None:
    with pytest.raises(
        AdapterError, match=r"Mine.paginator: found TimeWindow.* events have CursorPaginator\(\)"
    ):
        made(Events, paginator=mf.TimeWindowPaginator())


def instrument(_: object, body: bytes) -> list[object]:
    return [{"symbol": "AB"}]


EXCHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "sources is one class": (
        {"sources": Forwards},
        r"Mine.sources: Forwards is one class; .* \(Forwards,\)",
    ),
    "sources has an object": (
        {"sources": (Forwards(),)},
        r"Mine.sources: Forwards\(\) is an object; write the class: Forwards",
    ),
    "sources is text": ({"sources": "Forwards"}, "Mine.sources: found 'Forwards'"),
    "sources has text": ({"sources": ("Forwards",)}, "Mine.sources: found 'Forwards'"),
    "sources has another class": ({"sources": (dict,)}, "Mine.sources: found .* inherit from Endpoint"),
    "sources has an abstract class": (
        {"sources": (mf.Endpoint,)},
        "Mine.sources: Endpoint is abstract",
    ),
    "sources is a set": ({"sources": {Forwards}}, "Mine.sources: found .* write a tuple"),
    "sources is empty": ({"sources": ()}, "must have one endpoint for each dataset"),
    "name is empty": ({"name": " "}, "Mine.name: found ' ' .* write the exchange's name"),
    "name is not a text": ({"name": None}, "Mine.name: found None"),
    "default_url has no scheme": (
        {"default_url": "api.example.com"},
        "Mine.default_url: found 'api.example.com' .* with the scheme",
    ),
    "default_url has no host": ({"default_url": "https://"}, "Mine.default_url"),
    "default_url is not a text": ({"default_url": 5}, r"Mine.default_url: found 5 \(int\)"),
    "a clock that is not asked for": (
        {"decode_time": lambda _, body: 5},
        "has decode_time and lacks time_request",
    ),
    "a clock that is not read": ({"time_request": lambda _: None}, "has time_request and lacks decode_time"),
    "raise_for_error is async": ({"raise_for_error": asynchronous}, "Mine.raise_for_error is async"),
    "the listing is async": ({"decode_listing": asynchronous}, "Mine.decode_listing is async"),
}


@pytest.mark.parametrize("what", EXCHANGES)
def test_an_exchange_is_refused_when_its_class_is_made(what: str) -> None:
    attributes, message = EXCHANGES[what]
    with pytest.raises(AdapterError, match=message):
        made(PlainExchange, **attributes)


def columns(times: Any, lines: int) -> mf.DecodedRows:
    return mf.DecodedRows(mf.Columns(np.array(times), np.ones((lines, len(times)))))


AT_RUN_TIME: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "cost is a number": ({"cost": lambda *_: 1}, {}, r"Mine.cost\(100\): found 1 \(int\); return a Cost"),
    "cost exceeds its limit": (
        {"cost": lambda *_: mf.Cost(COST.pool, 11)},
        {},
        r"Mine.cost\(100\): a page costs 11 of 10",
    ),
    "cost is for nothing": ({"cost": lambda *_: mf.Cost(COST.pool, 0)}, {}, "a page costs 0 of 10"),
    "a limit in seconds": (
        {"cost": lambda *_: mf.Cost(mf.LimitPool("calls", 10, 1))},
        {},
        "calls: its period is 1 ms; write milliseconds",
    ),
    "decode returns a list": (
        {"decode": lambda *_: []},
        {},
        r"Mine.decode: found \[\] \(list\); return DecodedRows",
    ),
    "decode returns nothing": ({"decode": lambda *_: None}, {}, "Mine.decode: found None"),
    "decode returns columns": (
        {"decode": lambda *_: columns([START], 4).columns},
        {},
        "Mine.decode: found Columns",
    ),
    "decode has too few columns": (
        {"decode": lambda *_: columns([START], 3)},
        {},
        "found 3 columns .* open, high, low, close",
    ),
    "decode has fractions as times": ({"decode": lambda *_: columns([1.5], 4)}, {}, "times are float64"),
    "request returns text": (
        {"request": lambda *_: "/bars"},
        {},
        r"plain: a request: found '/bars' \(str\); return a Request",
    ),
    "request returns nothing": ({"request": lambda *_: None}, {}, "plain: a request: found None"),
    "first_row_request returns text": (
        {"first_row_request": lambda *_: "/bars"},
        {},
        "plain: a request: found '/bars'",
    ),
    "the listing has objects": (
        {},
        {"decode_listing": instrument},
        r"decode_listing: found \{'symbol': 'AB'\} \(dict\); yield an Instrument",
    ),
    "the listing is nothing": ({}, {"decode_listing": lambda *_: None}, "decode_listing: found None"),
    "the listing asks once": (
        {},
        {"listing_requests": lambda _: mf.Request("/listing", cost=COST)},
        r"listing_requests: found .* \(Request…,\)|listing_requests: found .* tuple of Requests",
    ),
    "the clock is text": (
        {},
        {"time_request": lambda _: mf.Request("/listing", cost=COST), "decode_time": lambda *_: "now"},
        "decode_time: found 'now' .* UTC milliseconds as int",
    ),
}


def test_an_adapter_may_count_with_numpy(tmp_path: Path) -> None:
    number: Any = np.int64
    kind = made(
        Forwards,
        page_sizes=(number(500),),
        publish_delay=number(1000),
        retention=number(900 * DAY),
        cost=lambda *_: mf.Cost(mf.LimitPool("calls", number(10), number(100)), number(1)),
    )
    with PlainServer(range(START, START + DAY, MINUTE)).serving() as server:
        query = Query(symbols="AB", datasets="mark_price", start=START, end=START + DAY)
        settings = Settings(clock=lambda: START + 2 * DAY)
        exchange = made(PlainExchange, sources=(kind,))(server.address)
        assert run(Pipeline(exchange, query, SQLiteSink(tmp_path / "a.sqlite"), settings=settings)).complete


@pytest.mark.parametrize("what", AT_RUN_TIME)
def test_what_only_a_call_shows_ends_the_run_with_one_message(what: str) -> None:
    endpoint, exchange, message = AT_RUN_TIME[what]
    with PlainServer(range(START, START + DAY, MINUTE)).serving() as server:
        kind = made(PlainExchange, sources=(made(Forwards, **endpoint),), **exchange)
        query = Query(symbols="AB", datasets="mark_price", start=START, end=START + DAY)
        with pytest.raises(AdapterError, match=message):
            run(Pipeline(kind(server.address), query, MemorySink()))
        assert len(server.questions) <= 20  # nothing is repeated that no repetition can cure


# --- what the contract names ---


@attrs.define
class Bars:
    """What the exchange has, and how it reads a question: JSON in an envelope, errors with HTTP 200."""

    newest: bool = False
    inclusive: bool = True

    def answer(self, request: mf.Request) -> bytes:
        asked = {name: int(value) for name, value in request.params.items() if name != "step"}
        step = {"1m": MINUTE, "1h": 60 * MINUTE, "1d": DAY}[str(request.params["step"])]
        grid = range(-(-asked["from"] // step) * step, asked["to"] + self.inclusive, step)
        times = list(grid)[-asked["limit"] :] if self.newest else list(grid)[: asked["limit"]]
        return json.dumps({"code": "0", "data": [[time, "2", "3", "1", "2"] for time in times]}).encode()


class Inclusive(Forwards):
    """As it should be for an exchange whose end is inclusive."""

    intervals: ClassVar = {"1m": "1m", "1h": "1h", "1d": "1d"}

    def request(self, part: mf.Slice) -> mf.Request:
        return self.ask(part, part.span.start, part.span.end - 1)

    def ask(self, part: mf.Slice, start: int, end: int) -> mf.Request:
        params: dict[str, str | int] = {"from": start, "to": end, "limit": part.rows}
        return mf.Request("/bars", params | {"step": part.series.interval.name}, cost=self.cost(part.rows))

    def decode(self, body: bytes, part: mf.Slice) -> mf.DecodedRows:
        layout = mf.RowLayout({"open": 1, "high": 2, "low": 3, "close": 4}, width=5, path=("data",))
        return layout.decode(body, part.series.dataset)


class WithCheck(PlainExchange):
    sources: ClassVar[Sequence[type[mf.Endpoint]]] = (Inclusive,)

    def raise_for_error(self, response: mf.Response) -> None:
        if response.status == 200 and b'"code": "0"' not in response.body:
            raise mf.ExchangeNotAvailable("plain says no")
        super().raise_for_error(response)

    def decode_listing(self, body: bytes) -> Iterable[mf.Instrument]:
        raise mf.DecodeError("not tried here")


def contract(kind: type[mf.Exchange], bars: Bars) -> list[tuple[str, BaseException]]:
    """Run every check of the contract that has to do with endpoints; return what failed."""
    subject = type("Subject", (ExchangeContract,), {"exchange": kind, "symbol": "AB"})()
    subject.answer = bars.answer
    failed: list[tuple[str, BaseException]] = []
    endpoint = kind().endpoint("mark_price")
    for name in (name for name in dir(subject) if re.match(r"test_(0[2-9]|10|14|20_pages)", name)):
        if "async" in name:
            continue
        check: Callable[..., None] = getattr(subject, name)
        try:
            check(endpoint)
        except (AssertionError, AdapterError, Failed) as error:
            failed.append((name, error))
    return failed


def corrected_adapter(**attributes: Any) -> type[mf.Exchange]:
    kind: type[mf.Exchange] = made(WithCheck, sources=(made(Inclusive, **attributes),))
    return kind


def test_the_contract_passes_what_is_right() -> None:
    assert contract(WithCheck, Bars()) == []
    assert (
        contract(corrected_adapter(paginator=mf.TimeWindowPaginator(anchor="end")), Bars(newest=True)) == []
    )


class Swallowing(WithCheck):
    def raise_for_error(self, response: mf.Response) -> None:
        """HTTP 200 is good enough."""


CONTRACT: dict[str, tuple[type[mf.Exchange], Bars, str]] = {
    "the end is one too late": (
        corrected_adapter(request=lambda self, part: self.ask(part, part.span.start, part.span.end)),
        Bars(),
        "end is inclusive: send part.span.end - 1",
    ),
    "the end is one too early": (
        corrected_adapter(
            request=lambda self, part: self.ask(part, part.span.start, part.span.end - MINUTE - 1)
        ),
        Bars(),
        "is one of its ends exclusive",
    ),
    "the start is one too early": (
        corrected_adapter(
            request=lambda self, part: self.ask(part, part.span.start - MINUTE, part.span.end - 1)
        ),
        Bars(),
        "rows come from before the start",
    ),
    "the anchor is forgotten": (
        corrected_adapter(),
        Bars(newest=True),
        r"write paginator = TimeWindowPaginator\(anchor='end'\)",
    ),
    "the anchor is wrong": (
        corrected_adapter(paginator=mf.TimeWindowPaginator(anchor="end")),
        Bars(),
        r"holds the oldest rows .* TimeWindowPaginator\(\)",
    ),
    "an error inside HTTP 200": (
        Swallowing,
        Bars(),
        "with HTTP 200 became a page of 0 rows: raise the error",
    ),
    "a limit in seconds": (
        corrected_adapter(cost=lambda self, rows: mf.Cost(mf.LimitPool("calls", 10, 600))),
        Bars(),
        "the period is in milliseconds; 600 s are 600_000",
    ),
    "decode returns a list": (corrected_adapter(decode=lambda *_: []), Bars(), "Mine.decode: found"),
    "request returns text": (corrected_adapter(request=lambda *_: "/bars"), Bars(), "Mine.request: found"),
    "times in seconds": (
        corrected_adapter(decode=lambda self, body, part: columns([START // 1000], 4)),
        Bars(),
        "are seconds: say unit=1000",
    ),
}


@pytest.mark.parametrize("what", CONTRACT)
def test_the_contract_names_what_is_wrong(what: str) -> None:
    kind, bars, message = CONTRACT[what]
    failed = contract(kind, bars)
    assert any(re.search(message, str(error)) for _, error in failed), failed


def test_the_contract_takes_errors_that_the_author_knows() -> None:
    subject = type(
        "Subject",
        (ExchangeContract,),
        {"exchange": Swallowing, "symbol": "AB", "error_bodies": {b'{"code": "9"}': mf.ExchangeNotAvailable}},
    )()
    subject.answer = Bars().answer
    with pytest.raises(Failed, match="a good answer, which is ExchangeNotAvailable: raise the error"):
        subject.test_14_errors_inside_a_good_status_are_no_empty_page(Swallowing().endpoint("mark_price"))


@pytest.mark.parametrize("newest_first", [True, False])
def test_the_contract_tells_from_which_end_a_chain_of_events_comes(newest_first: bool) -> None:
    hours = [START + hour * 60 * MINUTE for hour in (0, 8, 16)]
    rows = mf.ObjectLayout({"funding_rate": "r"}, time="t")
    chain = made(
        Inclusive,
        dataset="funding_rate",
        intervals={},
        paginator=mf.CursorPaginator(newest_first=not newest_first),
        decode=lambda self, body, part: rows.decode(body, part.series.dataset),
    )
    subject = type("Subject", (ExchangeContract,), {"exchange": made(WithCheck, sources=(chain,))})()
    subject.symbol = "AB"

    def answer(request: mf.Request) -> bytes:
        limit = int(request.params["limit"])
        times = hours[-limit:] if newest_first else hours[:limit]
        return json.dumps([{"t": time, "r": "0.1"} for time in times]).encode()

    subject.answer = answer
    remedy = "(newest_first=True)" if newest_first else "()"
    with pytest.raises(AssertionError, match=re.escape(f"write paginator = CursorPaginator{remedy}")):
        subject.test_20_pages_are_filled_from_the_declared_end(chain())


@pytest.mark.parametrize(
    ("sends", "newest", "expected_message"),
    [
        (False, False, "decode returns cursor='2', and request does not send part.cursor"),
        (True, True, "decode: cursor='3' leads to the same rows again"),
        (True, False, None),
    ],
)
def test_the_contract_follows_a_cursor(sends: bool, newest: bool, expected_message: str | None) -> None:
    """Events are listed from the newest on, as those before an id; a page may have one or three of them."""
    hours = [START + hour * 60 * MINUTE for hour in (0, 8, 16)]
    rows = mf.ObjectLayout({"funding_rate": "r"}, time="t")

    def request(self: Any, part: mf.Slice) -> mf.Request:
        asked: mf.Request = Inclusive.request(self, part)
        before = {"before": part.cursor} if part.cursor and sends else {}
        return attrs.evolve(asked, params={**asked.params, **before})

    def decode(self: Any, body: bytes, part: mf.Slice) -> mf.DecodedRows:
        events = mf.parse_json(body)
        ids = [event["id"] for event in events]
        decoded = rows.gather(events, part.series.dataset)
        return attrs.evolve(decoded, cursor=str(max(ids) + 1 if newest else min(ids)))

    def answer(asked: mf.Request) -> bytes:
        before, limit = int(asked.params.get("before", 3)), int(asked.params["limit"])
        ids = range(3)[:before][-limit:]
        return json.dumps([{"t": hours[at], "r": "0.1", "id": at} for at in ids]).encode()

    chain = made(
        Inclusive,
        dataset="funding_rate",
        intervals={},
        paginator=mf.CursorPaginator(newest_first=True),
        request=request,
        decode=decode,
    )
    subject = type("Subject", (ExchangeContract,), {"exchange": made(WithCheck, sources=(chain,))})()
    subject.symbol, subject.answer = "AB", answer
    with (
        pytest.raises(AssertionError, match=re.escape(expected_message))
        if expected_message
        else nullcontext()
    ):
        subject.test_20_pages_are_filled_from_the_declared_end(chain())


ARCHIVE_RESULTS: dict[str, tuple[str, object, tuple[Any, ...], str]] = {
    "grains are text": ("grains", "month", (MINUTES,), "a tuple of 'month' and 'day'"),
    "grains are a set": ("grains", {"day"}, (MINUTES,), "a tuple of 'month' and 'day'"),
    "grains are years": ("grains", ("year",), (MINUTES,), "a tuple of 'month' and 'day'"),
    "there are no grains": ("grains", None, (MINUTES,), "found None"),
    "a folder without a slash": ("folder", "daily", (CANDLES, "day"), "text that ends with a slash"),
    "a folder as in a file system": ("folder", "/daily/", (CANDLES, "day"), "text that ends with a slash"),
    "a folder as a path": ("folder", Path("daily/"), (CANDLES, "day"), "text that ends with a slash"),
    "a stem with a folder": ("stem", "a/BTC-", (CANDLES,), "text without a slash"),
    "no stem": ("stem", None, (CANDLES,), "text without a slash"),
    "a cost in numbers": ("cost", 1, (), "return a Cost"),
    "a listing as text": ("listing", "daily/", (CANDLES, DAY_ONE), "return a ListingRequest"),
    "a listing of symbols as text": ("symbols_listing", "daily/", (), "return a ListingRequest"),
    "a symbol that is none": ("symbol_of", None, ("daily/BTCUSDT/",), "the symbol of the folder"),
    "a request as text": ("file_request", "https://files.example.com/a.zip", ("a.zip",), "return a Request"),
    "a request to the API": ("checksum_request", mf.Request("/a", cost=COST), ("a.zip",), "as its base_url"),
    "a listing's request as text": ("listing_request", "/", (ListingRequest("a/"),), "return a Request"),
    "a period as text": ("period_of", "2026-06", (CANDLES, "a-2026-06.zip"), "return a CalendarPeriod"),
}


@pytest.mark.parametrize(
    ("method", "found", "given", "expected_message"), ARCHIVE_RESULTS.values(), ids=ARCHIVE_RESULTS
)
def test_what_a_method_of_an_archive_returns_is_checked(
    method: str, found: object, given: tuple[Any, ...], expected_message: str
) -> None:
    archive = made(UsdmOhlcvFiles, **{method: lambda *_, **__: found})()
    with pytest.raises(AdapterError, match=rf"^Mine\.{method}: found .*; ") as caught:
        getattr(archive, method)(*given)
    assert expected_message in str(caught.value)
    assert f"({type(found).__name__})" in str(caught.value)


@pytest.mark.parametrize("result", [None, [None], [b"1,2"]], ids=repr)
def test_what_the_layout_of_an_archive_returns_is_checked(result: object) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as container:
        container.writestr("BTCUSDT-1m-2026-06-01.csv", "1,2\n")
    layout = made(CsvLayout, decode=lambda *_: result)(UsdmOhlcvFiles.layout.columns, width=12)
    with pytest.raises(AdapterError, match=r"^Mine\.decode: found .*DecodedRows"):
        list(FileReader(file, FileContent(CANDLES, DAY_ONE, layout)))


@pytest.mark.parametrize(
    ("method", "result"), [("grains", "day"), ("folder", "daily"), ("period_of", "2026-06"), ("cost", 1)]
)
def test_a_run_ends_with_the_mistake_of_an_archive(method: str, result: object) -> None:
    files = made(UsdmOhlcvFiles, **{method: lambda *_: result})
    kind = made(BinanceUsdm, sources=(Ohlcv, files))
    query = Query(symbols="BTCUSDT", interval="1h", start="2026-01-01", end="2026-02-01", sources="archive")
    with site() as place:
        urls = {"archive_url": place.archive.base_url}

        def fetch() -> None:
            settings = Settings(clock=lambda: place.clock)
            run(Pipeline(kind(place.exchange.base_url, **urls), query, MemorySink(), settings=settings))

        with pytest.raises(AdapterError, match=rf"^Mine\.{method}: found"):
            fetch()
