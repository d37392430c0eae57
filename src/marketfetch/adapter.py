"""Everything that the author of an adapter may import. An adapter has no async code, no clock and no I/O.

The table in `marketfetch.exchange` says what is required and what is optional. `examples/` has an adapter
written outside the package.
"""

from __future__ import annotations

from marketfetch.archives.listing import ListingRequest
from marketfetch.archives.periods import CalendarPeriod, Grain
from marketfetch.decoding.csv_layouts import CsvLayout
from marketfetch.decoding.layouts import (
    DecodedRows,
    ObjectLayout,
    RowLayout,
    decode_errors_as,
    excerpt,
    parse_json,
)
from marketfetch.errors import (
    AdapterError,
    BadRequest,
    BadSymbol,
    Banned,
    DecodeError,
    ExchangeNotAvailable,
    NoSuchFile,
    RateLimitExceeded,
    RestrictedLocation,
)
from marketfetch.exchange import Exchange
from marketfetch.planning.paginators import CursorPaginator, TimeWindowPaginator
from marketfetch.protocols import PageOutcome, Paginator
from marketfetch.ratelimit.backoff import retry_after, to_local_time
from marketfetch.sources import Archive, Endpoint, Source
from marketfetch.values.datasets import Column, Dataset
from marketfetch.values.http import Burst, Cost, LimitPool, Request, Response
from marketfetch.values.instruments import Instrument
from marketfetch.values.intervals import Interval
from marketfetch.values.pages import Columns, Page
from marketfetch.values.rejected_rows import RejectedRow, raw_text
from marketfetch.values.series import Series
from marketfetch.values.slices import Slice
from marketfetch.values.spans import DAY, HOUR, MINUTE, SECOND, Span, SpanSet

__all__ = [
    "DAY",
    "HOUR",
    "MINUTE",
    "SECOND",
    "AdapterError",
    "Archive",
    "BadRequest",
    "BadSymbol",
    "Banned",
    "Burst",
    "CalendarPeriod",
    "Column",
    "Columns",
    "Cost",
    "CsvLayout",
    "CursorPaginator",
    "Dataset",
    "DecodeError",
    "DecodedRows",
    "Endpoint",
    "Exchange",
    "ExchangeNotAvailable",
    "Grain",
    "Instrument",
    "Interval",
    "LimitPool",
    "ListingRequest",
    "NoSuchFile",
    "ObjectLayout",
    "Page",
    "PageOutcome",
    "Paginator",
    "RateLimitExceeded",
    "RejectedRow",
    "Request",
    "Response",
    "RestrictedLocation",
    "RowLayout",
    "Series",
    "Slice",
    "Source",
    "Span",
    "SpanSet",
    "TimeWindowPaginator",
    "decode_errors_as",
    "excerpt",
    "parse_json",
    "raw_text",
    "retry_after",
    "to_local_time",
]
