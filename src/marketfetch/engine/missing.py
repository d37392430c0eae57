"""What is wanted and what of it is missing: functions of the books and of the server's time."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np

from marketfetch.planning.batches import Gap, Means, choose_page_size
from marketfetch.engine.state import Account
from marketfetch.exchange import Endpoint, Exchange
from marketfetch.protocols import Settlement
from marketfetch.values.pages import Page
from marketfetch.values.series import Series, Slice
from marketfetch.values.spans import Span, SpanSet

__all__ = ["APART", "LATE", "UNPROVEN", "aim", "find_gaps", "hold_back", "set_aside", "within_reach"]

_DAY = 86_400_000
LATE = 300_000
"""How late a row may come and still be awaited, in milliseconds."""
_KEPT = _DAY
"""What every exchange keeps of events, which are few: to bring a series up to date daily costs no more."""
UNPROVEN = "said to have no row, before any row of the series was seen: another question has to confirm it"
"""Why moments are missing that pages have denied twice, until `Beginnings.conclude` decides about them."""
APART = 300_000
"""How far the exchange's clock and ours may be apart before one of them counts as wrong, in milliseconds."""


def aim(account: Account, endpoint: Endpoint, span: Span, now: int) -> None:
    """Set what is wanted of a series: from the start to the last row that is closed.

    `span` ends by our clock at the latest, `now` is the earlier one of the exchange's and ours. If they are
    minutes apart, one of them is wrong, and what lies between them is wanted and missing. "Now" moves with
    every millisecond: for series of events it stays what it was at the first call.
    """
    interval = account.series.interval
    if interval.is_event and account.wanted:
        return
    start = interval.ceil(span.start)
    end = min(interval.ceil(span.end), interval.floor(now - endpoint.lag))
    told, end = max(start, end), interval.floor(span.end) if span.end - now > APART else end
    if told < end:
        disputed = SpanSet.of(Span(told, end))
        account.lose(disputed, "by the exchange's clock this is not over yet; check this machine's")
    account.wanted = SpanSet.of(Span(start, end)) if start < end else SpanSet()
    _lose_beyond_reach(account, endpoint, account.missing, now)


def within_reach(account: Account, endpoint: Endpoint, part: Slice, now: int) -> Slice | None:
    """Cut off what has fallen out of the exchange's reach since it was planned; None if nothing is left."""
    lost = _lose_beyond_reach(account, endpoint, SpanSet.of(part.span), now)
    if not lost:
        return part
    left = SpanSet.of(part.span) - lost
    return attrs.evolve(part, span=left.hull) if left.hull is not None else None


def _lose_beyond_reach(account: Account, endpoint: Endpoint, spans: SpanSet, now: int) -> SpanSet:
    if endpoint.reach is None or spans.hull is None:
        return SpanSet()
    horizon = account.series.interval.ceil(now - endpoint.reach)
    if spans.hull.start >= horizon:
        return SpanSet()
    beyond = spans & SpanSet.of(Span(spans.hull.start, horizon))
    account.lose(beyond, f"older than the exchange serves ({endpoint.reach / _DAY:.0f} days)")
    return beyond


def hold_back(settlement: Settlement, series: Series, now: int) -> Settlement:
    """Confirm nothing for good that is younger than a few minutes: the row may be late, or be mended.

    A candle is as young as its end: the whole day that was over two minutes ago is held back. Events have no
    grid; for them the endpoint's `lag` keeps the same distance.
    """
    if series.interval.is_event:
        return settlement
    recent = SpanSet.of(Span(series.interval.floor(now - LATE), now + _DAY))
    young = settlement.empty & recent | settlement.unusable & recent
    if not young:
        return settlement
    unusable = settlement.unusable - recent
    return attrs.evolve(
        settlement,
        empty=settlement.empty - recent,
        unusable=unusable,
        rejected=tuple(row for row in settlement.rejected if row.time in unusable),
        lost=settlement.lost | young,
        reason=settlement.reason or "the exchange has not published it yet; run again in a few minutes",
    )


def set_aside(
    account: Account, endpoint: Endpoint, page: Page, settlement: Settlement, now: int
) -> Settlement:
    """Take back what a page says of moments before the first row this run saw: the exchange may keep no more.

    The moments are lost as UNPROVEN until another question has been asked. An endpoint that declares its
    `reach` is believed: asked 00:00-10:00, and the first row is of 09:00, the rest is empty. Of a chain of
    events the moments before the first row count as present; they are taken back as well, unless they are so
    few that the next event was not due, or follow what the store has and are of the last day.
    """
    times, claimed = page.columns.times, settlement.present | settlement.empty
    if page.earliest is not None:  # it may be wrong or without a value, and it is there
        account.saw(page.earliest)
    if endpoint.reach is not None or claimed.hull is None:
        return settlement
    is_event, start = account.series.interval.is_event, claimed.hull.start
    if is_event and account.began is not None and account.began < start and start > now - _KEPT:
        return settlement
    known_from = claimed.hull.end if account.earliest is None else account.earliest
    due = 2 * int(np.diff(times).max()) if is_event and len(times) > 1 else 0
    if known_from - due <= start:
        return settlement
    early = claimed & SpanSet.of(Span(start, known_from))
    account.lose(early, UNPROVEN)
    return attrs.evolve(settlement, present=settlement.present - early, empty=settlement.empty - early)


def find_gaps(accounts: Sequence[Account], exchange: Exchange, means: Means) -> list[Gap]:
    """Return what is missing, with the page size by which it is fetched soonest.

    Series that draw on the same limit pool are weighed together.
    """
    lacking = [
        (account, exchange.endpoint(account.series.dataset)) for account in accounts if account.missing
    ]
    rows: dict[str, int] = {}
    for account, endpoint in lacking:
        pool = _pool(endpoint)
        # Nobody knows how many events there will be: they do not count.
        steps = 0 if endpoint.paginator.chained else sum(map(account.series.interval.count, account.missing))
        rows[pool] = rows.get(pool, 0) + steps
    gaps = []
    for account, endpoint in lacking:
        size = endpoint.page_sizes[-1]
        if not endpoint.paginator.chained:
            size = choose_page_size(endpoint.page_sizes, endpoint.cost, rows[_pool(endpoint)], means)
        gaps.append(Gap(account.series, _whole(account), endpoint.paginator, size))
    return gaps


def _whole(account: Account) -> SpanSet:
    """Return what is missing in whole steps of the grid: no request finds a candle by a part of it.

    Stores of earlier versions may call the first part of a candle empty that was late.
    """
    interval, missing = account.series.interval, account.missing
    if interval.is_event:
        return missing
    return SpanSet.of(*(Span(interval.floor(span.start), interval.ceil(span.end)) for span in missing))


def _pool(endpoint: Endpoint) -> str:
    return endpoint.cost(endpoint.page_sizes[-1]).pool.name
