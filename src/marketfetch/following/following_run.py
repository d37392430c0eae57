"""A run that goes on: after catching up it waits for each candle, and fetches it as soon as it has closed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from functools import partial

import anyio
import attrs

from marketfetch.engine.missing import MAX_CLOCK_SKEW, PUBLISH_GRACE, update_wanted
from marketfetch.engine.pages.history_bounds import HistoryBounds
from marketfetch.engine.pages.workers import FetchWorkers
from marketfetch.engine.requester import RequestExecutor
from marketfetch.engine.run import STOPPED, Run
from marketfetch.engine.run_config import RunConfig
from marketfetch.engine.state import SeriesState
from marketfetch.engine.writers import WriterPool
from marketfetch.following.provisional import PROVISIONAL, ProvisionalRows
from marketfetch.following.schedule import final_until, late_wait, next_due
from marketfetch.planning.running_union import RunningUnion
from marketfetch.protocols import PageOutcome, SupportsForget
from marketfetch.reports import Report
from marketfetch.sources import Endpoint
from marketfetch.values.coverage import Coverage, Reason
from marketfetch.values.pages import Batch, Page
from marketfetch.values.series import Series
from marketfetch.values.settings import RetryPolicy, Settings
from marketfetch.values.slices import Slice
from marketfetch.values.spans import MAX_TIMESTAMP, MINUTE, SECOND, Span, SpanSet

__all__ = ["ROUND_DEADLINE", "FollowingRun"]

_NAP = 1.0
"""Seconds of one sleep at most: after a suspend of the machine, a longer one would end too late."""
_ROUND_RETRIES = RetryPolicy(attempts=2, initial=0.25, cap=1.0)
ROUND_DEADLINE = 10.0
"""Seconds for one request of a round: what fails now is missing in the next round."""


class FollowingRun(Run):
    """Follows the series of one dataset until the listing is old, an hour as a rule; execute it once.

    An ordinary run fetches what is missing. Then each round fetches what has closed since, and what was
    missing in the round before. `delivered` is what a sink that cannot be read back has already got.
    """

    def __init__(
        self, config: RunConfig, provisional: ProvisionalRows, delivered: Mapping[Series, Coverage]
    ) -> None:
        super().__init__(config)
        self._resolver.stored.update(delivered)
        self._provisional = provisional
        self.caught_up = False
        """Whether the ordinary run at the beginning has ended."""
        (dataset,) = config.query.datasets
        self._endpoint: Endpoint = config.exchange.endpoint(dataset)
        self._interval = Series.of(config.exchange.name, dataset.name, "", config.query.interval).interval
        self._border = 0
        """The end of the last row that was final when the round began."""
        self._first_start = MAX_TIMESTAMP
        """Where the series begin that are wanted, UTC milliseconds."""
        self._left_over: dict[Series, dict[Reason, RunningUnion[SpanSet]]] = {}
        """What the ordinary run has given up, of each series, once it has ended."""
        self._round_number = 0
        self._round_at = 0
        """When the last round that has ended began, or before any the ordinary run; UTC milliseconds."""

    @property
    def states(self) -> Sequence[SeriesState]:
        """The states of all series."""
        return [*self._state.series.values()]

    def now(self) -> int:
        """Return the exchange's time, UTC milliseconds.

        The exchange's time counts while one of two local clocks agrees with it within five minutes: a steady
        clock that was made with the process, which no setting of the machine's time moves, and the wall clock
        as this run found it. Otherwise the earlier time counts, as in an ordinary run.
        """
        clock = self._server_clock
        wall, steady = self._config.settings.clock(), clock.local()
        server = clock.earliest_accepted(steady) if clock.known else wall
        agrees = any(abs(server - local) <= MAX_CLOCK_SKEW for local in (wall, steady))
        return server if agrees else min(server, wall)

    def _now(self) -> int:
        return self.now()

    async def _store_is_complete(self) -> bool:
        return False  # the next candle comes soon: the connection and the clock are needed

    def _update_wanted(self) -> None:
        now = self.now()
        start = self._config.query.span(now).start if self._wanted_span is None else self._wanted_span.start
        self._want(start, now, fresh=False)

    def _want(self, start: int, now: int, *, fresh: bool) -> None:
        """Set what is wanted of every series; of a derived one all that is final: it costs no request.

        The clock may be set back behind the start: then nothing has closed.
        """
        span = self._wanted_span = Span(start, max(now, start + 1))
        self._first_start = min(self._first_start, span.start)
        for state in self._state.series.values():
            is_derived = state.derived is not None
            wanted = Span(self._first_start, span.end) if is_derived else span
            update_wanted(state, self._endpoint, wanted, now, fresh=fresh and not is_derived)

    async def _fetch_rounds(self, executor: RequestExecutor, writers: WriterPool) -> None:
        began = self._round_at = self.now()
        await super()._fetch_rounds(executor, writers)
        await self._remove_withdrawn(writers)
        await self._derive_from_durable()
        self.caught_up = True
        executor = attrs.evolve(executor, settings=self._round_settings())
        bounds = HistoryBounds(executor, writers, self._resolved.instruments, self.now)
        workers = FetchWorkers(
            executor,
            writers,
            self._state,
            self._row_budget,
            self._batch_sizing(),
            self.now,
            bounds,
            adjust=self._hold_back,
        )
        # Not the whole history: what no request of the ordinary run could get is left to the next run.
        since = began - PUBLISH_GRACE - 2 * self._interval.typical
        if self._wanted_span is not None:
            since = max(since, self._wanted_span.start)
        until = began + max(MINUTE, self._config.session.max_age)
        self._left_over = {state.series: state.given_up for state in self.states}
        for state in self.states:
            state.given_up = {}
        due, following, requests = self.now(), 0, 0
        while True:
            await self._sleep_until(min(due, until))
            if self.now() >= until:
                break
            await self._round(since, workers, bounds, writers)
            now, before = self.now(), following
            following = next_due(self._interval, self._endpoint, now)
            requests = requests + 1 if following == before else 1  # for the candle that has closed last
            wait = late_wait(requests) if self._is_late(now) else None
            due = following if wait is None else min(following, now + wait)

    def report(self, stopped: str = STOPPED) -> Report:
        """Report the whole span that was wanted, up to the last round: each round wants its end alone."""
        rounds = self._state.series
        self._state.series = {series: self._whole(state) for series, state in rounds.items()}
        try:
            return super().report(stopped)
        finally:
            self._state.series = rounds

    def _whole(self, state: SeriesState) -> SeriesState:
        """Return a copy that wants the whole span, with the reasons for what the ordinary run did not get."""
        left_over = self._left_over.get(state.series)
        if left_over is None:
            return state
        whole = copy(state)
        whole.given_up = {}
        for reason, spans in state.reasons:
            whole.give_up(spans, reason)
        for reason, union in left_over.items():
            whole.give_up(union.value, reason)
        if not state.delisted:
            whole.wanted = SpanSet()  # of events, too: their end moves with the rounds
        span = Span(self._first_start, max(self._round_at, self._first_start + 1))
        update_wanted(whole, self._endpoint, span, self._round_at)
        return whole

    async def _round(
        self, since: int, workers: FetchWorkers, bounds: HistoryBounds, writers: WriterPool
    ) -> None:
        """Fetch what has closed or become final since the last round, and what that round did not get."""
        now = self.now()
        self._round_number += 1
        self._border = final_until(self._interval, self._endpoint, now)
        for state in self._state.series.values():
            state.try_again()
        self._want(since, now, fresh=True)
        for state in self._resolved.fetched:
            self._skip_provisional(state)
        if tasks := self._plan_tasks():
            self._start_round(self._round_number, tasks)
            await workers.run(tasks)
            await bounds.decide_unproven([state for state in self._resolved.fetched if not state.delisted])
            await self._remove_withdrawn(writers)
            await self._derive_from_durable()
        self._round_at = now

    async def _remove_withdrawn(self, writers: WriterPool) -> None:
        """Remove stored provisional rows that the exchange has withdrawn, where the store can do that.

        With a row, its coverage is removed as well. "Confirmed empty" is written anew; the moment of a wrong
        row is left to the next run, which stores the text of the row, too.
        """
        store = self._config.sink
        for state in self._resolved.fetched:
            series, known = state.series, state.known
            gone = self._provisional.withdrawn(series, known)
            if gone and isinstance(store, SupportsForget):
                await self._row_budget.drain()  # the rows are in the store
                await self._retrier.call_in_thread(partial(store.forget, series, gone, rows=True))
                if empty := gone & known.empty:
                    await writers.submit(Batch.of_coverage(series, Coverage(empty, empty)))
            self._provisional.decide(series, known)  # not sooner: the store may be away

    async def _derive_from_durable(self) -> None:
        if self._resolved.derived:
            await self._row_budget.drain()
            await self._derive()

    def _skip_provisional(self, state: SeriesState) -> None:
        """Do not request rows that are held and not final, unless they lie between two others on one page.

        Example: the delay is three minutes, and 12:03 has closed. 12:00 is final now; 12:01 and 12:02 are
        requested once more along with 12:00 and 12:03, since two requests would cost more than one.
        """
        if not (held := self._provisional.held(state.series, self._border)):
            return
        state.give_up(held, PROVISIONAL)
        missing = state.missing
        if len(missing) > 1 and missing.hull is not None:
            rows = self._interval.count(missing.hull)
            if rows <= self._endpoint.page_sizes[0]:
                state.want_again(SpanSet.of(missing.hull), PROVISIONAL)

    def _hold_back(self, part: Slice, page: Page, outcome: PageOutcome) -> PageOutcome:
        return self._provisional.hold_back(part, page, outcome, self._border)

    def _round_settings(self) -> Settings:
        """Return the settings of a round, which has to end before the next candle closes."""
        settings = self._config.settings
        deadline = min(settings.deadline, ROUND_DEADLINE)
        return attrs.evolve(settings, retries=_ROUND_RETRIES, deadline=deadline)

    def _is_late(self, now: int) -> bool:
        """Whether a candle has closed that the exchange has not published yet."""
        if self._interval.is_event:
            return False
        newest = self._interval.shift(self._interval.floor(now), -1)
        return any(
            newest in state.wanted
            and newest not in state.known.covered
            and newest not in self._provisional.held(state.series, self._border)
            for state in self._resolved.fetched
            if state.terminal_error is None and not state.delisted
        )

    async def _sleep_until(self, due: int) -> None:
        """Sleep until a moment on the exchange's clock, or until that clock is set back."""
        before = self.now()
        while before - SECOND < (now := self.now()) < due:
            before = now
            await anyio.sleep(min(_NAP, (due - now) / 1000 + 0.001))
