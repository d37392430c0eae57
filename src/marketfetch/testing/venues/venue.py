"""The interface of a simulated venue, its routes, and the errors and parameters that venues share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import attrs

from marketfetch.testing.http.messages import ServerReply, ServerRequest
from marketfetch.testing.markets.market import Market
from marketfetch.testing.venues.rate_limiter import Decision, RequestCost

__all__ = ["Answer", "ApiError", "Route", "Venue", "integer"]

Answer = Callable[[Market, ServerRequest, int], ServerReply]


@attrs.frozen
class ApiError(Exception):
    """Raised by a route: the exchange answers the request with this status, code and message."""

    status: int
    code: int
    message: str


@attrs.frozen
class Route:
    """The handler and the cost function of one path."""

    answer: Answer
    charge: Callable[[ServerRequest], RequestCost]


class Venue(ABC):
    """The REST interface of one exchange: functions of the request and the exchange's time (UTC ms)."""

    def __init__(self, market: Market, routes: Mapping[str, Route]) -> None:
        self._market = market
        self._routes = routes

    def serves(self, request: ServerRequest) -> bool:
        """Return whether a request is meant for this venue."""
        return request.path in self._routes

    def charge(self, request: ServerRequest) -> RequestCost:
        """Return the cost of a request, which counts even if the answer is an error."""
        return self._routes[request.path].charge(request)

    def answer(self, request: ServerRequest, now: int) -> ServerReply:
        """Return the correct reply to a request."""
        try:
            return self._routes[request.path].answer(self._market, request, now)
        except ApiError as refused:
            return self.error(refused)

    @abstractmethod
    def error(self, refused: ApiError) -> ServerReply:
        """Return the reply in which the exchange names an error."""

    @abstractmethod
    def refuse(self, request: ServerRequest, verdict: Decision, now: int) -> ServerReply:
        """Return the reply to a request that exceeds a rate limit."""

    @abstractmethod
    def rate_limit_headers(self, charge: RequestCost, verdict: Decision) -> Mapping[str, str]:
        """Return the headers with the client's used weight."""


def integer(text: str | None) -> int | None:
    """Parse an integer of at most 20 digits; None for anything else."""
    return int(text) if text is not None and len(text) <= 20 and text.isascii() and text.isdigit() else None
