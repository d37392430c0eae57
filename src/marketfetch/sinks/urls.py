"""Sinks by their URLs, as in `--to`: `duckdb:market.duckdb`, `sqlite:market.db`, `parquet:DIR`, `postgresql://…`."""

from __future__ import annotations

from pathlib import PureWindowsPath

from marketfetch.common.optional_packages import load_plug_in, scheme_of
from marketfetch.errors import ConfigurationError
from marketfetch.protocols import Sink
from marketfetch.redaction import Secret

__all__ = ["sink_from"]


def sink_from(text: str | Secret, argument: str = "to") -> Sink:
    """Make the sink that a text names by its scheme; nothing is opened.

    A scheme is the name of an entry point in the group `marketfetch.sinks`, which leads to a class with
    `from_url(text)`. Raises ConfigurationError for a text without a scheme or a place, and, with near
    matches, for an unknown scheme; the error names the `argument`.

    >>> sink_from("sqlite:market.db")
    SQLiteSink('market.db')
    """
    text = Secret.of(text)  # under the same name: debuggers show the values that a raising frame holds
    scheme = scheme_of(text)
    if not scheme:
        raise ConfigurationError(
            f"{argument}: name a kind of store and its place, such as "
            f"{_meant(text) or 'duckdb:market.duckdb'}"
        )
    kind = load_plug_in("marketfetch.sinks", argument, scheme, method="from_url")
    sink: Sink = kind.from_url(text.reveal())
    return sink


def _meant(text: Secret) -> str:
    """Return the URL of a file name; empty for a text that may hold a credential."""
    name = text.reveal()
    kind = name.rpartition(".")[2]
    rest = name.removeprefix(PureWindowsPath(name).drive)
    return f"{kind}:{name}" if kind in {"duckdb", "sqlite"} and not set(rest) & set(":@= ") else ""
