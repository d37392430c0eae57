"""What an adapter is held against: recorded answers, and small judgements about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs
import pytest

from marketfetch.arithmetic.quality import inspect, possible
from marketfetch.errors import DecodeError
from marketfetch.exchange import Endpoint
from marketfetch.testing.rubbish import GARBAGE
from marketfetch.values.http import Request, Response
from marketfetch.values.intervals import EVENT
from marketfetch.values.series import Slice
from marketfetch.values.times import Moment

__all__ = [
    "PRESENT",
    "Case",
    "Recording",
    "check_side_request",
    "only_decode_errors",
    "read_anything",
    "refuses_garbage",
    "response",
    "usual_intervals",
]

PRESENT = 1_790_000_000_000
"""A fixed present, UTC milliseconds: the contract asks no clock."""


@attrs.frozen
class Recording:
    """A real answer and what was asked: the rows of `[start, end)`, all of them final."""

    dataset: str
    body: bytes = attrs.field(repr=False)
    start: Moment = attrs.field(kw_only=True)
    end: Moment = attrs.field(kw_only=True)
    interval: str = attrs.field(default="1m", kw_only=True)
    symbol: str | None = attrs.field(default=None, kw_only=True)


@attrs.frozen
class Case:
    """One endpoint with a slice and the bytes that answered it."""

    endpoint: Endpoint
    part: Slice
    body: bytes


def usual_intervals(endpoint: Endpoint) -> list[str]:
    """Intervals that most exchanges have, of those the endpoint has; else its first."""
    if endpoint.kind.event:
        return [EVENT.name]
    return [name for name in ("1m", "1h", "1d") if name in endpoint.intervals] or list(endpoint.intervals)[:1]


def response(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Response:
    """Make an answer that has just arrived."""
    return Response(status, headers or {}, body, sent_at=PRESENT - 100, received_at=PRESENT)


def check_side_request(request: Request) -> None:
    """Assert that a request for the clock or for the symbols is a plain, payable one."""
    assert request.path.startswith("/"), f"path {request.path!r}: the host is added by the exchange"
    cost = request.cost
    assert 1 <= cost.weight <= cost.pool.capacity, f"costs {cost.weight} of {cost.pool.capacity}"


def refuses_garbage(decode: Callable[[bytes], object]) -> None:
    """Assert that whatever is no answer at all raises DecodeError."""
    for body in GARBAGE:
        with pytest.raises(DecodeError):
            pytest.fail(f"{body[:60]!r}… was taken for {decode(body)!r}")


def only_decode_errors(read: Callable[[], object]) -> None:
    """Call something that may raise DecodeError and nothing else."""
    try:
        read()
    except DecodeError:
        return


def read_anything(endpoint: Endpoint, body: bytes, part: Slice) -> None:
    """Decode anything: either DecodeError, or rows of which only possible ones are kept."""

    def read() -> None:
        page = inspect(endpoint.decode(body, part), part)
        assert possible(endpoint.kind, page.columns.values).all(), f"{body[:200]!r} left an impossible row"
        for row in page.invalid:
            assert row.raw.isascii(), f"{row.raw[:200]!r} is more than ASCII: make it with raw_text"
            assert row.raw.isprintable(), f"{row.raw[:200]!r} is no line of text: make it with raw_text"

    only_decode_errors(read)
