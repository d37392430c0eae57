"""The protocols of the parts that a caller may replace; each names its promises and its errors.

Any object with the methods will do; no class has to be inherited. A `Supports...` protocol is optional.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import attrs

from marketfetch.reports import EgressReport
from marketfetch.sharing import Board, ProcessRank, Sharing
from marketfetch.values.archives import Provenance
from marketfetch.values.coverage import Coverage, MissingReason
from marketfetch.values.datasets import Dataset
from marketfetch.values.http import Egress, LimitPool, Request, Response
from marketfetch.values.pages import Batch, Columns, Page, RejectedRow
from marketfetch.values.series import Series
from marketfetch.values.slices import Slice
from marketfetch.values.spans import Span, SpanSet

if TYPE_CHECKING:
    from marketfetch.ratelimit.budget import RateBudget
    from marketfetch.ratelimit.server_clock import ServerClock

__all__ = [
    "Board",
    "Egress",
    "Fetcher",
    "GroupWriter",
    "Lease",
    "PageOutcome",
    "Paginator",
    "ProcessRank",
    "ProxyPool",
    "Request",
    "Response",
    "Sharing",
    "Sink",
    "Store",
    "SupportsBatchSize",
    "SupportsBoard",
    "SupportsBudgets",
    "SupportsForget",
    "SupportsGroupCommit",
    "SupportsInterrupt",
    "SupportsLatest",
    "SupportsPartitions",
    "SupportsProcessRank",
    "SupportsProvenance",
    "SupportsRejected",
    "SupportsRowGroups",
    "SupportsServerClock",
    "SupportsSession",
    "SupportsWaiting",
    "Writer",
]


class Fetcher(Protocol):
    """The transport, with its connection pool: sends a Request through an egress, returns the Response.

    The engine enters `session` once on its event loop, calls `fetch` from many tasks at a time, and leaves
    the session when the run or the Session ends. (OpenBB calls an adapter a fetcher.)
    """

    def session(self) -> AbstractAsyncContextManager[object]:
        """Open connections and other resources for many requests; leaving the block closes them."""
        ...

    async def fetch(self, request: Request, egress: Egress) -> Response:
        """Make the request and return the complete response, whatever its HTTP status.

        Raises TransportError (LocalResourceError if this machine has run out of files, ports or memory),
        RequestTimeout or ProxyError. After a cancellation no connection is used half way through a response.
        """
        ...


class Lease(Protocol):
    """An egress that serves one request; the cost of the request is already taken from its budget."""

    @property
    def egress(self) -> Egress:
        """The egress through which to send the request."""
        ...

    def answered(self, response: Response) -> None:
        """Give the pool the response: its headers correct the budget and the bounds of the server's clock."""
        ...

    def failed(self, error: Exception) -> None:
        """Tell the pool why the request failed: it may open the circuit breaker, or block the egress."""
        ...


class ProxyPool(Protocol):
    """Chooses the egress of each request, within the published rate limits of every address."""

    def lease(self, request: Request) -> AbstractAsyncContextManager[Lease]:
        """Wait for the egress that can serve soonest, and lease it for one request.

        The budget of the egress has room for `request.cost`. Raises ProxyError if none could ever serve.
        """
        ...

    def statistics(self) -> Sequence[EgressReport]:
        """Return a snapshot of what each egress has done so far."""
        ...


@runtime_checkable
class SupportsSession(Protocol):
    """A ProxyPool that shares its addresses with other processes."""

    def session(self, sharing: Sharing) -> AbstractAsyncContextManager[object]:
        """Use these boards until the block is left, perhaps inside another one; then give back addresses."""
        ...

    def share(self) -> float:
        """Return the number of egresses to plan with; 0.5 if two processes share one."""
        ...


@runtime_checkable
class SupportsProcessRank(Protocol):
    """A ProxyPool that tells of the other processes on its boards; runs then share the work with them."""

    def process_rank(self) -> ProcessRank:
        """Return the rank of this process among those that use the same boards."""
        ...


