"""The simulated exchange: Binance USD-M, COIN-M and spot, and OKX, at one address on loopback."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import attrs

from marketfetch.testing.faults.kinds import FaultKind, Faults, FaultSchedule
from marketfetch.testing.faults.responses import FaultContext, apply_response_fault
from marketfetch.testing.faults.transport import broken_script
from marketfetch.testing.http.loopback import LoopbackAddress, LoopbackServer
from marketfetch.testing.http.messages import ServerReply, ServerRequest, html_reply
from marketfetch.testing.http.script import ResponseScript, compressed, plain_script
from marketfetch.testing.markets.coin_margined import CoinMarginedMarket
from marketfetch.testing.markets.market import Market
from marketfetch.testing.request_log import LoggedRequest, RequestLog
from marketfetch.testing.venues.binance_coinm import BinanceCoinmVenue
from marketfetch.testing.venues.binance_spot import BinanceSpotVenue
from marketfetch.testing.venues.binance_usdm import BinanceUsdmVenue
from marketfetch.testing.venues.klines import KlineRenderer, KlineSource
from marketfetch.testing.venues.okx import OkxVenue
from marketfetch.testing.venues.rate_limiter import Decision, LimitRules, RateLimiter
from marketfetch.testing.venues.venue import Venue

__all__ = ["SimulatedExchange", "SimulatorOptions", "wall_clock"]

_NOT_FOUND = html_reply(404, b"<html><body><h1>404 Not Found</h1></body></html>")


def wall_clock() -> int:
    """Return the current time in UTC milliseconds."""
    return time.time_ns() // 1_000_000


@attrs.frozen(kw_only=True)
class SimulatorOptions:
    """The behaviour of a simulated exchange. Times are in milliseconds, but `latency` is in seconds.

    `limits=None` switches rate limits off. The exchange's clock shows `now() + clock_skew`. `gzip` is off
    because compression costs the server more than all its other work. `edit` changes every good reply, also
    when it is requested again: use it for rows that the exchange has wrong permanently, and `faults` for
    replies that are wrong once.
    """

    host: str = "127.0.0.1"
    port: int = 0
    tls: bool = False
    gzip: bool = False
    latency: float = 0.0
    limits: LimitRules | None = attrs.field(factory=LimitRules)
    faults: Faults | None = None
    edit: Callable[[ServerRequest, ServerReply], ServerReply] | None = None
    now: Callable[[], int] = wall_clock
    clock_skew: int = 0
    okx_history_limit: int = 100
    log_size: int = 10_000
    klines: Callable[[Market], KlineSource] = KlineRenderer
    """Makes the source of Binance's candle rows from a market, such as one that caches rendered pages."""


def _schedule(faults: Faults | None) -> FaultSchedule | None:
    return None if faults is None else FaultSchedule(faults)


class SimulatedExchange(LoopbackServer):
    """An exchange on loopback with the published rules, for tests, benchmarks and demonstrations.

    Inside its `with` block a background thread serves `base_url`, which all venues share. Rate limits are
    counted per client IP address. `latency`, `faults`, `edit` and `now` may be changed at any time from any
    thread.

    >>> from marketfetch.testing import GeneratedMarket
    >>> with SimulatedExchange(GeneratedMarket(["BTCUSDT"])) as exchange:
    ...     exchange.base_url  # doctest: +ELLIPSIS
    'http://127.0.0.1:...'
    """

    def __init__(self, market: Market, options: SimulatorOptions | None = None) -> None:
        self.options = options or SimulatorOptions()
        self.market = market
        self.request_log = RequestLog[FaultKind](self.options.log_size)
        self.latency = self.options.latency
        self.now = self.options.now
        self.edit = self.options.edit
        self._faults = self.options.faults
        self._schedule = _schedule(self._faults)
        rules = self.options.limits or LimitRules()
        self._limiter = None if self.options.limits is None else RateLimiter(rules)
        klines, coin_margined = self.options.klines(market), CoinMarginedMarket(market)
        self._venues: tuple[Venue, ...] = (
            BinanceCoinmVenue(coin_margined, rules, self.options.klines(coin_margined)),
            BinanceUsdmVenue(market, rules, klines),
            BinanceSpotVenue(market, rules, klines),
            OkxVenue(market, rules, self.options.okx_history_limit),
        )
        place = LoopbackAddress(self.options.host, self.options.port, self.options.tls)
        super().__init__("simulated-exchange", place, self._respond, self.request_log.add_connection)

    @property
    def faults(self) -> Faults | None:
        """The current faults; setting them resets the count of each request."""
        return self._faults

    @faults.setter
    def faults(self, faults: Faults | None) -> None:
        self._faults = faults
        self._schedule = _schedule(faults)

    @property
    def server_time(self) -> int:
        """The time of the exchange's clock (UTC ms)."""
        return self.now() + self.options.clock_skew

    def _respond(self, request: ServerRequest) -> ResponseScript:
        now = self.server_time
        venue = next((venue for venue in self._venues if venue.serves(request)), None)
        if venue is None:
            reply, weight, fault = _NOT_FOUND, 0, None
        else:
            reply, weight, fault = self._reply(venue, request, now)
        logged = LoggedRequest(now, request.client, request.path, request.params, reply.status, weight, fault)
        self.request_log.add(attrs.evolve(logged, size=len(reply.body)))
        if self.options.gzip:
            reply = compressed(reply, request)
        script = broken_script(fault, reply, now) or plain_script(reply, now)
        return (float(self.latency), *script) if self.latency > 0 else script

    def _truth(self, venue: Venue, request: ServerRequest, now: int) -> ServerReply:
        reply = venue.answer(request, now)
        return reply if self.edit is None else self.edit(request, reply)

    def _reply(
        self, venue: Venue, request: ServerRequest, now: int
    ) -> tuple[ServerReply, int, FaultKind | None]:
        charge = venue.charge(request)
        verdict = Decision(0)
        usage: Mapping[str, str] = {}
        if self._limiter is not None:
            verdict = self._limiter.charge(request.client, charge, now)
            usage = venue.rate_limit_headers(charge, verdict)
        fault: FaultKind | None = None
        if verdict.refused:
            reply = venue.refuse(request, verdict, now)
        else:
            reply = self._truth(venue, request, now)
            fault = None if self._schedule is None else self._schedule.next(request.path, request.key)
            if fault is not None:
                context = FaultContext(request, reply, now, lambda other: self._truth(venue, other, now))
                broken = apply_response_fault(fault, context)
                reply, fault = (reply, None) if broken is None else (broken, fault)
        return ServerReply(reply.status, reply.body, {**reply.headers, **usage}), charge.weight, fault
