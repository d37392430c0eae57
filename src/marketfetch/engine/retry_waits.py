"""The backoff between attempts, for requests and for stores alike."""

from __future__ import annotations

import random
from collections.abc import Iterator

from marketfetch.values.settings import RetryPolicy

__all__ = ["retry_waits"]


def retry_waits(policy: RetryPolicy, rng: random.Random) -> Iterator[tuple[int, float | None]]:
    """Yield, for each attempt that failed, its number and the seconds until the next attempt.

    The wait after the last attempt is None: there is no next attempt. The waits have jitter, so that many
    tasks that fail at the same moment do not retry at the same moment.

    >>> waits = retry_waits(RetryPolicy(attempts=3, initial=1.0), random.Random(1))
    >>> [(attempt, wait and round(wait, 2)) for attempt, wait in waits]
    [(1, 0.57), (2, 1.85), (3, None)]
    """
    for attempt in range(1, policy.attempts):
        yield attempt, policy.wait(attempt, rng.random())
    yield policy.attempts, None
