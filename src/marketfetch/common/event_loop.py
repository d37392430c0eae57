"""Check that code runs on an event loop of asyncio."""

from __future__ import annotations

import asyncio

from marketfetch.errors import ConfigurationError

__all__ = ["asyncio_loop"]


def asyncio_loop(what: str) -> asyncio.AbstractEventLoop:
    """Return the running event loop; ConfigurationError without an event loop of asyncio, as under trio.

    >>> asyncio_loop("a Pipeline")
    Traceback (most recent call last):
    marketfetch.errors.ConfigurationError: asyncio is needed: a Pipeline runs on its event loop, and ...
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError(
            f"asyncio is needed: {what} runs on its event loop, and none is running here; under trio call "
            "marketfetch.fetch(...) in a thread, such as by trio.to_thread.run_sync: it has a loop of its own"
        ) from None
