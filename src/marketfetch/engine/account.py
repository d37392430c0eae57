"""Bookkeeping of one run: what became of every series and every request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import attrs

from marketfetch.protocols import Settlement
from marketfetch.values.pages import Batch, Page
from marketfetch.values.report import EgressReport, Missing, Report, SeriesReport
from marketfetch.values.series import Coverage, Series
from marketfetch.values.spans import Span, SpanSet

__all__ = ["Account", "Books"]

_REFUSALS = 3
"""So many requests may be wrong in a row: exchanges shut out who goes on asking."""


def _start(spans: SpanSet) -> int | None:
    return None if spans.hull is None else spans.hull.start


@attrs.define(eq=False)
class Account:
    """What is known of one series, and how it came to be known."""

    series: Series
    wanted: SpanSet
    known: Coverage
    """What the store held before, and what this run has settled since."""
    durable: Coverage
    """What the store holds by now."""
    rows: int = 0
    rejected: Counter[str] = attrs.field(factory=Counter)
    lost: dict[str, SpanSet] = attrs.field(factory=dict)
    """Moments given up, by reason."""
    failed: str | None = None
    """Why nothing more is asked for this series, if so."""
    refused: int = 0
    """How many requests in a row the exchange has rejected as wrong."""
    earliest: int | None = attrs.field(
        default=attrs.Factory(lambda self: _start(self.known.present), takes_self=True), init=False
    )
    """The open time of the earliest row that was ever seen."""

    @property
    def missing(self) -> SpanSet:
        """What is still to be fetched."""
        if self.failed is not None:
            return SpanSet()
        rest = self.wanted - self.known.covered
        for spans in self.lost.values():
            rest -= spans
        return rest

    def saw(self, time: int) -> None:
        """Note that the exchange has a row."""
        self.earliest = time if self.earliest is None else min(self.earliest, time)

    def settle(self, page: Page, settlement: Settlement) -> None:
        """Note what a page taught."""
        self.refused = 0
        self.rejected.update(page.rejected)
        self.known |= Coverage(settlement.present | settlement.empty, settlement.empty)
        if settlement.lost:
            self.lose(settlement.lost, settlement.reason)

    def lose(self, spans: SpanSet, reason: str) -> None:
        """Give moments up in this run, and say why."""
        self.lost[reason] = self.lost.get(reason, SpanSet()) | spans

    def refuse(self, spans: SpanSet, reason: str) -> None:
        """Note that a request was rejected as wrong: all that follow it would be, too, after some of them."""
        self.refused += 1
        self.lose(spans, reason)
        if self.refused >= _REFUSALS:
            self.failed = f"{reason}; {_REFUSALS} requests in a row were rejected, and no more were made"

    def written(self, batch: Batch) -> None:
        """Note that a batch is durable."""
        self.rows += batch.rows
        self.durable |= batch.coverage

    def report(self, wanted: Span, stopped: str) -> SeriesReport:
        """Say what became of the series; `stopped` is the reason for what was not even tried."""
        missing = SpanSet.of(wanted) & self.wanted - self.durable.covered
        gaps: list[Missing] = []
        for reason, spans in self.lost.items():
            if gone := missing & spans:
                gaps.append(Missing(gone, reason))
                missing -= gone
        if missing:
            gaps.append(Missing(missing, self.failed or stopped))
        return SeriesReport(
            series=self.series,
            wanted=wanted,
            rows=self.rows,
            covered=self.durable.covered & self.wanted,
            empty=self.durable.empty & self.wanted,
            missing=tuple(gaps),
            rejected=dict(self.rejected),
        )


@attrs.define(eq=False)
class Books:
    """All accounts of a run, and its counters."""

    accounts: dict[Series, Account] = attrs.field(factory=dict)
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
        return sum(account.rows for account in self.accounts.values())

    def egresses(self, statistics: Sequence[EgressReport]) -> tuple[EgressReport, ...]:
        """Add to the pool's own figures the rows that came through each egress."""
        return tuple(attrs.evolve(line, rows=self.rows_by_egress[line.name]) for line in statistics)

    def report(self, statistics: Sequence[EgressReport], *, duration: float, stopped: str) -> Report:
        """Draw up the report."""
        lines = []
        for account in self.accounts.values():
            hull = account.wanted.hull
            if hull is not None:
                lines.append(account.report(hull, stopped))
        return Report(
            series=tuple(lines),
            egresses=self.egresses(statistics),
            rows_written=self.rows_written,
            requests=self.requests,
            retries=dict(self.retries),
            duration=duration,
            unknown=dict(self.unknown),
        )
