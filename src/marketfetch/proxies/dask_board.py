"""A board for the workers of a Dask cluster that share no store: texts that the scheduler keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import attrs

from marketfetch.common.event_loop import run
from marketfetch.common.optional_packages import from_extra
from marketfetch.errors import ConfigurationError, SinkError, SinkUnavailable
from marketfetch.values.times import uptime

if TYPE_CHECKING:
    from distributed import Scheduler

__all__ = ["DaskBoard", "connection_args", "connection_reason"]

_T = TypeVar("_T")
_Replaced = tuple[bool, str | None, float]
_TIMEOUT = 10.0
"""Seconds for a connection to a scheduler and its answer."""


@attrs.frozen
class DaskBoard:
    """Keeps each text in the memory of a Dask scheduler; its clock is that of the scheduler.

    A step runs in the process that takes it, and again if another process has changed the text meanwhile.
    The texts end with the scheduler, as the cluster does. marketfetch has to be installed there.

    >>> DaskBoard.from_url("dask:tcp://10.0.0.5:8786")
    DaskBoard(address='tcp://10.0.0.5:8786')
    """

    address: str

    @classmethod
    def from_url(cls, url: str) -> DaskBoard:
        """Make the board that `dask:ADDRESS` names."""
        address, url = url.partition(":")[2], ""  # debuggers show the values that a raising frame holds
        if "://" not in address or "@" in address:
            address = ""
            raise ConfigurationError(
                "board: name a scheduler, without a user, such as dask:tcp://10.0.0.5:8786"
            )
        return cls(address)

    def change(self, name: str, step: Callable[[str | None, float], tuple[str, _T]]) -> _T:
        _, found, now = self._replace(name, None, None)
        while True:
            text, result = step(found, now)
            is_written, found, now = self._replace(name, found, text)
            if is_written:
                return result

    def _replace(self, name: str, expected: str | None, text: str | None) -> _Replaced:
        """Call `_replace_if` on the scheduler."""
        with from_extra("dask", "board"):
            from distributed.comm.addressing import get_address_host_port
        try:
            get_address_host_port(self.address)
        except ValueError as error:
            raise ConfigurationError(
                f"board: {self.address!r} is no address of a scheduler: {error}"
            ) from error
        work = {"name": name, "expected": expected, "text": text}
        try:
            return run(_on_scheduler, self.address, work)
        except ModuleNotFoundError as error:
            remedy = f"lacks {error.name}; install marketfetch there"
            raise SinkError(f"board: the scheduler at {self.address} {remedy}") from error
        except OSError as error:  # also TimeoutError, and those of Dask's connections
            reason = connection_reason(error) or f"no answer in {_TIMEOUT:g} s"
            raise SinkUnavailable(
                f"board: the scheduler at {self.address} does not answer: {reason}"
            ) from error


def connection_reason(error: OSError) -> str:
    """Return why a connection failed, without the names that Dask's objects have in their process."""
    return str(error.__cause__ or error).rpartition(">: ")[2]


def connection_args(argument: str, address: str) -> dict[str, Any]:
    """Return how to connect with a scheduler, by the configuration of Dask in this process.

    Raises ConfigurationError, which names the argument, for TLS without certificates: Dask would raise
    TypeError late, after tries.
    """
    from distributed.security import Security

    found: dict[str, Any] = Security().get_connection_args("client")
    if address.startswith("tls:") and found["ssl_context"] is None:
        raise ConfigurationError(
            f"{argument}: {address!r} needs certificates, and the configuration of Dask has none here; set "
            "ca-file, client.cert and client.key of distributed.comm.tls"
        )
    return found


async def _on_scheduler(address: str, work: dict[str, str | None]) -> _Replaced:
    """Call `_replace_if` through a connection of its own; a Client would outlive its scheduler."""
    from distributed import rpc
    from distributed.core import clean_exception
    from distributed.protocol.pickle import dumps

    arguments = connection_args("board", address)
    with anyio.fail_after(_TIMEOUT):
        connection: Any = rpc(address, timeout=_TIMEOUT, connection_args=arguments)
        async with connection as scheduler:
            answer = await scheduler.run_function(
                function=dumps(_replace_if), args=dumps(()), kwargs=dumps(work)
            )
    if answer["status"] == "error":
        raise clean_exception(**answer)[1] or RuntimeError(answer)
    found: _Replaced = answer["result"]
    return found


def _replace_if(name: str, expected: str | None, text: str | None, dask_scheduler: Scheduler) -> _Replaced:
    """Replace a text if it is as expected; return whether it was, the text as it is now, and the time.

    Runs on the scheduler, which does one thing at a time. A text of None is not written.
    """
    texts = dask_scheduler.extensions.setdefault("marketfetch", {})
    is_written = text is not None and texts.get(name) == expected
    if is_written:
        texts[name] = text
    return is_written, texts.get(name), uptime() / 1e9
