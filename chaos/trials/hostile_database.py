"""A hostile database: what passes is ridden out, what stays ends the run with one clear error."""

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
from chaos.faults.transient_faults import STUMBLING, TRANSIENT_FAULTS, TransientFault
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
"""After which batches something is done."""
_CUTS = 12


@attrs.frozen(eq=False)
class DatabaseTestBed:
    """A server, fresh databases on it, and what a run that nobody disturbs leaves in one."""

    effort: Effort
    server: Server
    fresh: Callable[[Server], AbstractContextManager[Database]]
    undisturbed: str

    def database(self, server: Server | None = None) -> AbstractContextManager[Database]:
        """Make a database, on this server or behind a pooler."""
        return self.fresh(server or self.server)

    def named(self, what: str, again: int) -> str:
        """Name an attempt so that it can be repeated."""
        return f"{what}, run {again} of seed {self.effort.seed}"

    def chance(self, what: str, again: int) -> random.Random:
        """Return the random numbers of an attempt."""
        return self.effort.chance(f"{what} {again}")

    def some(self, kinds: Sequence[_Kind], quick: int) -> Sequence[_Kind]:
        """Return all kinds, or a few of them where there is little time."""
        return self.effort.chance("kinds").sample(kinds, self.effort.choose(quick, len(kinds)))

    def ends_well(self, database: Database, **how: Any) -> None:
        """Run, and fail unless the database then holds what it would if nothing had happened."""
        assert database.run(**how).complete, "the report says that something is missing"
        self.is_whole(database)

    def is_whole(self, database: Database) -> None:
        """Fail unless the database holds what it would if nothing had happened."""
        database.check()
        assert database.fingerprint() == self.undisturbed, "not the same bytes"


@contextmanager
def database_test_bed(effort: Effort) -> Iterator[DatabaseTestBed]:
    """Run what everything takes place on."""
    with ExitStack() as stack:
        source = postgres.sources("auto")[0]
        # Small segments of its log, so that a limit to the size of files may be small as well.
        server = stack.enter_context(postgres.running(source, DURABLE_SETTINGS, initdb=["--wal-segsize=1"]))
        exchange, market = stack.enter_context(the_exchange(effort.seed))
        fresh = partial(database_on, exchange=exchange, market=market)
        with fresh(server) as database:
            assert database.run().complete
            database.check()
            undisturbed = database.fingerprint()
        yield DatabaseTestBed(effort, server, fresh, undisturbed)


def hostile_database(effort: Effort) -> Iterator[Result]:
    """Try every promise about databases that are hostile."""
    with database_test_bed(effort) as place:
        yield ridden_out(place)
        yield failing_states(place)
        yield unknown_outcomes(place)
        yield come_back_older(place)
        yield away_for_long(place)
        yield stopped_clearly(place)
        yield read_only_standby(place)
        with small_disk(4) as disk:
            if disk is not None:
                yield full(place, disk)
        if pgbouncer.program() is not None:
            yield ridden_out_behind_pgbouncer(place)
    if effort.name != "quick" and pgbouncer.program() is not None:
        yield whole_suite()


# --- what passes ---


def ridden_out(place: DatabaseTestBed) -> Result:
    """Do everything that passes, at moments left to chance."""
    trial = Trial("a database fault that passes is ridden out, with the same bytes", unit="faults")
    for again in range(place.effort.choose(1, 3, 100)):
        for kind in place.some(TRANSIENT_FAULTS, 4):
            with trial.attempt(place.named(kind.name, again)), place.database() as database:
                _disturb(place, trial, database, kind, again)
    return trial.result()


