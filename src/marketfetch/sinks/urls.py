"""From `--to` to a sink: `duckdb:market.duckdb`, `sqlite:market.db`, `parquet:DIR`, `postgresql://…`."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from marketfetch.errors import ConfigurationError, unknown
from marketfetch.protocols import Sink

__all__ = ["sink_from"]

_GROUP = "marketfetch.sinks"
_ALIASES = {"postgres": "postgresql"}
_WHOLE = frozenset({"postgresql"})
"""Schemes that belong to the place itself: the sink gets the whole text, not what follows the colon."""


def sink_from(text: str) -> Sink:
    """Make the sink that a text names; third parties add schemes by entry point.

    Raises ConfigurationError for a text without a scheme or a place, and, with near matches, for an unknown
    scheme.

    >>> sink_from("memory:")
    MemorySink(0 series)
    """
    scheme, colon, place = text.partition(":")
    scheme = _ALIASES.get(scheme, scheme)
    if not colon:
        raise ConfigurationError("to: name a kind of store and its place, such as duckdb:market.duckdb")
    found = list(entry_points(group=_GROUP, name=scheme))
    if not found:
        raise unknown("to", scheme, entry_points(group=_GROUP).names)
    if not place and scheme != "memory":
        raise ConfigurationError(f"to: {text!r} names no place; write {scheme}:PLACE")
    kind: Any = found[0].load()
    sink: Sink = kind.from_url(text if scheme in _WHOLE else place)
    return sink
