"""The four seams of marketfetch: what a caller may replace, with promises and failures.

Anything with these methods will do; nothing needs to be inherited.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Protocol, TypeVar, runtime_checkable

import attrs

from marketfetch.reports import EgressReport
from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import Dataset
from marketfetch.values.http import Egress, Request, Response
from marketfetch.values.pages import Batch, Columns, Page, RejectedRow
from marketfetch.values.series import Series
from marketfetch.values.slices import Slice
from marketfetch.values.spans import Span, SpanSet

__all__ = [
    "Board",
    "Egress",
    "Fetcher",
    "Lease",
    "PageOutcome",
    "Paginator",
    "ProxyPool",
    "Request",
    "Response",
    "Sharing",
    "Sink",
    "Store",
    "SupportsBatchSize",
    "SupportsBoard",
    "SupportsForget",
    "SupportsInterrupt",
    "SupportsPartitions",
    "SupportsRejected",
    "SupportsSession",
    "SupportsWaiting",
    "Writer",
]


_T = TypeVar("_T")


class Fetcher(Protocol):
    """The transport: it sends a Request through an egress and returns the Response.

    (OpenBB uses the word for an adapter; here it is the thing that moves bytes.) The engine enters it
    once on its event loop, calls `fetch` from many tasks at a time and leaves it when the run ends.
    """

    def session(self) -> AbstractAsyncContextManager[object]:
        """Open what is needed for many requests; everything is closed again when the block is left."""
        ...

    async def fetch(self, request: Request, egress: Egress) -> Response:
        """Make the request and return the complete answer, whatever its HTTP status.

        Raises TransportError (LocalResourceError where this machine has run out of something), RequestTimeout
        or ProxyError. Cancelling leaves no connection half used.
        """
        ...


class Lease(Protocol):
    """An egress borrowed for one request, the cost of the request already taken from its budget."""

    @property
    def egress(self) -> Egress:
        """Where the request shall leave from."""
        ...

    def answered(self, response: Response) -> None:
        """Tell the pool what came back: its headers correct the budgets, its clock the windows."""
        ...

    def failed(self, error: Exception) -> None:
        """Tell the pool why there was no use in the answer: it rests or quarantines the egress."""
        ...


class ProxyPool(Protocol):
    """Chooses where each request leaves from, within the published limits of every address."""

    def lease(self, request: Request) -> AbstractAsyncContextManager[Lease]:
        """Wait for the egress that can serve soonest and hold it for one request.

        The budget of the leased egress has room for `request.cost`. Raises ProxyError when no egress is
        left that could ever serve, naming the last cause.
        """
        ...

    def statistics(self) -> Sequence[EgressReport]:
        """Return a snapshot of what each egress has done so far."""
        ...


class Board(Protocol):
    """A few small texts that several processes change, one at a time: who may spend which budget.

    Blocking code: it is called on threads, never on the event loop, and from several threads at once. Two
    boards that lead to the same place are equal, and have the same hash.
    """

    def change(self, name: str, step: Callable[[str | None, float], tuple[str, _T]]) -> _T:
        """Put what `step` makes of the text under a name in its place, and return what it says beside it.

        `step` gets the text, or None where there is none yet, and the time in seconds on the board's own
        clock, which is the same for all processes and goes on while a machine is suspended. Nobody else
        changes the text meanwhile. Where `step` raises, nothing is changed. It can be pickled, and may be
        called again.

        Raises SinkUnavailable where the same may work later, SinkError where it will not.
        """
        ...


@attrs.frozen
class Sharing:
    """With which other processes budgets are shared: all that have one of these boards in common.

    A board that cannot be had is done without, and a line in the log says so, unless it is `required`.
    """

    boards: tuple[Board, ...] = ()
    required: bool = False


@runtime_checkable
class SupportsSession(Protocol):
    """A ProxyPool that shares its addresses with other processes."""

    def session(self, sharing: Sharing) -> AbstractAsyncContextManager[object]:
        """Use these boards until the block is left; then give back what is held."""
        ...

    def share(self) -> float:
        """Return how many egresses may be counted on; a half where two processes share one."""
        ...


@runtime_checkable
class SupportsWaiting(Protocol):
    """A ProxyPool that says what its requests wait for."""

    def waiting(self) -> str:
        """Say in words what is waited for, and for how long; nothing while requests are served soon."""
        ...

    async def waiting_changed(self) -> None:
        """Return when a longer wait begins or ends."""
        ...


@attrs.frozen
class PageOutcome:
    """What a page settled about its slice.

    `present` moments have rows in the page; `empty` ones are confirmed to have none; `remaining` slices
    are still to be asked; `lost` moments were given up, for the `reason`. `unusable` moments have rows that
    are wrong in one answer as in the next: `rejected` are those rows.
    """

    present: SpanSet
    empty: SpanSet = attrs.field(factory=SpanSet)
    remaining: tuple[Slice, ...] = ()
    given_up: SpanSet = attrs.field(factory=SpanSet)
    reason: str = ""
    unusable: SpanSet = attrs.field(factory=SpanSet)
    rejected: tuple[RejectedRow, ...] = ()

    @property
    def decided(self) -> SpanSet:
        """Every moment about which the page leaves nothing to ask."""
        return self.present | self.empty | self.given_up | self.unusable

    @property
    def coverage(self) -> Coverage:
        """What the page proves, as a store keeps it."""
        covered = self.present | self.empty | self.unusable
        return Coverage(covered, self.empty - self.present, self.unusable - self.present)


class Paginator(Protocol):
    """Cuts a span into requests and says what a page leaves over. Pure: no I/O, no clock, no state."""

    @property
    def sequential(self) -> bool:
        """Whether the next request is only known after the page before it."""
        ...

    def split(self, whole: Slice) -> Iterable[Slice]:
        """Cut a slice into those that can be asked right now, each of at most `whole.rows` rows."""
        ...

    def outcome(self, part: Slice, page: Page) -> PageOutcome:
        """Say what a page proves. The union of all parts of the answer is exactly `part.span`.

        Raises PaginationError when asking on would make no progress.
        """
        ...


@runtime_checkable
class SupportsBoard(Protocol):
    """A Sink that has room for a board: whoever writes into the same store shares budgets, too."""

    def board(self) -> Board:
        """Return the board; nothing is opened."""
        ...


Writer = Callable[[Batch], None]
"""Makes a batch durable before it returns, or raises SinkError and has stored nothing of it.

