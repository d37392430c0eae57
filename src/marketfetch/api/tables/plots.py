"""Figures of matplotlib: candles of a table, and what a store holds on each day."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal, get_args

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfetch.api.tables.frames import check_one_series
from marketfetch.api.tables.resampling import check_divides, resampled
from marketfetch.common.optional_packages import from_extra
from marketfetch.common.type_checks import is_text
from marketfetch.errors import ConfigurationError, unknown
from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import Dataset
from marketfetch.values.intervals import Interval
from marketfetch.values.pages import Columns
from marketfetch.values.series import Series
from marketfetch.values.spans import DAY, SpanSet

if TYPE_CHECKING:  # heavy and optional: imported where it is used
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Theme", "plot_candles", "plot_coverage"]

Theme = Literal["light", "dark"]

_MAX_CANDLES = 400
"""More candles than this cannot be told apart in a figure; longer ones are shown."""
_FEW_CANDLES = 20
"""Fewer candles than this are drawn as wide as if there were so many."""
_MAX_CELLS = 800
"""More days or series than this have less than a pixel each: some share a cell, so that none is left out."""
_MAX_LABELS = 50
"""More names than this do not fit beside a heat map."""
_LONGER = ("1m", "5m", "15m", "30m", "1h", "2h", "4h", "8h", "12h", "1d", "3d", "1w", "1M")
_PRICES = ("open", "high", "low", "close")


@attrs.frozen
class _Colours:
    """Colours of a figure; the colour-blind can tell up from down, too."""

    back: str
    text: str
    rising: str
    falling: str
    empty: str
    unusable: str


_THEMES = {
    "light": _Colours("#ffffff", "#222222", "#0072b2", "#d55e00", "#c4c4c4", "#cc3399"),
    "dark": _Colours("#161616", "#dddddd", "#56b4e9", "#e69f00", "#5c5c5c", "#d873b5"),
}


def plot_candles(dataset: Dataset, rows: Mapping[Series, Columns], theme: Theme) -> Figure:
    """Return a figure with the candles of one series, its volumes, and its funding rates if it has them."""
    colours = _colours(theme)
    if not {*_PRICES} <= {*dataset.names}:
        raise ConfigurationError(
            f"plot: {dataset.name} has no candles; join it to candles: candles.join(table)"
        )
    check_one_series("plot: a figure shows one series", rows)
    if not any(map(len, rows.values())):
        raise ConfigurationError("plot: the table has no rows; table.report says why")
    ((series, columns),) = rows.items()
    names = [name for name in (*_PRICES, "volume") if name in dataset.names]
    candles, interval = _thinned(dataset, names, columns, series.interval)
    panels = [3.0, *([1.0] if "volume" in names else []), *([1.0] if "funding_rate" in dataset.names else [])]
    figure = _figure(colours, (10, 2.5 + len(panels)))
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=panels)[:, 0]
    for each in axes:
        _apply_colours(each, colours)
    _show_dates(axes[-1], colours)
    axes[0].set_title(f"{series.exchange} {series.symbol} {interval.name}", color=colours.text, loc="left")
    _draw_candles(axes, dict(zip(names, candles.values, strict=False)), candles.times, interval, colours)
    if "funding_rate" in dataset.names:
        rates = columns.values[dataset.index("funding_rate")]
        changes = np.flatnonzero(np.append(True, rates[1:] != rates[:-1]))
        times = np.append(columns.times[changes], columns.times[-1] + series.interval.typical)
        heights = np.append(rates[changes], rates[-1]) * 100
        axes[-1].step(_days(times), heights, where="post", color=colours.text)
        axes[-1].set_ylabel("funding, %", color=colours.text)
    axes[-1].set_xlabel("UTC", color=colours.text)
    return figure


def _draw_candles(
    axes: Any,
    values: Mapping[str, NDArray[np.float64]],
    times: NDArray[np.int64],
    interval: Interval,
    colours: _Colours,
) -> None:
    step = interval.typical / DAY
    middle = times / DAY + step / 2  # days since 1970, as matplotlib counts them
    shades = np.where(values["close"] >= values["open"], colours.rising, colours.falling)
    look = {"width": 0.7 * step, "color": shades, "edgecolor": shades, "linewidth": 0.8}
    axes[0].vlines(middle, values["low"], values["high"], color=shades, linewidth=0.8)
    axes[0].bar(middle, values["close"] - values["open"], bottom=values["open"], **look)
    if "volume" in values:
        axes[1].bar(middle, values["volume"], **look)
        axes[1].set_ylabel("volume", color=colours.text)
    beside = step * max(1.0, (_FEW_CANDLES - len(middle)) / 2)
    axes[0].set_xlim(middle[0] - beside, middle[-1] + beside)


def _thinned(
    dataset: Dataset, names: list[str], columns: Columns, interval: Interval
) -> tuple[Columns, Interval]:
    """Return the columns of these names, resampled if there are too many rows to be seen."""
    kept = attrs.evolve(dataset, columns=tuple(dataset.columns[dataset.index(name)] for name in names))
    rows = Columns(columns.times, columns.values[[dataset.index(name) for name in names]])
    longest = interval
    for name in _LONGER if len(rows) > _MAX_CANDLES else ():
        target = Interval.parse(name)
        if target.typical <= interval.typical or not _divides(interval, target):
            continue
        longest = target
        if np.count_nonzero(np.diff(target.floors(rows.times))) < _MAX_CANDLES:
            break
    if longest == interval:
        return rows, interval
    return resampled(kept, rows, interval, longest, None), longest


def _divides(source: Interval, target: Interval) -> bool:
    try:
        check_divides(source, target)
    except ConfigurationError:
        return False
    return True


def plot_coverage(ledger: Mapping[Series, Coverage], theme: Theme) -> Figure:
    """Return a heat map, series × days: the shares of held, missing, confirmed empty and unusable moments."""
    colours = _colours(theme)
    hull = SpanSet.of(*(known.covered.hull for known in ledger.values())).hull
    if hull is None:
        raise ConfigurationError("plot_coverage: nothing is held of the chosen series")
    start, end = hull.start // DAY, -(-hull.end // DAY)
    edges = np.append(np.arange(start, end, -(-(end - start) // _MAX_CELLS)), end) * DAY
    shades = {
        "held": colours.rising,
        "confirmed empty": colours.empty,
        "unusable": colours.unusable,
        "missing": colours.falling,
    }
    figure = _figure(colours, (10, 1.5 + 0.25 * min(len(ledger), _MAX_LABELS)))
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    palette = np.array([to_rgb(shade) for shade in shades.values()])
    picture = np.array([_shares(known, edges) @ palette for known in ledger.values()])
    together = np.arange(0, len(ledger), -(-len(ledger) // _MAX_CELLS))
    counts = np.diff(np.append(together, len(ledger)))
    picture = np.add.reduceat(picture, together) / counts[:, None, None]
    axes = figure.subplots()
    _apply_colours(axes, colours)
    first, last = (edges[at] / DAY for at in (0, -1))
    axes.imshow(
        picture.clip(0, 1),
        aspect="auto",
        interpolation="nearest",
        extent=(first, last, len(ledger) - 0.5, -0.5),
    )
    named = -(-len(ledger) // _MAX_LABELS)
    axes.set_yticks(range(0, len(ledger), named), [_label(series) for series in list(ledger)[::named]])
    if named > 1:
        axes.set_title(f"{len(ledger):,} series; one of {named} is named", color=colours.text, loc="left")
    axes.xaxis_date()
    _show_dates(axes, colours)
    axes.set_xlabel("UTC", color=colours.text)
    figure.legend(
        handles=[Patch(color=shade, label=name) for name, shade in shades.items()],
        loc="outside upper center",
        ncols=len(shades),
        labelcolor=colours.text,
        facecolor=colours.back,
    )
    return figure


def _shares(known: Coverage, edges: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the shares between two edges each, shape (edges - 1, 4): held, empty, unusable, missing."""
    held, empty, unusable = (
        np.diff(_length_before(spans, edges)) / np.diff(edges)
        for spans in (known.present, known.empty, known.unusable)
    )
    return np.stack((held, empty, unusable, 1 - held - empty - unusable), axis=1)


