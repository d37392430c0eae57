"""When to ask again: waits that grow, are capped and jittered, and what `Retry-After` says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

__all__ = ["parse_http_date", "retry_after", "to_local_time"]

_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")
_LONGEST = 3 * 86_400
"""Seconds: no exchange shuts anybody out for longer, so that a longer wait is a mistake."""


def parse_http_date(text: str) -> int | None:
    """Read an HTTP date as UTC milliseconds, None if it is none.

    >>> parse_http_date("Sun, 14 Mar 2021 02:49:08 GMT")
    1615690148000
    """
    try:
        return int(parsedate_to_datetime(text).timestamp() * 1000)
    except (ValueError, OverflowError, IndexError, TypeError):  # it trips over odd text in many ways
        return None


def retry_after(headers: Mapping[str, str], now: int) -> float | None:
    """Read `Retry-After` in seconds, given as a number or as a date; None if absent or meaningless.

    Meaningless are text, a negative number, a date that is over, and whatever is longer than any exchange
    shuts anybody out. `now` is UTC milliseconds and stands in for the `Date` header where that is missing.

    >>> retry_after({"retry-after": "30"}, now=0)
    30.0
    """
    text = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(text):
        wait = float(text)
    else:
        until = parse_http_date(text) if text else None
        if until is None:
            return None
        wait = (to_local_time(until, headers, now) - now) / 1000
    return wait if 0 <= wait <= _LONGEST else None


def to_local_time(theirs: int, headers: Mapping[str, str], now: int) -> int:
    """Translate a moment by the clock that wrote the `Date` header into one by ours; all UTC milliseconds.

    `now` is our time when the answer came in.

    >>> to_local_time(60_000, {"date": "Thu, 01 Jan 1970 00:00:20 GMT"}, now=1_000_000)
    1040000
    """
    answered = parse_http_date(headers.get("date", ""))
    return theirs if answered is None else now + theirs - answered