@runtime_checkable
class SupportsServerClock(Protocol):
    """A ProxyPool that keeps the time of each exchange, from the headers of all responses."""

    def server_clock(self, base_url: str) -> ServerClock:
        """Return the clock of the exchange at a base URL; it is always the same object."""
        ...


@runtime_checkable
class SupportsWaiting(Protocol):
    """A ProxyPool that says what its requests wait for."""

    def waiting(self) -> str:
        """Say in words what requests wait for, and how long; an empty text while they are served soon."""
        ...

    async def waiting_changed(self) -> None:
        """Return when a longer wait begins or ends."""
        ...


@runtime_checkable
class SupportsBudgets(Protocol):
    """A ProxyPool that says what is left of a limit; a plan begins with it."""

    def budgets(self, pool: LimitPool, host: str) -> Mapping[str, RateBudget]:
        """Return a copy of the budget of each egress at a host, by the name of the egress."""
        ...


@attrs.frozen
class PageOutcome:
    """What follows from a page for the moments of its slice.

    - `present`: the page has rows for them.
    - `empty`: confirmed to have no row.
    - `unusable`: three answers had the same wrong rows, which are in `rejected`.
    - `given_up`: no request asks for them in this run; `reason` says why in words, and `kind` for programs.
    - `remaining`: the slices that are still to be requested.
    """

    present: SpanSet
    empty: SpanSet = attrs.field(factory=SpanSet)
    remaining: tuple[Slice, ...] = ()
    given_up: SpanSet = attrs.field(factory=SpanSet)
    reason: str = ""
    unusable: SpanSet = attrs.field(factory=SpanSet)
    rejected: tuple[RejectedRow, ...] = ()
    kind: MissingReason = MissingReason.BAD_ROWS

    @property
    def decided(self) -> SpanSet:
        """The moments about which nothing is left to request."""
        return self.present | self.empty | self.given_up | self.unusable

    @property
    def coverage(self) -> Coverage:
        """What the page proves, in the form in which a store keeps it."""
        if not (self.empty.spans or self.unusable.spans):  # as nearly always
            return Coverage(self.present, self.empty, self.unusable)
        covered = self.present | self.empty | self.unusable
        return Coverage(covered, self.empty - self.present, self.unusable - self.present)


class Paginator(Protocol):
    """Cuts a span into requests and decides what follows from a page. Pure: no I/O, no clock, no state."""

    @property
    def sequential(self) -> bool:
        """Whether the next request is only known after the page before it."""
        ...

    def split(self, whole: Slice) -> Iterable[Slice]:
        """Cut a slice into those that can be requested right now, each of at most `whole.rows` rows."""
        ...

    def outcome(self, part: Slice, page: Page) -> PageOutcome:
        """Decide about every moment of a slice; the parts of the outcome together are exactly `part.span`.

        Raises PaginationError if more requests would make no progress.
        """
        ...


@runtime_checkable
class SupportsBoard(Protocol):
    """A Sink that can keep a board: all processes that write into the same store share budgets."""

    def board(self) -> Board:
        """Return the board; nothing is opened yet."""
        ...


Writer = Callable[[Batch], None]
"""Makes a batch durable before it returns, or raises SinkError and has stored nothing of it.

After SinkUnavailable the batch is written again. RowsRefused says that rows of this series can never be
stored as they are: the series is given up, and the writer goes on with other series.
"""


@runtime_checkable
class SupportsInterrupt(Protocol):
    """A Writer that can stop waiting, such as for a lock. A run that is stopped waits for other writers."""

    def interrupt(self) -> None:
        """Make the current write raise an error; called from another thread when a run is stopped."""
        ...


@runtime_checkable
class Sink(Protocol):
    """Writes batches. Blocking code: the engine runs it on a thread pool, never on the event loop."""

    @property
    def max_writers(self) -> int:
        """How many writers may work side by side; all batches of one series go to the same writer."""
        ...

    def prepare(self, datasets: Sequence[Dataset]) -> None:
        """Check and create the tables or files for these datasets, before anything is fetched.

        Raises ConfigurationError or SinkError, which name the remedy, if the store cannot be reached or
        written, or has other columns.
        """
        ...

    def writer(self) -> AbstractContextManager[Writer]:
        """Open a writer; it is opened, used and closed on one thread.

        Rows and coverage of a batch become durable in one transaction. Writing is idempotent and destroys
        nothing: a NULL overwrites no value, an identical row changes nothing. A row may have no coverage yet.
        """
        ...


