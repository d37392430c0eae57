"""Follow one dataset through errors and outages: run after run, with a backoff after each that fails."""

from __future__ import annotations

from collections.abc import Sequence
from random import random

import anyio
import attrs

from marketfetch.engine.run_config import RunConfig
from marketfetch.engine.state import SeriesState
from marketfetch.engine.writers import Deliver
from marketfetch.errors import (
    ConfigurationError,
    MarketfetchError,
    RestrictedLocation,
    SinkError,
    SinkUnavailable,
)
from marketfetch.events import Event, Listener, StoreRecovered, WaitingForStore
from marketfetch.following.following_run import FollowingRun
from marketfetch.following.provisional import PROVISIONAL, ProvisionalRows
from marketfetch.protocols import Store
from marketfetch.reports import Report, SeriesHealth
from marketfetch.values.coverage import Coverage, MissingReason
from marketfetch.values.pages import Batch
from marketfetch.values.series import Series
from marketfetch.values.settings import RetryPolicy

__all__ = ["Follower"]

_BACKOFF = RetryPolicy(initial=1.0, cap=60.0)
"""The waits after runs that failed in a row."""


@attrs.define(eq=False)
class Follower:
    """Follows the series of one dataset until it is cancelled."""

    config: RunConfig
    """Its query has one dataset."""
    error: str | None = attrs.field(default=None, init=False)
    """Why the last run failed, or what the present one waits for; None since a batch became durable."""
    _failures: int = attrs.field(default=0, init=False)
    """How many runs in a row have failed since a batch became durable."""
    _provisional: ProvisionalRows = attrs.field(factory=ProvisionalRows, init=False)
    _newest: dict[Series, int] = attrs.field(factory=dict, init=False)
    """The end of the newest row of each series that was stored, UTC milliseconds."""
    _delivered: dict[Series, Coverage] = attrs.field(factory=dict, init=False)
    """What a sink that cannot be read back has got: else each run would request the whole history anew."""
    _run: FollowingRun | None = attrs.field(default=None, init=False)
    _earlier: Report = attrs.field(factory=Report.empty, init=False)
    """What the runs before the present one did."""
    _states: Sequence[SeriesState] = attrs.field(default=(), init=False)
    """The states of the run that has named its series last."""

    async def run(self) -> None:
        """Run again and again; the first run catches up, and so does every run after an outage.

        Raises RestrictedLocation, an error that is not of this library, and, before the first run has caught
        up, a ConfigurationError or the SinkError of a store that took no row; a ConfigurationError as well
        if the session was closed meanwhile. Any other MarketfetchError is kept in `error`, and the next run
        begins after a backoff.
        """
        config = attrs.evolve(
            self.config, deliver=self._delivering(self.config.deliver), emit=self._emitting(self.config.emit)
        )
        worked = False
        while True:
            self._earlier = self._reported()
            run = self._run = FollowingRun(config, self._provisional, self._delivered)
            try:
                await run.execute()
                self.error, self._failures = None, 0
            except RestrictedLocation:
                raise
            except MarketfetchError as error:
                started = worked or run.caught_up
                if self.config.session.is_closed or (not started and self._is_permanent(error)):
                    raise
                self.error = f"{type(error).__name__}: {error}"
                self._failures += 1
                self._provisional.forget()  # some may not have reached the store
                await anyio.sleep(_BACKOFF.wait(self._failures, random()))  # noqa: S311  # jitter
            worked, self._states = worked or run.caught_up, run.states or self._states

    def _is_permanent(self, error: MarketfetchError) -> bool:
        """Whether a follow that has never caught up cannot succeed; a store that took rows may be back."""
        if isinstance(error, SinkError) and not isinstance(error, SinkUnavailable):
            return not self._newest
        return isinstance(error, ConfigurationError)

    def _delivering(self, deliver: Deliver) -> Deliver:
        async def delivered(batch: Batch) -> None:
            self.error, self._failures = None, 0
            if batch.rows:
                last = batch.series.interval.shift(int(batch.columns.times[-1]), 1)
                self._newest[batch.series] = max(last, self._newest.get(batch.series, last))
            if not isinstance(self.config.sink, Store):
                self._delivered[batch.series] = self._delivered.get(batch.series, Coverage()) | batch.coverage
            await deliver(batch)

        return delivered

    def _emitting(self, emit: Listener) -> Listener:
        def emitted(event: Event) -> None:
            if isinstance(event, WaitingForStore):
                self.error = event.message
            elif isinstance(event, StoreRecovered):
                self.error = None
            emit(event)

        return emitted

    def report(self) -> Report:
        """Return the work of all runs and the gaps of the last one; `error` is that of `health`."""
        report = self._reported()
        nothing = None if report.series or report.requests else "nothing was requested yet"
        return attrs.evolve(report, error=self.error or nothing)

    def _reported(self) -> Report:
        reports = [self._earlier] if self._run is None else [self._earlier, self._run.report()]
        return attrs.evolve(Report.merged(reports), error=None)

    def health(self) -> Sequence[SeriesHealth]:
        """Return the health of each series; none before the first run has named them."""
        run = self._run
        if run is None:
            return ()
        now, self._states = run.now(), run.states or self._states
        return [self._health(state, now) for state in self._states]

    def _health(self, state: SeriesState, now: int) -> SeriesHealth:
        series, covered = state.series, state.durable.covered.hull
        until = None if covered is None else covered.end
        newest = max((end for end in (until, self._newest.get(series)) if end is not None), default=None)
        missing = state.wanted - state.covered
        errors = [
            reason.detail
            for reason, spans in state.reasons
            if spans & missing and reason != PROVISIONAL and reason.kind is not MissingReason.TOO_OLD
        ]
        stopped = None if state.terminal_error is None else str(state.terminal_error)
        return SeriesHealth(
            series,
            covered_until=until,
            lag=None if newest is None else (now - newest) / 1000,
            provisional=self._provisional.count(series, until or 0),
            revisions=self._provisional.revisions[series],
            last_error=stopped or self.error or min(errors, default=None),
            stopped=stopped is not None or state.delisted,
        )
