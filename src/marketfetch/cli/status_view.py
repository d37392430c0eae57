"""The output of `marketfetch status` and `marketfetch follow`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from marketfetch.cli.documents import Document, TextTable
from marketfetch.cli.report_view import dataset_text
from marketfetch.listeners.text import format_duration, pluralize
from marketfetch.reports import SeriesHealth
from marketfetch.values.coverage import Coverage
from marketfetch.values.series import Series
from marketfetch.values.spans import format_utc

__all__ = ["SeriesStatus", "health_page", "status_as_list", "status_page"]


@attrs.frozen
class SeriesStatus:
    """How current a series is.

    `covered_until` is the end of its coverage, UTC milliseconds; `lag` is how long ago that was, in
    milliseconds; `gaps` are the holes inside, and `gap_rows` the rows that fit into them (0 for events).
    """

    series: Series
    covered_until: int
    lag: int
    gaps: int
    gap_rows: int
    stale: bool
    """Whether the coverage ends before the moment that the caller allows."""

    @classmethod
    def of(cls, series: Series, known: Coverage, now: int, oldest: int | None) -> SeriesStatus:
        """Measure a coverage that is not empty at a moment; `oldest` is the earliest end that is not stale.

        >>> from marketfetch.values.spans import Span, SpanSet
        >>> known = Coverage(SpanSet([Span(0, 3_600_000), Span(7_200_000, 10_800_000)]), SpanSet())
        >>> of = SeriesStatus.of(Series.of("okx", "ohlcv", "BTC-USDT", "1h"), known, 14_400_000, None)
        >>> of.lag, of.gaps, of.gap_rows, of.ok
        (3600000, 1, 1, False)
        """
        hull = known.covered.hull
        assert hull is not None
        gaps = known.gaps
        stale = oldest is not None and hull.end < oldest
        return cls(series, hull.end, now - hull.end, len(gaps), series.interval.count_rows(gaps), stale)

    @property
    def ok(self) -> bool:
        """Whether there is no gap, and the end is recent enough."""
        return not self.gaps and not self.stale

    @property
    def verdict(self) -> str:
        """The state in one word or two."""
        return " and ".join([*(["gaps"] if self.gaps else []), *(["stale"] if self.stale else [])]) or "ok"


def status_page(states: Sequence[SeriesStatus]) -> Document:
    """Return the page of a status: a line for each series, those with gaps and stale ones first."""
    behind = sum(not state.ok for state in states)
    verdict = f"{behind:,} with gaps or stale" if behind else "all ok"
    rows = [
        (
            state.series.exchange,
            dataset_text(state.series),
            state.series.symbol,
            format_utc(state.covered_until)[:16].replace("T", " "),
            format_duration(max(0, state.lag) / 1000),
            f"{state.gap_rows:,}" if state.gap_rows or not state.gaps else "unknown",
            state.verdict,
        )
        for state in sorted(states, key=lambda state: state.ok)
    ]
    header = ("exchange", "dataset", "symbol", "covered until (UTC)", "lag ", "missing rows ", "state")
    table = TextTable.limited("", header, rows)
    return Document(f"{pluralize(len(states), 'series')}, {verdict}", [table])


def status_as_list(states: Sequence[SeriesStatus]) -> list[dict[str, Any]]:
    """Return the states in plain types for JSON: times as ISO text, `lag_s` in seconds."""
    return [
        {
            **state.series.as_dict(),
            "covered_until": format_utc(state.covered_until),
            "lag_s": state.lag / 1000,
            "gaps": state.gaps,
            "missing_rows": None if state.series.interval.is_event else state.gap_rows,
            "stale": state.stale,
            "ok": state.ok,
        }
        for state in states
    ]


def health_page(health: Sequence[SeriesHealth]) -> Document:
    """Return the page of a follow that has ended: a line for each series, those with an error first."""
    errors = sum(line.last_error is not None for line in health)
    rows = [
        (
            dataset_text(line.series),
            line.series.symbol,
            "–" if line.covered_until is None else format_utc(line.covered_until)[:16].replace("T", " "),
            "–" if line.lag is None else format_duration(line.lag),
            f"{line.revisions:,}",
            line.last_error or "",
        )
        for line in sorted(health, key=lambda line: line.last_error is None)
    ]
    header = ("dataset", "symbol", "final until (UTC)", "lag ", "revisions ", "error")
    verdict = f"{errors:,} with an error" if errors else "none with an error"
    headline = f"Followed {pluralize(len(health), 'series')}, {verdict}"
    return Document(headline, [TextTable.limited("", header, rows)] if rows else [])
