"""`verify_sources` compares the rows of a store with the files of the archive that they came from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from time import monotonic

from marketfetch.api.budget_sharing import sharing_of
from marketfetch.api.inputs import check_flag, fetcher_of, pool_of, settings_of, store_of
from marketfetch.api.plugins import exchange_from
from marketfetch.api.run_sync import run_sync
from marketfetch.common.exception_groups import raising_one_error
from marketfetch.common.keywords import checks_keywords
from marketfetch.engine.blocking import StoreRetrier
from marketfetch.engine.requester import RequestExecutor
from marketfetch.engine.session import SessionState
from marketfetch.engine.state import RunState, sending_heartbeats
from marketfetch.errors import ConfigurationError
from marketfetch.events import Listener
from marketfetch.exchange import Exchange
from marketfetch.listeners.dispatch import Listeners
from marketfetch.protocols import Board, Fetcher, ProxyPool, Sink
from marketfetch.redaction import Secret
from marketfetch.reports import SourceVerification
from marketfetch.values.datasets import Dataset
from marketfetch.values.intervals import Interval
from marketfetch.values.query import AllSymbols
from marketfetch.values.settings import Settings
from marketfetch.verification.selection import Selection
from marketfetch.verification.sources import SourceVerifier

__all__ = ["verify_sources"]


@checks_keywords
def verify_sources(  # noqa: PLR0913  # the filters of `verify`, and the parts of a pipeline
    store: str | Path | Secret | Sink,
    exchange: str | Exchange,
    *,
    symbols: str | Iterable[str] | AllSymbols | None = None,
    datasets: str | Dataset | Iterable[str | Dataset] | None = None,
    interval: str | Interval | None = None,
    repair: bool = False,
    base_url: str | None = None,
    archive_url: str | None = None,
    proxies: ProxyPool | Iterable[str | Secret] | str | Path | None = None,
    fetcher: Fetcher | None = None,
    settings: Settings | None = None,
    listeners: Sequence[Listener] = (),
    board: Board | str | Secret | None = "auto",
) -> SourceVerification:
    """Find files of the exchange's archive that were issued anew, and compare them with the stored rows.

    An exchange replaces files without notice. One listing for each series shows which files have another
    size or time than when they were read; only those are fetched and compared, field by field. With `repair`
    the stored rows that differ are replaced by those of the file, and new rows are added. A filter that is
    left out selects all series. `base_url`, `archive_url`, `proxies`, `fetcher`, `settings`, `listeners` and
    `board` are those of `fetch`; listeners receive a Heartbeat now and then, and a RequestFailed for each
    failure.

    A file or a listing that cannot be read is in the result with its error. Raises ConfigurationError for an
    exchange without an archive, a store that does not keep provenance, names and an exchange that it does not
    hold, RestrictedLocation, and SinkError if the store cannot be used.

    >>> verify_sources("memory:", "binance-usdm")
    Traceback (most recent call last):
    marketfetch.errors.ConfigurationError: store: holds nothing yet; fetch into it first, or name ...
    """
    client, used = fetcher_of(fetcher), settings_of(settings)
    check_flag("repair", repair)
    venue = exchange_from(exchange, base_url, archive_url)
    if not venue.has_archive:
        raise ConfigurationError(
            f"exchange: {venue.name} at {venue.base_url} has no archive to compare with; "
            "with a base_url, give an archive_url"
        )
    opened = store_of("store", store, "verify_sources needs")
    chosen = Selection.of(symbols=symbols, datasets=datasets, interval=interval, exchange=venue.name)
    series = list(chosen.held(opened))
    emit = Listeners(listeners).emit
    pool, sharing, state, started = pool_of(proxies), sharing_of(board, opened), RunState(), monotonic()

    async def verify() -> SourceVerification:
        executor = RequestExecutor(venue, client, pool, used, state, emit)
        verifier = SourceVerifier(executor, opened, StoreRetrier(used.retries, emit), repair=repair)
        heartbeats = sending_heartbeats(
            lambda: state.heartbeat(pool, monotonic() - started), emit, pool, used.heartbeat
        )
        with raising_one_error():
            async with heartbeats, SessionState(pool, client).connected(sharing):
                return await verifier.run(series)

    return run_sync(verify)
