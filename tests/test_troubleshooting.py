"""Every error has a section in docs/troubleshooting.md, with a message that the library really writes."""

from __future__ import annotations

import errno
import re
import sqlite3
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import pytest
from curl_cffi import CurlECode

import marketfetch as mf
from marketfetch import errors
from marketfetch.adapters.binance_usdm import BinanceUsdm, UsdmOhlcvFiles
from marketfetch.archives.checksums import Checksum
from marketfetch.decoding import compiled
from marketfetch.fetchers.curl_errors import CurlFailure, translate
from marketfetch.planning.paginators import ProgressGuard
from marketfetch.protocols import PageOutcome
from marketfetch.testing import GeneratedMarket, SimulatedExchange
from marketfetch.testing.http.messages import ServerReply, ServerRequest
from marketfetch.values.http import Egress, Response
from marketfetch.values.slices import Slice

PAGE = Path(__file__).parents[1] / "docs" / "troubleshooting.md"
NAMES = {name for name in errors.__all__ if name[0].isupper()}
NEVER_RAISED = {"MarketfetchError", "FetchError", "RetryableError", "FatalFetchError"}
ONCE = mf.Settings(retries=mf.RetryPolicy(attempts=1))
TWICE = mf.RetryPolicy(attempts=2, cap=0.01)
DIRECT = Egress("Direct")


