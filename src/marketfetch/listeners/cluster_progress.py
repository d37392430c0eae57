"""The progress of several workers as that of one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from marketfetch.events import Event, Heartbeat

__all__ = ["ClusterProgress"]


@attrs.define
class ClusterProgress:
    """Adds up the heartbeats of the workers: the rows of all, of the work that each of them has planned."""

    emit: Callable[[Event], None]
    is_over: bool = attrs.field(default=False, init=False)
    _last: dict[str, Heartbeat] = attrs.field(factory=dict, init=False)

    def add(self, message: Mapping[str, Any]) -> None:
        """Take the `numbers` of the last heartbeat of one `worker`."""
        if self.is_over:
            return
        self._last[message["worker"]] = last = Heartbeat(egresses=(), **message["numbers"])
        every = self._last.values()
        self.emit(
            attrs.evolve(
                last,
                rows_fetched=sum(each.rows_fetched for each in every),
                rows_written=sum(each.rows_written for each in every),
                rows_planned=max(each.rows_planned for each in every),
                requests=sum(each.requests for each in every),
            )
        )
