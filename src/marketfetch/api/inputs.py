"""Convert a caller's arguments to the parts of a run: objects, text, paths and lists are accepted."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

from marketfetch.common.type_checks import kind_of
from marketfetch.errors import ConfigurationError
from marketfetch.protocols import Fetcher, ProxyPool, Sink, Store
from marketfetch.proxies.pool import RotatingProxies
from marketfetch.redaction import Secret, redact
from marketfetch.sinks.urls import sink_from
from marketfetch.values.query import Query
from marketfetch.values.settings import Settings

__all__ = [
    "check_flag",
    "check_query",
    "fetcher_of",
    "has_password",
    "is_in_folder",
    "pool_of",
    "settings_of",
    "sink_of",
    "store_of",
]

_FILES = ("duckdb", "file", "parquet", "sqlite")
"""The kinds of stores and boards whose place is a path."""


def sink_of(argument: str, given: object) -> Sink:
    """Return a sink unchanged; make one from text such as `duckdb:market.duckdb`, or from a path.

    Raises ConfigurationError, which names the `argument`, for anything else.

    >>> sink_of("to", Path("market.sqlite"))
    SQLiteSink('market.sqlite')
    """
    if isinstance(given, str | Secret):
        return sink_from(given, argument)
    if isinstance(given, Path):
        return _sink_in(argument, given)
    if isinstance(given, type):
        raise ConfigurationError(f"{argument}: {given.__name__} is a class; write {given.__name__}(...)")
    if not isinstance(given, Sink):
        lacking = [name for name in ("max_writers", "prepare", "writer") if not hasattr(given, name)]
        raise ConfigurationError(
            f"{argument}: {type(given).__name__} lacks {', '.join(lacking)}; give a sink, or its URL such as "
            "duckdb:market.duckdb"
        )
    return given


def store_of(argument: str, given: object, purpose: str) -> Store:
    """Return a sink that can be read back; for another sink ConfigurationError names the `purpose`."""
    sink = sink_of(argument, given)
    if not isinstance(sink, Store):
        raise ConfigurationError(
            f"{argument}: {type(sink).__name__} does not know what it holds; {purpose} a store, such as "
            "sqlite:market.sqlite"
        )
    return sink


def pool_of(given: ProxyPool | Iterable[str | Secret] | str | Path | None) -> ProxyPool:
    """Return a pool unchanged; make one from addresses, or a file of them, and the direct connection.

    None stands for the direct connection alone.

    Raises ConfigurationError for a malformed address, and for an object that is neither a pool nor addresses.

    >>> pool_of(["http://10.0.0.1:3128"])
    <RotatingProxies: 2 egresses, 2 ready>
    """
    if given is None:
        return RotatingProxies(())
    if isinstance(given, Path):
        return RotatingProxies.from_file(given)
    if isinstance(given, str | Secret):
        return RotatingProxies([given])
    if isinstance(given, type):
        raise ConfigurationError(f"proxies: {given.__name__} is a class; write {given.__name__}(...)")
    if callable(getattr(given, "lease", None)) and callable(getattr(given, "statistics", None)):
        return given  # type: ignore[return-value]
    if not isinstance(given, Iterable):
        raise ConfigurationError(
            f"proxies: {type(given).__name__} is not a pool; give RotatingProxies([...]) or a list of URLs"
        )
    addresses = list(given)
    for number, address in enumerate(addresses, start=1):
        if not isinstance(address, str | Secret):
            raise ConfigurationError(
                f"proxies: entry {number} is of type {type(address).__name__}; write it as text, such as "
                "http://user:password@203.0.113.7:3128"
            )
    return RotatingProxies(addresses)


def _sink_in(argument: str, path: Path) -> Sink:
    kinds = {".duckdb": "duckdb", ".sqlite": "sqlite", ".sqlite3": "sqlite"}
    kind = kinds.get(path.suffix.lower())
    if kind is None:
        raise ConfigurationError(
            f"{argument}: the path {str(path)!r} does not say what kind of store it is; write text such as "
            f"'sqlite:{path}', 'duckdb:{path}' or 'parquet:{path}'"
        )
    return sink_from(f"{kind}:{path}")


def fetcher_of(given: Fetcher | None) -> Fetcher:
    """Return a fetcher unchanged, and a CurlFetcher for None; ConfigurationError for anything else."""
    if given is None:
        from marketfetch.fetchers.curl import CurlFetcher  # not at the top: reading a store needs none

        return CurlFetcher()
    if isinstance(given, type):
        raise ConfigurationError(f"fetcher: {given.__name__} is a class; write {given.__name__}()")
    if not all(callable(getattr(given, name, None)) for name in ("session", "fetch")):
        raise ConfigurationError(
            f"fetcher: {type(given).__name__} has no session and fetch; give a Fetcher, or leave it out"
        )
    return given


def settings_of(given: Settings | None) -> Settings:
    """Return settings for one run, by default the usual ones; ConfigurationError for anything else."""
    if given is not None and not isinstance(given, Settings):
        raise ConfigurationError(
            f"settings: {kind_of(given)} is not a Settings; write Settings(concurrency=20)"
        )
    return (Settings() if given is None else given).for_one_run()


def check_query(query: object) -> None:
    """Raise ConfigurationError for what is no Query."""
    if not isinstance(query, Query):
        raise ConfigurationError(
            f"query: {kind_of(query)} is not a Query; write Query(symbols='BTCUSDT', start='2026-06-01')"
        )


def check_flag(name: str, value: object) -> None:
    """Raise ConfigurationError for a value that is neither True nor False."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name}: {redact(repr(value))} is neither yes nor no; write True or False")


def has_password(url: str) -> bool:
    """Return whether a URL may have a password, also a percent-encoded one; a user alone is none."""
    _, slashes, rest = url.partition("://")
    user, at, place = rest.partition("@")
    if at and not set(":/?#") & set(unquote(user)):
        rest = place
    text = slashes + rest if slashes else url.partition(":")[2]
    return any(redact(spelt) != spelt for spelt in (text, unquote(text)))


def is_in_folder(url: str) -> bool:
    """Return whether a URL names a path that is another one in each working folder."""
    kind, _, place = url.partition(":")
    place = place.removeprefix("//")
    if os.path.splitdrive(place[1:])[0]:  # file:///C:/folder
        place = place[1:]
    return kind in _FILES and not Path(place).is_absolute()
