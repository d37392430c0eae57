"""The state of one run: what is known of every series, its counters, and the heartbeats that tell them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from time import monotonic

import attrs
from anyio import sleep_forever

from marketfetch.archives.file_reader import FileSummary
from marketfetch.common.event_loop import repeating
from marketfetch.decoding.compiled import DECODER
from marketfetch.events import Heartbeat, Listener
from marketfetch.planning.running_union import RunningUnion, coverages, span_sets
from marketfetch.plans import Workload
from marketfetch.protocols import PageOutcome, ProxyPool, SupportsWaiting
from marketfetch.reports import ArchiveReport, EgressReport, Missing, Report, SeriesReport, SourceReport
from marketfetch.sources import DerivedSource
from marketfetch.values.coverage import Coverage, MissingReason, Reason
from marketfetch.values.http import Cost
from marketfetch.values.pages import Batch, Page
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet

__all__ = ["RunState", "SeriesState", "sending_heartbeats"]

_MAX_REJECTIONS = 3
"""Rejected requests in a row after which a series is stopped: exchanges ban clients that go on."""


@attrs.define(eq=False)
class SeriesState:
    """What is wanted, known, durable and given up of one series."""

    series: Series
    stored_before: Coverage
    """What the store knew before this run."""
    listed_at: int | None = attrs.field(default=None, kw_only=True)
    """When the exchange says that it listed the instrument: older files are of another one of that name."""
    delisted: bool = attrs.field(default=False, kw_only=True)
    """Whether the exchange does not list the symbol: its rows are in files alone."""
    derived: DerivedSource | None = attrs.field(default=None, kw_only=True)
    """From what the rows are computed, after everything else is durable; None if they are fetched."""
    is_refused: bool = attrs.field(default=False, init=False)
    """Whether the exchange has refused the symbol."""
    retry_unusable: bool = False
    """Whether unusable moments of the store are fetched again, and reported missing if still unusable."""
    wanted: SpanSet = attrs.field(factory=SpanSet)
    rows: int = 0
    rows_to_compute: int = attrs.field(default=0, init=False)
    """Rows of a derived series that the run has set out to compute."""
    rejected: Counter[str] = attrs.field(factory=Counter)
    given_up: dict[Reason, RunningUnion[SpanSet]] = attrs.field(factory=dict)
    """Moments that are not fetched any more in this run, or in this round of a follow, by reason."""
    given_up_before: dict[Reason, RunningUnion[SpanSet]] = attrs.field(factory=dict, init=False)
    """The same of the round before: the reasons for what this round has not tried yet."""
    terminal_error: Reason | None = None
    """Why the series was stopped: nothing more is fetched or computed for it. Set by `stop`."""
    consecutive_rejections: int = 0
    """How many requests in a row the exchange has rejected as wrong."""
    crossed: SpanSet = attrs.field(factory=SpanSet, init=False)
    """Stretches without rows that were decided as a whole: none of their pages is requested."""
    denied_by_files: dict[str, SpanSet] = attrs.field(factory=dict, init=False)
    """For each file with a published checksum, moments that it lacks: one denial of the two that it takes."""
    files_rejected: int = attrs.field(default=0, init=False)
    """Files and listings that could not be used."""
    earliest_row: int | None = attrs.field(default=None, init=False)
    """The open time of the earliest row that this run has seen: the exchange serves rows that are so old."""
    first_stored: int | None = attrs.field(init=False)
    """Where the store's rows began before this run; the exchange may no longer serve rows so old."""
    _known: RunningUnion[Coverage] = attrs.field(init=False)
    _durable: RunningUnion[Coverage] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        stored = self.stored_before
        self._known = coverages(stored.without(stored.unusable) if self.retry_unusable else stored)
        self._durable = coverages(stored)
        rows = (stored.covered - stored.empty).hull
        self.first_stored = None if rows is None else rows.start

    @property
    def known(self) -> Coverage:
        """What the store knew before this run, and what pages have proved since."""
        return self._known.value

    @property
    def durable(self) -> Coverage:
        """What the store knows by now."""
        return self._durable.value

    @property
    def covered(self) -> SpanSet:
        """The moments that the report counts as covered."""
        return self.durable.covered - self.durable.unusable if self.retry_unusable else self.durable.covered

    @property
    def missing(self) -> SpanSet:
        """What is still to be fetched."""
        if self.terminal_error is not None:
            return SpanSet()
        missing = self.wanted - self.known.covered
        for spans in self.given_up.values():
            missing -= spans.value
        return missing

    def missing_in(self, span: Span) -> SpanSet:
        """Return what of a span is still to be fetched, at a cost that does not grow with the series."""
        missing = self.wanted & SpanSet.of(span)
        for known in self._known:
            missing -= known.covered
        for given_up in self.given_up.values():
            for spans in given_up:
                missing -= spans
        return missing

    def is_empty_at(self, moment: int) -> bool:
        """Whether a moment is known to be empty."""
        return any(moment in known.empty for known in self._known)

    def record_coverage(self, coverage: Coverage) -> None:
        """Add what is known now and need not be fetched any more.

        A row at a moment that a file denied shows that the file is wrong: nothing that it denied counts.
        """
        self._known.add(coverage)
        if self.denied_by_files and (present := coverage.covered - coverage.empty - coverage.unusable):
            self.denied_by_files = {
                key: denied for key, denied in self.denied_by_files.items() if not denied & present
            }

    def record_stored(self, coverage: Coverage) -> None:
        """Note what the store has now, from whichever process."""
        self._durable.add(coverage)
        self.record_coverage(coverage.without(coverage.unusable) if self.retry_unusable else coverage)

    def denied_once(self, span: Span) -> SpanSet:
        """Return the moments of a span that a file denies."""
        if not self.denied_by_files:
            return SpanSet()
        requested, denied = SpanSet.of(span), SpanSet()
        for spans in self.denied_by_files.values():
            denied |= spans & requested
        return denied

    def record_row_time(self, time: int) -> None:
        """Note that the exchange served a row with this open time."""
        self.earliest_row = time if self.earliest_row is None else min(self.earliest_row, time)

    def record_page(self, page: Page, outcome: PageOutcome) -> None:
        """Note the coverage that a page proves, and the moments that the run gives up because of the page."""
        self.consecutive_rejections = 0
        self.rejected.update(page.rejected)
        self.record_coverage(outcome.coverage)
        given_up = outcome.given_up | outcome.unusable if self.retry_unusable else outcome.given_up
        if given_up:
            bad = outcome.kind is MissingReason.BAD_ROWS
            kind = MissingReason.NOT_PUBLISHED if bad and page.may_become_right else outcome.kind
            self.give_up(given_up, Reason(kind, outcome.reason))

    def give_up(self, spans: SpanSet, reason: Reason) -> None:
        """Note that moments are not fetched any more in this run, and why."""
        self.given_up.setdefault(reason, span_sets()).add(spans)

    def try_again(self) -> None:
        """Begin a round of a follow, which tries again what the round before has given up."""
        self.given_up, self.given_up_before = {}, self.given_up

    @property
    def reasons(self) -> Iterator[tuple[Reason, SpanSet]]:
        """Yield why moments were given up; of the reasons for a moment, the first counts."""
        for reason, spans in (*self.given_up.items(), *self.given_up_before.items()):
            yield reason, spans.value

    def want_again(self, spans: SpanSet, reason: Reason) -> None:
        """Take back that moments were given up for a reason."""
        if reason in self.given_up:
            self.given_up[reason] = span_sets(self.given_up[reason].value - spans)

    def record_rejection(self, spans: SpanSet, error: str) -> None:
        """Note that the exchange rejected a request as wrong; after some in a row the series is stopped."""
        self.consecutive_rejections += 1
        kind = MissingReason.REQUEST_REJECTED
        self.give_up(spans, Reason(kind, error))
        if self.consecutive_rejections >= _MAX_REJECTIONS:
            text = f"{error}; {_MAX_REJECTIONS} requests in a row were rejected, and no more were made"
            self.stop(Reason(kind, text))

    def stop(self, reason: Reason) -> bool:
        """Fetch and compute nothing more for this series; return whether the reason is a new one."""
        before, self.terminal_error = self.terminal_error, reason
        return before != reason

    def refuse_symbol(self, reason: str) -> None:
        """Stop the series, because the exchange refuses its symbol."""
        self.is_refused = True
        self.stop(Reason(MissingReason.SYMBOL_UNKNOWN, reason))

    def take_from_files(self) -> None:
        """Go on with a series whose symbol the exchange refuses: its rows are in files alone."""
        self.delisted, self.terminal_error = True, None

    def record_written(self, batch: Batch) -> None:
        """Note that a batch is durable."""
        self.rows += batch.rows
        self._durable.add(batch.coverage)

    def report(self, wanted: Span, stopped: str) -> SeriesReport:
        """Report the series; `stopped` is the reason for moments that were not tried.

        A missing moment has one reason, the first that applies: 1. it was given up; 2. it was unusable
        before, and the exchange has no row there now; 3. the series was stopped; 4. the run was stopped.
        """
        durable = self.durable
        missing = SpanSet.of(wanted) & self.wanted - self.covered
        reported: list[Missing] = []
        for reason, spans in self.reasons:
            if given_up := missing & spans:
                reported.append(Missing(given_up, str(reason), reason.kind))
                missing -= given_up
        if self.retry_unusable and (vanished := missing & self.known.covered & durable.unusable):
            text = "the exchange had an unusable row there, and has none any more"
            reported.append(Missing(vanished, text, MissingReason.CONTRADICTION))
            missing -= vanished
        if missing:
            reason = self.terminal_error or Reason(MissingReason.NOT_REQUESTED, stopped)
            reported.append(Missing(missing, str(reason), reason.kind))
        return SeriesReport(
            series=self.series,
            wanted=wanted,
            rows=self.rows,
            covered=self.covered & self.wanted,
            empty=durable.empty & self.wanted,
            missing=tuple(reported),
            rejected=dict(self.rejected),
            unusable=durable.unusable & self.wanted,
            nothing_closed=not self.wanted,
        )


