from __future__ import annotations

import pytest

from marketfetch.errors import ConfigurationError
from marketfetch.planning.instrument_index import InstrumentIndex
from marketfetch.values.instruments import Instrument
from marketfetch.values.query import AllSymbols

SEPTEMBER, DECEMBER = 1_790_323_200_000, 1_798_185_600_000  # 2026-09-25 and 2026-12-25, 08:00 UTC
LISTING = InstrumentIndex.of(
    [
        Instrument("BTCUSDT", "BTC", "USDT", "USDT"),
        Instrument("BTCUSDT_260925", "BTC", "USDT", "USDT", delisted_at=SEPTEMBER),
        Instrument("BTCUSDT_261225", "BTC", "USDT", "USDT", delisted_at=DECEMBER),
        Instrument("ETHUSDT_260925", "ETH", "USDT", "USDT", delisted_at=SEPTEMBER),
        Instrument("KPEPE-USD", "KPEPE", "USD"),
        Instrument("kPEPE-USD", "kPEPE", "USD"),
    ]
)


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("BTC/USDT:USDT", "BTCUSDT"),
        ("btc/usdt:usdt", "BTCUSDT"),
        ("btc/USDT", "BTCUSDT"),
        ("BTC/USDT:USDT-260925", "BTCUSDT_260925"),
        ("btc/usdt:usdt-261225", "BTCUSDT_261225"),
        ("BTC/USDT-260925", "BTCUSDT_260925"),
        ("ETH/USDT:USDT-260925", "ETHUSDT_260925"),
        ("kPEPE/USD", "kPEPE-USD"),
        ("KPEPE/USD", "KPEPE-USD"),
    ],
)
def test_unified_names_are_read_as_ccxt_writes_them(name: str, symbol: str) -> None:
    found = LISTING.find(name)
    assert found is not None
    assert found.symbol == symbol


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("btc-usdt", "unknown symbol; did you mean 'BTCUSDT'?"),
        ("btcusdt", "unknown symbol; did you mean 'BTCUSDT'?"),  # an exchange symbol must be exact
        ("BTC/USDT:USDT-270326", "unknown symbol"),
        ("kpepe/usd", "ambiguous symbol; write 'KPEPE-USD' or 'kPEPE-USD'"),
        ("ETH/USDT:USDT", "a contract with a last day; write 'ETHUSDT_260925'"),
        ("BTC/EUR", "unknown symbol"),
    ],
)
def test_an_ambiguous_or_unknown_name_is_not_guessed(name: str, hint: str) -> None:
    assert LISTING.find(name) is None
    assert LISTING.hint(name).startswith(hint)


def test_a_delisted_pair_of_spot_is_found_unless_a_later_one_has_its_name() -> None:
    old = Instrument("LUNA~USD", "LUNA", "USD", delisted_at=SEPTEMBER, active=False)
    assert InstrumentIndex.of([old]).find("LUNA/USD") == old
    new = Instrument("LUNA2~USD", "LUNA", "USD")
    assert InstrumentIndex.of([old, new]).find("LUNA/USD") == new


@pytest.mark.parametrize(
    ("symbol", "unified"),
    [
        ("LUNAUSDT", "LUNA/USDT:USDT"),
        ("ICPUSDTSETTLED", "ICP/USDT:USDT"),
        ("ADAUSDT_240628", "ADA/USDT:USDT"),
        ("SOL-USD", "SOL/USD:USD"),
        ("WAVESBUSD", "WAVES/BUSD:BUSD"),
        ("NOQUOTE", "NOQUOTE/"),
        ("USDT", "USDT/"),
    ],
)
def test_a_delisted_symbol_is_read_by_the_known_quote_currencies(symbol: str, unified: str) -> None:
    instrument = LISTING.with_archived([symbol], "BUSD").by_symbol[symbol]
    assert instrument.unified == unified
    assert not instrument.active


def test_a_unified_name_means_a_listed_symbol_if_it_can() -> None:
    listing = LISTING.with_archived(["BTCUSDT", "BTCUSDTSETTLED", "LUNAUSDT", "XRPUSDT_1", "XRPUSDT_2"])
    found = {name: listing.find(name) for name in ("BTC/USDT", "BTCUSDTSETTLED", "LUNA/USDT", "XRP/USDT")}
    symbols = [None if each is None else each.symbol for each in found.values()]
    assert symbols == ["BTCUSDT", "BTCUSDTSETTLED", "LUNAUSDT", None]
    assert listing.hint("XRP/USDT") == "ambiguous symbol; write 'XRPUSDT_1' or 'XRPUSDT_2'"
    assert listing.delisted == {"BTCUSDTSETTLED", "LUNAUSDT", "XRPUSDT_1", "XRPUSDT_2"}


def test_delisted_symbols_are_among_all_only_if_they_are_wanted() -> None:
    halted = Instrument("ETHUSDT", "ETH", "USDT", active=False)
    coming = Instrument("NEWUSDT", "NEW", "USDT", active=False)
    listing = InstrumentIndex.of([Instrument("BTCUSDT", "BTC", "USDT"), halted, coming])
    listing = listing.with_archived(["BTCUSDT", "ETHUSDT", "LUNAUSDT", "LUNABTC"])
    assert listing.all(AllSymbols()) == ["BTCUSDT"]
    assert listing.all(AllSymbols("USDT", delisted=True)) == ["BTCUSDT", "ETHUSDT", "LUNAUSDT"]
    assert InstrumentIndex.of(()).with_archived(["LUNAUSDT"]).by_symbol == {}


def test_all_of_one_kind() -> None:
    quarter = Instrument("BTCUSDT_260925", "BTC", "USDT", "USDT", delisted_at=1_790_323_200_000)
    listing = InstrumentIndex.of([Instrument("BTCUSDT", "BTC", "USDT", "USDT"), quarter])
    listing = listing.with_archived(["LUNAUSDT", "ADAUSDT_240628"])
    assert listing.all(AllSymbols(kind="perpetual")) == ["BTCUSDT"]
    assert listing.all(AllSymbols("USDT", kind="perpetual", delisted=True)) == ["BTCUSDT", "LUNAUSDT"]
    assert listing.all(AllSymbols(kind="future", delisted=True)) == ["BTCUSDT_260925", "ADAUSDT_240628"]
    assert listing.all(AllSymbols(kind="spot")) == []
    with pytest.raises(ConfigurationError, match="kind: 'swap' is unknown; choose one of future, perpetual"):
        AllSymbols(kind="swap")  # type: ignore[arg-type]
