"""Reports of a run and of a verification, series by series, for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

import attrs

from marketfetch.redaction import printable
from marketfetch.values.coverage import Coverage
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet, format_utc

__all__ = [
    "NOTHING_CLOSED",
    "ArchiveReport",
    "EgressReport",
    "Finding",
    "HeldSeries",
    "Missing",
    "Problem",
    "ReissuedFile",
    "Report",
    "SeriesReport",
    "SourceReport",
    "SourceVerification",
    "Verification",
    "spans_as_list",
]

NOTHING_CLOSED = "nothing has closed in this span yet"
"""What is said of a series without a final row: of 1d candles, for example, when today was requested."""


def spans_as_list(spans: Iterable[Span]) -> list[dict[str, str]]:
    """Return spans in plain types, times as ISO text, for JSON.

    >>> spans_as_list([Span(0, 3_600_000)])
    [{'start': '1970-01-01T00:00:00Z', 'end': '1970-01-01T01:00:00Z'}]
    """
    return [{"start": format_utc(span.start), "end": format_utc(span.end)} for span in spans]


def _names(series: Series) -> dict[str, str]:
    """Return the names of a series in plain types, for JSON."""
    return {
        "exchange": series.exchange,
        "dataset": series.dataset.name,
        "symbol": series.symbol,
        "interval": series.interval.name,
    }


@attrs.frozen
class Missing:
    """Times that were requested and are not covered, with the reason."""

    spans: SpanSet
    reason: str


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

    @property
    def unusable_moments(self) -> int:
        """The number of open times that are unusable."""
        return sum(map(self.series.interval.count, self.unusable))

    def as_dict(self) -> dict[str, Any]:
        """Return the report in plain types, times as ISO text, for JSON."""
        return {
            "exchange": self.series.exchange,
            "symbol": self.series.symbol,
            "dataset": self.series.dataset.name,
            "interval": self.series.interval.name,
            "wanted": spans_as_list([self.wanted])[0],
            "rows": self.rows,
            "covered": spans_as_list(self.covered),
            "empty": spans_as_list(self.empty),
            "unusable": spans_as_list(self.unusable),
            "nothing_closed": self.nothing_closed,
            "missing": [
                span | {"reason": gap.reason} for gap in self.missing for span in spans_as_list(gap.spans)
            ],
            "rejected": dict(self.rejected),
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
    the exchange does not know, each with a hint.

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

    @classmethod
    def empty(cls) -> Report:
        """Return the report of a run that had nothing to do."""
        return cls((), (), rows_written=0, requests=0, retries={}, duration=0.0)

    @property
    def complete(self) -> bool:
        """Whether everything that was requested is covered, and no error ended the run early."""
        return self.error is None and not self.unknown and not any(line.missing for line in self.series)

    @property
    def unusable_moments(self) -> int:
        """The number of unusable open times of all series."""
        return sum(line.unusable_moments for line in self.series)

    @property
    def weight(self) -> int:
        """Limit weight spent through all egresses."""
        return sum(egress.weight for egress in self.egresses)

    def as_dict(self) -> dict[str, Any]:
        """Return the report in plain types, as `--json` prints it."""
        return {
            "complete": self.complete,
            "error": self.error,
            "rows_written": self.rows_written,
            "rows_crossed": self.rows_crossed,
            "unusable_moments": self.unusable_moments,
            "requests": self.requests,
            "weight": self.weight,
            "duration_s": round(self.duration, 3),
            "retries": dict(self.retries),
            "archive": attrs.asdict(self.archive),
            "sources": {
                name: {"rows": source.rows, "seconds": round(source.seconds, 3)}
                for name, source in self.sources.items()
            },
            "unknown_symbols": dict(self.unknown),
            "series": [line.as_dict() for line in self.series],
            "egresses": [attrs.asdict(egress) for egress in self.egresses],
        }


@attrs.frozen
class HeldSeries:
    """A series in a store, and what its ledger says: no row is read.

    `first` and `last` are open times of rows, in UTC milliseconds; of events, the ends of what is present.
    They are None if no row is present. `rows` is None for events, which the ledger does not count. `gaps` are
    the moments between the first and the last covered one that are missing.

    >>> hour = Series.of("okx", "ohlcv", "BTC-USDT", "1h")
    >>> held = HeldSeries(hour, Coverage(SpanSet.of(Span(0, 7_200_000), Span(10_800_000, 14_400_000))))
    >>> held.first, held.last, held.rows, held.gaps.spans
    (0, 10800000, 3, (Span(start=7200000, end=10800000),))
    """

    series: Series
    coverage: Coverage

    @property
    def first(self) -> int | None:
        """The open time of the first row."""
        hull = self.coverage.present.hull
        return None if hull is None else hull.start

    @property
    def last(self) -> int | None:
        """The open time of the last row."""
        hull = self.coverage.present.hull
        return None if hull is None else self.series.interval.floor(hull.end - 1)

    @property
    def rows(self) -> int | None:
        """The number of rows."""
        interval = self.series.interval
        return None if interval.is_event else interval.count_rows(self.coverage.present)

    @property
    def gaps(self) -> SpanSet:
        """The missing moments between covered ones."""
        return SpanSet.of(self.coverage.covered.hull) - self.coverage.covered

    def as_dict(self) -> dict[str, Any]:
        """Return the entry in plain types, times as ISO text, for JSON or a table."""
        return {
            **_names(self.series),
            "first": None if self.first is None else format_utc(self.first),
            "last": None if self.last is None else format_utc(self.last),
            "rows": self.rows,
            "gaps": spans_as_list(self.gaps),
        }


@attrs.frozen
class ReissuedFile:
    """A file of an archive that was issued anew after its rows were stored.

    `spans` are the moments at which the stored rows differ from those of the file; `fields` counts the
    differing values by column. `new_rows` of the file are not stored. `error` says why a file could not be
    compared, and is empty otherwise. `repaired` tells whether the rows of the file were written.
    """

    series: Series
    key: str
    spans: SpanSet = attrs.field(factory=SpanSet)
    fields: Mapping[str, int] = attrs.field(factory=dict)
    new_rows: int = 0
    error: str = ""
    repaired: bool = False

    @property
    def differs(self) -> bool:
        """Whether the store has other rows than the file, or that could not be seen."""
        return bool(self.fields or self.new_rows or self.error)

    def as_dict(self) -> dict[str, Any]:
        """Return the entry in plain types, times as ISO text, for JSON."""
        return {
            **_names(self.series),
            "file": self.key,
            "spans": spans_as_list(self.spans),
            "fields": dict(self.fields),
            "new_rows": self.new_rows,
            "error": self.error,
            "repaired": self.repaired,
        }


@attrs.frozen
class SourceVerification:
    """The result of `verify_sources`: how many files rows came from, and which were issued anew since.

    A file that was uploaded again with the same bytes is no reissued file.

    >>> SourceVerification(series=0, files=0, reissued=()).ok
    True
    """

    series: int
    files: int
    reissued: tuple[ReissuedFile, ...]

    @property
    def ok(self) -> bool:
        """Whether the store agrees with all files, after the repair if there was one."""
        return all(file.repaired or not file.differs for file in self.reissued)

    def as_dict(self) -> dict[str, Any]:
        """Return the verification in plain types, as `marketfetch verify --sources --json` prints it."""
        return {
            "ok": self.ok,
            "series": self.series,
            "files": self.files,
            "reissued": [file.as_dict() for file in self.reissued],
        }


class Problem(StrEnum):
    """How the ledger of a store and its rows can disagree."""

    MISSING = "the ledger says present, and there is no row"
    NOT_EMPTY = "the ledger says confirmed empty, and there is a row"
    NOT_UNUSABLE = "the ledger says unusable, and there is a row"
    REPEATED = "several rows have the same open time"
    UNSORTED = "the rows are not sorted by time"
    OFF_GRID = "rows lie off the grid of the interval"
    IMPOSSIBLE = "rows have impossible values"
    UNREADABLE = "the rows cannot be read"
    NOT_COVERED = "rows that the ledger does not know"

    @property
    def harmful(self) -> bool:
        """Whether it has to be mended. Rows that the ledger does not know are only requested once more."""
        return self is not Problem.NOT_COVERED


@attrs.frozen
class Finding:
    """One problem of one series: its spans, its number of rows, and how to mend it.

    `detail` is the error of a store that could not be read, `remedy` the commands that mend the problem.
    """

    series: Series
    problem: Problem
    spans: SpanSet
    rows: int
    detail: str = ""
    remedy: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the finding in plain types, times as ISO text, for JSON."""
        return {
            **_names(self.series),
            "problem": self.problem.name.lower(),
            "meaning": str(self.problem),
            "harmful": self.problem.harmful,
            "spans": spans_as_list(self.spans),
            "rows": self.rows,
            "detail": self.detail,
            "remedy": self.remedy,
        }

    def __str__(self) -> str:
        detail = f": {self.detail}" if self.detail else ""
        return printable(f"{self.series} {self.spans}: {self.problem}{detail}")


@attrs.frozen(repr=False)
class Verification:
    """The result of `verify`: the number of rows of each series in the store, and the findings.

    >>> Verification({}, ())
    <Verification: 0 rows of 0 series, nothing wrong>
    """

    rows: Mapping[Series, int]
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether the ledger and the rows agree, and all rows are sound."""
        return not any(finding.problem.harmful for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Return the verification in plain types, as `marketfetch verify --json` prints it."""
        return {
            "ok": self.ok,
            "series": len(self.rows),
            "rows": sum(self.rows.values()),
            "findings": [finding.as_dict() for finding in self.findings],
        }

    def __repr__(self) -> str:
        harmful = sum(finding.problem.harmful for finding in self.findings)
        found = f"{harmful} {'problem' if harmful == 1 else 'problems'}" if harmful else "nothing wrong"
        lines = [f"<Verification: {sum(self.rows.values()):,} rows of {len(self.rows)} series, {found}>"]
        return "\n  ".join([*lines, *map(str, self.findings)])
