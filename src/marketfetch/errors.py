"""Every exception of marketfetch, named after the action that it needs.

    MarketfetchError
    ├── ConfigurationError        fix the call; nothing was sent (also a ValueError)
    │   └── AdapterError          fix the Exchange subclass; raised when the class is created
    ├── FetchError                one request failed; .egress and .attempt say where and when
    │   ├── RetryableError        asking again can help
    │   │   ├── TransportError    the wire broke: connect, TLS, reset, truncated body
    │   │   │   └── LocalResourceError    this machine ran out of files, ports or memory: no egress is blamed
    │   │   ├── RequestTimeout    no complete answer within the deadline
    │   │   ├── ProxyError        the proxy refused or broke: lease another egress
    │   │   ├── RateLimitExceeded the exchange said "slow down" to this egress; .retry_after
    │   │   ├── Banned            the exchange shut this egress out; .until
    │   │   ├── ExchangeNotAvailable   overload, maintenance, gateway errors
    │   │   └── DecodeError       the answer is not what the endpoint documents
    │   │       └── ArchiveDamaged    a file is cut, altered or not the announced one: fetch it again, once
    │   └── FatalFetchError       asking again cannot help
    │       ├── BadSymbol         the exchange does not know the symbol
    │       ├── BadRequest        the exchange rejects a parameter
    │       │   └── NoSuchFile    the archive has no file of that name
    │       └── RestrictedLocation     a legal or regional refusal: surfaced, never worked around
    ├── PaginationError           an exchange made no progress; going on would loop for ever
    ├── SinkError                 a store cannot be used or a batch could not be made durable
    │   ├── SinkUnavailable       the store may come back: connection lost, deadlock, timeout
    │   └── RowsRefused           the store refuses the rows of one series; other series go on
    └── IncompleteError           fetch(on_missing="raise") found something missing; .report says what

`fetch` warns with an IncompleteWarning (a UserWarning) where it is not told to raise.

No message, attribute or chained cause of these carries a credential.
"""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from types import TracebackType
from typing import TYPE_CHECKING, Any

from marketfetch.redaction import printable, redact

if TYPE_CHECKING:  # a higher layer, which is not needed at run time
    from marketfetch.reports import Report

__all__ = [
    "AdapterError",
    "ArchiveDamaged",
    "BadRequest",
    "BadSymbol",
    "Banned",
    "ConfigurationError",
    "DecodeError",
    "ExchangeNotAvailable",
    "FatalFetchError",
    "FetchError",
    "IncompleteError",
    "IncompleteWarning",
    "LocalResourceError",
    "MarketfetchError",
    "NoSuchFile",
    "PaginationError",
    "ProxyError",
    "RateLimitExceeded",
    "RequestTimeout",
    "RestrictedLocation",
    "RetryableError",
    "RowsRefused",
    "SinkError",
    "SinkUnavailable",
    "TransportError",
    "unknown",
    "wrong_kind",
]


class MarketfetchError(Exception):
    """The base class of all errors that this library raises on purpose.

    `report` is the Report of the run that the error ended: what was done, and what is missing.
    """

    report: Report | None = None

    def __str__(self) -> str:
        """Return the message; control characters, which a server may have sent, are written as escapes."""
        return printable(super().__str__(), keep="\n")

    def _render_traceback_(self) -> list[str]:
        """Return the lines that IPython shows: those of the caller, and the message.

        The traceback itself is left whole, for logs and for `%debug`.
        """
        trace: TracebackType | None = None
        for each in reversed([*_frames_of_caller(self.__traceback__)]):
            trace = TracebackType(trace, each.tb_frame, each.tb_lasti, each.tb_lineno)
        formatter: Any = sys.modules["IPython"].get_ipython().InteractiveTB
        cause, hidden = self.__cause__, self.__suppress_context__
        self.__cause__ = None  # the message has what the cause says; this hides the context, too
        try:
            lines: list[str] = formatter.structured_traceback(type(self), self, trace)
        finally:
            self.__cause__, self.__suppress_context__ = cause, hidden
        return lines