def sections() -> dict[str, str]:
    """Return the text of each section of the page by its title."""
    parts = re.split(r"^#{2,3} (.*)\n", PAGE.read_text("utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def fetch(url: str, symbol: str = "BTCUSDT", **options: Any) -> mf.Table:
    day = {"interval": "1h", "start": "2026-06-01", "end": "2026-06-02"}
    arguments = {**day, "settings": ONCE, "on_missing": "ignore", **options}
    table: mf.Table = mf.fetch("binance-usdm", "ohlcv", symbol, base_url=url, **arguments)
    return table


def reading(status: int, body: bytes = b"", source: Any = BinanceUsdm) -> Callable[[str], None]:
    """Return a call that reads an answer as the adapter does."""
    return lambda _: source().raise_for_error(Response(status, {}, body, sent_at=0, received_at=0))


def make_an_adapter(_: str) -> None:
    class Mine(mf.adapter.Exchange):
        name = "mine"
        default_url = "https://api.mine.example"
        sources = ()


def connect_to_a_closed_port(_: str) -> None:
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"])) as former:
        url = former.base_url
    fetch(url)


def leave_by_a_dead_proxy(url: str) -> None:
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"])) as former:
        address = former.base_url
    fetch(url, proxies=mf.RotatingProxies([address], direct=False, max_wait=1))


def open_one_file_too_many(_: str) -> None:
    failure = CurlFailure(CurlECode.COULDNT_CONNECT, "curl: (7) Failed", number=errno.EMFILE)
    raise translate(failure, DIRECT, 1)


def wait_too_long(_: str) -> None:
    text = "curl: (28) Operation timed out after 30001 milliseconds. See https://curl.se"
    raise translate(CurlFailure(CurlECode.OPERATION_TIMEDOUT, text), DIRECT, 1)


def page_without_end(_: str) -> None:
    guard, span = ProgressGuard(), mf.Span(0, 60_000)
    part = Slice(mf.Series.of("okx", "ohlcv", "BTC-USDT", "1m"), span, rows=1)
    for _repeated in range(100):
        guard.observe(PageOutcome(mf.SpanSet.of(span), remaining=(part,)))


def get_a_login_page(url: str) -> None:
    def edit(request: ServerRequest, reply: ServerReply) -> ServerReply:
        return attrs.evolve(reply, body=b"<html>") if request.path.endswith("klines") else reply

    with SimulatedExchange(GeneratedMarket(["BTCUSDT"])) as exchange:
        exchange.edit = edit
        raise_reason(fetch(exchange.base_url), errors.DecodeError)


def write_into_a_narrow_table(url: str) -> None:
    with closing(sqlite3.connect("mine.sqlite")) as database:
        columns = "ts BIGINT, symbol TEXT, v REAL CHECK (v < 1), PRIMARY KEY (symbol, ts)"
        database.execute(f"CREATE TABLE candles ({columns})")
    mapping = mf.TableMapping("candles", time="ts", symbol="symbol", columns={"ohlcv": {"volume": "v"}})
    raise_reason(fetch(url, to=mf.SQLiteSink("mine.sqlite", table=mapping)), errors.RowsRefused)


def raise_reason(table: mf.Table, kind: type[mf.MarketfetchError]) -> None:
    """Raise the reason that a report has for the first missing moments, as the error that it was."""
    reason = table.report.series[0].missing[0].reason
    raise kind(reason.removeprefix(f"{kind.__name__}: "))


def use_a_file_of_another_kind(url: str) -> None:
    Path("bad.sqlite").write_text("no database " * 100, "utf-8")
    fetch(url, to="sqlite:bad.sqlite")


def use_a_locked_file(url: str) -> None:
    fetch(url, to="sqlite:market.sqlite")
    with closing(sqlite3.connect("market.sqlite")) as database:
        database.execute("BEGIN EXCLUSIVE")
        fetch(url, end="2026-06-03", to="sqlite:market.sqlite", settings=mf.Settings(retries=TWICE))


CASES: dict[str, Callable[[str], object]] = {
    "AdapterError": make_an_adapter,
    "ArchiveDamaged": lambda _: Checksum("sha256", "ab" * 32).check("cd" * 32),
    "BadRequest": reading(400, b'{"code":-1130,"msg":"Data sent for parameter startTime is not valid."}'),
    "BadSymbol": reading(400, b'{"code":-1121,"msg":"Invalid symbol."}'),
    "Banned": reading(418),
    "ConfigurationError": lambda _: mf.Query(symbols="BTCUSDT", start="2026-06-01T12:00").span(
        now=2 * 10**12
    ),
    "DecodeError": get_a_login_page,
    "ExchangeNotAvailable": reading(503, b"upstream"),
    "IncompleteError": lambda url: fetch(url, "BTCUSD", on_missing="raise"),
    "LocalResourceError": open_one_file_too_many,
    "NoSuchFile": reading(404, source=UsdmOhlcvFiles),
    "PaginationError": page_without_end,
    "ProxyError": leave_by_a_dead_proxy,
    "RateLimitExceeded": reading(429),
    "RequestTimeout": wait_too_long,
    "RestrictedLocation": reading(451, b"Unavailable For Legal Reasons"),
    "RowsRefused": write_into_a_narrow_table,
    "SinkError": use_a_file_of_another_kind,
    "SinkUnavailable": use_a_locked_file,
    "TransportError": connect_to_a_closed_port,
}
WARNINGS: dict[str, tuple[type[Warning], Callable[[str], object]]] = {
    "IncompleteWarning": (
        errors.IncompleteWarning,
        lambda url: fetch(url, "BTCUSD", on_missing="warn"),
    ),
    "RuntimeWarning": (RuntimeWarning, use_a_locked_file),
}


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a simulated exchange; the working folder is empty."""
    monkeypatch.chdir(tmp_path)
    with SimulatedExchange(GeneratedMarket(["BTCUSDT", "ETHUSDT"])) as exchange:
        yield exchange.base_url


def assert_shown(section: str, message: str) -> None:
    """Check that a section has a message, with its kind; `…` on the page stands for any text."""
    found = re.search(r"```text\n(.*?)\n```", sections()[section], re.DOTALL)
    assert found, f"the section {section!r} has no message"
    shown = re.sub(r"\n +", " ", found[1])  # long messages are wrapped
    pattern = ".*".join(re.escape(part) for part in shown.split("…"))
    assert re.fullmatch(pattern, message, re.DOTALL), f"the page has another text than {message!r}"


def test_every_error_has_a_section_and_a_case() -> None:
    page = PAGE.read_text("utf-8")
    assert not {name for name in NAMES - NEVER_RAISED if name not in sections()}
    assert not {name for name in NAMES if f"`{name}`" not in page and name not in sections()}
    assert CASES.keys() | WARNINGS.keys() == NAMES - NEVER_RAISED | {"RuntimeWarning"}


@pytest.mark.parametrize("name", CASES)
def test_page_shows_the_message_of_the_error(name: str, url: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a store that is waited for
        with pytest.raises(errors.MarketfetchError) as caught:
            CASES[name](url)
    assert caught.type is getattr(errors, name)
    assert_shown(name, f"{name}: {caught.value}")


@pytest.mark.parametrize("name", WARNINGS)
def test_page_shows_the_message_of_the_warning(name: str, url: str) -> None:
    kind, work = WARNINGS[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            work(url)
        except errors.SinkUnavailable:
            assert kind is RuntimeWarning
    message = next(each.message for each in caught if each.category is kind)
    assert_shown(name, f"{name}: {message}")


def test_page_shows_that_the_compiled_decoder_cannot_be_used(tmp_path: Path) -> None:
    tmp_path.joinpath("_rows.so").touch()
    with pytest.warns(RuntimeWarning) as caught:
        compiled.load(tmp_path / "_rows.so")
    assert_shown("The compiled decoder cannot be used", f"RuntimeWarning: {caught[0].message}")
