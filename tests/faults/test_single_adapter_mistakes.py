"""Each mistake of an author, in an otherwise right adapter, is named in words by the class or the contract.

The adapter is that of examples/lunaris. The first 25 mistakes are those of authors who tried.
"""

from __future__ import annotations

import json
import re
import runpy
import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from inspect import signature
from pathlib import Path
from typing import Any

import attrs
import pytest
from _pytest.outcomes import Failed, Skipped

import marketfetch.adapter as mf
from marketfetch.errors import AdapterError, ConfigurationError, FetchError
from marketfetch.testing.contracts.exchange import ExchangeContract, Recording
from tests.support.lunaris import LunarisServer

LUNARIS = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "lunaris" / "lunaris.py"))
CANDLES, EXCHANGE, CALL = LUNARIS["Candles"], LUNARIS["Lunaris"], LUNARIS["CALL"]
COLUMNS = {"open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"}
SWAPPED = {"from": lambda part: part.span.end // 1000 - 1, "to": lambda part: part.span.start // 1000}
SLOW = ("test_06", "test_11", "test_12", "test_13", "test_20_windows", "test_21")
"""Checks that no mistake below needs."""


@attrs.frozen(kw_only=True)
class Mistake:
    """What differs from the right adapter and its right test, and the words that name it."""

    message: str
    where: str = "contract"
    endpoint: Mapping[str, Any] = attrs.field(factory=dict)
    without: str = ""
    exchange: Mapping[str, Any] = attrs.field(factory=dict)
    subject: Mapping[str, Any] = attrs.field(factory=dict)


def layout(**changes: Any) -> dict[str, Any]:
    return {"layout": attrs.evolve(CANDLES.layout, **changes)}


def asks(**changes: Any) -> dict[str, Any]:
    """Return a `request` that asks for something else: values, or functions of the slice."""

    def request(self: Any, part: mf.Slice) -> mf.Request:
        right: mf.Request = CANDLES.request(self, part)
        question = json.loads(right.body or b"")
        question |= {name: value(part) if callable(value) else value for name, value in changes.items()}
        return attrs.evolve(right, body=json.dumps(question).encode())

    return {"request": request}


def sends(**changes: Any) -> dict[str, Any]:
    """Return a `request` with other parts."""
    return {"request": lambda self, part: attrs.evolve(CANDLES.request(self, part), **changes)}


def costs(pool: Any, weight: Any = 1) -> dict[str, Any]:
    return {"cost": lambda self, rows: mf.Cost(pool, weight)}


async def asynchronous(self: Any, body: bytes, part: mf.Slice) -> mf.DecodedRows:
    decoded: mf.DecodedRows = CANDLES.decode(self, body, part)
    return decoded


def listed(**changes: Any) -> dict[str, Any]:
    def entries(self: Any, body: bytes) -> Iterator[mf.Instrument]:
        return (attrs.evolve(each, **changes) for each in EXCHANGE.decode_listing(self, body))

    return {"decode_listing": entries}


def with_the_prices_of_a_walk(first: str, last: str) -> Any:
    """Return a `decode` whose candles begin where the one before them ended, in columns of these names."""

    def decode(self: Any, body: bytes, part: mf.Slice) -> mf.DecodedRows:
        found: mf.DecodedRows = CANDLES.decode(self, body, part)
        values, names = found.columns.values.copy(), part.series.dataset.names
        values[names.index("high")], values[names.index("low")] = 2000, 1
        minutes = found.columns.times / 60_000 % 1000
        values[names.index(first)], values[names.index(last)] = minutes + 2, minutes + 3
        return attrs.evolve(found, columns=mf.Columns(found.columns.times, values))

    return decode


def wait_in_milliseconds(self: Any, response: mf.Response) -> None:
    if b'"code":1002' in response.body and response.status == 200:
        raise mf.RateLimitExceeded("slow down", retry_after=mf.parse_json(response.body)["retry"])
    EXCHANGE.raise_for_error(self, response)


def ban_in_seconds(self: Any, response: mf.Response) -> None:
    if b'"code":1004' in response.body and response.status == 200:
        raise mf.Banned("not before", until=mf.parse_json(response.body)["until"])
    EXCHANGE.raise_for_error(self, response)


def no_error(self: Any, response: mf.Response) -> None:
    """Take every answer for a good one, but judge the status."""
    mf.Exchange.raise_for_error(self, response)


def good_status_only(self: Any, response: mf.Response) -> None:
    if response.status == 200:
        EXCHANGE.raise_for_error(self, response)


def code_first(self: Any, response: mf.Response) -> None:
    if b'"code"' in response.body:
        raise mf.BadSymbol("lunaris knows no such symbol")
    EXCHANGE.raise_for_error(self, response)


def any_shut_door(self: Any, response: mf.Response) -> None:
    if response.status == 403:
        raise mf.Banned("shut out")
    EXCHANGE.raise_for_error(self, response)


def returned_error(self: Any, response: mf.Response) -> Any:
    if response.status == 429:
        return mf.RateLimitExceeded("slow down")
    return EXCHANGE.raise_for_error(self, response)


def wait_forgotten(self: Any, response: mf.Response) -> None:
    if response.status == 429:
        raise mf.RateLimitExceeded("slow down")
    EXCHANGE.raise_for_error(self, response)


def clock(found: Any) -> dict[str, Any]:
    return {
        "time_request": lambda self: mf.Request("/v1/time", cost=CALL),
        "decode_time": lambda self, body: found(mf.parse_json(body)["data"]["now"]),
    }


def tuples(self: Any, body: bytes) -> Iterator[tuple[str, str, str]]:
    yield ("BTC-USD", "BTC", "USD")


MISTAKES: dict[str, Mistake] = {
    # --- the 25 of authors who tried ---
    "01 decode is async": Mistake(
        where="class",
        endpoint={"decode": asynchronous},
        message="Candles.decode is async: adapters do no I/O",
    ),
    "02 a method is missing": Mistake(
        where="class", without="decode", message=r"Candles lacks .*; write def decode\(self, body, part\)$"
    ),
    "03 an interval of another spelling": Mistake(
        where="class",
        endpoint={"intervals": {"1m": "M1", "60m": "H1"}},
        message="Candles.intervals: '60m' is another spelling; write '1h'",
    ),
    "04 the window is ignored": Mistake(
        endpoint=asks(**{"from": 0, "to": 9_999_999_999}),
        message="Candles.request: 9999999999 is outside of .*: send the ends of part.span",
    ),
    "05 the clock is read in request": Mistake(
        endpoint=asks(to=lambda _: int(time.time())), message=r"\d{10} is outside of .*, which was asked for"
    ),
    "06 the clock in seconds": Mistake(
        exchange=clock(int), message="decode_time returned 1780272000, which is no time in milli"
    ),
    "07 two intervals are one of theirs": Mistake(
        where="class",
        endpoint={"intervals": {"1m": "M1", "1h": "M1"}},
        message="Candles.intervals: '1m' and '1h' are both 'M1'",
    ),
    "08 a wrong key leads to the rows": Mistake(
        endpoint=layout(path=("result",)),
        message=r"Candles.decode refuses a good .* with 'result', found one with \['ok', 'data'\]",
    ),
    "09 times in seconds": Mistake(
        endpoint=layout(unit=1), message=r"times such as \d{10} are seconds: say unit=1000"
    ),
    "10 a column is misspelt": Mistake(
        endpoint=layout(columns={**COLUMNS, "closee": "c"}),
        message="ObjectLayout: column of ohlcv: 'closee' is unknown; did you mean 'close'",
    ),
    "11 volume is not mapped": Mistake(
        endpoint=layout(columns={name: key for name, key in COLUMNS.items() if name != "volume"}),
        message="volume is NULL: map it in the layout",
    ),
    "12 high and low are swapped": Mistake(
        endpoint=layout(columns={**COLUMNS, "high": "l", "low": "h"}),
        message="high is below low: are they swapped",
    ),
    "13 decode returns a list": Mistake(
        endpoint={"decode": lambda self, body, part: []},
        message=r"Candles.decode: found \[\] \(list\); return DecodedRows",
    ),
    "14 cost returns a number": Mistake(
        endpoint={"cost": lambda self, rows: 1},
        message=r"Candles.cost\(100\): found 1 \(int\); return a Cost",
    ),
    "15 the paginator is a class": Mistake(
        where="class",
        endpoint={"paginator": mf.TimeWindowPaginator},
        message=r"Candles.paginator: TimeWindowPaginator is a class; write TimeWindowPaginator\(\)",
    ),
    "16 the listing yields tuples": Mistake(
        exchange={"decode_listing": tuples},
        message=r"decode_listing: found \('BTC-USD', .* yield an Instrument",
    ),
    "17 sources is one class": Mistake(
        where="class",
        exchange={"sources": CANDLES},
        message=r"Lunaris.sources: Candles is one class; .* \(Candles,\)",
    ),
    "18 sources has an object": Mistake(
        where="class",
        exchange={"sources": (CANDLES(),)},
        message=r"Candles\(\) is an object; write the class: Candles",
    ),
    "19 the body is text": Mistake(
        endpoint=sends(body="{}"), message=r"Candles.request: body: found '{}' \(str\); write bytes"
    ),
    "20 the end is one too late": Mistake(
        endpoint=asks(to=lambda part: part.span.end // 1000),
        message="the exchange's end is inclusive: send part.span.end - 1",
    ),
    "21 the anchor is forgotten": Mistake(
        endpoint={"paginator": mf.TimeWindowPaginator()},
        message=r"write paginator = TimeWindowPaginator\(anchor='end'\)",
    ),
    "22 an error in HTTP 200 is not raised": Mistake(
        exchange={"raise_for_error": no_error},
        message="took HTTP 200 with .* for a good answer, which is BadSymbol",
    ),
    "23 pages larger than the exchange gives": Mistake(
        endpoint={"page_sizes": (1000,)},
        message=r"1000 rows were asked for, and 100 came: write page_sizes = \(100,\)",
    ),
    "24 a limit in seconds": Mistake(
        endpoint=costs(mf.LimitPool("calls", 10, 1)), message="calls: its period is 1 ms; write milliseconds"
    ),
    "25 a cursor for a grid": Mistake(
        where="class",
        endpoint={"paginator": mf.CursorPaginator()},
        message=r"rows on a grid have TimeWindowPaginator\(\)",
    ),
    # --- more of the same kinds ---
    "26 the end is one too early": Mistake(
        endpoint=asks(to=lambda part: part.span.end // 1000 - 61),
        message="is one of its ends exclusive at the exchange",
    ),
    "27 the start is one too early": Mistake(
        endpoint=asks(**{"from": lambda part: part.span.start // 1000 - 60}),
        message="rows come from before the start",
    ),
    "28 the days of another zone are called UTC": Mistake(
        endpoint={"intervals": {"1d": "D1"}},
        message=r"open at midnight of that zone are '1d\+08:00' in intervals",
    ),
    "29 a period of minutes in seconds": Mistake(
        endpoint=costs(mf.LimitPool("calls", 10, 300)),
        message="the period is in milliseconds; 300 s are 300_000",
    ),
    "30 the second limit is no limit": Mistake(
        endpoint=costs(mf.LimitPool("calls", 300, 60_000, burst=mf.Burst(2, 1000))),
        message=r"burst: 2 in 1000 ms and 300 in 60000 ms; write a capacity from 5 to 299",
    ),
    "31 the second limit is a number": Mistake(
        endpoint=costs(mf.LimitPool("calls", 300, 60_000, burst=10)),  # type: ignore[arg-type]
        message=r"calls: burst: found 10 \(int\); write Burst\(10, 1000\)",
    ),
    "32 another kind of window": Mistake(
        endpoint=costs(mf.LimitPool("calls", 10, 1000, "rolling")),  # type: ignore[arg-type]
        message="calls: window: found 'rolling' .* write 'clock' or 'sliding'",
    ),
    "32b hosts that count together are one text": Mistake(
        endpoint=costs(mf.LimitPool("calls", 10, 1000, hosts="https://a.org")),  # type: ignore[arg-type]
        message=r"calls: hosts: found 'https://a.org' \(str\); write a tuple of URLs",
    ),
    "33 the cost is a pool": Mistake(
        endpoint={"cost": lambda self, rows: CALL.pool}, message="found LimitPool.* return a Cost"
    ),
    "34 cost takes no rows": Mistake(
        where="class",
        endpoint={"cost": lambda self: CALL},
        message=r"Candles.cost\(self\) .*; write def cost\(self, rows\)",
    ),
    "35 decode takes no slice": Mistake(
        where="class",
        endpoint={"decode": lambda self, body: None},
        message=r"Candles.decode\(self, body\) .*; write def decode\(self, body, part\)",
    ),
    "36 an attribute is misspelt": Mistake(
        where="class",
        endpoint={"retension": 30 * mf.DAY},
        message="Candles.retension is no member .* write 'retention'",
    ),
    "37 a method is a value": Mistake(
        where="class",
        exchange={"next_listing_request": None},
        message=r"Lunaris.next_listing_request: found None .* write it as a method: def next_",
    ),
    "38 an optional method is misspelt": Mistake(
        where="class",
        exchange={"raise_for_errors": no_error},
        without="raise_for_error",
        message="Lunaris.raise_for_errors is no member of Exchange; write 'raise_for_error'",
    ),
    "39 None among the params": Mistake(
        endpoint=sends(params={"cursor": None}), message=r"params\['cursor'\]: found None .* or leave it out"
    ),
    "40 a path without a slash": Mistake(
        endpoint=sends(path="v1/candles"), message="path: found 'v1/candles' .* such as '/v1/candles'"
    ),
    "41 a whole URL as the path": Mistake(
        endpoint=sends(path="https://api.lunaris.example/v1/candles"),
        message="path: found 'https:.* the path alone",
    ),
    "42 the body of a GET": Mistake(
        endpoint=sends(method="GET"), message="body: found .* write method='POST' beside it"
    ),
    "43 a method in lower case": Mistake(
        endpoint=sends(method="post"), message="method: found 'post' .* 'POST'"
    ),
    "44 headers are a list": Mistake(
        endpoint=sends(headers=[("accept", "*/*")]),
        message="headers: found .* write a dict of names and values",
    ),
    "45 the path of a layout is text": Mistake(
        where="class",
        endpoint={"decode": "data"},
        message=r"Candles.decode: found 'data' .* def decode\(self",
    ),
    "46 a value that decode reads is not there": Mistake(
        endpoint={"decode": lambda self, body, part: mf.parse_json(body)["rows"]},
        message=r"Candles.decode raised KeyError\('rows'\) for .* raise DecodeError",
    ),
    "47 the slice has no such attribute": Mistake(
        endpoint={"request": lambda self, part: part.symbol},
        message="Candles.request raised AttributeError.*'symbol'.* has part.series, part.span and part.rows",
    ),
    "48 two columns read one field": Mistake(
        endpoint=layout(columns={**COLUMNS, "volume": "c"}), message="close and volume are equal in every row"
    ),
    "49 open is read from volume": Mistake(
        endpoint=layout(columns={**COLUMNS, "open": "v"}), message="open is outside of low and high"
    ),
    "50 the times are close times": Mistake(
        endpoint={
            "decode": lambda self, body, part: attrs.evolve(
                found := CANDLES.decode(self, body, part),
                columns=mf.Columns(found.columns.times + 59_999, found.columns.values),
            )
        },
        message="is no open time of 1m, but a close time: map the open time",
    ),
    "51 the listing by cursor stops at its first page": Mistake(
        exchange={"next_listing_request": mf.Exchange.next_listing_request},
        message=r"/v1/symbols has a next page \('next': '2'\): write next_listing_request",
    ),
    "52 the next page is a cursor": Mistake(
        exchange={"next_listing_request": lambda self, request, body: "2"},
        message=r"next_listing_request: found '2' \(str\); return the Request for the next page",
    ),
    "53 the next page is the same page": Mistake(
        exchange={"next_listing_request": lambda self, request, body: request},
        message="next_listing_request asks for the same page again: read the cursor",
    ),
    "54 the listing is one request": Mistake(
        exchange={"listing_requests": lambda self: mf.Request("/v1/symbols", cost=CALL)},
        message=r"listing_requests: found .* return a tuple of Requests",
    ),
    "55 super is forgotten": Mistake(
        exchange={"raise_for_error": good_status_only},
        message=r"took HTTP 429 with .* which is RateLimitExceeded: end with super\(\).raise_for_error",
    ),
    "56 a code outweighs a legal refusal": Mistake(
        exchange={"raise_for_error": code_first},
        message="raised BadSymbol for HTTP 451 .*: raise RestrictedLocation",
    ),
    "57 a legal refusal is called a ban": Mistake(
        exchange={"raise_for_error": any_shut_door},
        message="raised Banned for HTTP 403 .*: raise RestrictedLocation",
    ),
    "58 an error is returned": Mistake(
        exchange={"raise_for_error": returned_error},
        message="returned RateLimitExceeded.* for HTTP 429 .*: raise it",
    ),
    "59 Retry-After is dropped": Mistake(
        exchange={"raise_for_error": wait_forgotten},
        message="Retry-After: 7 became retry_after=None: pass retry_after=",
    ),
    "60 the clock is text": Mistake(
        exchange=clock(str), message="decode_time returned '1780272000'; .* as int"
    ),
    "61 a name with capitals": Mistake(
        where="class",
        exchange={"name": "Lunaris Spot"},
        message="Lunaris.name: found 'Lunaris Spot' .* lower case",
    ),
    "62 one recording in place of several": Mistake(
        where="test",
        subject={"recordings": Recording("ohlcv", b"{}", start="2026-06-01", end="2026-06-02")},
        message=r"TestMine.recordings: found Recording.* write a tuple of them: \(Recording\(…\),\)",
    ),
    "63 error bodies without their errors": Mistake(
        where="test",
        subject={"error_bodies": (b"{}",)},
        message="TestMine.error_bodies: found .* map each body",
    ),
    "64 the exchange under test is an object": Mistake(
        where="test", subject={"exchange": EXCHANGE()}, message="TestMine.exchange: found .* write the class"
    ),
    "65 publish_delay in seconds": Mistake(
        where="class",
        endpoint={"publish_delay": 60},
        message="Candles.publish_delay: found 60 .* write milliseconds",
    ),
    "66 the offset of a zone for the hour at which days open": Mistake(
        endpoint={"intervals": {"1m": "M1", "1d-08:00": "D1"}},
        message=r"is no open time of 1d-08:00: candles .* are '1d\+08:00' in intervals",
    ),
    "67 the name of a longer interval": Mistake(
        endpoint={"intervals": {"1m": "M1", "10m": "H1"}},
        message=r"Candles.intervals\['10m'\]: 2 of 10 candles came .* is 'H1' its name at the exchange",
    ),
    "68 the name of a shorter interval": Mistake(
        endpoint={"intervals": {"1m": "M1", "1h": "M10"}},
        message="is no open time of 1h: .* and the name of 1h in intervals right",
    ),
    "69 a wait in milliseconds": Mistake(
        exchange={"raise_for_error": wait_in_milliseconds},
        subject={"error_bodies": {b'{"ok":false,"code":1002,"retry":1500}': mf.RateLimitExceeded}},
        message="became retry_after=1500: it is in seconds, so divide milliseconds by 1000",
    ),
    "70 the day of listing in seconds": Mistake(
        exchange=listed(listed_at=1_767_225_600),
        message="ADA-USD: 1767225600 as listed_at .* UTC milliseconds",
    ),
    "71 the ends of the window are swapped": Mistake(
        endpoint=asks(**SWAPPED),
        message="no row came for .*, asked with POST /v1/candles .*: are times sent in the exchange's unit",
    ),
    "72 a delisted symbol is active": Mistake(
        exchange=listed(delisted_at=1_772_409_600_000),
        message="ADA-USD was delisted before 2026-06-01T16:00Z and is active: write active=False",
    ),
    "73 open and close are swapped": Mistake(
        endpoint={"decode": with_the_prices_of_a_walk("close", "open")}, message="are open and close swapped"
    ),
    "74 the end of a ban in seconds": Mistake(
        exchange={"raise_for_error": ban_in_seconds},
        subject={"error_bodies": {b'{"ok":false,"code":1004,"until":1790000060}': mf.Banned}},
        message="became until=1790000060: it is a moment in UTC milliseconds",
    ),
    "75 no day of delisting is 0": Mistake(
        exchange=listed(delisted_at=0), message="ADA-USD: 0 as .* delisted_at: .* or None"
    ),
}


def changed(base: type[Any], root: type[Any], changes: Mapping[str, Any], without: str = "") -> Any:
    """Make the class with changes; without one of its members, it is written anew from the root."""
    if not without:
        return type(base.__name__, (base,), dict(changes))
    unwritten = {"__dict__", "__weakref__", without}
    members = {name: value for name, value in vars(base).items() if name not in unwritten}
    return type(base.__name__, (root,), members | dict(changes))


def checks(subject: ExchangeContract) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield the checks of the contract with their arguments, as pytest would call them."""
    for name in (name for name in dir(subject) if name.startswith("test_") and not name.startswith(SLOW)):
        check = getattr(subject, name)
        arguments: list[dict[str, Any]] = [{}]
        if "endpoint" in signature(check).parameters:
            arguments = [{"endpoint": subject.exchange().endpoint("ohlcv")}]
        for mark in getattr(check, "pytestmark", []):
            names, values = mark.args
            arguments = [dict(zip(names, each, strict=True)) for each in values]
        if "first_row" not in name and "file" not in name:  # the adapter has neither
            yield from ((check, each) for each in arguments)


def found(mistake: Mistake) -> Iterator[tuple[str, BaseException]]:
    """Yield what the class statements, the test's class statement and the contract raise."""
    without = mistake.without
    try:
        endpoint = changed(CANDLES, mf.Endpoint, mistake.endpoint, without if without == "decode" else "")
        parts = {"sources": (endpoint,), **mistake.exchange}
        kind = changed(EXCHANGE, mf.Exchange, parts, without if without != "decode" else "")
    except AdapterError as error:
        yield "class", error
        return
    attributes = {"exchange": kind, "symbol": "BTC-USD", "start": "2026-06-01T16:00Z"}
    attributes |= {"error_bodies": {b'{"ok":false,"code":1001}': mf.BadSymbol}, **mistake.subject}
    try:
        subject = type("TestMine", (ExchangeContract,), attributes)()
    except AdapterError as error:
        yield "test", error
        return
    subject.answer = LunarisServer().answer
    try:
        arguments = list(checks(subject))
    except ConfigurationError as error:
        yield "contract", error
        return
    for check, given in arguments:
        try:
            check(**given)
        except Skipped:
            continue
        except (Exception, Failed) as error:  # noqa: BLE001  # raw errors of Python are looked for
            yield "contract", error


def test_the_right_adapter_passes() -> None:
    assert list(found(Mistake(message=""))) == []
    walk = with_the_prices_of_a_walk("open", "close")
    assert not [error for _, error in found(Mistake(message="", endpoint={"decode": walk}))]


@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_is_named(name: str) -> None:
    mistake = MISTAKES[name]
    raised = list(found(mistake))
    words = [(where, f"{error}") for where, error in raised]
    raw = [
        error
        for _, error in raised
        if not isinstance(error, AssertionError | FetchError | ConfigurationError | Failed)
    ]
    assert not raw, "an error of Python names nothing"
    with pytest.raises(AssertionError, match=mistake.message):
        raise AssertionError(
            "\n".join(text for where, text in words if where == mistake.where) or f"only {words}"
        )


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (
            Mistake(message="", endpoint=layout(columns={**COLUMNS, "high": "l", "low": "h"})),
            "are they swapped",
        ),
        (
            Mistake(message="", endpoint=asks(**{"from": 0, "to": 1_780_400_000})),
            "does request send part.span.end|Candles.request: 1780400000 is outside",
        ),
        (
            Mistake(message="", endpoint=asks(**SWAPPED)),
            "are times sent in the exchange's unit",
        ),
    ],
    ids=["swapped", "far outside", "no row"],
)
def test_every_failed_check_names_the_cause_and_no_other(mistake: Mistake, message: str) -> None:
    with_rows = [f"{error}" for _, error in found(mistake)]
    assert len(with_rows) >= 3
    assert [text for text in with_rows if not re.search(message, text)] == []


def test_a_field_of_which_too_much_is_expected_is_found_in_each_run() -> None:
    """What hypothesis draws is another value in each run."""

    def decode(self: Any, body: bytes, part: mf.Slice) -> mf.DecodedRows:
        decoded: mf.DecodedRows = CANDLES.decode(self, body, part)
        return {"": None}[""] if mf.parse_json(body)["ok"] == {} else decoded  # type: ignore[return-value]

    def entries(self: Any, body: bytes) -> Iterator[mf.Instrument]:
        yield from EXCHANGE.decode_listing(self, body)
        if mf.parse_json(body)["ok"] == {}:
            raise TypeError("of Python")

    endpoint = changed(CANDLES, mf.Endpoint, {"decode": decode})
    kind = changed(EXCHANGE, mf.Exchange, {"sources": (endpoint,), "decode_listing": entries})
    subject = type("TestMine", (ExchangeContract,), {"exchange": kind, "symbol": "BTC-USD"})()
    subject.answer = LunarisServer().answer
    with pytest.raises(AdapterError, match="decode: found None"):
        subject.test_13_a_wrong_value_affects_no_other_row(kind().endpoint("ohlcv"))
    with pytest.raises(Failed, match="decode_listing raised TypeError"):
        subject.test_18_the_listing_is_read()


LISTED: dict[str, Any] = {
    "name": "mine",
    **{
        name: vars(EXCHANGE)[name]
        for name in ("default_url", "sources", "listing_requests", "decode_listing")
    },
}


@pytest.mark.parametrize(
    ("base", "members"),
    [
        (CANDLES, {"decode": CANDLES().decode}),  # of another object, which Python does not bind again
        (CANDLES, {"cost": staticmethod(lambda rows: CALL)}),
        (CANDLES, {"cost": classmethod(lambda cls, rows: CALL)}),
        (CANDLES, {"cost": lru_cache(lambda self, rows: CALL)}),
        (CANDLES, {"costs": {100: 1}, "requests": 3}),
        (CANDLES, {"intervals": {"1d": "D1", "1d+08:00": "D1"}}),  # the zone is a parameter of its own
        (EXCHANGE, {"endpoints": {"ohlcv": CANDLES}, "archives": ()}),
        (mf.Exchange, {**LISTED, "listing_request": lambda self, cursor: None}),  # a helper
    ],
)
def test_what_is_right_in_another_form_is_not_refused(base: type[Any], members: dict[str, Any]) -> None:
    type("Mine", (base,), members)


def test_a_method_that_does_not_take_its_object_is_refused() -> None:
    with pytest.raises(
        AdapterError, match=r"Mine.cost\(\) has other parameters; write def cost\(self, rows\)"
    ):
        type("Mine", (CANDLES,), {"cost": lambda: CALL})
