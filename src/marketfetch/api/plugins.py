"""Find installed exchanges by name, through package entry points."""

from __future__ import annotations

from importlib.metadata import entry_points

from marketfetch.errors import AdapterError, unknown
from marketfetch.exchange import Exchange

__all__ = ["exchange_from", "exchange_names"]

_GROUP = "marketfetch.exchanges"


def exchange_names() -> list[str]:
    """Return the names of all installed exchanges, sorted.

    >>> "binance-usdm" in exchange_names()
    True
    """
    return sorted(entry_points(group=_GROUP).names)


def exchange_from(exchange: object, base_url: str | None = None) -> Exchange:
    """Return an exchange by name or class; an Exchange object is returned unchanged.

    `base_url` replaces the public host. Raises ConfigurationError, with near matches, for an unknown name,
    and AdapterError for an entry point that is not an Exchange.
    """
    if isinstance(exchange, type) and issubclass(exchange, Exchange):
        return exchange(base_url)
    if isinstance(exchange, Exchange):
        return exchange if base_url is None else type(exchange)(base_url)
    found = list(entry_points(group=_GROUP, name=exchange)) if isinstance(exchange, str) else []
    if not found:
        raise unknown("exchange", exchange, exchange_names())
    kind = found[0].load()
    if not (isinstance(kind, type) and issubclass(kind, Exchange)):
        raise AdapterError(
            f"exchange: the entry point {exchange!r} leads to {kind!r}, which is not an Exchange class"
        )
    return kind(base_url)
