"""Binance's `metrics` files: five years of statistics, of which the API serves 30 days.

A file has one day in rows of 5m. Its columns are `create_time` (a text in UTC), `symbol`,
`sum_open_interest`, `sum_open_interest_value`, three ratios of long to short (accounts of top traders, their
positions, all accounts) and the ratio of taker volumes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import attrs
import numpy as np

from marketfetch.adapter import (
    MINUTE,
    Columns,
    CsvLayout,
    DecodedRows,
    DecodeError,
    Grain,
    Interval,
    Series,
    Span,
)
from marketfetch.adapters.binance import BinanceFiles, same_names

__all__ = ["AccountRatioLayout", "MetricsFiles", "MetricsLayout"]

_PERIOD = 5 * MINUTE


@attrs.frozen
class MetricsLayout(CsvLayout):
    r"""Where the columns are in metrics; the time of a row becomes the end of its period, as in the API.

    `create_time` is the start of a period in files of the days from `starts_since` (UTC milliseconds) on, and
    its end in older ones. Example: the snapshot of 25 June 00:05 is labelled 00:05 by ends, 00:00 by starts.

    >>> series = Series.of("binance-usdm", "open_interest", "BTCUSDT", "5m")
    >>> text = [b"2026-06-25 00:00:00,BTCUSDT,98666.163,2236289208.2,,,,\n"]
    >>> layout = MetricsLayout({"open_interest": 2, "open_interest_value": 3}, starts_since=1_782_345_600_000)
    >>> (rows,) = layout.decode(text, series, Span(1_782_345_900_000, 1_782_432_300_000))
    >>> rows.columns.times, rows.columns.values[:, 0]
    (array([1782345900000]), array([9.86661630e+04, 2.23628921e+09]))
    """

    width: int = 8
    time_format: str | None = "%Y-%m-%d %H:%M:%S"
    symbol: int | None = 1
    starts_since: int = 0

    def decode(self, pieces: Iterable[bytes], series: Series, span: Span) -> Iterator[DecodedRows]:
        """Yield the rows of a day.

        Raises DecodeError as CsvLayout does, and if the labels are those of the other kind: by ends, a day
        has no row of 00:00, and by starts none of 00:00 of the next day.
        """
        by_starts = span.start >= self.starts_since
        blocks = [
            _later(block, _PERIOD if by_starts else 0) for block in super().decode(pieces, series, span)
        ]
        times = {time for block in blocks for time in block.columns.times.tolist()}
        first, last = span.start, span.end - _PERIOD
        own, foreign = (first, span.end) if by_starts else (last, first - _PERIOD)
        if foreign in times and own not in times:
            kind = "starts" if by_starts else "ends"
            raise DecodeError(
                f"expected times of the {kind} of periods in metrics of {span}, found the others"
            )
        yield from blocks


@attrs.frozen
class AccountRatioLayout(MetricsLayout):
    """Metrics with the two shares that follow from the ratio of all accounts, to four decimals as in the API.

    Long and short accounts are all accounts: of a ratio r, r / (1 + r) are long. Example: 1.5 → 0.6 and 0.4.
    """

    def decode(self, pieces: Iterable[bytes], series: Series, span: Span) -> Iterator[DecodedRows]:
        """Yield the rows of a day; DecodeError as MetricsLayout."""
        for decoded in super().decode(pieces, series, span):
            ratio, long, short = decoded.columns.values
            with np.errstate(all="ignore"):  # a wrong ratio is refused with its row
                long[:] = np.round(ratio / (1 + ratio), 4)
                short[:] = np.round(1 - long, 4)
            yield decoded


class MetricsFiles(BinanceFiles, abstract=True):
    """Zips of metrics, one for each day.

    The day of a file begins five minutes after midnight, and ends with the row of the next midnight: that is
    its last period's end.
    """

    intervals = same_names("5m")
    utc_offset = -_PERIOD

    def grains(self, interval: Interval) -> Sequence[Grain]:
        """Return days: there are no monthly files."""
        return ("day",) if interval.name in self.intervals else ()

    def folder(self, series: Series, grain: Grain) -> str:
        """Return the folder, such as `data/futures/um/daily/metrics/BTCUSDT/`."""
        return f"data/{self.market}/daily/metrics/{series.symbol}/"

    def stem(self, series: Series) -> str:
        """Return the beginning of the names, such as `BTCUSDT-metrics-`."""
        return f"{series.symbol}-metrics-"


def _later(decoded: DecodedRows, shift: int) -> DecodedRows:
    """Move all rows by so many milliseconds."""
    columns = Columns(decoded.columns.times + shift, decoded.columns.values)
    broken = [attrs.evolve(row, time=row.time + shift) for row in decoded.broken]
    return attrs.evolve(decoded, columns=columns, broken=broken)
