"""An empty table is not silent, and its types are those of a full one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import marketfetch as mf
from marketfetch.errors import ConfigurationError, IncompleteError, IncompleteWarning
from marketfetch.reports import Report
from marketfetch.testing import GeneratedMarket, SimulatedExchange
from marketfetch.values.pages import Columns
from marketfetch.values.series import Series

DAY = {"start": "2026-06-01", "end": "2026-06-02"}


@pytest.fixture(scope="module")
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(GeneratedMarket(["BTCUSDT", "ETHUSDT"])) as exchange:
        yield exchange


def fetch(exchange: SimulatedExchange, symbols: Any, **more: Any) -> mf.Table:
    given = {"interval": "1h", "base_url": exchange.base_url, **DAY, **more}
    table: mf.Table = mf.fetch("binance-usdm", given.pop("dataset", "ohlcv"), symbols, **given)
    return table


def test_complete_table_is_silent(exchange: SimulatedExchange) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(fetch(exchange, "BTCUSDT")) == 24


@pytest.mark.parametrize(
    ("symbols", "more", "expected_message"),
    [
        ("btcusdt", {}, ["btcusdt: unknown symbol; did you mean 'BTCUSDT'"]),
        ("btcusdx", {}, ["btcusdx: unknown symbol; did you mean 'BTCUSDT'"]),
        (["BTCUSDT", "ETHUSD"], {}, ["ETHUSD: unknown symbol; did you mean 'ETHUSDT'"]),
        (["FOO", "BAR"], {}, ["FOO: unknown symbol", "BAR: unknown symbol"]),
        ("BTCUSDT", {"interval": "1M", "start": "5d", "end": "now"}, ["nothing has closed in this span yet"]),
        ("BTCUSDT", {"interval": "1d", "start": "3h", "end": "now"}, ["nothing has closed in this span yet"]),
        ("BTCUSDT", {"dataset": "open_interest", "start": "2020-06-01", "end": "2020-06-02"}, ["older than"]),
    ],
)
def test_what_is_not_there_is_warned_of_once(
    exchange: SimulatedExchange, symbols: Any, more: dict[str, Any], expected_message: list[str]
) -> None:
    with pytest.warns(IncompleteWarning) as caught:
        fetch(exchange, symbols, **more)
    (warning,) = caught
    assert warning.filename == __file__
    for words in expected_message:
        assert words in str(warning.message)

    with pytest.raises(IncompleteError) as raised:
        fetch(exchange, symbols, on_missing="raise", **more)
    assert all(words in str(raised.value) for words in expected_message)
    assert raised.value.report is not None

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fetch(exchange, symbols, on_missing="ignore", **more)


def test_many_things_missing_make_one_short_warning(exchange: SimulatedExchange) -> None:
    with pytest.warns(IncompleteWarning, match="and 35 more") as caught:
        fetch(exchange, [f"FOO{number}" for number in range(40)])
    assert len(str(caught[0].message)) < 1000


def test_on_missing_has_three_values(exchange: SimulatedExchange) -> None:
    with pytest.raises(ConfigurationError, match="on_missing: 'warm' is unknown; did you mean 'warn'"):
        fetch(exchange, "BTCUSDT", on_missing="warm")


def _tables(dataset: str) -> list[mf.Table]:
    """No series at all, a series without rows, and series with and without NULL."""
    one, two = (Series.of("binance-usdm", dataset, name, "1h") for name in ("BTCUSDT", "ETHUSDT"))
    nothing = Columns.empty(one.dataset)
    full = Columns(np.array([0, 3_600_000]), np.ones((len(one.dataset.columns), 2)))
    nulls = Columns(full.times, full.values.copy())
    for at, column in enumerate(one.dataset.columns):
        if column.optional:
            nulls.values[at, 1] = np.nan
    rows: list[dict[Series, Columns]] = [
        {},
        {one: nothing},
        {one: full},
        {one: nothing, two: full},
        {one: nulls},
        {one: nulls, two: full},
    ]
    return [mf.Table(one.dataset, each, Report.empty()) for each in rows]


@pytest.mark.parametrize("dataset", ["ohlcv", "funding_rate", "mark_price", "open_interest"])
@pytest.mark.parametrize("library", ["pandas", "polars", "arrow"])
def test_types_do_not_depend_on_the_rows(dataset: str, library: str) -> None:
    pytest.importorskip("pyarrow" if library == "arrow" else library)
    types: list[Any] = []
    for table in _tables(dataset):
        frame = getattr(table, f"to_{library}")()
        assert len(frame) == len(table)
        types.append(list(frame.dtypes) if library == "pandas" else frame.schema)
    assert all(each == types[2] for each in types)


def test_whole_numbers_are_whole_whatever_is_null() -> None:
    pd, pl = pytest.importorskip("pandas"), pytest.importorskip("polars")
    for table in _tables("ohlcv"):
        assert table.to_pandas().dtypes["trades"] == pd.Int64Dtype()
        assert table.to_polars().schema["trades"] == pl.Int64()
        assert pd.api.types.is_string_dtype(table.to_pandas().astype({"symbol": "string"})["symbol"])


def test_symbol_that_the_exchange_does_not_have_has_no_rows_to_return(exchange: SimulatedExchange) -> None:
    table = fetch(exchange, ["BTCUSDT", "BTCUSDX"], on_missing="ignore")
    assert len(table.of("BTCUSDT")) == 24
    with pytest.raises(ConfigurationError, match=r"symbol: 'BTCUSDX' has no rows: .*did you mean 'BTCUSDT'"):
        table.of("BTCUSDX")
    with pytest.raises(ConfigurationError, match="symbol: 'BTCUSD' is not in this table; did you mean"):
        table.of("BTCUSD")


def test_notebook_shows_what_is_not_there(exchange: SimulatedExchange) -> None:
    table = fetch(exchange, ["BTCUSDT", "BTCUSDX"], on_missing="ignore")
    assert "BTCUSDX: unknown symbol; did you mean" in table._repr_html_()
    nothing = fetch(exchange, "BTCUSDT", interval="1M", start="5d", end="now", on_missing="ignore")
    assert "nothing has closed in this span yet" in nothing._repr_html_()
    assert "Not there" not in fetch(exchange, "BTCUSDT")._repr_html_()


def test_span_before_the_listing_is_said_to_be_empty() -> None:
    market = GeneratedMarket(["BTCUSDT"], listed_at=1_780_358_400_000)
    with (
        SimulatedExchange(market) as exchange,
        pytest.warns(IncompleteWarning, match="confirmed empty"),
    ):
        assert not len(fetch(exchange, "BTCUSDT"))
