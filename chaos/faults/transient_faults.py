"""Database faults that pass by themselves, such as a deadlock or a restart, injected during a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import attrs
import psycopg

from chaos.harness.databases import Database, await_that

__all__ = ["FAILING_COMMITS", "TRANSIENT_FAULTS", "TransientFault"]

_SESSIONS = "FROM pg_stat_activity WHERE usename = {who}"
_END_ALL = f"SELECT pg_terminate_backend(pid) {_SESSIONS}"
_WAITING = f"SELECT count(*) {_SESSIONS} AND wait_event = 'relation'"


@attrs.frozen
class TransientFault:
    """A fault: how to cause it, how often in one run, and the server settings that it needs."""

    name: str
    act: Callable[[Database], None]
    times: int = 5
    settings: Mapping[str, str] = attrs.field(factory=dict)
    seen_behind_poolers: bool = True
    """Whether clients of a pooler notice it; the pooler replaces idle connections and queues its clients."""


@contextmanager
def _one_waits(database: Database) -> Iterator[psycopg.Connection]:
    """Lock the ledger, which a writer's transaction uses last, and yield when a writer waits for the lock.

    The lock blocks readers too: a batch that is written a second time only reads the ledger.
    """
    with psycopg.connect(database.owner) as other:
        # The server then aborts the writer, not this transaction, which has the settings of the writer, too.
        other.execute("SET deadlock_timeout = '1h'; SET lock_timeout = 0; SET statement_timeout = 0")
        other.execute("LOCK TABLE marketfetch.coverage IN ACCESS EXCLUSIVE MODE")
        await_that(lambda: database.execute(_WAITING), "no writer waits")
        yield other


def _terminate(database: Database) -> None:
    database.provoke("terminating connection", lambda: database.execute(_END_ALL))


def _terminate_amid(database: Database) -> None:
    with _one_waits(database):
        _terminate(database)


def _cancel(database: Database) -> None:
    cancel = f"SELECT pg_cancel_backend(pid) {_SESSIONS} AND state = 'active'"
    with _one_waits(database):
        database.provoke("canceling statement due to user request", lambda: database.execute(cancel))


def _crash(database: Database) -> None:
    database.server.crash()
    database.server.start()


def _hold(database: Database, message: str) -> None:
    """Keep the lock until a writer's timeout expires."""
    with _one_waits(database):
        database.provoke(message, lambda: None)


def _cross(database: Database) -> None:
    """Lock the writer's two tables in the opposite order: a deadlock, which aborts the writer."""
    with _one_waits(database) as other:
        lock = "LOCK TABLE marketfetch.ohlcv IN ACCESS EXCLUSIVE MODE"  # the writer already has a lock on it
        database.provoke("deadlock", lambda: other.execute(lock))


def _update_concurrently(database: Database) -> None:
    """Update the ledger without changing values, in serializable transactions."""
    with psycopg.connect(database.owner, autocommit=True) as other:
        for _ in range(20):
            try:
                other.execute("UPDATE marketfetch.coverage SET covered = covered")
            except psycopg.errors.SerializationFailure:
                continue  # this transaction was aborted instead of the writer's


def _exhaust_connections(database: Database) -> None:
    """Set the connection limit of the role to 0 until a writer was refused."""
    database.execute(
        "ALTER ROLE {role} CONNECTION LIMIT 0", f"SELECT count(pg_terminate_backend(pid)) {_SESSIONS}"
    )
    try:
        database.provoke("too many connections", lambda: None)
    finally:
        database.execute("ALTER ROLE {role} CONNECTION LIMIT -1")


TRANSIENT_FAULTS = (
    TransientFault("session terminated", _terminate, times=8, seen_behind_poolers=False),
    TransientFault("session terminated amid a batch", _terminate_amid),
    TransientFault("statement cancelled", _cancel),
    TransientFault("crash and restart", _crash, times=2),
    TransientFault("deadlock", _cross, times=3, settings={"deadlock_timeout": "500ms"}),
    TransientFault("lock_timeout", lambda it: _hold(it, "lock timeout"), settings={"lock_timeout": "50ms"}),
    TransientFault(
        "statement_timeout", lambda it: _hold(it, "statement timeout"), settings={"statement_timeout": "80ms"}
    ),
    TransientFault("too many connections", _exhaust_connections, times=3, seen_behind_poolers=False),
    TransientFault(
        "others' updates", _update_concurrently, settings={"default_transaction_isolation": "serializable"}
    ),
)

FAILING_COMMITS = (
    "CREATE SEQUENCE public.stumbles",
    # SECURITY DEFINER: the role has no right to the sequence. A rollback does not reset a sequence.
    """
    CREATE FUNCTION public.stumble() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    DECLARE
        states text[] := ARRAY['40001', '40P01', '57014', '53300', '55P03', '53200', '25P03', '40003'];
        step bigint := nextval('public.stumbles');
    BEGIN
        IF step % 3 = 0 THEN
            RAISE EXCEPTION 'as ordered' USING ERRCODE = states[1 + step / 3 % 8];
        END IF;
        RETURN NEW;
    END $$
    """,
    (
        "CREATE TRIGGER stumble BEFORE INSERT ON marketfetch.coverage "
        "FOR EACH ROW EXECUTE FUNCTION public.stumble()"
    ),
)
"""Statements after which every third transaction fails at its last table, with a transient SQLSTATE."""
