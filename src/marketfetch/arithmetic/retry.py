"""When to ask again: waits that grow, are capped and jittered, and what `Retry-After` says."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import attrs

__all__ = ["Retries", "http_date", "retry_after"]


def http_date(text: str) -> int | None:
    """Read an HTTP date as UTC milliseconds, None if it is none.

    >>> http_date("Sun, 14 Mar 2021 02:49:08 GMT")
    1615690148000
    """
    try:
        return int(parsedate_to_datetime(text).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None


def retry_after(headers: Mapping[str, str], now: int) -> float | None:
    """Read `Retry-After` in seconds, given as a number or as a date; None if absent or meaningless.

    `now` is UTC milliseconds and stands in for the `Date` header where that is missing.

    >>> retry_after({"retry-after": "30"}, now=0)
    30.0
    """
    text = headers.get("retry-after", "").strip()
    if text.isdecimal() and len(text) < 10:
        return float(text)
    until = http_date(text) if text else None
    if until is None:
        return None
    answered = http_date(headers.get("date", "")) or now
    return max(0.0, (until - answered) / 1000)


@attrs.frozen
class Retries:
    """How often and after which waits a request is repeated; times in seconds.

    >>> Retries(initial=0.5, cap=30).wait(3, jitter=1.0)
    2.0
    """

    attempts: int = 8
    initial: float = 0.25
    cap: float = 20.0

    def wait(self, failures: int, jitter: float) -> float:
        """Return the wait after so many failures; `jitter` in [0, 1] takes up to half of it away."""
        full = min(self.cap, self.initial * 2.0 ** (failures - 1))
        return full * (0.5 + 0.5 * jitter)
