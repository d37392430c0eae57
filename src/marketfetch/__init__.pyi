# The public names at the root, written once: the package loads each from here when it is first used.
from . import adapter as adapter
from . import errors as errors
from . import events as events
from . import protocols as protocols
from . import reports as reports
from . import sinks as sinks
from . import testing as testing
from .api.fetch import fetch as fetch
from .api.maintenance import forget as forget
from .api.maintenance import verify as verify
from .api.pipeline import Pipeline as Pipeline
from .api.plugins import exchange_names as exchange_names
from .api.source_maintenance import verify_sources as verify_sources
from .api.store_reader import StoreReader as StoreReader
from .api.store_reader import open as open  # noqa: A004  # as gzip.open and zarr.open
from .api.table import Table as Table
from .errors import MarketfetchError as MarketfetchError
from .fetchers.curl import CurlFetcher as CurlFetcher
from .listeners.logs import log_to_console as log_to_console
from .listeners.progress import progress_to as progress_to
from .protocols import Fetcher as Fetcher
from .protocols import Paginator as Paginator
from .protocols import ProxyPool as ProxyPool
from .protocols import Sink as Sink
from .protocols import Store as Store
from .proxies.pool import RotatingProxies as RotatingProxies
from .reports import Report as Report
from .sinks import DuckDBSink as DuckDBSink
from .sinks import MemorySink as MemorySink
from .sinks import ParquetSink as ParquetSink
from .sinks import PostgresSink as PostgresSink
from .sinks import SQLiteSink as SQLiteSink
from .sinks import TableMapping as TableMapping
from .values.coverage import Coverage as Coverage
from .values.instruments import Composite as Composite
from .values.intervals import Interval as Interval
from .values.pages import Batch as Batch
from .values.query import AllSymbols as AllSymbols
from .values.query import Query as Query
from .values.series import Series as Series
from .values.settings import RetryPolicy as RetryPolicy
from .values.settings import Settings as Settings
from .values.spans import Span as Span
from .values.spans import SpanSet as SpanSet

__version__: str
