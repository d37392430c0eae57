"""Database faults: a run retries transient ones, and ends with one clear error at permanent ones."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import attrs
import psycopg
from psycopg.conninfo import make_conninfo

from chaos.faults.commit_proxy import commit_proxy
from chaos.faults.permanent_faults import PERMANENT_FAULTS, QUOTA, PermanentFault, full_disk, move_to_disk
from chaos.faults.transient_faults import FAILING_COMMITS, TRANSIENT_FAULTS, TransientFault
from chaos.harness.databases import (
    BATCHES,
    DURABLE_SETTINGS,
    Database,
    ProgressGates,
    database_on,
    the_exchange,
)
from chaos.harness.trials import Effort, Result, Trial
from marketfetch.errors import ConfigurationError, SinkError, SinkUnavailable
from marketfetch.values.settings import RetryPolicy
from tests.support import pgbouncer, postgres
from tests.support.disks import small_disk
from tests.support.postgres import Server

__all__ = ["DatabaseTestBed", "database_test_bed", "hostile_database"]

_Kind = TypeVar("_Kind")

PROJECT = Path(__file__).parents[2]
_AMID = range(3, BATCHES - 5)
"""The batches after which a fault may be injected: not the first ones, nor the last."""
_CUTS = 12


@attrs.frozen(eq=False)
class DatabaseTestBed:
    """A server, fresh databases on it, and the digest of an undisturbed run."""

    effort: Effort
    server: Server
    fresh: Callable[[Server], AbstractContextManager[Database]]
    undisturbed: str

    def database(self, server: Server | None = None) -> AbstractContextManager[Database]:
        """Create a database on this server, or behind a connection pooler."""
        return self.fresh(server or self.server)

    def named(self, what: str, repeat: int) -> str:
        """Name an attempt so that it can be repeated."""
        return f"{what}, run {repeat} of seed {self.effort.seed}"

    def rng(self, what: str, repeat: int) -> random.Random:
        """Return the random generator of an attempt."""
        return self.effort.rng(f"{what} {repeat}")

    def some(self, kinds: Sequence[_Kind], quick: int) -> Sequence[_Kind]:
        """Return all kinds, or `quick` of them in the tests."""
        return self.effort.rng("kinds").sample(kinds, self.effort.choose(quick, len(kinds)))

    def ends_well(self, database: Database, **options: Any) -> None:
        """Run, and fail unless the database then holds the same as after an undisturbed run."""
        assert database.run(**options).complete, "the report says that something is missing"
        self.is_whole(database)

    def is_whole(self, database: Database) -> None:
        """Fail unless the database holds the same as after an undisturbed run."""
        database.check()
        assert database.fingerprint() == self.undisturbed, "not the same bytes"


@contextmanager
def database_test_bed(effort: Effort) -> Iterator[DatabaseTestBed]:
    """Run the server and the exchange, and make the undisturbed run."""
    with ExitStack() as stack:
        source = postgres.sources("auto")[0]
        # Small WAL segments: the file size limit of the quota fault must be above their size.
        server = stack.enter_context(postgres.running(source, DURABLE_SETTINGS, initdb=["--wal-segsize=1"]))
        exchange, market = stack.enter_context(the_exchange(effort.seed))
        fresh = partial(database_on, exchange=exchange, market=market)
        with fresh(server) as database:
            assert database.run().complete
            database.check()
            undisturbed = database.fingerprint()
        yield DatabaseTestBed(effort, server, fresh, undisturbed)


def hostile_database(effort: Effort) -> Iterator[Result]:
    """Try every promise about database faults."""
    with database_test_bed(effort) as bed:
        yield survives_transient_faults(bed)
        yield failing_states(bed)
        yield unknown_outcomes(bed)
        yield come_back_older(bed)
        yield away_for_long(bed)
        yield stopped_clearly(bed)
        yield read_only_standby(bed)
        with small_disk(4) as disk:
            if disk is not None:
                yield full(bed, disk)
        if pgbouncer.program() is not None:
            yield survives_transient_faults_behind_pgbouncer(bed)
    if effort.name != "quick" and pgbouncer.program() is not None:
        yield whole_suite()


# --- transient faults ---


def survives_transient_faults(bed: DatabaseTestBed) -> Result:
    """Inject each transient fault at random moments."""
    trial = Trial("a transient database fault: the run completes, with the same content", unit="faults")
    for repeat in range(bed.effort.choose(1, 3, 100)):
        for kind in bed.some(TRANSIENT_FAULTS, 3):
            with trial.attempt(bed.named(kind.name, repeat)), bed.database() as database:
                _disturb(bed, trial, database, kind, repeat)
    return trial.result()


def survives_transient_faults_behind_pgbouncer(bed: DatabaseTestBed) -> Result:
    """Inject transient faults into runs that connect through PgBouncer."""
    trial = Trial("the same through PgBouncer in transaction mode", unit="faults")
    # Other faults reach PgBouncer alone: it lets its clients wait.
    kinds = [kind for kind in TRANSIENT_FAULTS if kind.seen_behind_poolers]
    with pgbouncer.before(bed.server) as pool:
        for repeat in range(bed.effort.choose(1, 1, 50)):
            for kind in bed.some(kinds, 2):
                with trial.attempt(bed.named(kind.name, repeat)), bed.database(pool) as database:
                    _disturb(bed, trial, database, kind, repeat)
    return trial.result()


def _disturb(
    bed: DatabaseTestBed, trial: Trial, database: Database, kind: TransientFault, repeat: int
) -> None:
    rng = bed.rng(kind.name, repeat)
    times = min(kind.times, bed.effort.choose(2, 100))
    database.server.adjust(database.owner, **kind.settings)
    gates = ProgressGates(partial(kind.act, database), rng.sample(_AMID, times), rng)
    bed.ends_well(database, gates=gates)
    trial.tried += times - 1  # the attempt itself counts as one


def failing_states(bed: DatabaseTestBed) -> Result:
    """Let every third transaction fail at COMMIT, with each transient SQLSTATE in turn."""
    trial = Trial("transactions that fail at COMMIT are repeated", unit="failures")
    with trial.attempt("every third transaction"), bed.database() as database:
        database.execute(*FAILING_COMMITS)
        bed.ends_well(database)
        assert len(database.transient_errors) > BATCHES // 4, "hardly any failed"
        trial.tried += len(database.transient_errors) - 1
    return trial.result()


def unknown_outcomes(bed: DatabaseTestBed) -> Result:
    """Close connections at COMMIT: before the server receives it, or before the client gets the answer."""
    trial = Trial("a COMMIT with an unknown outcome loses no row", unit="cuts")
    for repeat in range(bed.effort.choose(1, 3, 100)):
        with trial.attempt(bed.named("cuts", repeat)):
            _cut(bed, bed.rng("cuts", repeat))
            trial.tried += _CUTS - 1
    return trial.result()


def _cut(bed: DatabaseTestBed, rng: random.Random) -> None:
    with bed.database() as database, commit_proxy(bed.server.socket) as proxy:
        dsn = make_conninfo(database.dsn, host="127.0.0.1", port=proxy.port)
        gates = ProgressGates(lambda: proxy.cut(rng.random() < 0.5), rng.sample(_AMID, _CUTS), rng)
        bed.ends_well(database, dsn=dsn, gates=gates)
        assert proxy.done == len(database.transient_errors) == _CUTS, f"{proxy.done} were cut"


def come_back_older(bed: DatabaseTestBed) -> Result:
    """Restore an older copy of the server during a run, as after a failover to a lagging replica."""
    promise = "a server that lost commits is consistent, and the next run completes it"
    trial = Trial(promise, unit="restores")
    for repeat in range(bed.effort.choose(1, 2, 30)):
        with trial.attempt(bed.named("older", repeat)), bed.database() as database:
            rng, acts = bed.rng("older", repeat), [bed.server.restore, bed.server.save]
            gates = ProgressGates(partial(_next, acts), rng.sample(_AMID, 2), rng)
            assert database.run(gates=gates).complete
            database.check()
            bed.ends_well(database)
    return trial.result()


def _next(acts: list[Callable[[], None]]) -> None:
    acts.pop()()


# --- permanent faults ---


def away_for_long(bed: DatabaseTestBed) -> Result:
    """Stop the server for longer than a run retries."""
    trial = Trial("a server that stays down gives one clear error, and no row is lost", unit="outages")
    for repeat in range(bed.effort.choose(1, 2, 30)):
        rng = bed.rng("away", repeat)
        with trial.attempt(bed.named("away", repeat)), bed.database() as database:
            gates = ProgressGates(bed.server.crash, rng.sample(_AMID, 1), rng)
            few = RetryPolicy(attempts=4, initial=0.01, cap=0.05)
            try:
                _refused(database, "check that the server runs", SinkUnavailable, gates=gates, retries=few)
            finally:
                bed.server.start()
            database.check()
            bed.ends_well(database)
    return trial.result()


def stopped_clearly(bed: DatabaseTestBed) -> Result:
    """Inject each permanent fault, then repair it."""
    trial = Trial(
        "a permanent database fault gives one clear error; repaired, a run completes", unit="faults"
    )
    for repeat in range(bed.effort.choose(1, 2, 30)):
        for kind in bed.some((*PERMANENT_FAULTS, QUOTA), 3):
            with trial.attempt(bed.named(kind.name, repeat)), bed.database() as database:
                _stop(bed, database, kind, repeat)
    return trial.result()


def _stop(bed: DatabaseTestBed, database: Database, kind: PermanentFault, repeat: int = 0) -> None:
    rng = bed.rng(kind.name, repeat)
    kind.before(database)
    gates = ProgressGates(partial(kind.harm, database), rng.sample(_AMID, 1), rng)
    try:
        if kind.of_rows:
            _series_stopped(database, kind.message, gates=gates)
            _series_stopped(database, kind.message)
        else:
            _refused(database, kind.message, gates=gates)
            _refused(database, "", repeat=True)
    finally:
        kind.mend(database)
    if not kind.destroys:
        database.check()
    bed.ends_well(database)


def read_only_standby(bed: DatabaseTestBed) -> Result:
    """Run into a read-only standby."""
    trial = Trial("a standby gives an error with the remedy, and is not changed", unit="standbys")
    with trial.attempt("half is there"), bed.database() as database:
        database.run(end="2026-06-01T12:00:00Z")
        with postgres.running(bed.server.source, DURABLE_SETTINGS, copy_of=bed.server) as standby:
            dsn = standby.past_the_pooler(database.dsn)
            _refused(database, "is a standby and only read; connect to the primary server", dsn=dsn)
        bed.ends_well(database)
    return trial.result()


def full(bed: DatabaseTestBed, disk: Path) -> Result:
    """Fill the disk of a table during a run."""
    trial = Trial("a full disk gives one clear error; with free space a run completes", unit="disks")
    with trial.attempt("a small tablespace"):
        with bed.database() as database:
            move_to_disk(database, disk)
            _stop(bed, database, full_disk(disk))
        with psycopg.connect(bed.server.direct, autocommit=True) as connection:
            connection.execute("DROP TABLESPACE small")
    return trial.result()


def _refused(
    database: Database,
    message: str,
    kind: type[SinkError] = SinkError,
    *,
    repeat: bool = False,
    **options: Any,
) -> None:
    """Run, and fail unless it ends with one error of one line that matches `message` and carries a report."""
    error = _ended(database, **options)
    assert error is not None, "the run ended as if nothing were wrong"
    assert isinstance(error, kind) or repeat, repr(error)
    assert kind is SinkUnavailable or not isinstance(error, SinkUnavailable), repr(error)
    assert re.search(message, str(error)), str(error)
    assert "\n" not in str(error), str(error)
    assert repeat or (error.report is not None and not error.report.complete), "there is no report"


def _series_stopped(database: Database, message: str, **options: Any) -> None:
    """Run, and fail unless the report has missing spans and each of their reasons matches `message`."""
    report = database.run(**options)
    reasons = {gap.reason for line in report.series for gap in line.missing}
    assert not report.complete, "the run ended as if nothing were wrong"
    assert report.error is None, report.error
    assert reasons, "nothing is reported as missing"
    for reason in reasons:
        assert re.search(message, reason), reason
        assert "\n" not in reason, reason


def _ended(database: Database, **options: Any) -> SinkError | ConfigurationError | None:
    try:
        database.run(**options)
    except (SinkError, ConfigurationError) as error:
        return error
    return None


def whole_suite() -> Result:
    """Run every test of PostgreSQL through PgBouncer alone."""
    trial = Trial("the whole PostgreSQL suite passes through PgBouncer", unit="tests")
    words = [
        "-q",
        "-n",
        "2",
        "-p",
        "no:cacheprovider",
        "--postgres=pooled",
        "-k",
        "postgres or Postgres",
        "tests/sinks",
    ]
    with trial.attempt("pytest"):
        result = subprocess.run(
            [sys.executable, "-m", "pytest", *words], cwd=PROJECT, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout[-2000:]
        passed = re.search(r"(\d+) passed", result.stdout)
        assert passed is not None
        trial.tried += int(passed[1]) - 1
    return trial.result()
