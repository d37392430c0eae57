"""Sinks by their URLs, as in `--to`: `duckdb:market.duckdb`, `sqlite:market.db`, `parquet:DIR`, `postgresql://…`."""

from __future__ import annotations

from pathlib import PureWindowsPath
from typing import Any

from marketfetch.common.optional_packages import plug_ins
from marketfetch.errors import ConfigurationError, unknown
from marketfetch.protocols import Sink
from marketfetch.redaction import Secret

__all__ = ["sink_from"]

_GROUP = "marketfetch.sinks"


def sink_from(text: str | Secret, argument: str = "to") -> Sink:
    """Make the sink that a text names by its scheme; nothing is opened.

    A scheme is the name of an entry point in the group `marketfetch.sinks`, which leads to a class with
    `from_url(text)`. Raises ConfigurationError for a text without a scheme or a place, and, with near
    matches, for an unknown scheme; the error names the `argument`.

    >>> sink_from("sqlite:market.db")
    SQLiteSink('market.db')
    """
    text = Secret.of(text)  # under the same name: debuggers show the values that a raising frame holds
    scheme = _scheme(text)
    if not scheme:
        raise ConfigurationError(
            f"{argument}: name a kind of store and its place, such as "
            f"{_meant(text) or 'duckdb:market.duckdb'}"
        )
    if scheme == "postgres":  # libpq takes both spellings
        scheme = "postgresql"
    found = list(plug_ins(_GROUP).select(name=scheme))
    if not found:
        raise unknown(argument, scheme, plug_ins(_GROUP).names)
    entry = found[0]
    try:
        kind: Any = entry.load()
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"{argument}: the plug-in {scheme} ({entry.value}) cannot be loaded: {error}; install it anew"
        ) from error
    if not callable(getattr(kind, "from_url", None)):
        raise ConfigurationError(f"{argument}: the plug-in {scheme} ({entry.value}) has no from_url(text)")
    sink: Sink = kind.from_url(text.reveal())
    return sink


def _meant(text: Secret) -> str:
    """Return the URL of a file name; empty for a text that may hold a credential."""
    name = text.reveal()
    kind = name.rpartition(".")[2]
    rest = name.removeprefix(PureWindowsPath(name).drive)
    return f"{kind}:{name}" if kind in {"duckdb", "sqlite"} and not set(rest) & set(":@= ") else ""


def _scheme(text: Secret) -> str:
    """Return the text before the first colon if it can be a scheme.

    Other text may be part of a credential. One letter is a drive of Windows.
    """
    scheme, colon, _ = text.reveal().partition(":")
    return scheme if colon and len(scheme) > 1 and scheme.replace("-", "").isalnum() else ""