@attrs.define(eq=False)
class RunState:
    """The states of all series of a run, and its counters."""

    series: dict[Series, SeriesState] = attrs.field(factory=dict)
    unknown: dict[str, str] = attrs.field(factory=dict)
    """Names that the listing does not have, with a hint for each."""
    spent: Counter[Cost] = attrs.field(factory=Counter)
    """How many requests of each cost were sent."""
    bytes_received: int = 0
    """The sizes of all answers, uncompressed."""
    retries: Counter[str] = attrs.field(factory=Counter)
    rows_by_egress: Counter[str] = attrs.field(factory=Counter)
    rows_planned: int = 0
    """Missing rows of all rounds; those of derived series are in `SeriesState.rows_to_compute`."""
    files: int = 0
    """Files of an archive that were read."""
    files_unverified: int = 0
    """Those of them for which no checksum is published."""
    files_rejected: int = 0
    """Files and listings of an archive that could not be used."""
    archive_blocked: bool = False
    """Whether the archive has refused an address, or none reaches it: then nothing more is requested."""
    rows_from_files: int = 0
    bytes_from_files: int = 0
    rows_crossed: int = 0
    """Open times in the stretches that were decided as a whole; they are not among the planned rows."""
    rows_by_source: Counter[str] = attrs.field(factory=Counter)
    """Rows of durable batches, by the kind of their source: `rest`, `archive` or `derived`."""
    seconds_by_source: dict[str, float] = attrs.field(factory=dict)

    @property
    def requests(self) -> int:
        """How many requests were sent."""
        return self.spent.total()

    def record_written(self, batch: Batch) -> None:
        """Note that a batch is durable, and from which source its rows came."""
        state = self.series[batch.series]
        state.record_written(batch)
        source = "derived" if state.derived else "archive" if batch.provenance else "rest"
        self.rows_by_source[source] += batch.rows

    @contextmanager
    def timing(self, source: str) -> Iterator[None]:
        """Add the seconds until the block is left to those of a source."""
        before, started = self.seconds_by_source.setdefault(source, 0.0), monotonic()
        try:
            yield
        finally:
            self.seconds_by_source[source] = before + monotonic() - started

    def record_file(self, summary: FileSummary, rows: int) -> None:
        """Note that a file was read, and how many of its rows were missing."""
        self.files += 1
        self.files_unverified += not summary.verified
        self.rows_from_files += rows
        self.bytes_from_files += summary.size

    @property
    def work(self) -> Workload:
        """Everything that was requested, and its answers."""
        weight = sum(cost.weight * requests for cost, requests in self.spent.items())
        return Workload(self.rows_fetched, self.requests, weight, self.bytes_received)

    @property
    def rows_fetched(self) -> int:
        """Valid rows that arrived."""
        return self.rows_by_egress.total()

    @property
    def rows_written(self) -> int:
        """Rows of durable batches."""
        return self.rows_by_source.total()

    def heartbeat(self, pool: ProxyPool, elapsed: float) -> Heartbeat:
        """Return how far the run is, after so many seconds."""
        return Heartbeat(
            elapsed=elapsed,
            rows_fetched=self.rows_fetched,
            rows_written=self.rows_written,
            rows_planned=self.rows_planned + sum(state.rows_to_compute for state in self.series.values()),
            rows_crossed=self.rows_crossed,
            requests=self.requests,
            egresses=self.egresses(pool.statistics()),
            waiting=pool.waiting() if isinstance(pool, SupportsWaiting) else "",
        )

    def egresses(self, statistics: Sequence[EgressReport]) -> tuple[EgressReport, ...]:
        """Add the rows that came through each egress to the pool's statistics."""
        return tuple(attrs.evolve(line, rows=self.rows_by_egress[line.name]) for line in statistics)

    def report(
        self, statistics: Sequence[EgressReport], *, requested: Span | None, duration: float, stopped: str
    ) -> Report:
        """Report the run; `requested` is the query's span, for series of which nothing has closed yet."""
        lines = []
        for state in self.series.values():
            wanted = state.wanted.hull or requested
            if wanted is not None:
                lines.append(state.report(wanted, stopped))
        return Report(
            series=tuple(lines),
            egresses=self.egresses(statistics),
            rows_written=self.rows_written,
            rows_crossed=self.rows_crossed,
            decoder=DECODER,
            requests=self.requests,
            weight=sum(cost.weight * times for cost, times in self.spent.items() if cost.pool.published),
            retries=dict(self.retries),
            duration=duration,
            archive=ArchiveReport(
                files=self.files,
                rows=self.rows_from_files,
                size=self.bytes_from_files,
                unverified=self.files_unverified,
                rejected=self.files_rejected,
            ),
            unknown=dict(self.unknown),
            sources={
                source: SourceReport(self.rows_by_source[source], seconds)
                for source, seconds in self.seconds_by_source.items()
            },
        )


def sending_heartbeats(
    make: Callable[[], Heartbeat], emit: Listener, pool: ProxyPool, seconds: float
) -> AbstractAsyncContextManager[None]:
    """Emit what `make` returns every so many seconds until the block is left.

    A pool that reports its waits triggers a Heartbeat as soon as a longer wait begins or ends.
    """
    changed = pool.waiting_changed if isinstance(pool, SupportsWaiting) else sleep_forever
    return repeating(lambda: emit(make()), seconds, changed)
