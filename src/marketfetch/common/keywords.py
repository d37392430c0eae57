"""What to write in place of a keyword argument that a function does not have."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, TypeVar

from marketfetch.errors import ConfigurationError, unknown

__all__ = ["checks_keywords"]

_F = TypeVar("_F", bound=Callable[..., Any])

_SYNONYMS = {
    "symbols": "symbol pair pairs ticker tickers market markets instrument instruments coin coins",
    "interval": "intervals timeframe timeframes tf freq frequency resolution granularity bar",
    "start": "since after from_ start_date start_time startTime start_str",
    "end": "until till before to_ end_date end_time endTime end_str",
    "dataset": "datasets kind kinds type",
    "datasets": "dataset kind kinds type",
    "proxies": "proxy proxy_url http_proxy https_proxy",
    "to": "sink store db database target",
    "sink": "to store db database target",
    "store": "to sink db database",
    "exchange": "venue exchange_id exchange_name",
    "exchanges": "exchange venue",
    "settings": "concurrency retries deadline heartbeat batch_rows max_rounds unusable",
    "fetcher": "timeout connect_timeout certificate impersonate",
    "n": "limit count rows",
}
"""By argument of ours, the names of the same thing in other libraries and in other functions."""
_MADE_WITH = {"settings": "Settings", "fetcher": "CurlFetcher"}
"""The classes of which a name is an argument, by the argument that takes an object of the class."""


def checks_keywords(function: _F, more: Iterable[str] = ()) -> _F:
    """Make a function or class raise ConfigurationError for a keyword that it does not have.

    The message names the right one. `more` are the keywords that it takes as `**options`.

    >>> @checks_keywords
    ... def fetch(symbols: str, *, start: str, interval: str = "1m") -> None: ...
    >>> fetch("BTCUSDT", since="20d")
    Traceback (most recent call last):
    marketfetch.errors.ConfigurationError: fetch: there is no argument 'since'; write start=...
    >>> fetch("BTCUSDT", start="20d", limit=100)
    Traceback (most recent call last):
    marketfetch.errors.ConfigurationError: fetch: there is no argument 'limit'; rows are counted from ...
    """
    if isinstance(function, type):
        made: Any = function
        made.__init__ = checks_keywords(made.__init__)
        return made  # type: ignore[no-any-return]
    code = function.__code__
    accepted = (*code.co_varnames[: code.co_argcount + code.co_kwonlyargcount], *more)
    owner = function.__qualname__.removesuffix(".__init__").rpartition("<locals>.")[2]

    @wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        for name in kwargs:
            if name not in accepted:
                raise _unknown_argument(owner, name, accepted)
        return function(*args, **kwargs)

    return checked  # type: ignore[return-value]


def _unknown_argument(owner: str, name: str, accepted: tuple[str, ...]) -> ConfigurationError:
    right = [ours for ours in accepted if name in _SYNONYMS.get(ours, "").split()]
    if right:
        given = f"{_MADE_WITH[right[0]]}({name}=...)" if right[0] in _MADE_WITH else "..."
        return ConfigurationError(f"{owner}: there is no argument {name!r}; write {right[0]}={given}")
    if name == "limit" and "start" in accepted:
        remedy = "rows are counted from start to end; give both, such as start='1d'"
        return ConfigurationError(f"{owner}: there is no argument {name!r}; {remedy}")
    public = [each for each in accepted if each != "self"]
    return unknown(owner, name, public, "is not an argument")
