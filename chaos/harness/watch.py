"""A clock that stands while a process is ready to run and other processes have all processors."""

from __future__ import annotations

import os
import time
from pathlib import Path

__all__ = ["Watch"]


class Watch:
    """Counts the seconds of a process from now on, without those in which it had no processor.

    On a busy machine a process that needs a second of a processor may take ten. The seconds in which it waits
    for something else, such as a lock, a reply or a timer, count. Only Linux tells how long a thread had no
    processor; elsewhere every second counts.
    """

    def __init__(self, pid: int | None = None, *, tasks: Path | None = None) -> None:
        self._tasks = tasks or Path(f"/proc/{pid or os.getpid()}/task")
        self._began = time.monotonic()
        self._last: dict[str, int] = {}
        self._waited = 0
        self.look()

    def look(self) -> None:
        """Read how long each thread has waited; after the end of a thread nothing tells it any more.

        Threads wait at the same time: of the waits since the last look only the longest counts.
        """
        since = [0]
        for file in self._tasks.glob("*/schedstat"):
            try:
                _, waited, _ = file.read_text("ascii").split()
            except (OSError, ValueError):
                continue  # the thread has ended
            thread = file.parent.name
            since.append(int(waited) - self._last.get(thread, int(waited)))
            self._last[thread] = int(waited)
        self._waited += max(since)

    def without_processor(self) -> float:
        """Return the seconds in which the process waited for a processor, until the last look."""
        return self._waited / 1e9

    def seconds(self) -> float:
        """Return the seconds that count."""
        self.look()
        return max(0.0, time.monotonic() - self._began - self.without_processor())
