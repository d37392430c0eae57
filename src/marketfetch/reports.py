"""Reports of a run, a follow, a store and its verification, series by series, for people and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any, TypeVar

import attrs

from marketfetch.common.text import format_duration, pluralize, text_in_ipython
from marketfetch.findings import (
    Finding,
    Problem,
    ReissuedFile,
    SourceVerification,
    Verification,
)
from marketfetch.plans import PlanComparison
from marketfetch.redaction import printable
from marketfetch.report_text import (
    NOTHING_CLOSED,
    gap_lines,
    report_html,
    report_text,
    span_text,
    spans_text,
)
from marketfetch.values.coverage import MissingReason
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet, format_utc, spans_as_list

__all__ = [
    "NOTHING_CLOSED",
    "ArchiveReport",
    "EgressReport",
    "Finding",
    "Missing",
    "Problem",
    "ReissuedFile",
    "Report",
    "SeriesHealth",
    "SeriesReport",
    "SourceReport",
    "SourceVerification",
    "Verification",
    "spans_as_list",
]

_Part = TypeVar("_Part", "ArchiveReport", "SourceReport")


@attrs.frozen
class Missing:
    """Times that were requested and are not covered, with the reason in words and its kind."""

    spans: SpanSet
    reason: str
    kind: MissingReason = MissingReason.NOT_REQUESTED

    def __str__(self) -> str:
        return printable(f"missing {spans_text(self.spans)}: {self.reason}")


@attrs.frozen
class SeriesReport:
    """What a run did for one series.

    `rows` is the number of rows that this run wrote. `covered` is the part of `wanted` that the store now
    knows, `empty` the part of it that is confirmed to have no row. `rejected` counts rows that were not
    stored, by reason. `unusable` are the times of `wanted` at which the rows of the exchange are wrong; with
    Settings(unusable="retry") they are in `missing`, too. `nothing_closed` is True if no row of the span is
    final yet; then nothing can be missing.
    """

    series: Series
    wanted: Span
    rows: int
    covered: SpanSet
    empty: SpanSet
    missing: tuple[Missing, ...] = ()
    rejected: Mapping[str, int] = attrs.field(factory=dict)
    unusable: SpanSet = attrs.field(factory=SpanSet)
    nothing_closed: bool = False

    def __str__(self) -> str:
        parts = [pluralize(self.rows, "row"), *gap_lines(self)]
        return printable(f"{self.series}  {span_text(self.wanted)}  {'; '.join(parts)}")

    _repr_pretty_ = text_in_ipython

    @property
    def unusable_moments(self) -> int:
        """The number of open times that are unusable."""
        return sum(map(self.series.interval.count, self.unusable))

    def within(self, span: Span) -> SeriesReport:
        """Return what is said about a span inside `wanted`; `rows` and `rejected` stay those of the run."""
        inside = SpanSet.of(span)
        gaps = (attrs.evolve(gap, spans=gap.spans & inside) for gap in self.missing)
        return attrs.evolve(
            self,
            wanted=span,
            covered=self.covered & inside,
            empty=self.empty & inside,
            unusable=self.unusable & inside,
            missing=tuple(gap for gap in gaps if gap.spans),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the report in plain types, times as ISO text, for JSON."""
        return {
            **self.series.as_dict(),
            "wanted": spans_as_list([self.wanted])[0],
            "rows": self.rows,
            "covered": spans_as_list(self.covered),
            "empty": spans_as_list(self.empty),
            "unusable": spans_as_list(self.unusable),
            "nothing_closed": self.nothing_closed,
            "missing": [
                span | {"reason": gap.reason, "kind": gap.kind.value}
                for gap in self.missing
                for span in spans_as_list(gap.spans)
            ],
            "rejected": dict(self.rejected),
        }


