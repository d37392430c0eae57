"""What a verification of a store finds, for people and as JSON; `marketfetch.reports` offers the classes."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import attrs

from marketfetch.common.text import pluralize, text_in_ipython
from marketfetch.redaction import printable
from marketfetch.values.series import Series
from marketfetch.values.spans import SpanSet, spans_as_list

__all__ = [
    "Finding",
    "Problem",
    "ReissuedFile",
    "SourceVerification",
    "Verification",
]


@attrs.frozen
class ReissuedFile:
    """A file of an archive that was issued anew after its rows were stored.

    `spans` are the moments at which the stored rows differ from those of the file; `fields` counts the
    differing values by column. `new_rows` counts the rows of the file that the store did not have. `error`
    says why a file could not be compared, and is empty otherwise. `repaired` tells whether the rows of the
    file were written.
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
        """Whether the file had other rows than the store, or could not be compared; also after a repair."""
        return bool(self.fields or self.new_rows or self.error)

    @property
    def summary(self) -> str:
        """What differs, or why the file could not be compared, in words."""
        counts = [f"{count:,} {field}" for field, count in self.fields.items()]
        counts += [f"{self.new_rows:,} new rows"] if self.new_rows else []
        return self.error or ", ".join(counts) or "the same rows"

    def __str__(self) -> str:
        return printable(f"{self.series} {self.key}: {self.summary}{', repaired' if self.repaired else ''}")

    def as_dict(self) -> dict[str, Any]:
        """Return the entry in plain types, times as ISO text, for JSON."""
        return {
            **self.series.as_dict(),
            "file": self.key,
            "spans": spans_as_list(self.spans),
            "fields": dict(self.fields),
            "new_rows": self.new_rows,
            "error": self.error,
            "repaired": self.repaired,
        }


@attrs.frozen
class SourceVerification:
    """The result of `verify_sources`: the number of files behind the stored rows, and the files issued anew.

    A file that was uploaded again with the same bytes is not a reissued file.

    >>> verified = SourceVerification(series=2, files=24, reissued=())
    >>> print(verified)
    24 files of 2 series compared with the archive: nothing differs
    >>> verified.ok
    True
    """

    series: int
    files: int
    reissued: tuple[ReissuedFile, ...]

    def __str__(self) -> str:
        changed = [file for file in self.reissued if file.differs]
        found = f"{len(changed):,} differ" if changed else "nothing differs"
        of = f"{pluralize(self.files, 'file')} of {pluralize(self.series, 'series')}"
        return "\n  ".join([f"{of} compared with the archive: {found}", *map(str, changed)])

    _repr_pretty_ = text_in_ipython

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
    """What can be wrong with a series: with its rows, with reading them, or between them and the ledger."""

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
        """Whether the problem has to be mended. NOT_COVERED is harmless: such rows are requested again."""
        return self is not Problem.NOT_COVERED


@attrs.frozen
class Finding:
    """One problem of one series.

    `spans` are the moments that have the problem, and `rows` is the number of rows there.
    `detail` is the error message if the store could not be read, `remedy` the commands that mend the problem.
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
            **self.series.as_dict(),
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
        """Whether no finding is harmful."""
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
        nothing = "nothing harmful" if self.findings else "nothing wrong"
        found = f"{harmful} {'problem' if harmful == 1 else 'problems'}" if harmful else nothing
        lines = [f"<Verification: {sum(self.rows.values()):,} rows of {len(self.rows)} series, {found}>"]
        return "\n  ".join([*lines, *map(str, self.findings)])
