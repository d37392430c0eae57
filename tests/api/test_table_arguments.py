"""Arguments of tables that cannot mean anything: one clear error each, which names the argument."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import attrs
import numpy as np
import pytest

import marketfetch as mf
from marketfetch.errors import ConfigurationError
from marketfetch.reports import Report
from marketfetch.values.pages import Columns
from tests.support.batches import START
from tests.support.batches import candles as series_of

BTC, ETH = series_of(), series_of("ETHUSDT")
HOURLY = attrs.evolve(BTC, interval=mf.Interval.parse("1h"))
FUNDING = mf.Series.of("binance-usdm", "funding_rate", "BTCUSDT", "event")


def table_of(*many: mf.Series, rows: int = 3) -> mf.Table:
    parts = {}
    for series in many:
        times = START + series.interval.typical * np.arange(rows)
        parts[series] = Columns(times, np.ones((len(series.dataset.columns), rows)))
    return mf.Table(many[0].dataset, parts, Report.empty())


ONE, TWO, EVENTS = table_of(BTC), table_of(BTC, ETH), table_of(FUNDING)
EMPTY = mf.Table(BTC.dataset, {}, Report.empty())
INTERVALS = table_of(BTC, HOURLY)
NO_NAMES: tuple[Any, ...] = (
    None, 0, 1.5, True, "", " ", b"close", ["close"], ("close",), {}, slice(3), np.nan, np.int64(3),
    np.ones(2), object(), timedelta(hours=1), datetime(2026, 6, 1, tzinfo=UTC), Decimal(1), "close\0", ONE,
    "x" * 5000,
)  # fmt: skip
CALLS: dict[str, tuple[Callable[[Any], object], str, tuple[Any, ...]]] = {
    "getitem": (lambda value: TWO[value], "symbol: ", NO_NAMES),
    "of": (TWO.of, "symbol: ", NO_NAMES),
    "index": (lambda value: ONE.to_pandas(index=value), "index: ", NO_NAMES[1:]),
    "column": (TWO.wide, "column", NO_NAMES),
    "theme": (lambda value: ONE.plot(theme=value), "theme: ", NO_NAMES),
    "other": (ONE.join, "other: ", tuple(v for v in NO_NAMES if v is not ONE)),
    "head": (TWO.head, "n: ", (None, -1, 1.5, True, "3", [3], np.nan, np.ones(2), ONE)),
    "tail": (TWO.tail, "n: ", (None, -1, 1.5, True, "3", [3], np.inf, slice(3), ONE)),
    "interval": (
        ONE.resample,
        "interval",
        (
            None,
            0,
            60_000,
            1.5,
            True,
            "",
            "4 hours",
            "event",
            "7s",
            "-1h",
            ["4h"],
            timedelta(0),
            timedelta(-1),
            ONE,
        ),
    ),
    "grid": (
        lambda value: ONE.join(EVENTS, grid=value),
        "grid",
        (0, 1.5, True, "", "1M", "event", "soon", ["1m"], timedelta(0), timedelta(-1), ONE),
    ),
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param(name, value, id=f"{name}-{number}-{type(value).__name__}")
        for name, (_, _, values) in CALLS.items()
        for number, value in enumerate(values)
    ],
)
def test_argument_is_refused_by_name(name: str, value: Any) -> None:
    call, start, _ = CALLS[name]
    with pytest.raises(ConfigurationError, match=f"^{start}") as caught:
        call(value)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("value", [None, True, 0, "", "Raise", "errors", ["warn"], b"warn"], ids=str)
def test_on_missing_is_refused_before_anything_is_read(value: Any) -> None:
    store = mf.MemorySink()
    with pytest.raises(ConfigurationError, match=r"^on_missing: "):
        mf.open(store).table(on_missing=value)
    with pytest.raises(ConfigurationError, match=r"^on_missing: "):
        mf.fetch(
            "binance-usdm", "ohlcv", "BTCUSDT", start="2026-06-01", on_missing=value, base_url="http://x"
        )


@pytest.mark.parametrize(
    ("call", "expected_message"),
    [
        (EMPTY.plot, "plot: the table has no rows; table.report says why"),
        (lambda: ONE.head(0).plot(), "plot: the table has no rows"),
        (TWO.plot, r"plot: .* the table has 2; choose a symbol, such as table\['BTCUSDT'\]"),
        (INTERVALS.plot, "plot: .* the table has 2 of BTCUSDT; take one interval and exchange"),
        (EVENTS.plot, "plot: funding_rate has no candles; join it"),
        (INTERVALS.to_ccxt, "to_ccxt: .* 2 of BTCUSDT; take one interval"),
        (EVENTS.to_ccxt, "column of funding_rate: 'open' is unknown"),
        (lambda: INTERVALS.to_pandas(index="time"), "index: .* 2 of BTCUSDT; take one interval"),
        (lambda: INTERVALS.to_pandas(index="symbol-time"), "index: the table has 2 series of BTCUSDT"),
        (lambda: INTERVALS.wide("close"), "wide: the table has 2 series of BTCUSDT"),
        (lambda: INTERVALS.resample("4h"), "interval: the table has several intervals of BTCUSDT"),
        (lambda: INTERVALS.of("BTCUSDT"), "symbol: the table has 2 series of BTCUSDT"),
        (lambda: EVENTS.resample("4h"), "resample: funding_rate has events"),
        (lambda: EMPTY["BTCUSDT"], "symbol: 'BTCUSDT' is not in this table; none is available"),
        (lambda: ONE.join(table_of(HOURLY)), "other: has 1h rows of BTCUSDT, and this table 1m"),
        (lambda: mf.open(mf.MemorySink()).plot_coverage(theme="night"), "theme|nothing is held|store"),  # type: ignore[arg-type]
    ],
)
def test_a_table_that_a_call_cannot_use_is_refused(call: Callable[[], object], expected_message: str) -> None:
    with pytest.raises(ConfigurationError, match=expected_message):
        call()


def test_calls_that_mean_something_on_an_empty_table() -> None:
    assert len(EMPTY.resample("4h")) == len(EMPTY.join(EVENTS)) == len(EMPTY.head(10**30)) == 0
    assert EMPTY.to_ccxt() == list(EMPTY) == []
    assert EMPTY.wide("close").empty
    assert "BTCUSDT" not in EMPTY


def test_ccxt_has_none_for_null() -> None:
    times, values = np.array([START]), np.full((9, 1), np.nan)
    values[:4] = 1.0
    table = mf.Table(BTC.dataset, {BTC: Columns(times, values)}, Report.empty())
    assert table.to_ccxt() == [[START, 1.0, 1.0, 1.0, 1.0, None]]
