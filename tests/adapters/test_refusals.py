"""What exchanges and those in front of them say when they say no, however oddly."""

from __future__ import annotations

import pytest

from marketfetch.adapters.binance_coinm import BinanceCoinm
from marketfetch.adapters.binance_spot import BinanceSpot
from marketfetch.adapters.binance_usdm import BinanceUsdm
from marketfetch.adapters.okx import Okx
from marketfetch.errors import Banned, ExchangeNotAvailable, FetchError, RateLimitExceeded, RestrictedLocation
from marketfetch.exchange import Exchange
from marketfetch.ratelimit.backoff import parse_http_date, retry_after
from marketfetch.ratelimit.circuit_breaker import CircuitBreaker
from marketfetch.values.http import Response

NOW = 1_700_000_000_000
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"  # the same
EXCHANGES = pytest.mark.parametrize(
    "exchange", [BinanceUsdm(), BinanceCoinm(), BinanceSpot(), Okx()], ids=lambda each: each.name
)


def refusal(exchange: Exchange, status: int, body: bytes = b"", **headers: str) -> FetchError:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    with pytest.raises(FetchError) as error:
        exchange.raise_for_error(Response(status, named, body, NOW - 50, NOW))
    return error.value


@pytest.mark.parametrize(
    ("text", "wait"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("0.5", 0.5),
        ("172800", 172_800.0),
        ("Tue, 14 Nov 2023 22:13:50 GMT", 30.0),
        ("", None),
        ("-30", None),
        ("soon", None),
        ("1e9", None),
        ("1000000000", None),
        ("999999999", None),
        ("9" * 5000, None),
        ("\u0661", None),
        ("Tue, 14 Nov 2023 21:13:20 GMT", None),
        ("Tue, 14 Nov 2090 21:13:20 GMT", None),
        ("Tue, 99 Nov 2023 21:13:20 GMT", None),
    ],
)
def test_only_waits_that_make_sense_are_kept(text: str, wait: float | None) -> None:
    assert retry_after({"retry-after": text, "date": DATE}, NOW) == wait


def test_a_date_is_read_by_the_clock_that_wrote_it() -> None:
    headers = {"retry-after": "Tue, 14 Nov 2028 22:13:50 GMT", "date": "Tue, 14 Nov 2028 22:13:20 GMT"}
    assert retry_after(headers, NOW) == 30.0


@pytest.mark.parametrize(
    "text",
    ["", " ", "-", "0", "Mon", "Mon, ", ", , ,", "1 2 3 4 5 6", "\x00", "Mon, 1 Jan 2023 9:9:9 +9999999"],
)
def test_odd_text_is_no_date(text: str) -> None:
    assert parse_http_date(text) is None


@EXCHANGES
@pytest.mark.parametrize(
    "body", [b'{"code":"50011","msg":"","data":[]}', b'{"code":-1003,"msg":""}', b'{"code":7}', b"<html>"]
)
def test_the_status_of_a_refusal_outweighs_any_code(exchange: Exchange, body: bytes) -> None:
    assert isinstance(refusal(exchange, 429, body), RateLimitExceeded)
    assert isinstance(refusal(exchange, 418, body), Banned)
    assert isinstance(refusal(exchange, 403, body), Banned)
    assert isinstance(refusal(exchange, 451, body), RestrictedLocation)
    assert isinstance(
        refusal(exchange, 451, body.replace(b"50011", b"51000").replace(b"-1003", b"-1")), RestrictedLocation
    )


@EXCHANGES
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_named_by_its_host_alone(exchange: Exchange, status: int) -> None:
    error = refusal(exchange, status, location="https://anna:hunter2@portal.example/login?token=hunter2")
    assert isinstance(error, ExchangeNotAvailable)
    assert "a redirect to portal.example is not followed" in str(error)
    assert "hunter2" not in str(error)
    assert "not followed" in str(refusal(exchange, status))
    assert "not followed" in str(refusal(exchange, status, location="http://["))


def test_the_end_of_a_ban_is_read_from_the_header_or_by_the_exchanges_clock() -> None:
    text = b'{"code":-1003,"msg":"Way too much request weight used; IP banned until %d."}'
    usdm, year = BinanceUsdm(), 365 * 86_400_000
    header = refusal(usdm, 418, text % (NOW + 9000), retry_after="5")
    assert isinstance(header, Banned)
    assert header.until == NOW + 5000
    ahead = refusal(usdm, 418, text % (NOW + year + 9000), date="Wed, 13 Nov 2024 22:13:20 GMT")
    assert isinstance(ahead, Banned)
    assert ahead.until == NOW + 9000


def test_requests_under_way_when_a_ban_began_are_one_ban() -> None:
    health = CircuitBreaker()
    for _ in range(8):
        health.bans.add(Banned("shut out"), "https://e.org", now=1000)
    assert health.ready_at("https://e.org", now=1000) == 121_000
    health.bans.add(Banned("shut out"), "https://e.org", now=121_000)
    assert health.ready_at("https://e.org", now=121_000) == 121_000 + 240_000
