"""The store contract for the ledger: coverage, rejected rows, forgetting, scale, formats."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from itertools import count, permutations
from operator import or_
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketfetch.errors import SinkError
from marketfetch.protocols import Store, SupportsForget, SupportsProvenance, SupportsRejected
from marketfetch.testing.contracts.sink_cases import (
    EVER,
    MINUTE,
    START,
    batch_of,
    batch_without_rows,
    column_of,
    coverages,
    minutes,
    same,
    series_of,
    write,
)
from marketfetch.values.coverage import Coverage
from marketfetch.values.pages import Batch, Columns, RejectedRow
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet

__all__ = ["LedgerContract"]

_EMPTY, _UNUSABLE, _PRESENT = range(3)


class LedgerContract:
    """Tests 22 to 32 of `SinkContract`; tests of an optional protocol are skipped for stores without it."""

    lasting: ClassVar[bool]

    def make_store(self, place: Path) -> Store:
        """Return the store of a path; see `SinkContract`."""
        raise NotImplementedError("override make_store(place)")

    def write_format(self, place: Path, version: int) -> int:
        """Change the format version of the store at a path, and return the former version.

        Do not override this for a store without a format version.
        """
        pytest.skip("this store has no format version")

    # --- verdicts ---

    @pytest.mark.parametrize("order", [*permutations((_EMPTY, _UNUSABLE, _PRESENT))])
    def test_22_the_stronger_verdict_stands_in_whatever_order(
        self, store: Store, order: tuple[int, ...]
    ) -> None:
        """A stored row replaces "unusable", and "unusable" replaces "empty", in any order."""
        series = series_of()
        learnt = (
            batch_without_rows(series, empty=[minutes(0, 9)]),
            batch_without_rows(series, unusable=[minutes(3, 9)]),
            batch_of(series, range(6, 9)),
        )
        write(store, *(learnt[number] for number in order))
        assert store.coverage([series])[series] == Coverage(
            SpanSet.of(minutes(0, 9)), SpanSet.of(minutes(0, 3)), SpanSet.of(minutes(3, 6))
        )
        assert store.ledger() == store.coverage([series])
        same(store.read(series, EVER), batch_of(series, range(6, 9)).columns)

    def test_23_a_batch_may_have_all_verdicts(self, store: Store, place: Path) -> None:
        """One batch may have rows, empty and unusable spans; another instance reads the same."""
        series, rows = series_of(), batch_of(series_of(), [0, 5])
        coverage = Coverage(
            SpanSet.of(minutes(0, 8)), SpanSet.of(minutes(1, 3), minutes(6, 8)), SpanSet.of(minutes(3, 5))
        )
        write(store, Batch(series, rows.columns, coverage))
        assert store.coverage([series])[series] == coverage
        if self.lasting:
            assert self.make_store(place).coverage([series])[series] == coverage

    # --- rejected rows ---

    def test_24_rejected_rows_are_kept_once_each(self, store: Store, place: Path) -> None:
        """They are read sorted, with any text; several may have the same time; spans are half-open."""
        if not isinstance(store, SupportsRejected):
            pytest.skip("this store keeps no rejected rows")
        series = series_of()
        rejected = [
            _rejected(4, "impossible", '{"v": "-1", "note": "it\'s ✗"}'),
            _rejected(3, "off the grid", "[3]"),
            _rejected(3, "impossible", "[3]"),
            _rejected(3, "impossible", ""),
        ]
        sent = batch_without_rows(series, unusable=[minutes(3, 5)], rejected=rejected)
        write(store, sent, sent)
        write(store, sent, batch_without_rows(series_of(symbol="ETHUSDT"), unusable=[minutes(3, 5)]))
        assert list(store.rejected(series, EVER)) == sorted(rejected)
        first, last = rejected[1].time, rejected[0].time
        assert [row.time for row in store.rejected(series, Span(first, last))] == [first] * 3
        assert list(store.rejected(series, Span(first + 1, last + 1))) == [rejected[0]]
        assert list(store.rejected(series_of(symbol="ETHUSDT"), EVER)) == []
        assert list(store.rejected(series_of(symbol="XRPUSDT"), EVER)) == []
        if self.lasting:
            other = self.make_store(place)
            assert isinstance(other, SupportsRejected)
            assert list(other.rejected(series, EVER)) == sorted(rejected)

    @pytest.mark.parametrize("first", ["the wrong row", "the right row"])
    def test_25_a_stored_row_replaces_the_rejected_one(self, store: Store, first: str) -> None:
        """In either order, and at its own moment alone; an empty span replaces no rejected row."""
        if not isinstance(store, SupportsRejected):
            pytest.skip("this store keeps no rejected rows")
        series = series_of()
        rejected = [_rejected(minute, "off the grid", f"[{minute}]") for minute in (2, 3, 4)]
        both = [
            batch_without_rows(series, unusable=[minutes(2, 5)], rejected=rejected),
            batch_of(series, [3]),
        ]
        write(store, *(both if first == "the wrong row" else reversed(both)))
        write(store, batch_without_rows(series, empty=[minutes(0, 9)]))
        assert [row.raw for row in store.rejected(series, EVER)] == ["[2]", "[4]"]
        assert store.coverage([series])[series].unusable == SpanSet.of(minutes(2, 3), minutes(4, 5))

    # --- forgetting ---

    def test_26_what_is_forgotten_is_missing_again(self, store: Store) -> None:
        """Coverage and rejected rows are removed; rows, other moments and other series stay."""
        if not isinstance(store, SupportsForget):
            pytest.skip("this store cannot forget")
        series, other = series_of(), series_of(symbol="ETHUSDT")
        rejected = [_rejected(minute, "impossible", "[]") for minute in (12, 17)]
        whole = Coverage(SpanSet.of(minutes(0, 30)), SpanSet.of(minutes(5, 10)), SpanSet.of(minutes(10, 20)))
        rows = batch_of(series, [*range(5), *range(20, 30)])
        write(store, Batch(series, rows.columns, whole, tuple(rejected)), batch_of(other, range(30)))
        forgotten = SpanSet.of(minutes(2, 3), minutes(8, 15), minutes(25, 99))
        for _ in range(2):  # forgetting unknown moments changes nothing
            store.forget(series, forgotten)
            assert store.coverage([series])[series] == whole.without(forgotten)
        same(store.read(series, EVER), rows.columns)
        if isinstance(store, SupportsRejected):
            assert list(store.rejected(series, EVER)) == rejected[1:]
        assert store.coverage([other])[other].covered == SpanSet.of(minutes(0, 30))
        write(store, batch_of(series, range(8, 15)))
        assert store.coverage([series])[series].missing(minutes(0, 25)) == SpanSet.of(minutes(2, 3))

    def test_27_rows_are_forgotten_on_demand(self, store: Store) -> None:
        """With `rows=True` rows and coverage are removed; a series without both leaves the ledger."""
        if not isinstance(store, SupportsForget):
            pytest.skip("this store cannot forget")
        series, other = series_of(), series_of(dataset="mark_price")
        write(store, batch_of(series, range(30)), batch_of(other, range(30)))
        store.forget(series, SpanSet.of(minutes(5, 10), minutes(20, 21)), rows=True)
        left = [*range(5), *range(10, 20), *range(21, 30)]
        same(store.read(series, EVER), batch_of(series, left).columns)
        assert store.coverage([series])[series] == batch_of(series, left).coverage
        store.forget(series, SpanSet.of(EVER), rows=True)
        store.forget(series_of(symbol="XRPUSDT"), SpanSet.of(EVER), rows=True)
        assert not len(store.read(series, EVER))
        assert list(store.ledger()) == [other]
        same(store.read(other, EVER), batch_of(other, range(30)).columns)
        write(store, batch_of(series, range(3)))
        same(store.read(series, EVER), batch_of(series, range(3)).columns)

    # --- scale ---

    @pytest.mark.parametrize("confirmed", [True, False])
    def test_28_a_batch_may_have_thousands_of_gaps(self, store: Store, *, confirmed: bool) -> None:
        """The moments between the rows are confirmed empty, or unknown."""
        series = series_of()
        sent = _every_second(series, 0, 8000, confirmed=confirmed)
        write(store, sent)
        assert store.coverage([series])[series] == sent.coverage == store.ledger()[series]
        same(store.read(series, EVER), sent.columns)

    def test_29_batches_with_gaps_come_in_any_order(self, store: Store) -> None:
        """The coverage is the union of all batches."""
        series, order = series_of(), [number * 7 % 30 * 100 for number in range(30)]
        sent = [
            _every_second(series, start, start + 130, confirmed=bool(start % 3)) for start in (*order, 37)
        ]
        write(store, *sent)
        assert store.coverage([series])[series] == reduce(or_, (batch.coverage for batch in sent))

    def test_30_coverage_is_the_union_of_all_batches(self, store: Store) -> None:
        """For random batches in any order, with spans forgotten in between."""
        symbols = count()

        @settings(max_examples=8, deadline=None)
        @given(st.lists(st.tuples(coverages(), st.booleans()), max_size=8))
        def check(steps: list[tuple[Coverage, bool]]) -> None:
            series, known = series_of(symbol=f"S{next(symbols)}USDT"), Coverage()
            for coverage, forgotten in steps:
                if forgotten and isinstance(store, SupportsForget):
                    store.forget(series, coverage.covered)
                    known = known.without(coverage.covered)
                else:
                    write(store, Batch(series, Columns.empty(series.dataset), coverage))
                    known |= coverage
            assert store.coverage([series])[series] == known
            assert store.ledger().get(series, Coverage()) == known

        check()

    # --- formats ---

    def test_31_a_newer_format_is_refused_untouched(self, store: Store, place: Path) -> None:
        """Every method that reads or writes the store raises SinkError."""
        series = series_of()
        write(store, batch_of(series, range(5)))
        version = self.write_format(place, 99)
        uses: list[Callable[[], object]] = [
            lambda: store.prepare([series.dataset]),
            lambda: store.coverage([series]),
            store.ledger,
            lambda: store.read(series, EVER),
            lambda: write(store, batch_of(series, range(9))),
        ]
        if isinstance(store, SupportsForget):
            uses.append(partial(store.forget, series, SpanSet.of(EVER), rows=True))
        if isinstance(store, SupportsRejected):
            uses.append(partial(store.rejected, series, EVER))
        if isinstance(store, SupportsProvenance):
            uses.append(partial(store.provenance, series))
        for use in uses:
            with pytest.raises(SinkError, match=r"written by a newer marketfetch \(format 99"):
                use()
        assert self.write_format(place, version) == 99
        same(store.read(series, EVER), batch_of(series, range(5)).columns)
        assert store.coverage([series])[series] == batch_of(series, range(5)).coverage

    # --- provisional rows ---

    @pytest.mark.parametrize("final", [range(0), range(3)])
    def test_32_a_row_may_come_before_its_coverage(self, store: Store, place: Path, final: range) -> None:
        """A provisional row is read like any other; a later row replaces it, and is covered."""
        series, last = series_of(), [3, 44_639, 44_640]  # also at both sides of the end of a month
        provisional = batch_of(series, [*final, *last], close=1.0)
        known = Coverage(series.interval.cover(provisional.columns.times[: len(final)]))
        write(store, Batch(series, provisional.columns, known))
        held = [store, self.make_store(place)] if self.lasting else [store]
        for each in held:
            same(each.read(series, EVER), provisional.columns)
            assert each.coverage([series])[series] == known
        write(store, batch_of(series, last, close=2.0))
        assert column_of(store, series, "close") == [*(1.0 for _ in final), 2.0, 2.0, 2.0]
        assert store.coverage([series])[series] == known | batch_of(series, last).coverage


def _rejected(minute: int, reason: str, raw: str) -> RejectedRow:
    return RejectedRow(START + minute * MINUTE + 14_789, reason, raw)


def _every_second(series: Series, first: int, end: int, *, confirmed: bool) -> Batch:
    """Return rows at every second minute; the other minutes are confirmed empty, or unknown."""
    rows = batch_of(series, range(first, end, 2))
    whole = SpanSet.of(minutes(first, end))
    if not confirmed:
        return rows
    return Batch(series, rows.columns, Coverage(whole, whole - rows.coverage.covered))
