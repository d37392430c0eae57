"""The rate limiter of a simulated exchange: budgets per address and pool, refusals, bans."""

from __future__ import annotations

from collections import deque
from typing import Literal

import attrs

__all__ = ["Decision", "LimitRules", "Pool", "RateLimiter", "RequestCost", "Tiers", "kline_weight"]

Tiers = Literal["documented", "measured"]


@attrs.frozen
class Pool:
    """A budget that some routes of a venue share: at most `budget` per `window` milliseconds and address.

    A fixed window starts at a multiple of its length on the exchange's clock. A `sliding` window ends at each
    request: the strictest interpretation, for exchanges that do not document theirs.
    """

    venue: str
    name: str
    budget: int
    window: int
    sliding: bool = False
    bans: bool = True


@attrs.frozen
class RequestCost:
    """The cost of one request: a weight in a pool; some pools count per `scope` (an instrument)."""

    pool: Pool
    weight: int
    scope: str = ""


@attrs.frozen
class Decision:
    """The limiter's decision on one request. Times are UTC milliseconds.

    `used` is the weight used in the window, this request included. `retry_at` is set if the budget is
    exceeded, `banned_until` if the address is banned.
    """

    used: int
    retry_at: int | None = None
    banned_until: int | None = None

    @property
    def refused(self) -> bool:
        """Whether the request must be refused."""
        return self.retry_at is not None or self.banned_until is not None

    def retry_after(self, now: int) -> int:
        """Return the whole seconds until a retry can succeed, at least one."""
        until = self.banned_until or self.retry_at or now
        return max(1, -(-(until - now) // 1000))


def kline_weight(limit: int | None, tiers: Tiers) -> int:
    """Return the weight of a futures candle request; `limit` is None if the request has none.

    By the documentation, 100 and 500 rows are in the more expensive tier; by measurements in the cheaper one.

    >>> kline_weight(500, "documented"), kline_weight(500, "measured"), kline_weight(499, "documented")
    (5, 2, 2)
    """
    if limit is None:
        return 5
    slack = 1 if tiers == "documented" else 0
    for edge, weight in ((100 - slack, 1), (500 - slack, 2), (1000, 5)):
        if limit <= edge:
            return weight
    return 10


@attrs.frozen(kw_only=True)
class LimitRules:
    """The budgets of the simulated exchanges, and the bans of clients that exceed them.

    `period_scale` shortens every window and ban: with 1/30 a minute lasts two seconds. The `ban_after`-th
    refusal within a window bans the client for `ban` milliseconds; each further ban lasts twice as long, up
    to three days.
    """

    tiers: Tiers = "documented"
    period_scale: float = 1.0
    futures_weight: int = 2400
    usdm_funding_calls: int = 500
    futures_statistics_calls: int = 1000
    spot_weight: int = 6000
    ban_after: int = 10
    ban: int = 120_000

    @property
    def futures(self) -> Pool:
        """The weight of the routes of USD-M and COIN-M together, per clock minute."""
        return Pool("binance-futures", "weight", self.futures_weight, self.scaled(60_000))

    @property
    def usdm_funding(self) -> Pool:
        """The calls of USD-M's funding routes per five minutes; they cost no weight."""
        return Pool("binance-futures", "funding", self.usdm_funding_calls, self.scaled(300_000), sliding=True)

    @property
    def futures_statistics(self) -> Pool:
        """The calls of `/futures/data` of both hosts, per five minutes; they cost no weight."""
        window = self.scaled(300_000)
        return Pool("binance-futures", "futures-data", self.futures_statistics_calls, window, sliding=True)

    @property
    def spot(self) -> Pool:
        """The weight of the spot routes per clock minute."""
        return Pool("binance-spot", "weight", self.spot_weight, self.scaled(60_000))

    def okx(self, route: str, requests: int) -> Pool:
        """The requests of one OKX route per two seconds; OKX refuses but does not ban."""
        return Pool("okx", route, requests, self.scaled(2000), sliding=True, bans=False)

    def scaled(self, ms: int) -> int:
        """Multiply a duration by `period_scale`."""
        return max(1, round(ms * self.period_scale))


@attrs.define
class _Usage:
    """The use of one pool by one client."""

    window_start: int = 0
    used: int = 0
    refused: int = 0
    recent: deque[tuple[int, int]] = attrs.field(factory=deque)

    def add(self, charge: RequestCost, now: int) -> int | None:
        """Count a request; if it exceeds the budget, return the time at which the budget is free again."""
        pool = charge.pool
        if pool.sliding:
            return self._slide(charge, now)
        start = now - now % pool.window
        if start != self.window_start:
            self.window_start, self.used, self.refused = start, 0, 0
        self.used += charge.weight
        return start + pool.window if self.used > pool.budget else None

    def _slide(self, charge: RequestCost, now: int) -> int | None:
        pool = charge.pool
        while self.recent and self.recent[0][0] <= now - pool.window:
            self.used -= self.recent.popleft()[1]
        if self.used + charge.weight > pool.budget:
            # Refused calls are not counted: they would postpone the end of the refusals again and again.
            return self.recent[0][0] + pool.window if self.recent else now + pool.window
        self.refused = 0
        self.used += charge.weight
        self.recent.append((now, charge.weight))
        return None


@attrs.define
class _Ban:
    until: int = 0
    times: int = 0


_LONGEST_BAN = 3 * 86_400_000


class RateLimiter:
    """Counts the requests of every client, and refuses or bans. Not thread-safe: the server owns it."""

    def __init__(self, rules: LimitRules) -> None:
        self._rules = rules
        self._meters: dict[tuple[str, str, str, str], _Usage] = {}
        self._bans: dict[tuple[str, str], _Ban] = {}

    def charge(self, client: str, charge: RequestCost, now: int) -> Decision:
        """Count one request of a client at `now` (UTC ms); requests answered with an error count too."""
        pool = charge.pool
        meter = self._meters.setdefault((client, pool.venue, pool.name, charge.scope), _Usage())
        ban = self._bans.setdefault((client, pool.venue), _Ban())
        if now < ban.until:
            return Decision(meter.used, banned_until=ban.until)
        retry_at = meter.add(charge, now)
        if retry_at is None:
            return Decision(meter.used)
        meter.refused += 1
        if not pool.bans or meter.refused < self._rules.ban_after:
            return Decision(meter.used, retry_at=retry_at)
        ban.times += 1
        ban.until = now + self._rules.scaled(min(_LONGEST_BAN, self._rules.ban * 2 ** (ban.times - 1)))
        meter.refused = 0
        return Decision(meter.used, banned_until=ban.until)
