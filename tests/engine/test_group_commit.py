"""Group commit: a writer commits all batches that are ready together, and each series keeps its own fate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event

import anyio

from marketfetch.engine.blocking import StoreRetrier
from marketfetch.engine.writers import OnWritten, open_writers
from marketfetch.errors import RowsRefused, SinkUnavailable
from marketfetch.protocols import GroupWriter, Store
from marketfetch.sinks.memory import MemorySink
from marketfetch.values.pages import Batch
from marketfetch.values.series import Series
from marketfetch.values.settings import RetryPolicy
from tests.support.batches import EVER, batch, candles

ROWS = 10


class Grouping(MemorySink):
    """A store that commits up to 30 rows together, and waits with the first commit until `ready` is set."""

    transaction_rows = 30

    def __init__(self, before: Callable[[Sequence[Batch]], None] = lambda _: None) -> None:
        super().__init__()
        self.ready = Event()
        self.committed: list[list[str]] = []
        self._before = before

    @contextmanager
    def group_writer(self) -> Iterator[GroupWriter]:
        """Write a group only if `before` lets it pass."""
        with self.writer() as write:

            def write_group(batches: Sequence[Batch]) -> None:
                self.ready.wait()
                self._before(batches)
                for one in batches:
                    write(one)
                self.committed.append([one.series.symbol for one in batches])

            yield write_group


class RowGroups(Grouping):
    """The same with transactions of exactly 30 rows where so many are ready."""

    row_group_rows = 30
    transaction_rows = 100


def write_all(store: Grouping, batches: Sequence[Batch]) -> tuple[list[Series], list[Series]]:
    """Queue all batches before the first commit; return the series of durable and of refused batches."""
    durable: list[Series] = []
    refused: list[Series] = []
    expected = set(batches)

    def on_split(whole: Batch, parts: tuple[Batch, Batch]) -> None:
        expected.remove(whole)
        expected.update(parts)

    def on_durable(one: Batch) -> None:
        expected.remove(one)
        durable.append(one.series)

    def on_refused(one: Batch, _error: RowsRefused) -> None:
        expected.remove(one)
        refused.append(one.series)

    async def deliver(one: Batch) -> None:
        assert one.series in durable

    async def main() -> None:
        retrier = StoreRetrier(RetryPolicy(attempts=3, initial=0.001, cap=0.001), lambda _: None)
        on_written = OnWritten(on_durable, on_refused, deliver, on_split)
        async with open_writers(store, retrier, on_written) as writers:
            for one in batches:
                await writers.submit(one)
            store.ready.set()

    anyio.run(main)
    assert not expected
    return durable, refused


def rows_of(store: Store, series: Series) -> int:
    return len(store.read(series, EVER))


def some(count: int) -> list[Batch]:
    return [batch(candles(f"S{number}USDT"), range(ROWS), open=1) for number in range(count)]


def test_what_is_ready_is_committed_together_up_to_the_rows_of_a_transaction() -> None:
    store = Grouping()
    durable, refused = write_all(store, some(8))
    # The writer may take the first batch before the second is queued; from then on all are ready.
    first, *others = store.committed
    assert len(first) <= 3
    assert [len(group) for group in others[:-1]] == [3] * (len(others) - 1)
    assert [symbol for group in store.committed for symbol in group] == [f"S{n}USDT" for n in range(8)]
    assert len(durable) == 8
    assert not refused


def test_a_transaction_has_no_more_rows_than_the_store_wants_but_for_a_larger_batch() -> None:
    sizes = [20, 20, 10, 31, 5, 30, 1]
    batches = [batch(candles(f"S{number}USDT"), range(rows), open=1) for number, rows in enumerate(sizes)]
    together: list[list[int]] = []
    store = Grouping(lambda group: together.append([one.rows for one in group]))
    durable, _ = write_all(store, batches)
    assert [rows for group in together for rows in group] == sizes
    assert all(sum(group) <= 30 or len(group) == 1 for group in together)
    assert [20, 10] in together
    assert len(durable) == len(sizes)


def test_a_transaction_has_exactly_the_rows_that_the_store_wants_where_so_many_are_ready() -> None:
    sizes = [30, 20, 20, 10, 71, 5, 30, 1]
    batches = [batch(candles(f"S{number}USDT"), range(rows), open=1) for number, rows in enumerate(sizes)]
    together: list[list[int]] = []
    store = RowGroups(lambda group: together.append([one.rows for one in group]))
    durable, _ = write_all(store, batches)
    assert together == [[30], [20, 10], [10, 10, 10], [61], [5, 25], [5, 1]]  # 61: larger than a transaction
    assert [one.symbol for one in durable] == [
        f"S{number}USDT" for number in (0, 1, 2, 2, 3, 4, 4, 5, 6, 6, 7)
    ]
    assert [rows_of(store, one.series) for one in batches] == sizes
    assert all(store.coverage([one.series])[one.series] == one.coverage for one in batches)


def test_a_refused_series_does_not_take_the_others_with_it() -> None:
    def refuse(batches: Sequence[Batch]) -> None:
        if any(one.series.symbol == "S4USDT" for one in batches):
            raise RowsRefused("S4USDT: no")

    store, batches = Grouping(refuse), some(6)
    durable, refused = write_all(store, [*batches, some(5)[4]])
    assert refused == [candles("S4USDT")] * 2
    assert {one.symbol for one in durable} == {f"S{number}USDT" for number in (0, 1, 2, 3, 5)}
    assert [rows_of(store, one.series) for one in batches] == [ROWS] * 4 + [0, ROWS]


def test_a_store_that_is_away_gets_the_same_group_again() -> None:
    asked: list[int] = []

    def away_once(batches: Sequence[Batch]) -> None:
        asked.append(len(batches))
        if len(asked) == 1:
            raise SinkUnavailable("away")

    store = Grouping(away_once)
    durable, refused = write_all(store, some(4))
    assert asked[0] == asked[1]
    assert len(durable) == 4
    assert not refused
