"""Bookkeeping of one run: what became of every series and every request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import attrs

from marketfetch.planning.running_union import RunningUnion, coverages, span_sets
from marketfetch.protocols import PageOutcome
from marketfetch.reports import EgressReport, Missing, Report, SeriesReport
from marketfetch.values.coverage import Coverage
from marketfetch.values.pages import Batch, Page
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet

__all__ = ["RunState", "SeriesState"]

_MAX_REJECTIONS = 3
"""So many requests may be wrong in a row: exchanges shut out who goes on asking."""


def _start(spans: SpanSet) -> int | None:
    return None if spans.hull is None else spans.hull.start


@attrs.define(eq=False)
class SeriesState:
    """What is known of one series, and how it came to be known.

    `held` is what the store knew before. With `retry` its unusable moments count as missing: they are asked
    for once more, and reported as missing where the rows are still wrong.
    """

    series: Series
    stored_before: Coverage
    retry_unusable: bool = False
    wanted: SpanSet = attrs.field(factory=SpanSet)
    rows: int = 0
    rejected: Counter[str] = attrs.field(factory=Counter)
    given_up: dict[str, RunningUnion[SpanSet]] = attrs.field(factory=dict)
    """Moments given up, by reason."""
    terminal_error: str | None = None
    """Why nothing more is asked for this series, if so."""
    consecutive_rejections: int = 0
    """How many requests in a row the exchange has rejected as wrong."""
    earliest_row: int | None = attrs.field(default=None, init=False)
    """The open time of the earliest row that this run has seen: the exchange keeps rows that are so old."""
    first_stored: int | None = attrs.field(init=False)
    """From when on the store had rows before this run. The exchange may not keep them any more."""
    _known: RunningUnion[Coverage] = attrs.field(init=False)
    _durable: RunningUnion[Coverage] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._known = coverages(
            self.stored_before.without(self.stored_before.unusable)
            if self.retry_unusable
            else self.stored_before
        )
        self._durable = coverages(self.stored_before)
        self.first_stored = _start(self.stored_before.covered - self.stored_before.empty)

    @property
    def known(self) -> Coverage:
        """What the store held before, and what this run has settled since."""
        return self._known.value

    @property
    def durable(self) -> Coverage:
        """What the store holds by now."""
        return self._durable.value

    @property
    def missing(self) -> SpanSet:
        """What is still to be fetched."""
        if self.terminal_error is not None:
            return SpanSet()
        rest = self.wanted - self.known.covered
        for spans in self.given_up.values():
            rest -= spans.value
        return rest

    def record_coverage(self, coverage: Coverage) -> None:
        """Note what need not be asked for any more."""
        self._known.add(coverage)

    def record_row_time(self, time: int) -> None:
        """Note that the exchange has a row."""
        self.earliest_row = time if self.earliest_row is None else min(self.earliest_row, time)

    def record_page(self, page: Page, outcome: PageOutcome) -> None:
        """Note what a page taught."""
        self.consecutive_rejections = 0
        self.rejected.update(page.rejected)
        self.record_coverage(outcome.coverage)
        lost = outcome.given_up | outcome.unusable if self.retry_unusable else outcome.given_up
        if lost:
            self.give_up(lost, outcome.reason)

    def give_up(self, spans: SpanSet, reason: str) -> None:
        """Give moments up in this run, and say why."""
        self.given_up.setdefault(reason, span_sets()).add(spans)

    def ask_again_for(self, spans: SpanSet, reason: str) -> None:
        """Note that moments are not given up for a reason any more."""
        if reason in self.given_up:
            self.given_up[reason] = span_sets(self.given_up[reason].value - spans)

    def record_rejection(self, spans: SpanSet, reason: str) -> None:
        """Note that a request was rejected as wrong: all that follow it would be, too, after some of them."""
        self.consecutive_rejections += 1
        self.give_up(spans, reason)
        if self.consecutive_rejections >= _MAX_REJECTIONS:
            self.terminal_error = (
                f"{reason}; {_MAX_REJECTIONS} requests in a row were rejected, and no more were made"
            )

    def stop(self, reason: str) -> bool:
        """Ask nothing more for this series; tell whether that is news."""
        known, self.terminal_error = self.terminal_error, reason
        return known != reason

    def record_written(self, batch: Batch) -> None:
        """Note that a batch is durable."""
        self.rows += batch.rows
        self._durable.add(batch.coverage)

    def report(self, wanted: Span, stopped: str) -> SeriesReport:
        """Say what became of the series; `stopped` is the reason for what was not even tried."""
        durable = self.durable
        covered = durable.covered - durable.unusable if self.retry_unusable else durable.covered
        missing = SpanSet.of(wanted) & self.wanted - covered
        tasks: list[Missing] = []
        for reason, spans in self.given_up.items():
            if gone := missing & spans.value:
                tasks.append(Missing(gone, reason))
                missing -= gone
        if self.retry_unusable and (withdrawn := missing & self.known.covered & durable.unusable):
            tasks.append(Missing(withdrawn, "the exchange had an unusable row there, and has none any more"))
            missing -= withdrawn
        if missing:
            tasks.append(Missing(missing, self.terminal_error or stopped))
        return SeriesReport(
            series=self.series,
            wanted=wanted,
            rows=self.rows,
            covered=covered & self.wanted,
            empty=durable.empty & self.wanted,
            missing=tuple(tasks),
            rejected=dict(self.rejected),
            unusable=durable.unusable & self.wanted,
            nothing_closed=not self.wanted,
        )


@attrs.define(eq=False)
class RunState:
    """All accounts of a run, and its counters."""

    series: dict[Series, SeriesState] = attrs.field(factory=dict)
    unknown: dict[str, str] = attrs.field(factory=dict)
    requests: int = 0
    retries: Counter[str] = attrs.field(factory=Counter)
    rows_by_egress: Counter[str] = attrs.field(factory=Counter)
    rows_planned: int = 0

    @property
    def rows_fetched(self) -> int:
        """Rows that arrived and were sound."""
        return self.rows_by_egress.total()

    @property
    def rows_written(self) -> int:
        """Rows of batches that are durable."""
        return sum(state.rows for state in self.series.values())

    def egresses(self, statistics: Sequence[EgressReport]) -> tuple[EgressReport, ...]:
        """Add to the pool's own figures the rows that came through each egress."""
        return tuple(attrs.evolve(line, rows=self.rows_by_egress[line.name]) for line in statistics)

    def report(
        self, statistics: Sequence[EgressReport], *, asked: Span | None, duration: float, stopped: str
    ) -> Report:
        """Draw up the report; `asked` is the query's span, for series of which nothing in it has closed."""
        lines = []
        for state in self.series.values():
            wanted = state.wanted.hull or asked
            if wanted is not None:
                lines.append(state.report(wanted, stopped))
        return Report(
            series=tuple(lines),
            egresses=self.egresses(statistics),
            rows_written=self.rows_written,
            requests=self.requests,
            retries=dict(self.retries),
            duration=duration,
            unknown=dict(self.unknown),
        )
