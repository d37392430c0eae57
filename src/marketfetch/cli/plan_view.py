"""The output of `marketfetch plan` and of `marketfetch backfill --dry-run`."""

from __future__ import annotations

from collections.abc import Iterator

from marketfetch.cli.documents import Document, TextTable
from marketfetch.cli.report_view import dataset_text
from marketfetch.listeners.text import format_duration, pluralize, spans_text
from marketfetch.plans import LimitPlan, Plan, SeriesPlan, Workload

__all__ = ["plan_page"]


def plan_page(plan: Plan) -> Document:
    """Return the page of a plan: the work by source, by limit and egress, and by series."""
    total = plan.total
    if not plan.series:
        verdict = "Nothing to fetch"
    else:
        bound = "At most " if plan.is_upper_bound else "About "
        verdict = (
            f"{bound}{pluralize(total.rows, 'row')} of {pluralize(len(plan.series), 'series')} in"
            f" {pluralize(total.requests, 'request')} of weight {total.weight:,}, {_size(total)},"
            f" {format_duration(plan.seconds)}"
        )
    sources = [("rest", plan.rest, plan.rest_seconds), ("archive", plan.archive, plan.archive_seconds)]
    work = [
        (name, *_numbers(load), _size(load), format_duration(seconds))
        for name, load, seconds in sources
        if load.requests
    ]
    limits = [line for limit in plan.limits for line in _limit_lines(limit)]
    tables = [
        TextTable("Sources", ("source", "rows ", "requests ", "weight ", "size ", "time "), work),
        TextTable.limited(
            "Limits", ("limit", "allows", "egress", "requests ", "weight ", "spent before "), limits
        ),
        TextTable.limited(
            "Series",
            ("dataset", "symbol", "missing (UTC)", "rows ", "requests ", "weight "),
            list(map(_series_line, plan.series)),
        ),
    ]
    return Document(
        f"{verdict}; nothing was fetched or written",
        [table for table in tables if table.rows],
        plan.remarks,
    )


def _limit_lines(limit: LimitPlan) -> Iterator[tuple[str, ...]]:
    """Yield a line for each egress: the limit counts for each of them alone."""
    allows = f"{limit.capacity:,} in {limit.period / 1000:g} s"
    for egress in limit.egresses:
        yield (
            limit.name,
            allows,
            egress.name,
            f"{egress.requests:,}",
            f"{egress.weight:,}",
            f"{egress.used:,}",
        )


def _series_line(line: SeriesPlan) -> tuple[str, ...]:
    series = line.series
    return (
        dataset_text(series),
        series.symbol,
        spans_text(line.missing),
        *_numbers(line.total),
    )


def _numbers(load: Workload) -> tuple[str, ...]:
    return f"{load.rows:,}", f"{load.requests:,}", f"{load.weight:,}"


def _size(load: Workload) -> str:
    """Write the size of the answers.

    >>> _size(Workload(size=1_234_567)), _size(Workload(size=12_345))
    ('1.2 MB', '12 kB')
    """
    return f"{load.size / 1e6:,.1f} MB" if load.size >= 1e6 else f"{load.size / 1e3:,.0f} kB"