SinkUnavailable says that it may pass: the batch is written again. RowsRefused says that rows of this
series can never be stored as they are: the writer is used on for other series.
"""


@runtime_checkable
class SupportsInterrupt(Protocol):
    """A Writer that can be told to give up what it waits for, such as a lock; others are waited for."""

    def interrupt(self) -> None:
        """End a write that is under way with an error; called from another thread, while a run is stopped."""
        ...


@runtime_checkable
class Sink(Protocol):
    """Where batches go. Blocking code: the engine runs it in threads, never on the event loop."""

    @property
    def max_writers(self) -> int:
        """How many writers may work side by side; all batches of one series go to the same one."""
        ...

    def prepare(self, datasets: Sequence[Dataset]) -> None:
        """Check and set up what these datasets need, before anything is fetched.

        Raises ConfigurationError or SinkError naming the remedy: unreachable, not writable, wrong columns.
        """
        ...

    def writer(self) -> AbstractContextManager[Writer]:
        """Open a writer: opened, used and closed on one thread of its own.

        Rows and coverage of a batch become durable together. Writing is idempotent and non-destructive:
        a NULL never overwrites a value, and an identical row changes nothing.
        """
        ...


@runtime_checkable
class SupportsBatchSize(Protocol):
    """A sink that knows how large its batches should be; others get a size that suits most."""

    @property
    def batch_rows(self) -> int:
        """How many rows one transaction should have: it is as fast with more, and needs more memory."""
        ...


@runtime_checkable
class SupportsPartitions(Protocol):
    """A sink whose rows lie in partitions that are rewritten as a whole, such as a file for each month."""

    def partition(self, series: Series, moment: int) -> Span:
        """Return the span of the partition that holds a moment: batches of more than a page end with it."""
        ...


@runtime_checkable
class Store(Sink, Protocol):
    """A sink that remembers: it knows what is covered, and rows can be read back."""

    def coverage(self, series: Collection[Series]) -> Mapping[Series, Coverage]:
        """Return what is known of each of the given series; an empty Coverage where nothing is."""
        ...

    def ledger(self) -> Mapping[Series, Coverage]:
        """Return the coverage of every series held."""
        ...

    def read(self, series: Series, span: Span) -> Columns:
        """Return the stored rows of a series whose open times lie inside a span, sorted by time."""
        ...


@runtime_checkable
class SupportsForget(Protocol):
    """A Store whose memory can be corrected."""

    def forget(self, series: Series, spans: SpanSet, *, rows: bool = False) -> None:
        """Remove what is known of these moments of a series, so that the next run asks for them again.

        The rejected rows of these moments go too, and with `rows=True` the stored rows. Coverage and rows go
        in one transaction. Forgetting what is not known changes nothing.
        """
        ...


@runtime_checkable
class SupportsRejected(Protocol):
    """A Store that keeps the rows behind the verdict *unusable*."""

    def rejected(self, series: Series, span: Span) -> Sequence[RejectedRow]:
        """Return the rejected rows of a series whose times lie inside a span, sorted by time."""
        ...
