"""`verify` compares the ledger of a store with its rows; `forget` removes entries from the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path

import attrs

from marketfetch.api.inputs import check_flag, store_of
from marketfetch.api.reading import RequestedSpan
from marketfetch.common.keywords import checks_keywords
from marketfetch.common.platforms import command_text
from marketfetch.errors import ConfigurationError
from marketfetch.protocols import Sink, Store, SupportsForget, SupportsPartitions
from marketfetch.redaction import Secret, redact
from marketfetch.reports import Finding, Problem, Verification
from marketfetch.sinks.remedies import arguments_for
from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import Dataset
from marketfetch.values.intervals import Interval
from marketfetch.values.query import AllSymbols
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet
from marketfetch.values.times import SteadyClock, TimeLike
from marketfetch.verification.ledger import verify_store
from marketfetch.verification.selection import Selection

__all__ = ["forget", "verify"]

_MAX_COMMANDS = 3
"""A finding with more spans gets one command for all of them, from the first to the last."""
_ROWS_TO_DELETE = frozenset(
    {Problem.REPEATED, Problem.UNSORTED, Problem.OFF_GRID, Problem.IMPOSSIBLE, Problem.UNREADABLE}
)
"""Problems that fetching again does not mend: the wrong rows must be deleted first."""


@checks_keywords
def verify(
    store: str | Path | Secret | Sink,
    *,
    symbols: str | Iterable[str] | AllSymbols | None = None,
    datasets: str | Dataset | Iterable[str | Dataset] | None = None,
    interval: str | Interval | None = None,
    exchange: str | None = None,
) -> Verification:
    """Compare the ledger of a store with its rows; nothing is written.

    Every present moment of a grid must have exactly one row, valid and on the grid; every empty or unusable
    moment must have none. Each finding has the commands that mend it. A filter that is left out selects all
    series.

    Raises ConfigurationError for names that the store does not hold, with near matches, and SinkError if the
    store cannot be opened.

    >>> verify("memory:").ok
    True
    """
    opened = store_of("store", store, "verify needs")
    chosen = Selection.of(symbols=symbols, datasets=datasets, interval=interval, exchange=exchange)
    verification = verify_store(opened, chosen.held(opened))
    to = _shown(store)
    findings = (
        attrs.evolve(finding, remedy=_remedy(finding, to, opened)) for finding in verification.findings
    )
    return attrs.evolve(verification, findings=tuple(findings))


@checks_keywords
def forget(  # noqa: PLR0913  # which series, which span, and whether their rows
    store: str | Path | Secret | Sink,
    *,
    symbols: str | Iterable[str] | AllSymbols | None = None,
    datasets: str | Dataset | Iterable[str | Dataset] | None = None,
    interval: str | timedelta | Interval | None = None,
    exchange: str | None = None,
    start: TimeLike | None = None,
    end: TimeLike | None = None,
    rows: bool = False,
    dry_run: bool = False,
) -> Mapping[Series, SpanSet]:
    """Remove moments from the ledger of a store, so that the next run fetches them again; return them.

    With `rows` their stored rows are deleted, too. The span from `start` to `end` is half-open; a candle that
    lies partly inside is forgotten as a whole. By default the span is all that is covered. With `dry_run`
    nothing is changed, and the moments that would be forgotten are returned.

    Raises ConfigurationError if no series is selected (write `symbols=AllSymbols()` for all series), for
    names that the store does not hold, with near matches, for an empty list of names, and for a store that
    cannot forget.

    >>> forget("memory:")
    Traceback (most recent call last):
    marketfetch.errors.ConfigurationError: symbols: nothing is chosen; name symbols, datasets, an ...
    """
    for name, value in (("rows", rows), ("dry_run", dry_run)):
        check_flag(name, value)
    chosen = Selection.of(symbols=symbols, datasets=datasets, interval=interval, exchange=exchange)
    if chosen.is_unspecified:
        raise ConfigurationError(
            "symbols: nothing is chosen; name symbols, datasets, an interval or an exchange, or write "
            "symbols=AllSymbols() to forget all series"
        )
    window = RequestedSpan.parse(start, end)
    opened = store_of("store", store, "forget needs")
    if not isinstance(opened, SupportsForget):
        raise ConfigurationError(
            f"store: {type(opened).__name__} has no forget; remove both the coverage and the rows there"
        )
    forgotten: dict[Series, SpanSet] = {}
    for series, known in chosen.held(opened).items():
        span = _aligned(series.interval, known, window.start, window.end)
        spans = SpanSet.of(span)
        if not spans or not (known.covered & spans or rows):
            continue
        if not dry_run:
            opened.forget(series, spans, rows=rows)
        forgotten[series] = known.covered & spans
    return forgotten


def _aligned(interval: Interval, known: Coverage, first: int | None, last: int | None) -> Span | None:
    """Return the span to forget, in whole steps of the grid; by default all that is covered."""
    hull = known.covered.hull
    start = first if first is not None else hull.start if hull else None
    end = last if last is not None else hull.end if hull else None
    if start is None or end is None or start >= end:
        return None
    return Span(interval.floor(start), interval.ceil(end))


def _shown(store: str | Path | Secret | Sink) -> str:
    """Return the value of `--to`, without credentials; a placeholder for a store that is an object."""
    if isinstance(store, str | Secret):
        return redact(Secret.of(store).reveal())
    return "STORE"


def _remedy(finding: Finding, to: str, store: Store) -> str:
    """Return the commands that mend a finding; an unreadable partition is forgotten as a whole."""
    if finding.problem is Problem.NOT_COVERED:
        return "the next run that wants these moments asks for them again"
    hull, now = finding.spans.hull, SteadyClock()()
    spans = finding.spans.spans if len(finding.spans) <= _MAX_COMMANDS or hull is None else (hull,)
    words = ["--rows"] if finding.problem in _ROWS_TO_DELETE else []
    commands = []
    for span in spans:
        whole = span
        if finding.problem is Problem.UNREADABLE and isinstance(store, SupportsPartitions):
            first, last = (store.partition(finding.series, at) for at in (span.start, span.end - 1))
            whole = Span(first.start, last.end)
        forgotten, wanted = (["--to", to, *arguments_for(finding.series, each)] for each in (whole, span))
        commands.append(command_text(["marketfetch", "forget", *forgotten, *words]))
        # A partition may end in the future, and `backfill` refuses such an end.
        commands.append(
            command_text(["marketfetch", "backfill", *(wanted[:-2] if span.end > now else wanted)])
        )
    return " && ".join(commands)
