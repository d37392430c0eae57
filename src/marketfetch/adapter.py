"""Everything an adapter author may import: one file, one test, no async, no clock, no I/O.

See the table in `marketfetch.exchange` for what is required and what is optional, and
`examples/` for an adapter written outside the package.
"""

from __future__ import annotations

from marketfetch.decoding.layouts import Decoded, ObjectLayout, RowLayout, excerpt, expecting, parse_json
from marketfetch.planning.paginators import Cursor, TimeWindows
from marketfetch.ratelimit.backoff import our_time, retry_after
from marketfetch.errors import (
    AdapterError,
    BadRequest,
    BadSymbol,
    Banned,
    DecodeError,
    ExchangeNotAvailable,
    RateLimitExceeded,
    RestrictedLocation,
)
from marketfetch.exchange import Endpoint, Exchange
from marketfetch.protocols import Paginator, Settlement
from marketfetch.values.datasets import Column, Dataset
from marketfetch.values.http import Cost, LimitPool, Request, Response
from marketfetch.values.intervals import Interval
from marketfetch.values.pages import Columns, Page
from marketfetch.values.rejected_rows import RejectedRow, raw_text
from marketfetch.values.series import Instrument, Series, Slice
from marketfetch.values.spans import Span, SpanSet

__all__ = [
    "AdapterError",
    "BadRequest",
    "BadSymbol",
    "Banned",
    "Column",
    "Columns",
    "Cost",
    "Cursor",
    "Dataset",
    "DecodeError",
    "Decoded",
    "Endpoint",
    "Exchange",
    "ExchangeNotAvailable",
    "Instrument",
    "Interval",
    "LimitPool",
    "ObjectLayout",
    "Page",
    "Paginator",
    "RateLimitExceeded",
    "RejectedRow",
    "Request",
    "Response",
    "RestrictedLocation",
    "RowLayout",
    "Series",
    "Settlement",
    "Slice",
    "Span",
    "SpanSet",
    "TimeWindows",
    "excerpt",
    "expecting",
    "our_time",
    "parse_json",
    "raw_text",
    "retry_after",
]
