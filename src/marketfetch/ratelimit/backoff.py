"""Backoff: how long to wait before a retry, and what headers say of waits, dates and used weight."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from random import random

from marketfetch.values.settings import RetryPolicy

__all__ = ["parse_http_date", "retry_after", "retry_waits", "to_local_time", "used_weight"]

_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")
_WEIGHT = re.compile(r"[0-9]{1,15}")  # a larger number is none of a limit
_MAX_RETRY_AFTER = 3 * 86_400
"""Seconds: no exchange bans an address for longer, so that a longer wait is a mistake."""


def parse_http_date(text: str) -> int | None:
    """Read an HTTP date as UTC milliseconds; None for any other text.

    >>> parse_http_date("Sun, 14 Mar 2021 02:49:08 GMT")
    1615690148000
    """
    try:
        return int(parsedate_to_datetime(text).timestamp() * 1000)
    except (ValueError, OverflowError, IndexError, TypeError):  # all that the parser raises for odd text
        return None


def retry_after(headers: Mapping[str, str], now: int) -> float | None:
    """Return the wait that `Retry-After` asks for, in seconds; None if the header is absent or useless.

    The header has a number of seconds or a date. It is useless if it has other text, a date that has passed
    or a wait of more than three days. `now` is UTC milliseconds; a date is compared with the `Date` header,
    and with `now` if there is none.

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
    return wait if 0 <= wait <= _MAX_RETRY_AFTER else None


def to_local_time(theirs: int, headers: Mapping[str, str], now: int) -> int:
    """Translate a moment from the server's clock to the local clock; all times are UTC milliseconds.

    The `Date` header shows the server's clock, `now` the local clock when the response came.

    >>> to_local_time(60_000, {"date": "Thu, 01 Jan 1970 00:00:20 GMT"}, now=1_000_000)
    1040000
    """
    answered = parse_http_date(headers.get("date", ""))
    return theirs if answered is None else now + theirs - answered


def used_weight(headers: Mapping[str, str], name: str) -> int | None:
    """Return what a header says is used of a limit; None if it is absent or no plausible number.

    >>> used_weight({"x-mbx-used-weight-1m": "40"}, "X-MBX-USED-WEIGHT-1M")
    40
    """
    text = headers.get(name.lower(), "")
    return int(text) if _WEIGHT.fullmatch(text) else None


def retry_waits(policy: RetryPolicy) -> Iterator[tuple[int, float | None]]:
    """Yield, for each attempt that failed, its number and the seconds until the next attempt.

    The wait after the last attempt is None: there is no next attempt. The waits have jitter, so that many
    tasks that fail at the same moment do not retry at the same moment.

    >>> list(retry_waits(RetryPolicy(attempts=3, initial=0.0)))
    [(1, 0.0), (2, 0.0), (3, None)]
    """
    for attempt in range(1, policy.attempts):
        yield attempt, policy.wait(attempt, random())  # noqa: S311  # jitter
    yield policy.attempts, None