def _length_before(spans: SpanSet, edges: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return how many milliseconds of a set of spans lie before each edge."""
    if not spans:
        return np.zeros(len(edges))
    bounds = np.array([(span.start, span.end) for span in spans], np.float64)
    after = np.cumsum(bounds[:, 1] - bounds[:, 0])
    before = np.append(0.0, after[:-1])
    lengths: NDArray[np.float64] = np.interp(edges, bounds.ravel(), np.stack((before, after), axis=1).ravel())
    return lengths


def _label(series: Series) -> str:
    return f"{series.symbol} {series.dataset.name} {series.interval.name}"


def _colours(theme: Theme) -> _Colours:
    if not is_text(theme) or theme not in _THEMES:
        raise unknown("theme", theme, get_args(Theme))
    return _THEMES[theme]


def _figure(colours: _Colours, size: tuple[float, float]) -> Figure:
    """Return a figure that a notebook shows; pyplot does not know the figure, so it need not be closed."""
    with from_extra("plot", "plot"):
        from matplotlib.figure import Figure

    class NotebookFigure(Figure):
        def _repr_png_(self) -> bytes:
            picture = BytesIO()
            self.savefig(picture, format="png")
            return picture.getvalue()

    return NotebookFigure(figsize=size, layout="constrained", facecolor=colours.back)


def _apply_colours(axes: Axes, colours: _Colours) -> None:
    axes.set_facecolor(colours.back)
    axes.tick_params(colors=colours.text)
    for spine in axes.spines.values():
        spine.set_color(colours.text)


def _show_dates(axes: Axes, colours: _Colours) -> None:
    """Write days and hours in full only where they change."""
    dates: Any = import_module("matplotlib.dates")  # without types
    locator = dates.AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
    axes.xaxis.get_offset_text().set_color(colours.text)


def _days(times: NDArray[np.int64]) -> NDArray[np.datetime64]:
    return times.astype("datetime64[ms]")
