"""marketfetch fills a store with market history from crypto exchanges and keeps it complete.

    import marketfetch as mf

    candles = mf.fetch("binance-usdm", "ohlcv", ["BTCUSDT"], start="2026-06-01", end="2026-07-01")
    frame = candles.to_pandas()

Names are loaded when they are first used, so that importing the package stays cheap. Public is what this
module, `marketfetch.adapter`, `marketfetch.sinks` and `marketfetch.testing` list in `__all__`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from marketfetch.api.fetch import fetch
    from marketfetch.api.maintenance import forget, verify
    from marketfetch.api.pipeline import Pipeline
    from marketfetch.api.plugins import exchange_names
    from marketfetch.api.table import Table
    from marketfetch.engine.query import AllSymbols, Query, Settings
    from marketfetch.errors import (
        AdapterError,
        BadRequest,
        BadSymbol,
        Banned,
        ConfigurationError,
        DecodeError,
        ExchangeNotAvailable,
        FatalFetchError,
        FetchError,
        IncompleteError,
        IncompleteWarning,
        LocalResourceError,
        MarketfetchError,
        PaginationError,
        ProxyError,
        RateLimitExceeded,
        RequestTimeout,
        RestrictedLocation,
        RetryableError,
        RowsRefused,
        SinkError,
        SinkUnavailable,
        TransportError,
    )
    from marketfetch.events import (
        BatchWritten,
        ClockSkewDetected,
        Event,
        Heartbeat,
        Listener,
        PageFetched,
        RequestFailed,
        RoundStarted,
        RunFinished,
        SeriesRefused,
        SymbolUnknown,
        WaitingForStore,
    )
    from marketfetch.exchange import Endpoint, Exchange
    from marketfetch.fetchers.curl import CurlFetcher
    from marketfetch.listeners.logs import LogListener, log_to_console
    from marketfetch.listeners.progress import progress_to
    from marketfetch.planning.paginators import CursorPaginator, TimeWindowPaginator
    from marketfetch.protocols import (
        Fetcher,
        Lease,
        PageOutcome,
        Paginator,
        ProxyPool,
        Sink,
        Store,
        SupportsBatchSize,
        SupportsForget,
        SupportsInterrupt,
        SupportsPartitions,
        SupportsRejected,
        Writer,
    )
    from marketfetch.proxies.pool import RotatingProxies
    from marketfetch.ratelimit.backoff import RetryPolicy
    from marketfetch.sinks import (
        DuckDBSink,
        MemorySink,
        ParquetSink,
        PostgresSink,
        SQLiteSink,
        TableMapping,
        without_quote,
    )
    from marketfetch.values.datasets import Column, Dataset
    from marketfetch.values.http import Cost, Egress, LimitPool, Request, Response
    from marketfetch.values.intervals import Interval
    from marketfetch.values.pages import Batch, Columns, Page
    from marketfetch.values.report import EgressReport, Missing, Report, SeriesReport
    from marketfetch.values.series import Composite, Coverage, Instrument, Series, Slice
    from marketfetch.values.spans import Span, SpanSet
    from marketfetch.values.verification import Finding, Problem, Verification

__all__ = [
    "AdapterError",
    "AllSymbols",
    "BadRequest",
    "BadSymbol",
    "Banned",
    "Batch",
    "BatchWritten",
    "ClockSkewDetected",
    "Column",
    "Columns",
    "Composite",
    "ConfigurationError",
    "Cost",
    "Coverage",
    "CurlFetcher",
    "CursorPaginator",
    "Dataset",
    "DecodeError",
    "DuckDBSink",
    "Egress",
    "EgressReport",
    "Endpoint",
    "Event",
    "Exchange",
    "ExchangeNotAvailable",
    "FatalFetchError",
    "FetchError",
    "Fetcher",
    "Finding",
    "Heartbeat",
    "IncompleteError",
    "IncompleteWarning",
    "Instrument",
    "Interval",
    "Lease",
    "LimitPool",
    "Listener",
    "LocalResourceError",
    "LogListener",
    "MarketfetchError",
    "MemorySink",
    "Missing",
    "Page",
    "PageFetched",
    "PageOutcome",
    "PaginationError",
    "Paginator",
    "ParquetSink",
    "Pipeline",
    "PostgresSink",
    "Problem",
    "ProxyError",
    "ProxyPool",
    "Query",
    "RateLimitExceeded",
    "Report",
    "Request",
    "RequestFailed",
    "RequestTimeout",
    "Response",
    "RestrictedLocation",
    "RetryPolicy",
    "RetryableError",
    "RotatingProxies",
    "RoundStarted",
    "RowsRefused",
    "RunFinished",
    "SQLiteSink",
    "Series",
    "SeriesRefused",
    "SeriesReport",
    "Settings",
    "Sink",
    "SinkError",
    "SinkUnavailable",
    "Slice",
    "Span",
    "SpanSet",
    "Store",
    "SupportsBatchSize",
    "SupportsForget",
    "SupportsInterrupt",
    "SupportsPartitions",
    "SupportsRejected",
    "SymbolUnknown",
    "Table",
    "TableMapping",
    "TimeWindowPaginator",
    "TransportError",
    "Verification",
    "WaitingForStore",
    "Writer",
    "exchange_names",
    "fetch",
    "forget",
    "log_to_console",
    "progress_to",
    "verify",
    "without_quote",
]

_HOMES = {
    "arithmetic.paging": "Cursor TimeWindowPaginator",
    "arithmetic.retry": "RetryPolicy",
    "engine.query": "Everything Query Settings",
    "errors": (
        "AdapterError BadRequest BadSymbol Banned ConfigurationError DecodeError ExchangeNotAvailable"
        " FatalFetchError FetchError IncompleteError IncompleteWarning LocalResourceError"
        " MarketfetchError PaginationError ProxyError RateLimitExceeded RequestTimeout RestrictedLocation"
        " RetryableError RowsRefused SinkError SinkUnavailable TransportError"
    ),
    "exchange": "Endpoint Exchange",
    "face.fetching": "fetch",
    "face.logs": "LogListener log_to_console",
    "face.maintenance": "forget verify",
    "face.pipeline": "Pipeline",
    "face.plugins": "exchange_names",
    "face.progress": "progress_to",
    "face.tables": "Table",
    "fetchers.curl": "CurlFetcher",
    "protocols": "SupportsBatchSize Fetcher SupportsInterrupt Lease Paginator SupportsPartitions ProxyPool PageOutcome Sink Store "
    "SupportsForget SupportsRejected Writer",
    "proxies.rotating": "RotatingProxies",
    "sinks": "DuckDBSink MemorySink ParquetSink PostgresSink SQLiteSink TableMapping without_quote",
    "values.datasets": "Column Dataset",
    "values.events": (
        "BatchWritten ClockSkewDetected Event Heartbeat Listener PageFetched RequestFailed RoundStarted"
        " RunFinished SeriesRefused WaitingForStore SymbolUnknown"
    ),
    "values.http": "Cost Egress LimitPool Request Response",
    "values.intervals": "Interval",
    "values.pages": "Batch Columns Page",
    "values.report": "EgressReport Missing Report SeriesReport",
    "values.series": "Composite Coverage Instrument Series Slice",
    "values.spans": "Span SpanSet",
    "values.verification": "Finding Problem Verification",
}


def __getattr__(name: str) -> Any:
    """Load a public name from where it lives."""
    if name == "__version__":
        # Not above: it takes ten times as long to import as all the rest of this module.
        return import_module("importlib.metadata").version("marketfetch")
    for home, names in _HOMES.items():
        if name in names.split():
            value = getattr(import_module(f"marketfetch.{home}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'marketfetch' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
