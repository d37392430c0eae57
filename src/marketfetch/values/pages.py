"""Rows as columns: Columns, Page and Batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfetch.common.arrow import arrow_schema, arrow_stream, record_batch
from marketfetch.values.archives import Provenance
from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import Dataset
from marketfetch.values.rejected_rows import RejectedRow
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet

__all__ = ["Batch", "Columns", "Page", "RejectedRow", "edges_of", "in_edges", "in_spans", "same_values"]


def edges_of(spans: SpanSet) -> NDArray[np.int64]:
    """Return the starts and the ends of all spans, in order, for many calls of `in_edges`."""
    return np.array([edge for span in spans for edge in (span.start, span.end)], np.int64)


def in_edges(times: NDArray[np.int64], edges: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell of each time whether it lies between edges: whether an odd number of them is not after it."""
    return np.equal(np.searchsorted(edges, times, "right") % 2, 1)


def in_spans(times: NDArray[np.int64], spans: SpanSet) -> NDArray[np.bool_]:
    """Tell of each time whether it lies in a set."""
    return in_edges(times, edges_of(spans))


def same_values(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell of each value whether the other one is equal; NULL is equal to NULL."""
    return np.equal(one, other) | (np.isnan(one) & np.isnan(other))


@attrs.frozen(eq=False)
class Columns:
    """Rows of one series, column by column.

    `times` are open times, shape (n,), int64, UTC milliseconds. `values` has one line for each column of
    the dataset, shape (columns, n), float64; NaN stands for NULL.
    """

    times: NDArray[np.int64]
    values: NDArray[np.float64]

    def __attrs_post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.shape[1] != len(self.times):
            raise ValueError(f"values of shape {self.values.shape} do not fit {len(self.times)} times")

    @classmethod
    def empty(cls, dataset: Dataset) -> Columns:
        """Make columns without rows."""
        return cls(np.empty(0, np.int64), np.empty((len(dataset.columns), 0), np.float64))

    @classmethod
    def join(cls, parts: Sequence[Columns]) -> Columns:
        """Concatenate one or more parts and sort them by time; of rows with equal times the last one stays.

        >>> late, early = (Columns(np.array([t]), np.array([[float(t)]])) for t in (2, 1))
        >>> Columns.join([late, early]).times
        array([1, 2])
        """
        if len(parts) == 1 and parts[0].is_sorted:
            return parts[0]
        # Pages may have come in another order. Mostly it is enough to sort the pages, without their rows.
        by_start = sorted((part for part in parts if len(part)), key=lambda part: int(part.times[0]))
        joined = cls._concatenated(by_start or parts)
        if joined.is_sorted:
            return joined
        joined = cls._concatenated(parts)
        times, values = joined.times, joined.values
        order = np.argsort(times, kind="stable")
        times = times[order]
        last = np.append(times[1:] != times[:-1], True)  # numpy's own signature
        return cls(times[last], values[:, order[last]])

    @classmethod
    def _concatenated(cls, parts: Sequence[Columns]) -> Columns:
        times = np.concatenate([part.times for part in parts])
        return cls(times, np.concatenate([part.values for part in parts], axis=1))

    @property
    def is_sorted(self) -> bool:
        """Whether times strictly increase."""
        return bool(np.all(self.times[1:] > self.times[:-1]))

    def take(self, rows: NDArray[np.bool_] | NDArray[np.intp] | slice) -> Columns:
        """Return the chosen rows."""
        return Columns(self.times[rows], self.values[:, rows])

    def within(self, spans: SpanSet) -> Columns:
        """Return the rows whose times lie in a set of spans.

        >>> from marketfetch.adapter import Span
        >>> columns = Columns(np.array([1, 5, 9]), np.zeros((1, 3)))
        >>> columns.within(SpanSet.of(Span(4, 9))).times
        array([5])
        """
        return self.take(in_spans(self.times, spans))

    def __len__(self) -> int:
        return len(self.times)


@attrs.frozen(eq=False)
class Page:
    """The sound rows of one response, and an account of its other rows.

    - `columns`: rows that may be stored: inside the window, on the grid, closed, possible, sorted, unique.
    - `rejected`: the number of all other rows, by reason.
    - `without_sound_row`: moments that have rows, but no sound one. They are neither present nor absent.
    - `invalid`: the rows of these moments that are wrong for good, such as one off the grid. A row that is
      unfinished or without a value may become right, and is not among them.
    """

    columns: Columns
    rejected: Mapping[str, int] = attrs.field(factory=dict)
    without_sound_row: SpanSet = attrs.field(factory=SpanSet)
    received: int = 0
    """How many rows the answer held, sound or not."""
    has_rows_outside: bool = False
    """Whether the page has rows outside the asked window: such a page denies no moment."""
    cursor: str | None = None
    """The token of the next page, for endpoints that page by token."""
    invalid: tuple[RejectedRow, ...] = ()
    storable: Columns | None = None
    """The invalid rows that a store could hold all the same; None if there are none."""
    earliest: int | None = None
    """The time of the earliest row inside the asked window, sound or not; None if there is none."""

    @property
    def may_become_right(self) -> bool:
        """Whether rows were rejected, and all of them only because the exchange has no final value yet."""
        return bool(self.rejected) and self.rejected.keys() <= {"unfinished", "without a value"}


@attrs.frozen(eq=False)
class Batch:
    """Rows of one series and the coverage that they prove, written in one transaction.

    `rejected` are the wrong rows of the moments in `coverage.unusable`. `provenance` names the file of an
    archive from which the rows came; it is None for rows of an API.
    """

    series: Series
    columns: Columns
    coverage: Coverage
    rejected: tuple[RejectedRow, ...] = ()
    provenance: Provenance | None = None

    @classmethod
    def of_coverage(cls, series: Series, coverage: Coverage) -> Batch:
        """Make a batch without rows."""
        return cls(series, Columns.empty(series.dataset), coverage)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.columns)

    def split(self, rows: int) -> tuple[Batch, Batch]:
        """Return two batches that are written one after the other, the first with so many rows.

        `rows` is at least 1 and less than all; the times strictly increase. The coverage and the rejected
        rows are split at the time of the first row of the second batch. Both have the provenance. The rows of
        the second batch are a copy: they do not keep the memory of the first one.

        >>> series = Series.of("binance-spot", "index_price", "BTCUSDT", "1m")
        >>> columns = Columns(np.array([0, 60_000]), np.zeros((4, 2)))
        >>> first, second = Batch(series, columns, Coverage(SpanSet.of(Span(0, 120_000)))).split(1)
        >>> print(first.coverage)
        covered [1970-01-01T00:00:00Z, 1970-01-01T00:01:00Z)
        """
        time = int(self.columns.times[rows])
        covered = self.coverage.covered.hull
        later = Span(time, covered.end) if covered and time < covered.end else None
        first = attrs.evolve(
            self,
            columns=self.columns.take(slice(rows)),
            coverage=self.coverage.without(SpanSet.of(later)),
            rejected=tuple(row for row in self.rejected if row.time < time),
        )
        second = attrs.evolve(
            self,
            columns=self.columns.take(np.arange(rows, self.rows)),
            coverage=self.coverage.within(later) if later else Coverage(),
            rejected=tuple(row for row in self.rejected if row.time >= time),
        )
        return first, second

    def __arrow_c_schema__(self) -> object:
        """Return the schema as an Arrow PyCapsule; needs the extra `parquet`."""
        return arrow_schema(self.series.dataset.kinds).__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Return the rows as an Arrow PyCapsule, so that `polars.DataFrame(batch)` works.

        They have the columns of a Table. Needs the extra `parquet`.
        """
        schema, series = arrow_schema(self.series.dataset.kinds), self.series
        keys = (series.exchange, series.symbol, series.interval.name)
        return arrow_stream(
            [record_batch(schema, keys, self.columns.times, self.columns.values)], schema, requested_schema
        )