def ridden_out_behind_pgbouncer(place: DatabaseTestBed) -> Result:
    """Do the same to a run that comes through a pooler."""
    trial = Trial("so it is through PgBouncer in transaction mode", unit="faults")
    # Not those that are the pooler's to deal with: it has its clients wait.
    kinds = [kind for kind in TRANSIENT_FAULTS if kind.seen_behind_poolers]
    with pgbouncer.before(place.server) as pool:
        for again in range(place.effort.choose(1, 1, 50)):
            for kind in place.some(kinds, 3):
                with trial.attempt(place.named(kind.name, again)), place.database(pool) as database:
                    _disturb(place, trial, database, kind, again)
    return trial.result()


def _disturb(
    place: DatabaseTestBed, trial: Trial, database: Database, kind: TransientFault, again: int
) -> None:
    chance = place.chance(kind.name, again)
    times = min(kind.times, place.effort.choose(2, 100))
    database.server.adjust(database.owner, **kind.settings)
    moments = ProgressGates(partial(kind.act, database), chance.sample(_AMID, times), chance)
    place.ends_well(database, moments=moments)
    trial.tried += times - 1  # beside the one that an attempt is


def failing_states(place: DatabaseTestBed) -> Result:
    """Have every third transaction fail at its end, with each SQLSTATE that passes."""
    trial = Trial("transactions that fail at their end are written again", unit="failures")
    with trial.attempt("every third transaction"), place.database() as database:
        database.execute(*STUMBLING)
        place.ends_well(database)
        assert len(database.hurts) > BATCHES // 4, "hardly any failed"
        trial.tried += len(database.hurts) - 1
    return trial.result()


def unknown_outcomes(place: DatabaseTestBed) -> Result:
    """Cut connections between COMMIT and its answer: of half of them the server has got it."""
    trial = Trial("a COMMIT of which nobody knows what became is no loss", unit="cuts")
    for again in range(place.effort.choose(1, 3, 100)):
        with trial.attempt(place.named("cuts", again)):
            _cut(place, place.chance("cuts", again))
            trial.tried += _CUTS - 1
    return trial.result()


def _cut(place: DatabaseTestBed, chance: random.Random) -> None:
    with place.database() as database, commit_proxy(place.server.socket) as proxy:
        dsn = make_conninfo(database.dsn, host="127.0.0.1", port=proxy.port)
        moments = ProgressGates(lambda: proxy.cut(chance.random() < 0.5), chance.sample(_AMID, _CUTS), chance)
        place.ends_well(database, dsn=dsn, moments=moments)
        assert proxy.done == len(database.hurts) == _CUTS, f"{proxy.done} were cut"


def come_back_older(place: DatabaseTestBed) -> Result:
    """Put an older copy in the place of a server amid a run, as if a replica took over that had lagged."""
    promise = "a server that lost commits is right in itself, and filled by the next run"
    trial = Trial(promise, unit="restores")
    for again in range(place.effort.choose(1, 2, 30)):
        with trial.attempt(place.named("older", again)), place.database() as database:
            chance, acts = place.chance("older", again), [place.server.restore, place.server.save]
            moments = ProgressGates(partial(_next, acts), chance.sample(_AMID, 2), chance)
            assert database.run(moments=moments).complete
            database.check()
            place.ends_well(database)
    return trial.result()


def _next(acts: list[Callable[[], None]]) -> None:
    acts.pop()()


# --- what stays ---


def away_for_long(place: DatabaseTestBed) -> Result:
    """Keep the server away for longer than a run tries."""
    trial = Trial("a server that stays away is one clear error, and nothing is lost", unit="outages")
    for again in range(place.effort.choose(1, 2, 30)):
        chance = place.chance("away", again)
        with trial.attempt(place.named("away", again)), place.database() as database:
            moments = ProgressGates(place.server.crash, chance.sample(_AMID, 1), chance)
            few = RetryPolicy(attempts=4, initial=0.01, cap=0.05)
            try:
                _refused(
                    database, "check that the server runs", SinkUnavailable, moments=moments, retries=few
                )
            finally:
                place.server.start()
            database.check()
            place.ends_well(database)
    return trial.result()


