"""Back-fill on a Dask cluster: every worker runs the whole query, and the store is the arbiter of the work.

    with distributed.Client("tcp://scheduler:8786") as client:
        report = backfill(client, "binance-usdm", query, "postgresql:///market")

It needs `marketfetch[dask]`, also on the workers and on the scheduler.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import anyio
import attrs
from anyio.to_thread import run_sync as in_thread

import marketfetch
from marketfetch.api.inputs import has_password, is_in_folder
from marketfetch.api.pipeline import Pipeline
from marketfetch.api.run_sync import run_sync
from marketfetch.common.keywords import checks_keywords
from marketfetch.common.optional_packages import from_extra
from marketfetch.errors import ConfigurationError, MarketfetchError, RestrictedLocation
from marketfetch.events import Event, Heartbeat, Listener
from marketfetch.exchange import Exchange
from marketfetch.listeners.dispatch import Listeners
from marketfetch.protocols import Fetcher, ProxyPool
from marketfetch.redaction import Secret, redact
from marketfetch.reports import Report
from marketfetch.values.query import Query
from marketfetch.values.settings import Settings

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["ClusterJob", "ClusterRun", "MakeProxies", "backfill"]

_LOG = logging.getLogger("marketfetch")
_LOOK = 0.5
"""Seconds between two looks: of the caller at the workers, and of a worker at whether it is to go on."""
_PATIENCE = 30.0
"""Seconds without an answer of the scheduler after which the caller goes on alone."""
_ADDRESSES = re.compile(rb"://[!-.0-9;-?A-~]{1,200}:[!-?A-~]{1,200}@")
"""URLs with passwords in a pickle. Around a text it has other bytes than printable ASCII."""

MakeProxies = Callable[[], ProxyPool | Iterable[str | Secret]]
"""A function that returns a pool or addresses; it is called in each process."""


def _for_workers(_job: ClusterJob, field: attrs.Attribute[Any], url: Any) -> None:
    """Raise ConfigurationError for what is no URL, has a password, or is another place in each process.

    A password would lie in the memory of the scheduler.
    """
    if not isinstance(url, str):
        raise ConfigurationError(
            f"{field.name}: objects do not travel to workers; write a URL as text, not {type(url).__name__}"
        )
    if has_password(url):
        url = ""  # debuggers show the local variables of an error
        raise ConfigurationError(
            f"{field.name}: has a password, which does not travel to workers; leave it out, and give each "
            "worker a file ~/.pgpass or PGPASSWORD"
        )
    if url.startswith("memory:"):
        raise ConfigurationError(
            f"{field.name}: the memory of a worker ends with it; name a store that they share"
        )
    if is_in_folder(url):
        raise ConfigurationError(
            f"{field.name}: {url!r} is another place in each working folder; write an absolute path"
        )


def _if_given(job: ClusterJob, field: attrs.Attribute[Any], url: str | None) -> None:
    if url is not None:
        _for_workers(job, field, url)


def _path(proxies: str | Path | MakeProxies | None) -> str | MakeProxies | None:
    """Return the text of a path: a Path of one system cannot be read on another."""
    return str(proxies) if isinstance(proxies, Path) else proxies


def _file_or_function(_job: ClusterJob, _field: attrs.Attribute[Any], proxies: object) -> None:
    if proxies is None or callable(proxies):
        return
    # A path may have the colon of a drive, or an @; no address has only one of them.
    if isinstance(proxies, str) and proxies and ":" not in proxies[2:] and not set("@:") <= set(proxies):
        return
    raise ConfigurationError(
        "proxies: addresses do not travel to workers; write them to a file that each worker has, and give "
        "its path, or give a function that returns them"
    )


@attrs.frozen
class ClusterJob:
    """What travels to the workers of a cluster: places, such as URLs and paths, and no credential.

    The fields are the arguments of `backfill`, which lists the errors.
    """

    exchange: str | Exchange
    query: Query
    sink_url: str = attrs.field(validator=_for_workers)
    proxies: str | MakeProxies | None = attrs.field(
        default=None, converter=_path, validator=_file_or_function, kw_only=True
    )
    fetcher: Fetcher | None = attrs.field(default=None, kw_only=True)
    settings: Settings | None = attrs.field(default=None, kw_only=True)
    base_url: str | None = attrs.field(default=None, kw_only=True, validator=_if_given)
    archive_url: str | None = attrs.field(default=None, kw_only=True, validator=_if_given)
    board: str | None = attrs.field(default="auto", kw_only=True, validator=_if_given)

    def pipeline(self, listeners: Sequence[Listener] = ()) -> Pipeline:
        """Make the pipeline of this process."""
        return Pipeline(
            self.exchange,
            self.query,
            self.sink_url,
            proxies=self._pool(),
            fetcher=self.fetcher,
            settings=self.settings,
            listeners=listeners,
            base_url=self.base_url,
            archive_url=self.archive_url,
            board=self.board,
        )

    def _pool(self) -> ProxyPool | Iterable[str | Secret] | Path | None:
        if not callable(self.proxies):
            return None if self.proxies is None else Path(self.proxies)
        found: object = self.proxies()
        if found is None:  # would be the direct connection
            raise ConfigurationError("proxies: the function returned None; return a pool or addresses")
        return found  # type: ignore[return-value]  # a Pipeline checks it


@checks_keywords
def backfill(  # noqa: PLR0913  # the parts of a Pipeline
    client: Client,
    exchange: str | Exchange,
    query: Query,
    sink_url: str,
    *,
    proxies: str | Path | MakeProxies | None = None,
    fetcher: Fetcher | None = None,
    settings: Settings | None = None,
    listeners: Sequence[Listener] = (),
    base_url: str | None = None,
    archive_url: str | None = None,
    board: str | None = "auto",
) -> Report:
    """Run a query on every worker of a cluster, then here; return the report of the run here.

    Each worker that is there at the beginning runs the whole query once. The workers share rows and limits
    as processes do that were started apart: see "Many processes" in the documentation. A worker that is
    killed is not replaced; the others fetch its part. Once a worker finds that nothing is left, the query
    runs here: it fetches what may still be missing, computes composites and reports. What the workers did is
    not in its counts: with all rows stored it asks for nothing but the time and the listing.

    The arguments are those of `Pipeline`, as far as they can travel. `sink_url` names a store that all
    workers and the caller reach, without a password: each worker has its own `~/.pgpass`, or PGPASSWORD.
    `proxies` is the path of a file that each worker and the caller have, or a function that is called there.
    `board` is a URL, also `dask:tcp://scheduler:8786` for workers on several machines that share no
    PostgreSQL. Of the events of workers, `listeners` receive the heartbeats, added up.

    Raises ConfigurationError for a wrong call, for a cluster without workers, and for the first worker that
    cannot take part: another version of marketfetch, an extra or a file that it lacks. RestrictedLocation of
    a worker is raised, too. Its other errors are logged, and those of the run here are raised.
    """
    job = ClusterJob(
        exchange,
        query,
        sink_url,
        proxies=proxies,
        fetcher=fetcher,
        settings=settings,
        base_url=base_url,
        archive_url=archive_url,
        board=board,
    )
    return run_sync(ClusterRun(client, job, listeners).run)


class ClusterRun:
    """A job on every worker of a cluster, then in this process; awaited like a Pipeline. See `backfill`."""

    def __init__(self, client: Client, job: ClusterJob, listeners: Sequence[Listener] = ()) -> None:
        with from_extra("dask", "client"):
            from distributed.protocol.pickle import dumps
        if getattr(client, "asynchronous", True):
            raise ConfigurationError("client: give one that blocks, such as Client('tcp://scheduler:8786')")
        if client.status != "running":
            raise ConfigurationError(f"client: it is {client.status}; give one that is connected")
        self._client: Any = client  # its methods block or are awaited, and its types say both
        self._listeners = Listeners(listeners)
        self._pipeline = job.pipeline(listeners)
        try:
            self._job: bytes = dumps(job)
        except ConfigurationError:
            raise
        except Exception as error:  # an object of the caller may raise anything
            raise ConfigurationError(f"this job cannot travel to workers: {redact(str(error))}") from error
        if _ADDRESSES.search(self._job):
            raise ConfigurationError(
                "this job has a URL with a password in it, which does not travel to workers; let the function"
                " of proxies read addresses where it is called"
            )

    def __await__(self) -> Generator[Any, None, Report]:
        return self.run().__await__()

    def report(self) -> Report:
        """Return the report of the run in this process, so far."""
        return self._pipeline.report()

    async def run(self) -> Report:
        """Run on the workers until one of them ends, then here."""
        topic = f"marketfetch-{uuid4()}"
        loop, progress = asyncio.get_running_loop(), _Progress(self._listeners.emit)

        def hear(event: tuple[float, Mapping[str, Any]]) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(progress.add, event[1])

        futures: Mapping[Any, str] = {}
        try:
            with anyio.move_on_after(_PATIENCE):  # a worker that hangs does not answer
                await in_thread(self._check_versions, abandon_on_cancel=True)
            futures = await in_thread(self._submit, topic, hear)
            await self._until_one_ends(futures)
            progress.is_over = True  # the run here has events of its own
            return await self._pipeline.run()
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(_PATIENCE):
                await in_thread(self._end, topic, futures, abandon_on_cancel=True)

    def _check_versions(self) -> None:
        """Check that each worker and the scheduler have the marketfetch of the caller.

        A worker without it would end when it reads its task, and a scheduler would blame a worker.
        """
        name, here = "marketfetch", marketfetch.__version__
        try:
            found = self._client.get_versions(packages=[name])
        except Exception as error:  # a client that lost its scheduler may raise anything
            raise _no_answer(error) from error
        places = {f"worker {address}": found["workers"][address] for address in found["workers"]}
        for place, its in {**places, "scheduler": found["scheduler"]}.items():
            there = its["packages"][name]
            if there is None:
                raise ConfigurationError(f"{place}: lacks {name}; pip install '{name}[dask]=={here}' there")
            if there != here:
                raise ConfigurationError(
                    f"{place}: it has {name} {there}, the caller {here}; install the same version"
                )

    def _submit(self, topic: str, hear: Callable[[Any], None]) -> Mapping[Any, str]:
        """Start the job on each worker; a task is never moved to another worker, nor tried again."""
        try:
            self._client.subscribe_topic(topic, hear)
            workers = list(self._client.nthreads())
        except Exception as error:  # a client that lost its scheduler may raise anything
            raise _no_answer(error) from error
        if not workers:
            raise ConfigurationError("client: the cluster has no workers; start some: dask worker ADDRESS")
        start = partial(self._client.submit, _run_job, self._job, topic)
        return {
            start(workers=[worker], pure=False, retries=0, key=f"{topic}-{number}"): worker
            for number, worker in enumerate(workers)
        }

    def _end(self, topic: str, futures: Mapping[Any, str]) -> None:
        """Cancel what still runs; a scheduler that is gone runs nothing, whatever Dask raises then."""
        with suppress(Exception):
            self._client.unsubscribe_topic(topic)
            self._client.cancel(list(futures))

    async def _until_one_ends(self, futures: Mapping[Any, str]) -> None:
        """Wait until a worker has found that nothing is left, or until no worker is left.

        Others may still write their last rows. A worker that was killed is not waited for: its task never
        ends. Nor is a scheduler that does not answer, whatever Dask raises then.
        """
        waiting = dict(futures)
        while waiting:
            for future, worker in futures.items():
                if future.status == "finished":
                    return
                if future in waiting and future.done():
                    del waiting[future]
                    await in_thread(_raise_or_log_error, worker, future)
            await anyio.sleep(_LOOK)
            alive: Iterable[str] = ()
            with anyio.move_on_after(_PATIENCE), suppress(Exception):
                alive = await in_thread(self._client.nthreads, abandon_on_cancel=True)
            waiting = {future: worker for future, worker in waiting.items() if worker in alive}


def _no_answer(error: Exception) -> ConfigurationError:
    return ConfigurationError(f"client: its scheduler does not answer: {error}")


def _raise_or_log_error(worker: str, future: Any) -> None:
    """Raise the error of a worker that cannot take part; log an error after which the others can go on."""
    if future.status != "error":
        return  # the task is lost, with its worker
    error = future.exception()
    if isinstance(error, RestrictedLocation):
        raise error
    if isinstance(error, MarketfetchError) and not isinstance(error, ConfigurationError):
        _LOG.warning("worker %s: %s; the others go on", worker, error)
        return
    text = str(error) if isinstance(error, ConfigurationError) else f"{type(error).__name__}: {error}"
    raise ConfigurationError(f"worker {worker}: {redact(text)}") from error


def _run_job(job: bytes, topic: str) -> None:
    """Run a job on this worker until it ends, or until its task is cancelled or its caller gone."""
    from distributed import get_worker
    from distributed.protocol.pickle import loads

    worker = get_worker()
    key, tasks = worker.get_current_task(), worker.state.tasks

    def send(event: Event) -> None:
        if isinstance(event, Heartbeat):
            numbers = attrs.asdict(event, filter=lambda field, _: field.name != "egresses")
            worker.log_event(topic, {"worker": worker.address, "numbers": numbers})

    def is_wanted() -> bool:
        return key in tasks and tasks[key].state == "executing"

    async def run() -> MarketfetchError | None:
        kind: type[MarketfetchError] = ConfigurationError
        try:
            pipeline = loads(job).pipeline([send])
            kind = MarketfetchError
            await _while_wanted(asyncio.ensure_future(pipeline.run()), is_wanted)
        except MarketfetchError as error:
            return error
        except Exception as error:  # noqa: BLE001  # of the caller's function, or of the decoder of pickles
            if isinstance(error, ImportError):  # a package of this worker is broken
                kind = ConfigurationError
            return kind(redact(f"{type(error).__name__}: {error}"))
        return None

    error = run_sync(run)
    if error is not None:
        error.report = None  # of this worker alone
        raise error  # here, since Dask logs and sends an error with all errors that were handled meanwhile


async def _while_wanted(running: asyncio.Future[Report], is_wanted: Callable[[], bool]) -> None:
    """Wait for the end of a run; cancel it once it is not wanted any more."""
    while is_wanted() and not (await asyncio.wait([running], timeout=_LOOK))[0]:
        pass
    if not running.done():
        running.cancel()  # once: a second time would end what it does then
        await asyncio.wait([running])
    if not running.cancelled():
        running.result()


@attrs.define
class _Progress:
    """Adds up the heartbeats of the workers: the rows of all, of the work that each of them has planned."""

    emit: Callable[[Event], None]
    is_over: bool = attrs.field(default=False, init=False)
    _last: dict[str, Heartbeat] = attrs.field(factory=dict, init=False)

    def add(self, message: Mapping[str, Any]) -> None:
        if self.is_over:
            return
        self._last[message["worker"]] = last = Heartbeat(egresses=(), **message["numbers"])
        every = self._last.values()
        self.emit(
            attrs.evolve(
                last,
                rows_fetched=sum(each.rows_fetched for each in every),
                rows_written=sum(each.rows_written for each in every),
                rows_planned=max(each.rows_planned for each in every),
                requests=sum(each.requests for each in every),
            )
        )
