"""A password is cut where it stands; words that happen to hold its letters stay whole, and do not tell it."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import marketfetch as mf
from marketfetch.adapters.okx import Okx
from marketfetch.api.budget_sharing import sharing_of
from marketfetch.fetchers.easy_handle import EasyHandle
from marketfetch.redaction import Secret, redact, without
from marketfetch.values.http import Cost, Egress, LimitPool, Request

MESSAGE = "connection to server at 127.0.0.1 failed: the password is refused"


@pytest.mark.parametrize(
    "password", ["e", "a", "t", "on", "ed", "fail", "pass", "serve", "connect", "0", "127"]
)
@pytest.mark.parametrize(
    "form", ["postgresql://ann:{}@127.0.0.1:1/market", "host=127.0.0.1 port=1 password={}"]
)
def test_words_of_an_error_stay_whole_whatever_the_password_is(password: str, form: str) -> None:
    dsn = form.format(password)
    store = mf.PostgresSink(dsn)
    with pytest.raises(mf.errors.SinkError) as raised:
        store.ledger()
    message = str(raised.value)
    for word in ("connection", "127.0.0.1", "failed", "server"):
        assert word in message
    assert f":{password}@" not in message
    assert f"password={password}" not in message


@pytest.mark.parametrize("secret", ["e", "he", "the", "fail", "word", "pass"])
def test_part_of_a_word_is_not_cut(secret: str) -> None:
    assert without(MESSAGE.replace("the ", "that "), secret) == MESSAGE.replace("the ", "that ")


@pytest.mark.parametrize(
    ("text", "secret", "left"),
    [
        ('invalid value "hunter2" for port', "hunter2", 'invalid value "***" for port'),
        ("said hunter2, and hunter2x", "hunter2", "said ***, and ***x"),
        ('database "zebra" does not exist', "zebra", 'database "***" does not exist'),
        ("zebras and a zebra", "zebra", "zebras and a ***"),
        ("the value 'e' is wrong", "e", "the value '***' is wrong"),
        ('the value "a1" is wrong', "a1", 'the value "***" is wrong'),
        ("cannot read p%40ss%2Fw", "p@ss/w", "cannot read ***"),
        ("zebra_crossing", "zebra", "***_crossing"),
        ("nothing of it", "", "nothing of it"),
    ],
)
def test_what_is_quoted_is_cut(text: str, secret: str, left: str) -> None:
    assert without(text, secret) == left


@given(st.text(min_size=4, max_size=20).filter(lambda text: text.strip() == text))
def test_long_secret_that_stands_alone_is_gone(secret: str) -> None:
    text = without(f'the server said "{secret}" to us', secret)
    assert text == 'the server said "***" to us' or secret in "the server said to us"


@pytest.mark.parametrize("password", ["e", "a", "on"])
def test_short_password_is_still_cut_where_a_url_or_a_name_tells_it(password: str) -> None:
    for text in (f"http://ann:{password}@10.0.0.1:3128 is down", f"password={password} is wrong"):
        cut = redact(text)
        assert "***" in cut
        assert text.split(password, 1)[0].split(":")[0] in cut


ADDRESS = "http://ann:hunter2@10.0.0.1:3128"
GIVEN: dict[str, Callable[[], object]] = {
    "exchange": lambda: mf.fetch(ADDRESS, "ohlcv", "BTCUSDT", start="2026-06-01"),
    "dataset": lambda: mf.fetch("okx", ADDRESS, "BTC-USDT", start="2026-06-01"),
    "interval": lambda: mf.Query(symbols="BTCUSDT", interval=ADDRESS, start="2026-06-01"),
    "intervals": lambda: mf.Query(symbols="BTCUSDT", interval=[ADDRESS], start="2026-06-01"),  # type: ignore[arg-type]
    "quote": lambda: mf.AllSymbols(quote=[ADDRESS]),  # type: ignore[arg-type]
    "base_url without a scheme": lambda: Okx("ann:hunter2@10.0.0.1:3128"),
    "start": lambda: mf.fetch("okx", "ohlcv", "BTC-USDT", start=ADDRESS),
    "composites": lambda: mf.Query(symbols="BTCUSDT", composites=ADDRESS, start="2026-06-01"),
    "concurrency": lambda: mf.Settings(concurrency=ADDRESS),  # type: ignore[arg-type]
    "deadline": lambda: mf.Settings(deadline=ADDRESS),  # type: ignore[arg-type]
    "retries": lambda: mf.Settings(retries=ADDRESS),  # type: ignore[arg-type]
    "timeout": lambda: mf.CurlFetcher(timeout=ADDRESS),  # type: ignore[arg-type]
    "on_missing": lambda: mf.fetch("okx", "ohlcv", "X", start="2026-06-01", on_missing=ADDRESS),  # type: ignore[call-overload]
    "path": lambda: mf.RotatingProxies.from_file(ADDRESS),
    "exchange of a filter": lambda: mf.verify(mf.MemorySink(), exchange=[ADDRESS]),  # type: ignore[arg-type]
    "table": lambda: mf.SQLiteSink("market.sqlite", table=ADDRESS),  # type: ignore[arg-type]
    "filter": lambda: mf.verify(mf.MemorySink(), symbols=ADDRESS),
    "rows": lambda: mf.forget(mf.MemorySink(), symbols="X", rows=ADDRESS),  # type: ignore[arg-type]
}


def _shown(error: BaseException) -> str:
    """Everything that an error and its chain say, with the variables of all frames but those of this test."""
    shown = [repr(error), str(error)]
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename != __file__:
            shown += [f"{frame.f_code.co_name}: {name} = {held!r}" for name, held in frame.f_locals.items()]
    for other in (error.__cause__, error.__context__):
        if other is not None:
            shown.append(_shown(other))
    return "\n".join(shown)


HELD: dict[str, Callable[[Path], object]] = {
    "a file that is not UTF-8": mf.RotatingProxies.from_file,
    "an address": lambda _: mf.RotatingProxies([ADDRESS + "00"]),
    "scheme of a board": lambda _: sharing_of(ADDRESS.replace("http", "pgsql"), mf.MemorySink()),
    "board without a scheme": lambda _: sharing_of("host=h password=hunter2", mf.MemorySink()),
    "board of a wrong kind": lambda _: sharing_of({"url": ADDRESS}, mf.MemorySink()),  # type: ignore[arg-type]
    "proxy that libcurl refuses": lambda _: EasyHandle("chrome120", {}, authorities="", max_body=1).prepare(
        Request("/x", cost=Cost(LimitPool("calls", 1, 1))), Egress("P", Secret(ADDRESS + "0" * 9_000_000))
    ),
}


@pytest.mark.parametrize("call", HELD.values(), ids=HELD)
def test_no_frame_and_no_cause_of_an_error_holds_a_password(
    call: Callable[[Path], object], tmp_path: Path
) -> None:
    path = tmp_path / "proxies.txt"
    path.write_bytes(f"{ADDRESS} # für mich\n".encode("latin-1"))
    with pytest.raises(mf.errors.MarketfetchError) as raised:
        call(path)
    shown = _shown(raised.value)
    assert "hunter2" not in shown, shown[max(0, shown.index("hunter2") - 300) :][:400]


def test_the_cause_of_a_path_that_is_an_address_holds_no_password() -> None:
    with pytest.raises(mf.errors.ConfigurationError) as raised:
        mf.RotatingProxies.from_file(ADDRESS)
    assert raised.value.__cause__ is raised.value.__context__ is None


@pytest.mark.parametrize("call", GIVEN.values(), ids=GIVEN)
def test_an_address_in_the_wrong_argument_is_not_repeated(call: Callable[[], object]) -> None:
    with pytest.raises(mf.errors.ConfigurationError) as raised:
        call()
    assert "hunter2" not in str(raised.value)
