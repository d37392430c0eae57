"""The interface of a simulated venue, and the errors and parameters that venues share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import attrs

from marketfetch.testing.http.messages import ServerReply, ServerRequest
from marketfetch.testing.venues.rate_limiter import Decision, RequestCost

__all__ = ["ApiError", "Venue", "integer"]


class Venue(Protocol):
    """The REST interface of one exchange: functions of the request and the exchange's time (UTC ms)."""

    def serves(self, request: ServerRequest) -> bool:
        """Return whether a request is meant for this venue."""
        ...

    def charge(self, request: ServerRequest) -> RequestCost:
        """Return the cost of a request, which counts even if the answer is an error."""
        ...

    def answer(self, request: ServerRequest, now: int) -> ServerReply:
        """Return the correct reply to a request."""
        ...

    def refuse(self, request: ServerRequest, verdict: Decision, now: int) -> ServerReply:
        """Return the reply to a request that exceeds a rate limit."""
        ...

    def rate_limit_headers(self, charge: RequestCost, verdict: Decision) -> Mapping[str, str]:
        """Return the headers with the client's used weight."""
        ...


@attrs.frozen
class ApiError(Exception):
    """Raised by a route: the exchange answers the request with this status, code and message."""

    status: int
    code: int
    message: str


def integer(text: str | None) -> int | None:
    """Parse an integer of at most 20 digits; None for anything else."""
    return int(text) if text is not None and len(text) <= 20 and text.isascii() and text.isdigit() else None