@runtime_checkable
class SupportsBatchSize(Protocol):
    """A sink that says how large its batches should be; other sinks get DEFAULT_BATCH_ROWS."""

    @property
    def batch_rows(self) -> int:
        """Rows in one batch: more rows would need more memory and would not be faster."""
        ...


GroupWriter = Callable[[Sequence[Batch]], None]
"""Makes several batches durable in one transaction before it returns, or raises as a Writer does.

A RowsRefused concerns one of the batches: each of them is then written alone.
"""


@runtime_checkable
class SupportsGroupCommit(Protocol):
    """A sink that commits several batches, also of several series, in one transaction (group commit)."""

    @property
    def transaction_rows(self) -> int:
        """Rows of one transaction, at most, but for a single batch that is larger.

        Fewer are committed where no more batches are ready.
        """
        ...

    def group_writer(self) -> AbstractContextManager[GroupWriter]:
        """Open a writer of several batches; it is opened, used and closed on one thread."""
        ...


@runtime_checkable
class SupportsRowGroups(SupportsGroupCommit, Protocol):
    """A sink with group commit that compresses whole row groups, as DuckDB does."""

    @property
    def row_group_rows(self) -> int:
        """Rows of a row group: transactions have exactly so many rows where so many are ready.

        This number takes the place of `transaction_rows`. A batch that goes beyond it is split, and its
        second part begins the next transaction. A single batch that is larger is not split.
        """
        ...


@runtime_checkable
class SupportsPartitions(Protocol):
    """A sink that rewrites whole partitions, such as a file for each month."""

    def partition(self, series: Series, moment: int) -> Span:
        """Return the span of the partition with a moment; a batch of several pages ends at its border."""
        ...


@runtime_checkable
class Store(Sink, Protocol):
    """A sink that knows which moments are covered, and from which rows can be read."""

    def coverage(self, series: Collection[Series]) -> Mapping[Series, Coverage]:
        """Return the coverage of each given series; an empty Coverage for an unknown series."""
        ...

    def ledger(self) -> Mapping[Series, Coverage]:
        """Return the coverage of every series in the store."""
        ...

    def read(self, series: Series, span: Span) -> Columns:
        """Return the stored rows of a series whose open times lie inside a span, sorted by time."""
        ...


@runtime_checkable
class SupportsLatest(Protocol):
    """A Store that finds its series and their newest rows at a cost that does not grow with history."""

    def series(self) -> Collection[Series]:
        """Return every series in the store that has coverage, without reading the coverage.

        Raises ConfigurationError if there is no store at its place.
        """
        ...

    def latest(self, series: Collection[Series], limit: int) -> Mapping[Series, Columns]:
        """Return the newest stored rows of each series, at most `limit` of each, sorted by time."""
        ...


@runtime_checkable
class SupportsForget(Protocol):
    """A Store from which coverage can be removed."""

    def forget(self, series: Series, spans: SpanSet, *, rows: bool = False) -> None:
        """Remove the coverage of these moments of a series, so that the next run asks for them again.

        The rejected rows of these moments are removed too, and with `rows=True` the stored rows, all in one
        transaction. Moments that are not covered change nothing.
        """
        ...


@runtime_checkable
class SupportsRejected(Protocol):
    """A Store that keeps the wrong rows of unusable moments."""

    def rejected(self, series: Series, span: Span) -> Sequence[RejectedRow]:
        """Return the rejected rows of a series whose times lie inside a span, sorted by time."""
        ...


@runtime_checkable
class SupportsProvenance(Protocol):
    """A Store that keeps the `provenance` of its batches: which files of archives its rows came from.

    An entry becomes durable in the transaction of its rows. A later entry of the same key replaces it.
    `forget` removes the entries whose span lies inside the forgotten spans as a whole.
    """

    def provenance(self, series: Series) -> Sequence[Provenance]:
        """Return the entries of a series, one for each file, sorted by span."""
        ...
