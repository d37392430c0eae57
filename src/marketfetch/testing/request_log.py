"""What a simulated exchange remembers of its clients."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping

import attrs

from marketfetch.testing.faults.kinds import FaultKind

__all__ = ["LoggedRequest", "RequestLog"]


@attrs.frozen
class LoggedRequest:
    """One request as it was answered; `time` is the exchange's clock (UTC ms)."""

    time: int
    client: str
    path: str
    params: Mapping[str, str]
    status: int
    """What the answer says, whether or not it arrives."""
    weight: int
    fault: FaultKind | None = None


class RequestLog:
    """Exact counters of everything and the latest requests in full. Read it from any thread.

    Each property returns a copy, so that it can be compared with a later one.
    """

    def __init__(self, size: int) -> None:
        self._lock = threading.Lock()
        self._latest: deque[LoggedRequest] = deque(maxlen=size)
        self._statuses: Counter[int] = Counter()
        self._requests: Counter[str] = Counter()
        self._weights: Counter[str] = Counter()
        self._faults: Counter[FaultKind] = Counter()
        self._connections: Counter[str] = Counter()

    def add(self, seen: LoggedRequest) -> None:
        """Count one request."""
        with self._lock:
            self._latest.append(seen)
            self._statuses[seen.status] += 1
            self._requests[seen.client] += 1
            self._weights[seen.client] += seen.weight
            if seen.fault is not None:
                self._faults[seen.fault] += 1

    def add_connection(self, client: str) -> None:
        """Count one accepted connection."""
        with self._lock:
            self._connections[client] += 1

    def clear(self) -> None:
        """Forget everything seen so far."""
        with self._lock:
            for held in (
                self._latest,
                self._statuses,
                self._requests,
                self._weights,
                self._faults,
                self._connections,
            ):
                held.clear()

    @property
    def latest(self) -> list[LoggedRequest]:
        """The latest requests, oldest first; how many are kept is an option of the simulator."""
        with self._lock:
            return list(self._latest)

    @property
    def total(self) -> int:
        """How many requests were answered."""
        with self._lock:
            return self._statuses.total()

    @property
    def statuses(self) -> Counter[int]:
        """How many answers had which status."""
        with self._lock:
            return self._statuses.copy()

    @property
    def requests(self) -> Counter[str]:
        """How many requests came from which client address."""
        with self._lock:
            return self._requests.copy()

    @property
    def weights(self) -> Counter[str]:
        """How much weight every client address was charged, all pools together."""
        with self._lock:
            return self._weights.copy()

    @property
    def faults(self) -> Counter[FaultKind]:
        """How many answers each kind of fault has hit."""
        with self._lock:
            return self._faults.copy()

    @property
    def connections(self) -> Counter[str]:
        """How many connections were accepted from which client address."""
        with self._lock:
            return self._connections.copy()
