"""What is of another kind than it has to be is refused where it is given, with what to write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import marketfetch as mf
from marketfetch.adapters.binance_usdm import BinanceUsdm
from marketfetch.adapters.okx import Okx
from marketfetch.sinks.sqlite import SQLiteSink
from marketfetch.sources import Archive
from marketfetch.testing import GeneratedMarket, SimulatedExchange
from tests.support.worlds import World, run

HOURS: dict[str, Any] = {"interval": "1h", "start": "2026-06-01", "end": "2026-06-02"}
MAPPING: dict[str, Any] = {
    "table": "candles",
    "time": "ts",
    "symbol": "symbol",
    "columns": {"ohlcv": {"close": "c"}},
}


def _mapping(**changed: Any) -> mf.TableMapping:
    return mf.TableMapping(**(MAPPING | changed))


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "retries as a number": (lambda: mf.Settings(retries=5), r"^retries: 5 .*write RetryPolicy\(attempts=5\)"),  # type: ignore[arg-type]
    "the class RetryPolicy": (lambda: mf.Settings(retries=mf.RetryPolicy), r"^retries: .*write Retry"),  # type: ignore[arg-type]
    "no attempt": (lambda: mf.RetryPolicy(attempts=0), "^attempts: .*at least 1, not 0"),
    "attempts as text": (lambda: mf.RetryPolicy(attempts="5"), "^attempts: .*whole number"),  # type: ignore[arg-type]
    "a wait below zero": (lambda: mf.RetryPolicy(initial=-1), "^initial: .*number of seconds"),
    "more requests than memory": (lambda: mf.Settings(concurrency=10**9), "^concurrency: .*from 1 to 10,000"),
    "a clock that shows": (lambda: mf.Settings(clock=5), "^clock: 5 is not a function"),  # type: ignore[arg-type]
    "unusable as a list": (lambda: mf.Settings(unusable=["keep"]), "^unusable: "),  # type: ignore[arg-type]
    "a table by its name, SQLite": (
        lambda: mf.SQLiteSink("market.sqlite", table="candles"),  # type: ignore[arg-type]
        "^table: 'candles' is not a mapping; write TableMapping",
    ),
    "a table by its name, DuckDB": (
        lambda: mf.DuckDBSink("market.duckdb", table="candles"),  # type: ignore[arg-type]
        "^table: 'candles' is not a mapping",
    ),
    "a table by its name, PostgreSQL": (
        lambda: mf.PostgresSink("host=db", table="candles"),  # type: ignore[arg-type]
        "^table: 'candles' is not a mapping",
    ),
    "a path for a server": (lambda: mf.PostgresSink(Path("market")), "^dsn: .*write text such as"),  # type: ignore[arg-type]
    "max_writers as text": (lambda: mf.PostgresSink("host=db", max_writers="2"), "^max_writers: '2'"),  # type: ignore[arg-type]
    "no schema": (lambda: mf.PostgresSink("host=db", schema=""), "^schema: ''"),
    "columns as a list": (
        lambda: _mapping(columns=["ohlcv"]),
        "^columns: list is not a mapping; write {'ohlcv'",
    ),
    "columns of a dataset as a list": (
        lambda: _mapping(columns={"ohlcv": ["close"]}),
        "^columns: list of ohlcv is not a mapping; write {'ohlcv': {'open'",
    ),
    "a column that is None": (
        lambda: _mapping(columns={"ohlcv": {"close": None}}),
        r"^columns\['ohlcv'\]\['close'\]: None is not a name",
    ),
    "no time": (lambda: _mapping(time=None), "^time: None is not a name"),
    "a table by its number": (lambda: _mapping(table=5), "^table: 5 is not a name"),
    "a renaming as a dict": (
        lambda: _mapping(rename_symbol={"BTCUSDT": "BTC"}),
        "^rename_symbol: dict is not a function; write .*__getitem__",
    ),
    "no quote to cut off": (lambda: mf.sinks.without_quote(None), "^quote: None"),  # type: ignore[arg-type]
    "a quote by its number": (lambda: mf.AllSymbols(quote=5), "^quote: 5 is not a name"),  # type: ignore[arg-type]
    "members by number": (lambda: mf.Composite("MT", (1, 2)), "^members: 1 is not a name"),
    "a composite without a name": (lambda: mf.Composite(None, ("A", "B")), "^symbol: None is not a name"),  # type: ignore[arg-type]
    "bytes": (lambda: mf.Query(symbols=b"BTCUSDT", **HOURS), "^symbols: b'BTCUSDT' is not a name"),
    "names of proxies as text": (
        lambda: mf.RotatingProxies(["10.0.0.1:1"], names="a"),
        "^names: str is not a list",
    ),
    "max_wait as text": (lambda: mf.RotatingProxies([], max_wait="1h"), "^max_wait: "),  # type: ignore[arg-type]
    "a file that is none": (lambda: mf.RotatingProxies.from_file(None), "^path: NoneType is not a path"),  # type: ignore[arg-type]
    "a certificate by number": (lambda: mf.CurlFetcher(certificate=5), "^certificate: int is not a path"),
    "an HTTP version in a list": (lambda: mf.CurlFetcher(http_version=["2"]), "^http_version: "),  # type: ignore[arg-type]
    "another host by number": (
        lambda: mf.fetch("binance-usdm", "ohlcv", "BTCUSDT", **HOURS, base_url=5),  # type: ignore[call-overload]
        "^base_url: int is no URL",
    ),
    "another host that is empty": (
        lambda: mf.fetch("binance-usdm", "ohlcv", "BTCUSDT", **HOURS, base_url=""),
        "^base_url: '' is not an http",
    ),
    "another host with a query": (
        lambda: Okx("https://e.org/api?key=hunter2"),
        r"^base_url: a query or fragment \(\? or #\) has no place in it; write 'https://www.okx.com'$",
    ),
    "another host with a fragment": (lambda: Okx("https://e.org/#hunter2"), r"^base_url: a query.*\.com'$"),
    "half a request": (lambda: mf.Settings(concurrency=2.5), "^concurrency: .* not 2.5"),  # type: ignore[arg-type]
    "a truth as a number": (lambda: mf.Settings(batch_rows=True), "^batch_rows: .* not True"),
}


@pytest.mark.parametrize(("call", "expected_message"), WRONG.values(), ids=WRONG)
def test_what_is_of_another_kind_is_refused_by_name(
    call: Callable[[], object], expected_message: str
) -> None:
    with pytest.raises(mf.errors.ConfigurationError, match=expected_message):
        call()


def test_numbers_of_numpy_become_numbers_of_python() -> None:
    five: Any = np.int64(5)
    settings = mf.Settings(
        concurrency=five,
        batch_rows=five,
        max_rounds=five,
        deadline=five,
        heartbeat=np.float32(0.5),  # type: ignore[arg-type]
        retries=mf.RetryPolicy(attempts=five, initial=five, cap=np.float64(9)),
    )
    given = (settings.concurrency, settings.batch_rows, settings.max_rounds, settings.retries.attempts)
    assert {type(value) for value in given} == {int}
    assert (type(settings.deadline), type(settings.heartbeat), type(settings.retries.cap)) == (
        int,
        float,
        float,
    )
    assert type(settings.retries.initial) is int


def test_a_run_takes_numbers_of_numpy(tmp_path: Path) -> None:
    many: Any = np.int64(300)
    settings = mf.Settings(concurrency=np.int64(2), batch_rows=many, max_rounds=many, deadline=many)  # type: ignore[arg-type]
    with SimulatedExchange(GeneratedMarket()) as exchange:
        world = World(exchange, settings=settings)
        assert run(world.pipeline(SQLiteSink(tmp_path / "market.sqlite"))).complete


def test_waits_stay_at_their_cap_however_many_attempts_there_are() -> None:
    policy = mf.RetryPolicy(attempts=5000)
    assert {policy.wait(failures, 1.0) for failures in (20, 1024, 1100, 5000)} == {policy.cap}


def test_members_are_the_names_that_are_read() -> None:
    assert mf.Composite("MT", ["A", " B", "C\n"]).members == ("A", "B", "C")
    assert mf.Composite("MT", ["A", " A"]).members == ("A", "A")


def test_members_in_one_text_are_names_not_letters() -> None:
    assert mf.Composite("MT", "ETHUSDT, BTCUSDT").members == ("ETHUSDT", "BTCUSDT")


@pytest.mark.parametrize(
    "filters",
    [
        {"symbols": []},
        {"symbols": (), "datasets": "ohlcv"},
        {"symbols": "BTCUSDT", "datasets": []},
        {"symbols": "BTCUSDT", "exchange": ""},
        {"symbols": "BTCUSDT", "exchange": ["okx"]},
        {"symbols": "BTCUSDT", "datasets": 5},
    ],
)
def test_a_filter_that_came_out_empty_does_not_choose_everything(filters: dict[str, Any]) -> None:
    for act in (mf.verify, mf.forget):
        with pytest.raises(
            mf.errors.ConfigurationError, match=r"none given|is not a name|is unknown; choose"
        ):
            act(mf.MemorySink(), **filters)


@pytest.mark.parametrize("wrong", [{"rows": "no"}, {"dry_run": "no"}, {"rows": 1}, {"dry_run": None}])
def test_whether_rows_are_deleted_is_said_by_true_or_false(wrong: dict[str, Any]) -> None:
    with pytest.raises(mf.errors.ConfigurationError, match=r"^(rows|dry_run): .*write True or False"):
        mf.forget(mf.MemorySink(), symbols=mf.AllSymbols(), **wrong)


WRONG_URLS = {
    "a space": ("https://api example.com", "a space, control character or backslash"),
    "a space in the path": ("https://api.example.com/a b", "a space"),
    "a line break": ("https://api.example.com\n", "a space, control character"),
    "a line break inside": ("https://api.exa\nmple.com", "a space, control character"),
    "a tab": ("https://api.exa\tmple.com", "a space, control character"),
    "an escape": ("https://api.example.com/\x1b[2J", "a space, control character"),
    "a NUL": ("https://api.example.com\x00", "a space, control character"),
    "a zero-width space": ("https://api.example\u200b.com", "a space, control character"),
    "a backslash": ("https://api.example.com\\@e.org", "a space, control character or backslash"),
    "a port in words": ("https://api.example.com:https", "its port is not a number"),
    "a port that is too large": ("https://api.example.com:65536", "its port is not a number"),
    "a negative port": ("https://api.example.com:-1", "its port is not a number"),
    "port zero": ("https://api.example.com:0", "its port is not a number"),
    "an empty port": ("https://api.example.com:", "its port is not a number"),
    "a user and a password": ("https://ann:hunter2@api.example.com", "credentials have no place"),
    "a user": ("https://hunter2@api.example.com", "credentials have no place"),
    "an empty user": ("https://@api.example.com", "credentials have no place"),
    "a query": ("https://api.example.com?key=hunter2", "a query or fragment"),
    "an empty query": ("https://api.example.com?", "a query or fragment"),
    "a fragment": ("https://api.example.com/#hunter2", "a query or fragment"),
    "another scheme": ("ftp://api.example.com", "is not an http"),
    "no scheme": ("api.example.com", "is not an http"),
    "no host": ("https://", "is not an http"),
    "an encoded host": ("https://api%2eexample.com", "is not an http"),
    "a host of dots": ("https://api..example.com", "is not an http"),
}


@pytest.mark.parametrize(("url", "expected_message"), WRONG_URLS.values(), ids=WRONG_URLS)
def test_what_is_no_url_of_a_host_is_refused_alike_wherever_it_is_written(
    url: str, expected_message: str
) -> None:
    """By the constructor, by its class, for the API, for the archive; and no message shows a credential."""
    archive = next(kind for kind in BinanceUsdm.sources if issubclass(kind, Archive))
    calls: dict[str, Callable[[], object]] = {
        "base_url": lambda: BinanceUsdm(url),
        "archive_url": lambda: BinanceUsdm(archive_url=url),
        "url": lambda: archive(url),
        "Mine.default_url": lambda: type("Mine", (BinanceUsdm,), {"default_url": url}),
        "Mine.files_url": lambda: type("Mine", (archive,), {"files_url": url}),
        "Mine.listing_url": lambda: type("Mine", (archive,), {"listing_url": url}),
    }
    for name, call in calls.items():
        with pytest.raises(mf.errors.ConfigurationError, match=f"^{name}: ") as caught:
            call()
        message = str(caught.value)
        assert "hunter2" not in message
        assert expected_message in message or "with the scheme" in message
        assert message.isprintable()


def test_a_name_that_could_not_be_decoded_is_refused() -> None:
    with pytest.raises(
        mf.errors.ConfigurationError, match=r"^symbols: .* is not a name: bytes of it could not"
    ):
        mf.Query(symbols="BTC\udcff", start="2026-06-01")
