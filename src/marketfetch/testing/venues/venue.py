"""What one simulated venue is to the server, and what the venues share in reading parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import attrs

from marketfetch.testing.http.messages import ServerReply, ServerRequest
from marketfetch.testing.venues.rate_limiter import Decision, RequestCost

__all__ = ["ApiError", "Venue", "integer"]


class Venue(Protocol):
    """One exchange's REST interface: functions of the request and the exchange's time (UTC ms) alone."""

    def serves(self, path: str) -> bool:
        """Whether a path belongs to this venue."""
        ...

    def charge(self, request: ServerRequest) -> RequestCost:
        """Return what a request costs, due even if it will be answered by an error."""
        ...

    def answer(self, request: ServerRequest, now: int) -> ServerReply:
        """Return the truthful answer to a request."""
        ...

    def refuse(self, request: ServerRequest, verdict: Decision, now: int) -> ServerReply:
        """Return the answer to a request that exceeds a limit."""
        ...

    def rate_limit_headers(self, charge: RequestCost, verdict: Decision) -> Mapping[str, str]:
        """Return the headers that tell the client what it has used."""
        ...


@attrs.frozen
class ApiError(Exception):  # not an error of ours: how a route says that a request is answered by an error
    """A request that the exchange answers with an error of the given status and code."""

    status: int
    code: int
    message: str


def integer(text: str | None) -> int | None:
    """Read a whole number of at most 20 digits; None for anything else."""
    return int(text) if text is not None and len(text) <= 20 and text.isascii() and text.isdigit() else None
