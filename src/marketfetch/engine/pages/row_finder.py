"""Asks an exchange at which times a series has rows. The rows themselves are not kept."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import TypeVar

import attrs

from marketfetch.engine.requester import RequestExecutor
from marketfetch.errors import FetchError, RestrictedLocation
from marketfetch.planning.first_row_search import Question, search_first_row
from marketfetch.planning.gap_hints import ProbableGap, search_gaps
from marketfetch.sources import Endpoint
from marketfetch.values.http import Request, Response
from marketfetch.values.intervals import Interval
from marketfetch.values.series import Series
from marketfetch.values.slices import Slice
from marketfetch.values.spans import Span

__all__ = [
    "RowFinder",
    "UndecidedError",
    "UnusableAnswer",
    "begin_first_row_search",
    "begin_gap_search",
    "fills_from_end",
    "question_windows",
]

_T = TypeVar("_T")
_MAX_SEARCH_REQUESTS = 60
"""Limit of a search; it takes about twice as many requests as the number of pages has binary digits."""


class UndecidedError(Exception):
    """No response, or a contradiction: the pages that are fetched afterwards decide."""


class UnusableAnswer(UndecidedError):
    """A response that cannot be decoded, or has rows from outside the window: the next one may be better."""


@attrs.frozen(eq=False)
class RowFinder:
    """Asks at which times a series has rows: in a window, or at or after a moment."""

    executor: RequestExecutor

    async def find_first_row(self, series: Series, span: Span, hint: int | None) -> int | None:
        """Return the time of the first row at or after the start of a span; None if there is no row.

        `hint` is a time near which the row may be. Raises UndecidedError.
        """
        endpoint = self._endpoint(series)
        if (request := endpoint.first_row_request(series, span.start)) is not None:
            return await self.find_first_row_by_request(series, request, span.start)
        return await self._run_search(series, begin_first_row_search(endpoint, series, span, hint))

    async def find_gaps(self, series: Series, span: Span, page_size: int) -> Sequence[ProbableGap]:
        """Return where a series probably has no rows, by its longer candles. Raises UndecidedError."""
        return await self._run_search(
            series, begin_gap_search(self._endpoint(series), series, span, page_size)
        )

    async def _run_search(self, series: Series, search: Generator[Question, Sequence[int], _T]) -> _T:
        """Request the windows that a search asks for, and return what it finds. Raises UndecidedError."""
        times: Sequence[int] | None = None
        for _ in range(_MAX_SEARCH_REQUESTS):
            try:
                question = next(search) if times is None else search.send(times)
            except StopIteration as found:
                result: _T = found.value
                return result
            try:
                times = await self.find_times(
                    attrs.evolve(series, interval=question.interval), question.span, question.rows
                )
            except UnusableAnswer:
                if question.interval == series.interval:
                    raise
                times = []  # coarser candles are only a hint
        raise UndecidedError

    async def find_first_row_by_request(self, series: Series, request: Request, start: int) -> int | None:
        """Return the time of the row that an answer to `Endpoint.first_row_request` has."""
        times = await self._times_in_answer(request, Slice(series, Span(0, 1), rows=1))
        first = min(times, default=None)
        if first is not None and (first < start or first != series.interval.floor(first)):
            raise UnusableAnswer
        return first

    async def find_times(self, series: Series, span: Span, rows: int) -> list[int]:
        """Return the times of a span's rows, at most `rows` for each window of the exchange.

        Raises UnusableAnswer for rows outside of a window or off the grid.
        """
        endpoint, interval = self._endpoint(series), series.interval
        times = list[int]()
        for part in question_windows(endpoint, series, span, rows):
            found = await self._times_in_answer(endpoint.request(part), part)
            if any(time not in part.span or time != interval.floor(time) for time in found):
                raise UnusableAnswer
            times += found
        return times

    async def _times_in_answer(self, request: Request, part: Slice) -> list[int]:
        """Return the times of a response's rows, valid or not.

        Raises UnusableAnswer for a row without a readable time, UndecidedError if every attempt fails.
        """

        def read(response: Response) -> list[int]:
            decoded = self.executor.exchange.decoded(response.body, part)
            if decoded.undecodable > len(decoded.broken):
                raise UnusableAnswer
            # An invalid row counts, too: it shows that the exchange keeps rows from that time.
            return [*map(int, decoded.columns.times), *(row.time for row in decoded.broken)]

        try:
            times, _ = await self.executor.send(request, read, series=part.series)
        except RestrictedLocation:
            raise
        except FetchError as error:
            raise UndecidedError from error
        return times

    def _endpoint(self, series: Series) -> Endpoint:
        return self.executor.exchange.endpoint(series.dataset)


def fills_from_end(endpoint: Endpoint) -> bool:
    """Whether a window with more rows than fit on a page gives its newest ones."""
    paginator = endpoint.paginator
    return bool(getattr(paginator, "newest_first", getattr(paginator, "anchor", None) == "end"))


def begin_first_row_search(
    endpoint: Endpoint, series: Series, span: Span, hint: int | None
) -> Generator[Question, Sequence[int], int | None]:
    """Begin the search for the first row of a span at an endpoint; see `search_first_row`."""
    interval = series.interval
    return search_first_row(
        interval,
        span,
        endpoint.page_sizes[-1],
        anchor="end" if fills_from_end(endpoint) else "start",
        hint=None if hint is None else interval.floor(hint),
        coarser=_coarser(endpoint, interval),
    )


def begin_gap_search(
    endpoint: Endpoint, series: Series, span: Span, page_size: int
) -> Generator[Question, Sequence[int], list[ProbableGap]]:
    """Begin the search for the gaps of a span at an endpoint; see `search_gaps`."""
    coarser = _coarser(endpoint, series.interval)
    return search_gaps(span, page_size, endpoint.page_sizes[-1], coarser, series.interval)


def question_windows(endpoint: Endpoint, series: Series, span: Span, rows: int) -> Iterator[Slice]:
    """Yield the windows to request for a question about a span, each for at most `rows` rows."""
    whole, paginator = Slice(series, span, series.interval.count(span)), endpoint.paginator
    for window in [whole] if paginator.sequential else paginator.split(whole):
        yield attrs.evolve(window, rows=rows)


def _coarser(endpoint: Endpoint, interval: Interval) -> list[Interval]:
    """Return the intervals of an endpoint that are longer than one of them, ascending."""
    served = map(Interval.parse, endpoint.intervals)
    return sorted((each for each in served if each.typical > interval.typical), key=lambda each: each.typical)