@attrs.frozen
class SeriesHealth:
    """How far a series has been followed; times are UTC milliseconds.

    - `covered_until`: the end of what is covered: of the newest final row, or of the newest moment that is
      confirmed empty; None if nothing is covered.
    - `lag`: seconds from `covered_until`, or from the end of a newer provisional row, to now on the
      exchange's clock; None if there is neither. A healthy series of 1m candles has between 0 and 62.
    - `provisional`: the rows that are stored and may still change.
    - `revisions`: the rows that had changed when they were requested for the last time.
    - `last_error`: why rows are missing now, or why nothing is fetched; None if all is well. That rows are
      older than the exchange serves is no error.
    - `stopped`: whether no new row is expected, because the exchange does not list the symbol, or the store
      refuses its rows. The lag then only tells how long ago that was.

    >>> print(SeriesHealth(Series.of("okx", "ohlcv", "BTC-USDT", "1m"), 1_780_272_000_000, 3.5))
    okx ohlcv BTC-USDT 1m  covered until 2026-06-01T00:00:00Z, lag 3.5 s
    """

    series: Series
    covered_until: int | None = None
    lag: float | None = None
    provisional: int = 0
    revisions: int = 0
    last_error: str | None = None
    stopped: bool = attrs.field(default=False, kw_only=True)

    def __str__(self) -> str:
        until = "nothing" if self.covered_until is None else f"until {format_utc(self.covered_until)}"
        parts = [f"covered {until}"]
        parts += [] if self.lag is None else [f"lag {format_duration(self.lag)}"]
        parts += ["stopped"] if self.stopped else []
        parts += [self.last_error] if self.last_error else []
        return printable(f"{self.series}  {', '.join(parts)}")

    _repr_pretty_ = text_in_ipython

    def as_dict(self) -> dict[str, Any]:
        """Return the health in plain types, times as ISO text, for JSON."""
        return {
            **self.series.as_dict(),
            "covered_until": None if self.covered_until is None else format_utc(self.covered_until),
            "lag": self.lag,
            "provisional": self.provisional,
            "revisions": self.revisions,
            "last_error": self.last_error,
            "stopped": self.stopped,
        }


@attrs.frozen
class EgressReport:
    """What one egress did: requests, limit weight, rows, failures, and its present state.

    `weight` counts the units of limits that an exchange publishes. A request for a file has none.
    """

    name: str
    requests: int = 0
    weight: int = 0
    rows: int = 0
    failures: int = 0
    state: str = "ready"


@attrs.frozen
class ArchiveReport:
    """What a run read from the archive of the exchange: files, the rows that were missing, and bytes.

    `unverified` of the files have no published checksum. `rejected` files or listings could not be used.
    """

    files: int = 0
    rows: int = 0
    size: int = 0
    unverified: int = 0
    rejected: int = 0


@attrs.frozen
class SourceReport:
    """What a run had from one kind of source: rows that it wrote, and seconds that it spent on the source."""

    rows: int = 0
    seconds: float = 0.0