def stopped_clearly(place: DatabaseTestBed) -> Result:
    """Do everything that stays until it is mended."""
    trial = Trial("a database fault that stays is one clear error, and mended all is whole", unit="faults")
    for again in range(place.effort.choose(1, 2, 30)):
        for kind in place.some((*PERMANENT_FAULTS, QUOTA), 5):
            with trial.attempt(place.named(kind.name, again)), place.database() as database:
                _stop(place, database, kind, again)
    return trial.result()


def _stop(place: DatabaseTestBed, database: Database, kind: PermanentFault, again: int = 0) -> None:
    chance = place.chance(kind.name, again)
    kind.before(database)
    moments = ProgressGates(partial(kind.harm, database), chance.sample(_AMID, 1), chance)
    try:
        if kind.of_rows:
            _series_stopped(database, kind.says, moments=moments)
            _series_stopped(database, kind.says)
        else:
            _refused(database, kind.says, moments=moments)
            _refused(database, "", again=True)
    finally:
        kind.mend(database)
    if not kind.destroys:
        database.check()
    place.ends_well(database)


def read_only_standby(place: DatabaseTestBed) -> Result:
    """Run into a standby."""
    trial = Trial("a standby is refused with the remedy, and left as it is", unit="standbys")
    with trial.attempt("half is there"), place.database() as database:
        database.run(end="2026-06-01T12:00:00Z")
        with postgres.running(place.server.source, DURABLE_SETTINGS, copy_of=place.server) as standby:
            dsn = standby.past_the_pooler(database.dsn)
            _refused(database, "is a standby and only read; connect to the primary server", dsn=dsn)
        place.ends_well(database)
    return trial.result()


def full(place: DatabaseTestBed, disk: Path) -> Result:
    """Fill the disk of a table amid a run."""
    trial = Trial("a full disk is one clear error, and with room all is whole", unit="disks")
    with trial.attempt("a small tablespace"):
        with place.database() as database:
            move_to_disk(database, disk)
            _stop(place, database, full_disk(disk))
        with psycopg.connect(place.server.direct, autocommit=True) as connection:
            connection.execute("DROP TABLESPACE small")
    return trial.result()


def _refused(
    database: Database, says: str, kind: type[SinkError] = SinkError, *, again: bool = False, **how: Any
) -> None:
    """Run, and fail unless it ends with one error that says something in one line, and with a report."""
    error = _ended(database, **how)
    assert error is not None, "the run ended as if nothing were wrong"
    assert isinstance(error, kind) or again, repr(error)
    assert kind is SinkUnavailable or not isinstance(error, SinkUnavailable), repr(error)
    assert re.search(says, str(error)), str(error)
    assert "\n" not in str(error), str(error)
    assert again or (error.report is not None and not error.report.complete), "there is no report"


def _series_stopped(database: Database, says: str, **how: Any) -> None:
    """Run, and fail unless it ends with a report of what is missing, which says something of all of it."""
    report = database.run(**how)
    reasons = {gap.reason for line in report.series for gap in line.missing}
    assert not report.complete, "the run ended as if nothing were wrong"
    assert report.error is None, report.error
    assert reasons, "nothing is said to be missing"
    for reason in reasons:
        assert re.search(says, reason), reason
        assert "\n" not in reason, reason


def _ended(database: Database, **how: Any) -> SinkError | ConfigurationError | None:
    try:
        database.run(**how)
    except (SinkError, ConfigurationError) as error:
        return error
    return None


# --- everything through PgBouncer ---


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
        said = subprocess.run(
            [sys.executable, "-m", "pytest", *words], cwd=PROJECT, capture_output=True, text=True, check=False
        )
        assert said.returncode == 0, said.stdout[-2000:]
        passed = re.search(r"(\d+) passed", said.stdout)
        assert passed is not None
        trial.tried += int(passed[1]) - 1
    return trial.result()
