"""What is wanted and what of it is missing: functions of the books and of the server's time."""

from __future__ import annotations

from collections.abc import Sequence

from marketfetch.arithmetic.planning import Gap, Means, choose_page_size
from marketfetch.engine.account import Account
from marketfetch.exchange import Endpoint, Exchange
from marketfetch.values.spans import Span, SpanSet

__all__ = ["aim", "find_gaps"]

_DAY = 86_400_000


def aim(account: Account, endpoint: Endpoint, span: Span, now: int) -> None:
    """Set what is wanted of a series: from the start to the last row that is closed by the server's time.

    "Now" moves with every millisecond: for series of events it stays what it was at the first call.
    """
    interval = account.series.interval
    if interval.is_event and account.wanted:
        return
    start = interval.ceil(span.start)
    end = min(interval.ceil(span.end), interval.floor(now - endpoint.lag))
    account.wanted = SpanSet.of(Span(start, end)) if start < end else SpanSet()
    if endpoint.reach is None:
        return
    horizon = interval.ceil(now - endpoint.reach)
    if account.wanted and start < horizon:
        beyond = account.missing & SpanSet.of(Span(start, horizon))
        if beyond:
            account.lose(beyond, f"older than the exchange serves ({endpoint.reach / _DAY:.0f} days)")


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
        rows[pool] = rows.get(pool, 0) + sum(map(account.series.interval.count, account.missing))
    gaps = []
    for account, endpoint in lacking:
        size = endpoint.page_sizes[-1]
        if not endpoint.paginator.chained:
            size = choose_page_size(endpoint.page_sizes, endpoint.cost, rows[_pool(endpoint)], means)
        gaps.append(Gap(account.series, account.missing, endpoint.paginator, size))
    return gaps


def _pool(endpoint: Endpoint) -> str:
    return endpoint.cost(endpoint.page_sizes[-1]).pool.name
