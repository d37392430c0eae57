"""Short tracebacks in notebooks for what is no error of marketfetch: an interrupt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from marketfetch.errors import MarketfetchError

__all__ = ["short_interrupts"]


@contextmanager
def short_interrupts() -> Iterator[None]:
    """Let IPython show a KeyboardInterrupt as it shows a MarketfetchError: with the frames of the caller."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        shown = partial(MarketfetchError._render_traceback_, interrupt)  # type: ignore[arg-type]
        vars(interrupt)["_render_traceback_"] = shown  # IPython calls it
        raise
