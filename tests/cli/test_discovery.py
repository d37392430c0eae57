"""Discovery: what there is, as values and as commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

import marketfetch as mf
from marketfetch.adapter import Instrument
from marketfetch.adapters.binance_usdm import BinanceUsdm
from marketfetch.api.discovery import Instruments
from marketfetch.api.plugins import exchange_from
from marketfetch.cli.main import main
from marketfetch.errors import ConfigurationError
from marketfetch.testing import FaultKind, Faults, GeneratedMarket, SimulatedExchange


@pytest.fixture
def simulated() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(GeneratedMarket(["SOLUSDT", "BTCUSDT", "BTCUSDC", "ETHUSDT"])) as simulated:
        yield simulated


def found(simulated: SimulatedExchange, **filters: Any) -> list[str]:
    return mf.instruments("binance-usdm", base_url=simulated.base_url, board=None, **filters).symbols


def test_instruments_are_sorted_and_cost_one_request(simulated: SimulatedExchange) -> None:
    listed = mf.instruments("binance-usdm", base_url=simulated.base_url, board=None)
    assert simulated.request_log.total == 1
    assert listed.symbols == ["BTCUSDC", "BTCUSDT", "ETHUSDT", "SOLUSDT"]
    assert isinstance(listed[0], Instrument)
    assert listed.as_list()[1]["unified"] == "BTC/USDT:USDT"


@pytest.mark.parametrize(
    ("filters", "symbols"),
    [
        ({"quote": "USDC"}, ["BTCUSDC"]),
        ({"pattern": "btc*"}, ["BTCUSDC", "BTCUSDT"]),
        ({"pattern": "*/usdt:*", "quote": "USDT"}, ["BTCUSDT", "ETHUSDT", "SOLUSDT"]),
        ({"pattern": "[SE]*T"}, ["ETHUSDT", "SOLUSDT"]),
        ({"kind": "perpetual", "pattern": "SOL*"}, ["SOLUSDT"]),
        ({"kind": "future"}, []),
        ({"active": False}, []),
        ({"active": None, "pattern": "ETHUSDT"}, ["ETHUSDT"]),
    ],
    ids=str,
)
def test_filters_choose(simulated: SimulatedExchange, filters: dict[str, Any], symbols: list[str]) -> None:
    assert found(simulated, **filters) == symbols


@pytest.mark.parametrize(
    ("filters", "expected_message", "requests"),
    [
        ({"quote": "USDX"}, "quote: 'USDX' is unknown; did you mean 'USD", 1),
        ({"quote": ""}, "quote: must be text such as 'USDT', not ''", 0),
        ({"quote": 1}, "quote: must be text", 0),
        ({"pattern": ""}, "pattern: must be text", 0),
        ({"kind": "perpetuals"}, "kind: 'perpetuals' is unknown; did you mean 'perpetual'?", 0),
        ({"kind": ["spot"]}, r"kind: \['spot'\] is unknown", 0),
        ({"active": 1}, "active: 1 is neither True, False nor None", 0),
        ({"settings": 5}, "settings: int is not a Settings", 0),
        ({"proxies": 5}, "proxies: int is not a pool", 0),
    ],
    ids=str,
)
def test_a_filter_that_means_nothing_is_refused(
    simulated: SimulatedExchange, filters: dict[str, Any], expected_message: str, requests: int
) -> None:
    with pytest.raises(ConfigurationError, match=expected_message):
        found(simulated, **filters)
    assert simulated.request_log.total == requests


def test_datasets_and_intervals_are_those_that_are_served() -> None:
    for exchange in mf.exchanges():
        for dataset in mf.datasets(exchange):
            grids = mf.intervals(exchange, dataset)
            lengths = [mf.Interval.parse(name).typical for name in grids]
            assert grids
            assert lengths == sorted(lengths)
            mf.Pipeline(
                exchange, mf.Query(symbols="A", datasets=dataset, interval=grids[-1], start="2d"), "memory:"
            )
    with pytest.raises(ConfigurationError, match="'binance-usd' is unknown; did you mean 'binance-usdm'"):
        mf.datasets("binance-usd")
    with pytest.raises(ConfigurationError, match="dataset: 'ohlc' is unknown; did you mean 'ohlcv'"):
        mf.intervals("okx", "ohlc")
    with pytest.raises(ConfigurationError, match="dataset of binance-spot: 'funding_rate' is unknown"):
        mf.intervals("binance-spot", "funding_rate")


def test_the_first_moment_is_a_time_as_well() -> None:
    (listed,) = Instruments([Instrument("A", "A", "USDT", listed_at=0)]).as_list()
    assert (listed["listed_at"], listed["delisted_at"]) == ("1970-01-01T00:00:00Z", None)


def test_an_exchange_that_has_its_own_hosts_gets_no_other_ones() -> None:
    venue = BinanceUsdm("http://127.0.0.1:1", archive_url="http://127.0.0.1:2")
    assert exchange_from(venue) is venue
    for name in ("base_url", "archive_url"):
        with pytest.raises(
            ConfigurationError, match=rf"{name}: the exchange is an object.*BinanceUsdm\({name}="
        ):
            exchange_from(venue, **{name: "http://127.0.0.1:3"})


def test_many_instruments_are_shown_in_part_and_markup_is_escaped() -> None:
    listed = Instruments(Instrument(f"<{number:02}>", "A", "B") for number in range(30))
    assert repr(listed).endswith("… 30 instruments")
    assert len(repr(listed).splitlines()) == 22
    html = listed._repr_html_()
    assert "<td>&lt;00&gt;</td>" in html
    assert "30 instruments, of which these are the first 20" in html
    assert html.count("<td>A/B</td>") == 20


def test_commands_list_what_there_is(
    simulated: SimulatedExchange, capsys: pytest.CaptureFixture[str]
) -> None:
    def output_of(*words: str) -> str:
        assert main(words) == 0
        return capsys.readouterr().out

    assert [line["exchange"] for line in json.loads(output_of("exchanges", "--json"))] == mf.exchanges()
    assert "  okx " in output_of("exchanges")
    served = json.loads(output_of("datasets", "-e", "okx", "--json"))
    assert [line["dataset"] for line in served] == mf.datasets("okx")
    assert served[1]["intervals"] == mf.intervals("okx", "ohlcv")
    at = ["symbols", "-e", "binance-usdm", "--base-url", simulated.base_url, "--board", "none"]
    assert output_of(*at, "--quote", "USDC").splitlines()[0] == "1 instrument of binance-usdm"
    assert [line["symbol"] for line in json.loads(output_of(*at, "-p", "btc*", "--json"))] == [
        "BTCUSDC",
        "BTCUSDT",
    ]


@pytest.mark.parametrize(
    ("words", "expected_message"),
    [
        (["symbols", "-e", "okxx"], "--exchange: 'okxx' is unknown; did you mean 'okx'?"),
        (["symbols", "-e", "okx", "--kind", "swap"], "--kind: 'swap' is unknown; choose one of future, perp"),
        (["symbols", "-e", "okx", "--pattern", ""], "--pattern: must be text such as 'BTC*', not ''"),
        (["datasets", "-e", "okx", "-d", "ohlc"], "--dataset: 'ohlc' is unknown; did you mean 'ohlcv'?"),
        (["datasets"], "the following arguments are required: --exchange"),
        (["exchanges", "okx"], "arguments: word 2 belongs to no option"),
    ],
)
def test_commands_refuse_what_means_nothing(
    capfd: pytest.CaptureFixture[str], words: list[str], expected_message: str
) -> None:
    try:
        code: object = main(words)
    except SystemExit as exit_:
        code = exit_.code
    out, err = capfd.readouterr()
    assert (code, out) == (2, "")
    assert expected_message in err


def test_a_listing_that_is_repeated_and_then_fails_is_told(
    simulated: SimulatedExchange, capsys: pytest.CaptureFixture[str]
) -> None:
    simulated.faults = Faults(rate=1, kinds=(FaultKind.STATUS_451,))
    at = ["symbols", "-e", "binance-usdm", "--base-url", simulated.base_url, "--board", "none"]
    assert main(at) == 1
    refused = capsys.readouterr()
    assert refused.out == ""
    assert "refuses this location for legal reasons" in refused.err

    simulated.faults = Faults(rate=1, kinds=(FaultKind.STATUS_500,), times=2)
    assert main(at) == 0
    repeated = capsys.readouterr()
    assert repeated.out.startswith("4 instruments of binance-usdm")
    assert repeated.err.startswith(
        "marketfetch: asking again: ExchangeNotAvailable through Direct, attempt 1"
    )
