"""What a comparison of a store's ledger with its rows found, as values."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import attrs

from marketfetch.values.series import Series
from marketfetch.values.spans import SpanSet, format_utc

__all__ = ["Finding", "Problem", "Verification"]


class Problem(StrEnum):
    """What can be wrong between the ledger of a store and its rows."""

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
        """Whether it has to be mended; rows that nobody covers are asked for once more, and that is all."""
        return self is not Problem.NOT_COVERED


@attrs.frozen
class Finding:
    """One problem of one series: where it is, how many rows it concerns, and how to mend it.

    `detail` is the error of a store that could not be read, `remedy` what to do: the commands to type.
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
            "exchange": self.series.exchange,
            "dataset": self.series.dataset.name,
            "symbol": self.series.symbol,
            "interval": self.series.interval.name,
            "problem": self.problem.name.lower(),
            "meaning": str(self.problem),
            "harmful": self.problem.harmful,
            "spans": [{"start": format_utc(span.start), "end": format_utc(span.end)} for span in self.spans],
            "rows": self.rows,
            "detail": self.detail,
            "remedy": self.remedy,
        }

    def __str__(self) -> str:
        detail = f": {self.detail}" if self.detail else ""
        return f"{self.series} {self.spans}: {self.problem}{detail}"


@attrs.frozen(repr=False)
class Verification:
    """What `verify` found: how many rows each series has in the store, and the findings.

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