def _frames_of_caller(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace and str(trace.tb_frame.f_globals.get("__name__")).partition(".")[0] != "marketfetch":
        yield trace
        trace = trace.tb_next


class ConfigurationError(MarketfetchError, ValueError):
    """The call is wrong and nothing was sent: the message names the argument and the remedy."""


class AdapterError(ConfigurationError):
    """An Exchange or Endpoint subclass is incomplete; raised when the class is created."""


class FetchError(MarketfetchError):
    """One request failed.

    The engine sets `egress`, the display name, and `attempt`, the number of the attempt from 1.
    """

    egress: str | None = None
    attempt: int | None = None


class RetryableError(FetchError):
    """Asking again can help, on another egress if one is free."""


class TransportError(RetryableError):
    """The wire broke: connect, TLS, reset, or a body shorter than announced."""


class LocalResourceError(TransportError):
    """This machine has no file, port or memory left for a connection; no egress is to blame."""


class RequestTimeout(RetryableError):
    """No complete answer arrived within the deadline."""


class ProxyError(RetryableError):
    """The proxy refused or broke the request: the egress is paused and another one is leased."""


class RateLimitExceeded(RetryableError):
    """The exchange asks this egress to slow down.

    `retry_after` is the wait in seconds that the exchange named, or None.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Banned(RetryableError):
    """The exchange banned this egress; the other egresses go on.

    `until` is the end of the ban in UTC milliseconds, or None if the exchange named no end.
    """

    def __init__(self, message: str, *, until: int | None = None) -> None:
        super().__init__(message)
        self.until = until


class ExchangeNotAvailable(RetryableError):
    """Overload, maintenance or a gateway error at the exchange."""


class DecodeError(RetryableError):
    """The response does not match the documentation of the endpoint; no row of it was stored."""


class FatalFetchError(FetchError):
    """Asking again cannot help."""


class ArchiveDamaged(DecodeError):
    """A file of an archive is cut, altered, encrypted or not the announced one; its rows are not certain.

    Rows of the file that were read before must not be stored. A second transfer helps if the first one broke;
    if the file is the same again, other sources have to serve its span.
    """


class BadSymbol(FatalFetchError):
    """The exchange does not know the symbol, or does not serve it on this endpoint."""


class BadRequest(FatalFetchError):
    """The exchange rejects a parameter: a fault of the adapter or of the query."""


class NoSuchFile(BadRequest):
    """The archive has no file of that name: it never had, has not yet, or has no longer."""


class RestrictedLocation(FatalFetchError):
    """The exchange refuses this location for legal reasons; no other egress is tried."""


class PaginationError(MarketfetchError):
    """The pages of an exchange make no progress; more requests would loop for ever."""


class SinkError(MarketfetchError):
    """A store cannot be used as asked, or a batch could not be made durable."""


class SinkUnavailable(SinkError):
    """The store failed in a way that may pass: connection lost, deadlock, timeout."""


class RowsRefused(SinkError):
    """The store refuses rows of one series for good: a value does not fit, a constraint forbids them.

    A writer that raises it has rolled back the whole batch and can take other batches. The engine gives the
    series up, with this message as the reason in the report, and writes the other series.
    """


class IncompleteError(MarketfetchError):
    """A table lacks rows that were requested; the rows that were fetched are in the store, if any."""


class IncompleteWarning(UserWarning):
    """A table lacks rows that were requested; the message names the first, `table.report` has all."""


def _near_names(found: str, known: Iterable[str]) -> list[str]:
    """Return the known names that differ in case alone or, if none does, up to three that are spelt alike.

    >>> _near_names("btcusdt", ["BTCUSDT", "ETCUSDT"]), _near_names("btcusd", ["BTCUSDT", "XRPETH"])
    (['BTCUSDT'], ['BTCUSDT'])
    """
    by_folded: dict[str, list[str]] = {}
    for name in known:
        by_folded.setdefault(name.casefold(), []).append(name)
    text = found.casefold()
    near = [text] if text in by_folded else get_close_matches(text, by_folded, n=3, cutoff=0.6)
    return [name for each in near for name in by_folded[each]]


def unknown(
    argument: str, found: object, known: Iterable[str], verdict: str = "is unknown"
) -> ConfigurationError:
    """Make the error for an unknown name, with the near matches among the known names.

    >>> print(unknown("exchange", "binance-usd", ["binance-spot", "binance-usdm", "okx"]))
    exchange: 'binance-usd' is unknown; did you mean 'binance-usdm' or 'binance-spot'?
    """
    given = [*known]
    names = sorted(given)
    if near := _near_names(str(found), names):
        remedy = f"did you mean {' or '.join(map(repr, near))}?"
    elif len(names) > 12:
        first = given if isinstance(known, list | tuple) else names  # the author's order is the better one
        remedy = f"there are {len(names)} to choose from, such as {', '.join(first[:5])}"
    else:
        remedy = f"choose one of {', '.join(names)}" if names else "none is available"
    shown = f"the class {found.__name__}" if isinstance(found, type) else redact(repr(found))
    shown = shown if len(shown) <= 200 else f"{shown[:200]}…"  # a table, an array, a file read by mistake
    return ConfigurationError(f"{argument}: {shown} {verdict}; {remedy}")


def wrong_kind(place: str, found: object, remedy: str) -> AdapterError:
    """Make the error for something of an adapter that is of another kind than it has to be.

    >>> print(wrong_kind("Mine.page_sizes", 500, "write a tuple, such as (500,)"))
    Mine.page_sizes: found 500 (int); write a tuple, such as (500,)
    """
    return AdapterError(f"{place}: found {reprlib.repr(found)} ({type(found).__name__}); {remedy}")
