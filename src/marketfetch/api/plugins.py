"""Find installed exchanges by name, through package entry points."""

from __future__ import annotations

from marketfetch.common.optional_packages import load_plug_in, plug_ins
from marketfetch.errors import AdapterError, ConfigurationError, unknown
from marketfetch.exchange import Exchange

__all__ = ["exchange_from", "exchanges"]

_GROUP = "marketfetch.exchanges"


def exchanges() -> list[str]:
    """Return the names of all installed exchanges, sorted.

    >>> "binance-usdm" in exchanges()
    True
    """
    return sorted(plug_ins(_GROUP).names)


def exchange_from(exchange: object, base_url: str | None = None, archive_url: str | None = None) -> Exchange:
    """Return an exchange by name or class; an Exchange object is returned unchanged.

    `base_url` replaces the public host, `archive_url` the hosts of the archive; see Exchange. Raises
    ConfigurationError for a plug-in that cannot be loaded, with near matches for an unknown name, and for an
    Exchange object together with a host, since the object has its own hosts; AdapterError for an entry point
    that is not an Exchange.
    """
    if isinstance(exchange, type) and issubclass(exchange, Exchange):
        return _make_exchange(exchange, base_url, archive_url)
    if isinstance(exchange, Exchange):
        for name, host in (("base_url", base_url), ("archive_url", archive_url)):
            if host is not None:
                raise ConfigurationError(
                    f"{name}: the exchange is an object, which has its own hosts; write "
                    f"{type(exchange).__name__}({name}=...) instead"
                )
        return exchange
    if not isinstance(exchange, str):
        raise unknown("exchange", exchange, exchanges())
    kind = load_plug_in(_GROUP, "exchange", exchange)
    if not (isinstance(kind, type) and issubclass(kind, Exchange)):
        raise AdapterError(
            f"exchange: the entry point {exchange!r} leads to {kind!r}, which is not an Exchange class"
        )
    return _make_exchange(kind, base_url, archive_url)


def _make_exchange(kind: type[Exchange], base_url: str | None, archive_url: str | None) -> Exchange:
    """Make an exchange; a subclass may have a constructor without `archive_url`."""
    return kind(base_url) if archive_url is None else kind(base_url, archive_url=archive_url)
