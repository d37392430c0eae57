"""When a series is due: a candle closes, a candle becomes final, an event is expected. Pure."""

from __future__ import annotations

from marketfetch.engine.missing import publish_delay
from marketfetch.sources import Endpoint
from marketfetch.values.intervals import Interval
from marketfetch.values.spans import HOUR

__all__ = ["final_until", "late_wait", "next_due"]

_AFTER_CLOSE = 250
"""Milliseconds from the close of a candle to its request: exchanges need a moment to publish it."""
_LATE_WAITS = (1_000, 2_000, 4_000, 8_000)
"""Milliseconds before each new request for a candle that has closed and is not published yet."""


def final_until(interval: Interval, endpoint: Endpoint, now: int) -> int:
    """Return the end of the last row that no longer changes, UTC milliseconds.

    Example: at 12:01:30 the candle from 11:59 to 12:00 is the last final one, if it takes a minute.
    """
    return interval.floor(now - publish_delay(endpoint))


def next_due(interval: Interval, endpoint: Endpoint, now: int) -> int:
    """Return the next moment at which a series has something new, UTC milliseconds.

    1. Events: a few minutes after each full hour, at which exchanges pay funding.
    2. Rows on a grid: when the next one closes, or when the newest one becomes final, if that is sooner. For
       1m and a delay of a minute both are the same moment; a candle of 1h is requested at its close and a
       minute later.
    """
    delay = publish_delay(endpoint)
    if interval.is_event:
        return (now - delay) // HOUR * HOUR + HOUR + delay
    requestable_until = now - _AFTER_CLOSE
    closes = interval.shift(interval.floor(requestable_until), 1)
    final = interval.shift(interval.floor(requestable_until - delay), 1) + delay
    return min(closes, final) + _AFTER_CLOSE


def late_wait(requests: int) -> int | None:
    """Return the wait before a late candle is requested again, in milliseconds; None: when the next is due.

    `requests` is how often it was requested in vain.

    >>> [late_wait(requests) for requests in (1, 2, 5)]
    [1000, 2000, None]
    """
    return _LATE_WAITS[requests - 1] if requests <= len(_LATE_WAITS) else None
