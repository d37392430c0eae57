"""The request log of a simulated exchange or archive."""

from __future__ import annotations

import enum
import threading
from collections import Counter, deque
from collections.abc import Mapping
from typing import Generic, TypeVar

import attrs

__all__ = ["LoggedRequest", "RequestLog"]


_Fault = TypeVar("_Fault", bound=enum.StrEnum)
"""The kinds of faults of a server."""


@attrs.frozen
class LoggedRequest(Generic[_Fault]):
    """One request and the status of its reply; `time` is the server's clock (UTC ms)."""

    time: int
    client: str
    path: str
    params: Mapping[str, str]
    status: int
    """The status of the reply, also if the reply did not reach the client."""
    weight: int
    fault: _Fault | None = None
    kind: str = "request"
    """`request` at an exchange; `listing`, `file` or `checksum` at an archive."""
    size: int = 0
    """The bytes of the body, also if not all of them reached the client."""


class RequestLog(Generic[_Fault]):
    """Counters of all requests, and the latest requests themselves. May be read from any thread.

    Each property returns a copy, which later requests do not change.
    """

    def __init__(self, size: int) -> None:
        self._lock = threading.Lock()
        self._latest: deque[LoggedRequest[_Fault]] = deque(maxlen=size)
        self._statuses: Counter[int] = Counter()
        self._requests: Counter[str] = Counter()
        self._weights: Counter[str] = Counter()
        self._faults: Counter[_Fault] = Counter()
        self._kinds: Counter[str] = Counter()
        self._sizes: Counter[str] = Counter()
        self._connections: Counter[str] = Counter()

    def add(self, request: LoggedRequest[_Fault]) -> None:
        """Count one request."""
        with self._lock:
            self._latest.append(request)
            self._statuses[request.status] += 1
            self._requests[request.client] += 1
            self._weights[request.client] += request.weight
            self._kinds[request.kind] += 1
            self._sizes[request.kind] += request.size
            if request.fault is not None:
                self._faults[request.fault] += 1

    def add_connection(self, client: str) -> None:
        """Count one accepted connection."""
        with self._lock:
            self._connections[client] += 1

    def clear(self) -> None:
        """Reset all counters and drop all requests."""
        with self._lock:
            for counts in (
                self._latest,
                self._statuses,
                self._requests,
                self._weights,
                self._faults,
                self._kinds,
                self._sizes,
                self._connections,
            ):
                counts.clear()

    @property
    def latest(self) -> list[LoggedRequest[_Fault]]:
        """The latest requests, oldest first; at most `log_size` of its options."""
        with self._lock:
            return list(self._latest)

    @property
    def total(self) -> int:
        """The number of requests."""
        with self._lock:
            return self._statuses.total()

    @property
    def statuses(self) -> Counter[int]:
        """The number of replies by status."""
        with self._lock:
            return self._statuses.copy()

    @property
    def requests(self) -> Counter[str]:
        """The number of requests by client address."""
        with self._lock:
            return self._requests.copy()

    @property
    def weights(self) -> Counter[str]:
        """The weight charged by client address, summed over all limit pools."""
        with self._lock:
            return self._weights.copy()

    @property
    def kinds(self) -> Counter[str]:
        """The number of requests by kind."""
        with self._lock:
            return self._kinds.copy()

    @property
    def sizes(self) -> Counter[str]:
        """The bytes of all bodies by the kind of the request."""
        with self._lock:
            return self._sizes.copy()

    @property
    def faults(self) -> Counter[_Fault]:
        """The number of faulty replies by kind of fault."""
        with self._lock:
            return self._faults.copy()

    @property
    def connections(self) -> Counter[str]:
        """The number of accepted connections by client address."""
        with self._lock:
            return self._connections.copy()
