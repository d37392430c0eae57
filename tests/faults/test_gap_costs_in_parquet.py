"""What a batch costs a Parquet store does not grow with the gaps that it holds, nor with the history."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from marketfetch.sinks.files.atomic_files import replace_file
from marketfetch.sinks.parquet.sink import ParquetSink
from marketfetch.values.coverage import Coverage
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.spans import Span, SpanSet
from tests.support.batches import MINUTE, START, batch, candles

DAY = 1440


@attrs.define
class Work:
    """Spans that are made, files that are read, and files that are written."""

    spans: int = 0
    read: list[str] = attrs.field(factory=list)
    written: list[str] = attrs.field(factory=list)


@contextmanager
def counted() -> Iterator[Work]:
    work = Work()
    check, opened = Span.__attrs_post_init__, Path.open

    def counting(self: Span) -> None:
        work.spans += 1
        check(self)

    def opening(self: Path, mode: str = "r", *given: Any, **named: Any) -> Any:
        if mode == "rb" and self.suffix == ".parquet":
            work.read.append(self.name)
        return opened(self, mode, *given, **named)

    def replacing(file: Path, write: Callable[[Any], object], aside: Path | None = None) -> None:
        work.written.append(file.name)
        replace_file(file, write, aside)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Span, "__attrs_post_init__", counting)
        patch.setattr(Path, "open", opening)
        patch.setattr("marketfetch.sinks.parquet.series_folder.replace_file", replacing)
        yield work


def every_second_minute(first: int, last: int) -> Batch:
    """Rows of every second minute between two days, the others confirmed empty or not known."""
    return batch(candles(), range(first * DAY, last * DAY, 2), open=1)


@pytest.mark.parametrize("empty", [False, True])
def test_one_minute_more(tmp_path: Path, *, empty: bool) -> None:
    costs: list[Work] = []
    for gaps in (0, 10, 10_000):
        store = ParquetSink(tmp_path / str(gaps))
        rows = batch(candles(), range(0, 2 * gaps, 2), open=1)
        covered = SpanSet.of(Span(START, START + 2 * max(gaps, 1) * MINUTE))
        with store.writer() as take:
            if empty and gaps:
                take(Batch(candles(), rows.columns, Coverage(covered, covered - rows.coverage.covered)))
            else:
                take(rows if gaps else batch(candles(), [0], open=1))
            with counted() as work:
                take(batch(candles(), [30_000], open=2))
        costs.append(work)
        assert work.read.count("2020-01.parquet") == 1
        assert work.written == ["2020-01.parquet"]
    assert costs[0].spans <= costs[2].spans <= costs[1].spans + 5 <= 80


def test_in_the_middle_of_the_gaps(tmp_path: Path) -> None:
    store = ParquetSink(tmp_path)
    with store.writer() as take:
        take(every_second_minute(0, 30))
        with counted() as work:
            take(batch(candles(), [10_001], open=2))
    assert work.spans <= 80
    known = store.coverage([candles()])[candles()]
    assert len(known.covered) == 30 * DAY // 2 - 1
    assert len(store.read(candles(), Span(START, START + 30 * DAY * MINUTE))) == 30 * DAY // 2 + 1


def test_with_years_of_files_around_it(tmp_path: Path) -> None:
    """Daily files of seconds: of hundreds, a batch opens its own and the ledger."""
    store, series = ParquetSink(tmp_path), candles(interval="1s")
    days = START + 86_400_000 * np.arange(120)
    with store.writer() as take:
        take(Batch(series, Columns(days, np.ones((9, 120))), Coverage(series.interval.cover(days))))
        with counted() as work:
            times = days[60:61] + 1000
            take(Batch(series, Columns(times, np.ones((9, 1))), Coverage(series.interval.cover(times))))
    assert sorted(work.read) == ["2020-03-01.parquet", "_ledger.parquet"]
    assert work.written == ["2020-03-01.parquet"]
    assert work.spans <= 80


def test_other_series_are_not_looked_at(tmp_path: Path) -> None:
    store = ParquetSink(tmp_path)
    with store.writer() as take:
        for number in range(20):
            take(batch(candles(f"S{number}"), range(0, 200, 2), open=1))
        with counted() as work:
            take(batch(candles("S7"), [300], open=2))
            assert store.coverage([candles("S7")])
    assert set(work.read) == {"2020-01.parquet", "_ledger.parquet"}
    assert len(work.read) == 4


def test_emptiness_of_centuries_is_one_entry(tmp_path: Path) -> None:
    store = ParquetSink(tmp_path)
    empty = SpanSet.of(Span(START - 2**45, START))
    with counted() as work, store.writer() as take:
        take(Batch(candles(), Columns.empty(candles().dataset), Coverage(empty, empty)))
    assert len(work.written) <= 3
    assert work.spans <= 200
    assert store.coverage([candles()])[candles()] == Coverage(empty, empty)