@attrs.frozen
class Report:
    """What a run did.

    `retries` counts repeated requests by cause; `duration` is in seconds; `unknown` has the symbols that
    the exchange does not know, each with a hint. `unlisted` has those that an update has left alone, because
    the exchange has not listed them for more than a week: they do not make a report incomplete.

    `print(report)` writes it for people, and a notebook shows it as a table.

    >>> print(Report.empty())
    Complete: 0 rows written in 0.0 s, 0 requests of weight 0
    >>> Report.empty().complete, attrs.evolve(Report.empty(), error="stopped by SIGINT").complete
    (True, False)
    """

    series: tuple[SeriesReport, ...]
    egresses: tuple[EgressReport, ...]
    rows_written: int
    requests: int
    retries: Mapping[str, int]
    duration: float
    unknown: Mapping[str, str] = attrs.field(factory=dict)
    archive: ArchiveReport = attrs.field(factory=ArchiveReport)
    sources: Mapping[str, SourceReport] = attrs.field(factory=dict)
    """By kind: `rest` is the API, `archive` its files, `derived` the store; those that were used."""
    rows_crossed: int = 0
    """Open times in long stretches without a row, each of which was decided in a few requests."""
    error: str | None = None
    """The message of the error or signal that ended the run early; None for a run that ended by itself."""

    unlisted: Mapping[str, str] = attrs.field(factory=dict)
    plan: PlanComparison | None = None
    """The plan that was made before the run, beside what the run did; None for a run without a plan."""
    decoder: str = "C"
    """What decoded pages and files: `C`, or `Python`, which takes longer, where nothing compiled works."""
    weight: int = 0
    """Limit weight that the requests of this run have spent."""

    @classmethod
    def empty(cls) -> Report:
        """Return the report of a run that had nothing to do."""
        return cls((), (), rows_written=0, requests=0, retries={}, duration=0.0)

    @classmethod
    def merged(cls, reports: Sequence[Report]) -> Report:
        """Return one report of several runs. The runs used the same pool, one run after the other.

        >>> late = attrs.evolve(Report.empty(), requests=3, duration=2.0, error="stopped")
        >>> both = Report.merged([late, late])
        >>> both.requests, both.duration, both.error
        (6, 4.0, 'stopped')
        """
        egresses: dict[str, EgressReport] = {}
        retries, sources = Counter[str](), dict[str, SourceReport]()
        lines: dict[Series, SeriesReport] = {}
        for report in reports:
            for line in report.series:  # a member of a composite is in two runs
                before = lines[line.series].rows if line.series in lines else 0
                lines[line.series] = attrs.evolve(line, rows=before + line.rows)
            retries.update(report.retries)
            for egress in report.egresses:
                rows = egresses[egress.name].rows if egress.name in egresses else 0
                # The other numbers are those of the pool, since it was made.
                egresses[egress.name] = attrs.evolve(egress, rows=rows + egress.rows)
            for kind, source in report.sources.items():
                sources[kind] = _summed(sources.get(kind, SourceReport()), source)
        return cls(
            tuple(lines.values()),
            tuple(egresses.values()),
            rows_written=sum(report.rows_written for report in reports),
            requests=sum(report.requests for report in reports),
            weight=sum(report.weight for report in reports),
            retries=dict(retries),
            duration=sum(report.duration for report in reports),
            unknown={name: hint for report in reports for name, hint in report.unknown.items()},
            unlisted={name: hint for report in reports for name, hint in report.unlisted.items()},
            archive=reduce(_summed, (report.archive for report in reports), ArchiveReport()),
            sources=sources,
            rows_crossed=sum(report.rows_crossed for report in reports),
            decoder=next((report.decoder for report in reports), "C"),
            error="; ".join(dict.fromkeys(report.error for report in reports if report.error)) or None,
        )

    def __str__(self) -> str:
        return report_text(self)

    _repr_pretty_ = text_in_ipython

    def _repr_html_(self) -> str:
        return report_html(self)

    @property
    def complete(self) -> bool:
        """Whether everything that was requested is covered, and no error ended the run early."""
        return self.error is None and not self.unknown and not any(line.missing for line in self.series)

    @property
    def unusable_moments(self) -> int:
        """The number of unusable open times of all series."""
        return sum(line.unusable_moments for line in self.series)

    def as_dict(self) -> dict[str, Any]:
        """Return the report in plain types, as `--json` prints it."""
        return {
            "complete": self.complete,
            "error": self.error,
            "plan": None if self.plan is None else self.plan.as_dict(),
            "rows_written": self.rows_written,
            "rows_crossed": self.rows_crossed,
            "unusable_moments": self.unusable_moments,
            "requests": self.requests,
            "weight": self.weight,
            "duration_s": round(self.duration, 3),
            "decoder": self.decoder,
            "retries": dict(self.retries),
            "archive": attrs.asdict(self.archive),
            "sources": {
                name: {"rows": source.rows, "seconds": round(source.seconds, 3)}
                for name, source in self.sources.items()
            },
            "unknown_symbols": dict(self.unknown),
            "unlisted_symbols": dict(self.unlisted),
            "series": [line.as_dict() for line in self.series],
            "egresses": [attrs.asdict(egress) for egress in self.egresses],
        }


def _summed(one: _Part, other: _Part) -> _Part:
    added = attrs.asdict(one)
    return type(one)(**{name: number + added[name] for name, number in attrs.asdict(other).items()})
