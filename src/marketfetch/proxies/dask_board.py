"""A board for the workers of a Dask cluster that share no store: texts that the scheduler keeps."""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from marketfetch.common.optional_packages import from_extra
from marketfetch.errors import ConfigurationError, SinkError, SinkUnavailable
from marketfetch.values.times import uptime

if TYPE_CHECKING:
    from distributed import Client, Scheduler

__all__ = ["DaskBoard"]

_T = TypeVar("_T")
_TIMEOUT = 10.0
"""Seconds for the connection to a scheduler."""


@attrs.frozen
class DaskBoard:
    """Keeps each text in the memory of a Dask scheduler; its clock is that of the scheduler.

    A step runs in the process that takes it, and again if another process has changed the text meanwhile.
    The texts end with the scheduler, as the cluster does. marketfetch has to be installed there.

    >>> DaskBoard.from_url("dask:tcp://10.0.0.5:8786")
    DaskBoard(address='tcp://10.0.0.5:8786')
    """

    address: str
    _clients: dict[int, Client] = attrs.field(factory=dict, init=False, eq=False, repr=False)
    """The connection of this process, by its id: a forked process opens its own."""
    _opening: Lock = attrs.field(factory=Lock, init=False, eq=False, repr=False)

    @classmethod
    def from_url(cls, url: str) -> DaskBoard:
        """Make the board that `dask:ADDRESS` names."""
        address = url.partition(":")[2]
        if "://" not in address:
            raise ConfigurationError("board: name a scheduler, such as dask:tcp://10.0.0.5:8786")
        return cls(address)

    def change(self, name: str, step: Callable[[str | None, float], tuple[str, _T]]) -> _T:
        _, found, now = self._replace(name, None, None)
        while True:
            text, result = step(found, now)
            is_written, found, now = self._replace(name, found, text)
            if is_written:
                return result

    def _replace(self, name: str, expected: str | None, text: str | None) -> tuple[bool, str | None, float]:
        """Call `_replace_if` on the scheduler."""
        try:
            with from_extra("dask", "board"):
                client = self._client()
            found: tuple[bool, str | None, float] = client.run_on_scheduler(
                _replace_if, name=name, expected=expected, text=text
            )
        except ModuleNotFoundError as error:
            remedy = f"lacks {error.name}; install marketfetch there"
            raise SinkError(f"board: the scheduler at {self.address} {remedy}") from error
        except OSError as error:  # also TimeoutError, and those of Dask's connections
            raise SinkUnavailable(
                f"board: the scheduler at {self.address} does not answer: {error}"
            ) from error
        return found

    def _client(self) -> Any:  # its methods block or are awaited, and its types say both
        from distributed import Client

        with self._opening:
            process = os.getpid()
            if process not in self._clients:
                self._clients[process] = Client(self.address, timeout=_TIMEOUT, set_as_default=False)
            return self._clients[process]

    def __reduce__(self) -> tuple[type[DaskBoard], tuple[str]]:
        return DaskBoard, (self.address,)


def _replace_if(
    name: str, expected: str | None, text: str | None, dask_scheduler: Scheduler
) -> tuple[bool, str | None, float]:
    """Replace a text if it is as expected; return whether it was, the text as it is now, and the time.

    Runs on the scheduler, which does one thing at a time. A text of None is not written.
    """
    texts = dask_scheduler.extensions.setdefault("marketfetch", {})
    is_written = text is not None and texts.get(name) == expected
    if is_written:
        texts[name] = text
    return is_written, texts.get(name), uptime() / 1e9
