"""Which pages in a probable gap are requested side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import anyio
import attrs
import pytest
from anyio.lowlevel import checkpoint

from marketfetch.engine.pages.gap_turns import GapTurns
from marketfetch.engine.pages.row_finder import RowFinder
from marketfetch.engine.state import SeriesState
from marketfetch.planning.batches import FetchTask
from marketfetch.planning.gap_hints import ProbableGap
from marketfetch.planning.paginators import TimeWindowPaginator
from marketfetch.values.series import Series
from marketfetch.values.slices import Slice
from marketfetch.values.spans import Span, SpanSet
from tests.support.batches import candles

MINUTE, PAGES = 60_000, 6
GAP = Span(-3 * MINUTE, 100 * PAGES * MINUTE)


class FoundGap:
    """Stands in for the longer candles."""

    async def find_gaps(self, _series: Series, _missing: Span, _page_size: int) -> Sequence[ProbableGap]:
        return [ProbableGap(GAP, None)]


@attrs.define(eq=False)
class Pages:
    """The pages of a gap, each of which is a task, and is in flight until it is answered."""

    turns: GapTurns = attrs.field(factory=lambda: GapTurns(cast("RowFinder", FoundGap())))
    empty: set[int] = attrs.field(factory=set)
    in_flight: list[int] = attrs.field(factory=list)
    answers: dict[int, anyio.Event] = attrs.field(factory=dict)

    def is_empty_at(self, moment: int) -> bool:
        return moment in self.empty

    async def request(self, number: int, series: Series | None = None) -> None:
        span = Span(number * 100 * MINUTE, (number + 1) * 100 * MINUTE)
        part = Slice(series or candles(), span, 100)
        self.answers[span.start] = anyio.Event()
        async with self.turns.turn(cast("SeriesState", self), part):
            self.in_flight.append(number)
            await self.answers[span.start].wait()
            self.in_flight.remove(number)

    async def answer(self, number: int, *, empty: bool) -> None:
        start = number * 100 * MINUTE
        if empty:
            self.empty.add(start)
        self.answers[start].set()
        await settled()


async def settled() -> None:
    """Let all tasks run until each waits for something."""
    for _ in range(20):
        await checkpoint()


@pytest.mark.parametrize("last_is_empty", [True, False])
async def test_three_pages_of_a_gap_go_one_at_a_time_at_most(*, last_is_empty: bool) -> None:
    """The page before the gap comes first. Of the others one may cross the gap, or have a row."""
    pages = Pages()
    task = FetchTask(candles(), SpanSet.of(GAP), TimeWindowPaginator(), 100)
    await pages.turns.find_gaps(task, GAP.end)
    async with anyio.create_task_group() as group:
        for number in range(-2, PAGES):
            group.start_soon(pages.request, number)
        await settled()
        assert pages.in_flight == [-2, -1]
        await pages.answer(-2, empty=False)
        assert pages.in_flight == [-1]
        await pages.answer(-1, empty=False)
        assert pages.in_flight == [0]
        await pages.answer(0, empty=True)
        assert pages.in_flight == [1]
        await pages.answer(1, empty=True)
        assert pages.in_flight == [2]
        await pages.answer(2, empty=last_is_empty)
        assert pages.in_flight == [3, 4, 5]
        for number in (3, 4, 5):
            await pages.answer(number, empty=False)


async def test_a_page_with_a_row_lets_all_others_go() -> None:
    pages = Pages()
    await pages.turns.find_gaps(FetchTask(candles(), SpanSet.of(GAP), TimeWindowPaginator(), 100), GAP.end)
    async with anyio.create_task_group() as group:
        for number in range(PAGES):
            group.start_soon(pages.request, number)
        await settled()
        await pages.answer(0, empty=False)
        assert pages.in_flight == [1, 2, 3, 4, 5]
        for number in range(1, PAGES):
            await pages.answer(number, empty=False)


async def test_series_with_the_same_gap_do_not_share_turns() -> None:
    """An exchange was down: each of its symbols lacks the same minutes."""
    turns = GapTurns(cast("RowFinder", FoundGap()))
    for symbol in ("AUSDT", "BUSDT"):
        series, pages = candles(symbol), Pages(turns)
        await turns.find_gaps(FetchTask(series, SpanSet.of(GAP), TimeWindowPaginator(), 100), GAP.end)
        async with anyio.create_task_group() as group:
            for number in range(PAGES):
                group.start_soon(pages.request, number, series)
            await settled()
            for number in range(3):
                assert pages.in_flight == [number]
                await pages.answer(number, empty=True)
            assert pages.in_flight == [3, 4, 5]
            for number in (3, 4, 5):
                await pages.answer(number, empty=True)
