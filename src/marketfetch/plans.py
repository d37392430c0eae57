"""Plans: what a run is going to request, before anything is fetched, and how right that was."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from operator import add
from typing import Any, Literal

import attrs

from marketfetch.common.text import text_in_ipython
from marketfetch.values.series import Series
from marketfetch.values.spans import SpanSet, spans_as_list

__all__ = ["EgressPlan", "LimitPlan", "Plan", "PlanComparison", "SeriesPlan", "Workload"]


@attrs.frozen
class Workload:
    """Rows, requests, limit weight, and `size`: the bytes of the answers, uncompressed.

    >>> Workload(rows=1500, requests=1, weight=10) + Workload(rows=499, requests=1, weight=2)
    Workload(rows=1999, requests=2, weight=12, size=0)
    """

    rows: int = 0
    requests: int = 0
    weight: int = 0
    size: int = 0

    def __add__(self, other: Workload) -> Workload:
        return Workload(
            self.rows + other.rows,
            self.requests + other.requests,
            self.weight + other.weight,
            self.size + other.size,
        )

    @classmethod
    def total(cls, parts: Iterable[Workload]) -> Workload:
        """Return the sum of some parts."""
        return reduce(add, parts, cls())

    def __str__(self) -> str:
        return (
            f"{self.rows:,} rows, {self.requests:,} requests of weight {self.weight:,}, "
            f"about {self.size / 1e6:,.1f} MB"
        )


@attrs.frozen
class SeriesPlan:
    """What is missing of a series, and what it takes to fetch it from the API and from files.

    `first_row` says what is known of the first row: `known` (the store or the listing has the series from an
    earlier time), `listed` (the listing says that the symbol began within the span: `rest` and `archive` are
    of the time since, `at_most` of the whole span) or `unknown` (the whole span is planned). The number of
    rows is the most there can be, and for `events` a guess.

    `unlisted_files` of `archive` are in no listing, so they are requested by name: `at_most` also has the
    days of absent months, and the pages of the API in their place.
    """

    series: Series
    missing: SpanSet
    rest: Workload
    archive: Workload
    at_most: Workload
    first_row: Literal["known", "listed", "unknown"] = "known"
    unlisted_files: int = 0

    @property
    def total(self) -> Workload:
        """The work for both sources together."""
        return self.rest + self.archive

    def as_dict(self) -> dict[str, Any]:
        """Return the plan of the series in plain types, times as ISO text, for JSON."""
        return {
            **self.series.as_dict(),
            "missing": spans_as_list(self.missing),
            "first_row": self.first_row,
            "unlisted_files": self.unlisted_files,
            "rest": attrs.asdict(self.rest),
            "archive": attrs.asdict(self.archive),
            "at_most": attrs.asdict(self.at_most),
        }


@attrs.frozen
class EgressPlan:
    """The share of one egress in a limit pool; `used` of its limit is spent already."""

    name: str
    requests: int
    weight: int
    used: int


@attrs.frozen
class LimitPlan:
    """What is spent of one limit pool, and the seconds from the first request to the last answer.

    `capacity` is what one egress may spend in `period` milliseconds.
    """

    name: str
    capacity: int
    period: int
    requests: int
    weight: int
    seconds: float
    egresses: tuple[EgressPlan, ...]


@attrs.frozen
class Plan:
    """What a run is going to request, as far as that is known before anything is fetched.

    Everything is an estimate: an exchange may have fewer rows than there are open times, and a request may
    have to be repeated. `overhead` are the requests that belong to no series, such as the listing of symbols.
    `rest_seconds` and `archive_seconds` follow one another; `unknown` has the symbols that the exchange does
    not know, each with a hint.

    >>> print(Plan())
    Nothing to fetch
    """

    series: tuple[SeriesPlan, ...] = ()
    limits: tuple[LimitPlan, ...] = ()
    overhead: Workload = Workload()
    rest_seconds: float = 0.0
    archive_seconds: float = 0.0
    unknown: Mapping[str, str] = attrs.field(factory=dict)

    @property
    def rest(self) -> Workload:
        """The work for the API, with the overhead."""
        return Workload.total([self.overhead, *(line.rest for line in self.series)])

    @property
    def archive(self) -> Workload:
        """The work for the files of archives."""
        return Workload.total(line.archive for line in self.series)

    @property
    def total(self) -> Workload:
        """The work for all sources."""
        return self.rest + self.archive

    @property
    def at_most(self) -> Workload:
        """The work if every series has rows since the start of the query, and no file is there unlisted."""
        return Workload.total([self.overhead, *(line.at_most for line in self.series)])

    @property
    def is_upper_bound(self) -> bool:
        """Whether the first row of a series is unknown, so that its whole span is planned.

        With files that may not be there, only `at_most` is an upper bound.
        """
        unsure = any(line.first_row == "unknown" for line in self.series)
        return unsure and not any(line.unlisted_files for line in self.series)

    @property
    def seconds(self) -> float:
        """How long the run takes."""
        return self.rest_seconds + self.archive_seconds

    @property
    def remarks(self) -> list[str]:
        """What the numbers leave open, in words: later first rows, files in no listing, unknown symbols."""
        remarks = []
        if later := sum(line.first_row == "listed" for line in self.series):
            remarks.append(
                f"{later:,} of {len(self.series):,} series begin later by the listing; if they do not:"
                f" at most {self.at_most}"
            )
        if unlisted := sum(line.unlisted_files for line in self.series):
            remarks.append(f"{unlisted:,} files are in no listing; if none is there: at most {self.at_most}")
        return [*remarks, *(f"{name}: {hint}" for name, hint in self.unknown.items())]

    def as_dict(self) -> dict[str, Any]:
        """Return the plan in plain types, for JSON."""
        return {
            **attrs.asdict(self.total),
            "seconds": round(self.seconds, 3),
            "upper_bound": self.is_upper_bound,
            "at_most": attrs.asdict(self.at_most),
            "rest": attrs.asdict(self.rest) | {"seconds": round(self.rest_seconds, 3)},
            "archive": attrs.asdict(self.archive) | {"seconds": round(self.archive_seconds, 3)},
            "limits": [attrs.asdict(limit) | {"seconds": round(limit.seconds, 3)} for limit in self.limits],
            "series": [line.as_dict() for line in self.series],
            "unknown_symbols": dict(self.unknown),
        }

    def __str__(self) -> str:
        if not self.total.requests and not self.unknown:
            return "Nothing to fetch"
        bound = "at most " if self.is_upper_bound else ""
        lines = [f"{bound}{self.total}, in about {self.seconds:,.1f} s"]
        if self.archive.requests:
            lines.append(f"  archive: {self.archive}, in about {self.archive_seconds:,.1f} s")
            lines.append(f"  rest: {self.rest}, in about {self.rest_seconds:,.1f} s")
        for limit in self.limits:
            shares = ", ".join(f"{each.name} {each.weight:,}" for each in limit.egresses[:_MAX_SHOWN])
            more = len(limit.egresses) - _MAX_SHOWN
            lines.append(
                f"  {limit.name}: weight {limit.weight:,} of {limit.capacity:,} in each"
                f" {limit.period / 1000:g} s and egress ({shares}{f' and {more:,} more' if more > 0 else ''})"
            )
        lines += [f"  {remark}" for remark in self.remarks]
        return "\n".join(lines)

    _repr_pretty_ = text_in_ipython


_MAX_SHOWN = 6
"""Egresses of which the text shows the share."""


@attrs.frozen
class PlanComparison:
    """A plan beside what its run did: `actual` work in `seconds`.

    >>> plan = Plan(overhead=Workload(requests=50, weight=100), rest_seconds=1.0)
    >>> print(PlanComparison(plan, Workload(rows=0, requests=51, weight=100), seconds=1.25))
    planned 50 requests of weight 100 in 1.0 s; made 51 of weight 100 in 1.2 s
    """

    plan: Plan
    actual: Workload
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return totals of both in plain types, for JSON."""
        return {
            "planned": attrs.asdict(self.plan.total) | {"seconds": round(self.plan.seconds, 3)},
            "actual": attrs.asdict(self.actual) | {"seconds": round(self.seconds, 3)},
        }

    def __str__(self) -> str:
        planned, actual = self.plan.total, self.actual
        return (
            f"planned {planned.requests:,} requests of weight {planned.weight:,}"
            f" in {self.plan.seconds:,.1f} s;"
            f" made {actual.requests:,} of weight {actual.weight:,} in {self.seconds:,.1f} s"
        )
