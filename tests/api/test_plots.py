"""Figures of tables and of coverage."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

import marketfetch as mf
from marketfetch.api.tables.plots import plot_coverage
from marketfetch.errors import ConfigurationError
from marketfetch.reports import Report
from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import datasets
from marketfetch.values.pages import Batch, Columns
from tests.support.batches import MINUTE, START, candles

pytest.importorskip("matplotlib")
DAY = 1440 * MINUTE
BTC, ETH = candles(), candles("ETHUSDT")
FUNDING = mf.Series.of("binance-usdm", "funding_rate", "BTCUSDT", "event")


def table_of(count: int, series: mf.Series = BTC) -> mf.Table:
    times = START + series.interval.typical * np.arange(count)
    values = np.tile(5.0 + np.sin(np.arange(count)), (len(series.dataset.columns), 1))
    return mf.Table(series.dataset, {series: Columns(times, values)}, Report.empty())


def bars(axes: Any) -> int:
    """Return how many bars are drawn."""
    return len(axes.patches)


def funded(count: int) -> mf.Table:
    rows = Columns(np.array([START]), np.array([[1e-4], [5.0], [np.nan]]))
    return table_of(count).join(mf.Table(FUNDING.dataset, {FUNDING: rows}, Report.empty()))


@pytest.mark.parametrize(("theme", "lightness"), [("light", 1.0), ("dark", 0.1)])
def test_candles_volumes_and_funding(theme: Any, lightness: float, tmp_path: Path) -> None:
    figure = funded(50).plot(theme=theme)
    prices, volumes, funding = figure.axes
    assert prices.get_title(loc="left") == "binance-usdm BTCUSDT 1m"
    assert (volumes.get_ylabel(), funding.get_ylabel()) == ("volume", "funding, %")
    assert bars(prices) == bars(volumes) == 50
    assert figure.get_facecolor()[0] == pytest.approx(lightness, abs=0.05)
    assert np.asarray(funding.lines[0].get_ydata()).tolist() == pytest.approx([0.01, 0.01])
    figure.savefig(tmp_path / "candles.png")


@pytest.mark.parametrize("count", [1, 2, 400])
def test_few_rows_are_shown_as_they_are(count: int) -> None:
    assert bars(table_of(count).plot().axes[0]) == count


@pytest.mark.parametrize(("count", "interval"), [(401, "5m"), (200_000, "12h"), (1_000_000, "3d")])
def test_many_rows_are_shown_as_longer_candles(count: int, interval: str) -> None:
    prices = table_of(count).plot().axes[0]
    assert prices.get_title(loc="left").endswith(f" {interval}")
    assert 0 < bars(prices) <= 400


def test_a_table_of_months_is_not_resampled() -> None:
    months = attrs.evolve(BTC, interval=mf.Interval.parse("1M"))
    assert bars(table_of(500, months).plot().axes[0]) == 500


def test_a_notebook_shows_the_figure_by_itself() -> None:
    assert table_of(5).plot()._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]


def test_what_cannot_be_shown_is_refused() -> None:
    rows = {**table_of(5).rows, **table_of(5, ETH).rows}
    with pytest.raises(
        ConfigurationError, match="plot: a figure shows one series, and the table has 2; choose a symbol"
    ):
        mf.Table(BTC.dataset, rows, Report.empty()).plot()
    with pytest.raises(ConfigurationError, match="plot: the table has no rows"):
        table_of(0).plot()
    with pytest.raises(ConfigurationError, match="plot: funding_rate has no candles; join it"):
        mf.Table(FUNDING.dataset, {FUNDING: Columns.empty(FUNDING.dataset)}, Report.empty()).plot()
    with pytest.raises(ConfigurationError, match="theme: 'drak' is unknown; did you mean 'dark'"):
        table_of(5).plot(theme="drak")  # type: ignore[arg-type]


def test_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigurationError, match=r"pip install 'marketfetch\[plot\]'"):
        table_of(5).plot()


def store_of(*held: tuple[mf.Series, Coverage]) -> mf.MemorySink:
    store = mf.MemorySink()
    store.prepare(list(datasets().values()))
    with store.writer() as write:
        for series, known in held:
            write(Batch(series, Columns.empty(series.dataset), known))
    return store


def test_coverage_is_a_heat_map_of_days() -> None:
    day = [mf.SpanSet.of(mf.Span(START + n * DAY, START + (n + 1) * DAY)) for n in range(4)]
    noon = mf.SpanSet.of(mf.Span(START + 3 * DAY, START + 3 * DAY + DAY // 2))
    market = mf.open(store_of((BTC, Coverage(day[0] | day[2] | noon, empty=day[2])), (ETH, Coverage(day[1]))))
    figure = market.plot_coverage("ohlcv")
    picture = np.asarray(figure.axes[0].images[0].get_array())
    assert picture.shape == (2, 4, 3)
    held, missing, empty, half = picture[0]
    assert half.tolist() == pytest.approx(((held + missing) / 2).tolist())
    assert picture[1].tolist() == [missing.tolist(), held.tolist(), missing.tolist(), missing.tolist()]
    assert empty.tolist() not in (held.tolist(), missing.tolist())
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["BTCUSDT ohlcv 1m", "ETHUSDT ohlcv 1m"]
    (one,) = market.plot_coverage("ohlcv", "btcusdt", theme="dark").axes[0].images
    assert np.asarray(one.get_array()).shape == (1, 4, 3)


@pytest.mark.parametrize(("series", "days"), [(1, 1), (51, 3), (601, 3000), (1700, 2)])
def test_no_day_and_no_series_is_left_out(series: int, days: int) -> None:
    whole = mf.SpanSet.of(mf.Span(START, START + days * DAY))
    ledger = {candles(f"S{number}"): Coverage(whole) for number in range(series)}
    clean = np.asarray(plot_coverage(ledger, "light").axes[0].images[0].get_array())
    assert clean.shape[0] <= 800
    assert clean.shape[1] <= 800
    gap = mf.SpanSet.of(mf.Span(START + (days - 1) * DAY, START + days * DAY))
    ledger[candles(f"S{series // 2}")] = Coverage(whole - gap if days > 1 else whole, empty=gap)
    figure = plot_coverage(ledger, "light")
    assert np.count_nonzero(np.any(np.asarray(figure.axes[0].images[0].get_array()) != clean, axis=2)) == 1
    assert len(figure.axes[0].get_yticks()) <= 50
    assert figure.get_figheight() <= 14


def test_coverage_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="plot_coverage: nothing is held"):
        plot_coverage({BTC: Coverage()}, "light")
