"""What a Parquet store forgets, what it keeps of unusable rows, and what it costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketfetch.protocols import SupportsForget, SupportsRejected
from marketfetch.sinks.parquet.sink import ParquetSink
from marketfetch.values.coverage import Coverage
from marketfetch.values.pages import Batch, Columns, RejectedRow
from marketfetch.values.spans import Span, SpanSet
from tests.support.batches import EVER, MINUTE, START, batch, candles

MONTH = 31 * 1440


def minutes(first: int, last: int) -> SpanSet:
    return SpanSet.of(Span(START + first * MINUTE, START + last * MINUTE))


def unusable(first: int, last: int, reason: str = "impossible") -> Batch:
    spans = minutes(first, last)
    rows = tuple(RejectedRow(START + at * MINUTE + 7, reason, f"[{at}]") for at in range(first, last))
    return Batch(candles(), Columns.empty(candles().dataset), Coverage(spans, unusable=spans), rows)


def filled(folder: Path) -> ParquetSink:
    store = ParquetSink(folder)
    assert isinstance(store, SupportsForget)
    assert isinstance(store, SupportsRejected)
    with store.writer() as take:
        take(batch(candles(), range(MONTH - 10, MONTH + 10), open=np.arange(20)))
    return store


@pytest.mark.parametrize("rows", [False, True])
def test_moments_on_both_sides_of_a_border_are_forgotten(tmp_path: Path, *, rows: bool) -> None:
    store = filled(tmp_path)
    store.forget(candles(), minutes(MONTH - 3, MONTH + 2), rows=rows)
    kept = minutes(MONTH - 10, MONTH - 3) | minutes(MONTH + 2, MONTH + 10)
    assert store.coverage([candles()])[candles()] == Coverage(kept)
    assert len(store.read(candles(), EVER)) == (15 if rows else 20)
    before = {path: path.stat().st_ino for path in tmp_path.rglob("*.parquet")}
    store.forget(candles(), minutes(MONTH - 3, MONTH + 2), rows=rows)
    assert {path: path.stat().st_ino for path in tmp_path.rglob("*.parquet")} == before
    with store.writer() as take:
        take(batch(candles(), range(MONTH - 3, MONTH + 2), open=7))
    assert store.coverage([candles()])[candles()] == Coverage(minutes(MONTH - 10, MONTH + 10))
    assert store.read(candles(), EVER).values[0][7:12].tolist() == [7.0] * 5


def test_when_all_is_forgotten_nothing_is_left(tmp_path: Path) -> None:
    store = filled(tmp_path)
    empty = minutes(3 * MONTH, 6 * MONTH)
    with store.writer() as take:
        take(Batch(candles(), Columns.empty(candles().dataset), Coverage(empty, empty)))
        take(unusable(0, 3))
    store.forget(candles(), SpanSet.of(EVER), rows=True)
    assert not list(tmp_path.rglob("*.parquet"))
    assert store.ledger() == {}
    assert store.coverage([candles()]) == {candles(): Coverage()}
    assert not store.rejected(candles(), EVER)


def test_rows_outlive_what_is_known_of_them(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.forget(candles(), SpanSet.of(EVER))
    assert store.coverage([candles()])[candles()] == Coverage()
    assert len(store.read(candles(), EVER)) == 20


def test_what_is_not_known_is_forgotten_without_a_trace(tmp_path: Path) -> None:
    store = ParquetSink(tmp_path / "market")
    store.forget(candles(), SpanSet.of(EVER), rows=True)
    assert not list(tmp_path.iterdir())
    store = filled(tmp_path)
    before = store.coverage([candles()])
    store.forget(candles("ETHUSDT"), SpanSet.of(EVER), rows=True)
    store.forget(candles(), minutes(0, 5), rows=True)
    store.forget(candles(), SpanSet(), rows=True)
    assert store.coverage([candles()]) == before
    assert list(store.ledger()) == [candles()]


def test_rejected_rows_are_kept_until_their_moments_are_present_or_forgotten(tmp_path: Path) -> None:
    store = ParquetSink(tmp_path)
    with store.writer() as take:
        take(unusable(MONTH - 2, MONTH + 3))
        take(unusable(MONTH - 2, MONTH + 3))
        rows = store.rejected(candles(), EVER)
        assert rows == list(unusable(MONTH - 2, MONTH + 3).rejected)
        span = Span(rows[1].time, rows[3].time)
        assert store.rejected(candles(), span) == rows[1:3]
        take(batch(candles(), [MONTH - 1], open=1))
        assert [row.raw for row in store.rejected(candles(), EVER)] == [rows[at].raw for at in (0, 2, 3, 4)]
        known = store.coverage([candles()])[candles()]
        assert known.unusable == minutes(MONTH - 2, MONTH - 1) | minutes(MONTH, MONTH + 3)
        store.forget(candles(), minutes(MONTH, MONTH + 1))
        assert [row.raw for row in store.rejected(candles(), EVER)] == [rows[at].raw for at in (0, 3, 4)]
        empty = minutes(MONTH - 2, MONTH + 3)
        take(Batch(candles(), Columns.empty(candles().dataset), Coverage(empty, empty)))
        assert len(store.rejected(candles(), EVER)) == 3, "that there is a wrong row beats that there is none"
    assert store.coverage([candles()])[candles()].empty == minutes(MONTH, MONTH + 1)


@st.composite
def steps(draw: st.DrawFn) -> tuple[str, int, int]:
    kind = draw(st.sampled_from(["rows", "empty", "unusable", "forget", "forget rows"]))
    first = draw(st.integers(-2 * MONTH, 3 * MONTH))
    return kind, first, first + draw(st.sampled_from([1, 5, 40, MONTH, 2 * MONTH + 7]))


@settings(max_examples=25, deadline=None)
@given(st.lists(steps(), max_size=6))
def test_files_say_what_one_coverage_would(
    tmp_path_factory: pytest.TempPathFactory, told: list[tuple[str, int, int]]
) -> None:
    store, known, rows = ParquetSink(tmp_path_factory.mktemp("market")), Coverage(), set[int]()
    with store.writer() as take:
        for kind, first, last in told:
            spans = minutes(first, last)
            nothing = Columns.empty(candles().dataset)
            if kind == "rows":
                one = batch(candles(), range(first, min(last, first + 50)), open=1)
                take(one)
                known |= one.coverage
                rows |= set(one.columns.times.tolist())
            elif kind.startswith("forget"):
                store.forget(candles(), spans, rows=kind == "forget rows")
                known = known.without(spans)
                rows -= {time for time in rows if time in spans} if kind == "forget rows" else set()
            else:
                verdict = {"empty": spans} if kind == "empty" else {"unusable": spans}
                take(Batch(candles(), nothing, Coverage(spans, **verdict)))
                known |= Coverage(spans, **verdict)
            assert store.coverage([candles()])[candles()] == known
    assert store.ledger().get(candles(), Coverage()) == known
    assert store.read(candles(), EVER).times.tolist() == sorted(rows)
