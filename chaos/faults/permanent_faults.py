"""Database faults that last until an operator repairs them, such as a revoked right or a full disk."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import attrs

from chaos.harness.databases import Database
from tests.support.disks import fill
from tests.support.postgres import end_sessions, identity, unprivileged

__all__ = ["PERMANENT_FAULTS", "QUOTA", "PermanentFault", "full_disk", "move_to_disk"]

Act = Callable[[Database], object]


@attrs.frozen
class PermanentFault:
    """A fault: how to cause and to repair it, and a pattern that the error of the run must match."""

    name: str
    harm: Act
    mend: Act
    message: str
    before: Act = lambda _: None
    """Preparation before the run starts."""
    destroys: bool = False
    """Whether it destroys stored rows; the repair then also clears the ledger."""
    of_rows: bool = False
    """Whether it refuses single rows: the run then goes on, and the report names the stopped series."""


def _sql(
    name: str, harm: str | tuple[str, ...], mend: str, message: str, *, of_rows: bool = False
) -> PermanentFault:
    harms = (harm,) if isinstance(harm, str) else harm

    def undo_harms(database: Database) -> None:
        database.execute(mend)
        database.prepare()  # recreate views that the fault dropped

    return PermanentFault(name, lambda it: it.execute(*harms), undo_harms, message, of_rows=of_rows)


def _anew(statement: str) -> Act:
    """Change a setting that a session reads when it begins, and end all sessions."""

    def act(database: Database) -> None:
        database.execute(statement)
        end_sessions(database.owner)

    return act


def _forget(database: Database) -> None:
    """Clear the ledger and create the missing tables, so that everything is fetched again."""
    database.execute("DELETE FROM marketfetch.coverage")
    database.prepare()


# "column retyped, same width": double precision and bigint both have 8 bytes, so a binary COPY would accept
# the wrong type without an error.
PERMANENT_FAULTS = (
    PermanentFault(
        "role made read-only",
        _anew("ALTER ROLE {role} SET default_transaction_read_only = on"),
        _anew("ALTER ROLE {role} RESET default_transaction_read_only"),
        r"read-only transaction.*; connect to the primary server",
    ),
    PermanentFault(
        "role shut out",
        _anew("ALTER ROLE {role} NOLOGIN"),
        _anew("ALTER ROLE {role} LOGIN"),
        r"not permitted to log in; correct the DSN",
    ),
    _sql(
        "INSERT revoked",
        "REVOKE INSERT ON marketfetch.ohlcv FROM {role}",
        "GRANT INSERT ON marketfetch.ohlcv TO {role}",
        r"permission denied for table ohlcv; grant the role",
    ),
    _sql(
        "UPDATE revoked",
        "REVOKE UPDATE ON marketfetch.coverage FROM {role}",
        "GRANT UPDATE ON marketfetch.coverage TO {role}",
        r"permission denied for table coverage; grant the role",
    ),
    _sql(
        "schema shut",
        "REVOKE USAGE ON SCHEMA marketfetch FROM {role}",
        "GRANT USAGE ON SCHEMA marketfetch TO {role}",
        r"permission denied for schema marketfetch; grant the role",
    ),
    _sql(
        "column renamed",
        "ALTER TABLE marketfetch.ohlcv RENAME volume TO amount",
        "ALTER TABLE marketfetch.ohlcv RENAME amount TO volume",
        r'column "volume".*; call prepare\(\) first',
    ),
    PermanentFault(
        "column dropped",
        lambda it: it.execute("ALTER TABLE marketfetch.ohlcv DROP volume CASCADE"),
        _forget,
        r'column "volume".*; call prepare\(\) first',
        destroys=True,
    ),
    _sql(
        "column retyped",
        ("DROP VIEW IF EXISTS public.ohlcv", "ALTER TABLE marketfetch.ohlcv ALTER open TYPE text"),
        "ALTER TABLE marketfetch.ohlcv ALTER open TYPE double precision USING open::double precision",
        r"marketfetch\.ohlcv\.open is text instead of double precision",
    ),
    _sql(
        "column retyped, same width",
        (
            "DROP VIEW IF EXISTS public.ohlcv",
            "ALTER TABLE marketfetch.ohlcv ALTER trades TYPE double precision",
        ),
        "ALTER TABLE marketfetch.ohlcv ALTER trades TYPE bigint",
        r"marketfetch\.ohlcv\.trades is double precision instead of bigint",
    ),
    _sql(
        "table renamed",
        "ALTER TABLE marketfetch.ohlcv RENAME TO gone",
        "ALTER TABLE marketfetch.gone RENAME TO ohlcv",
        r'"marketfetch.ohlcv" does not exist; call prepare\(\) first',
    ),
    PermanentFault(
        "table dropped",
        lambda it: it.execute("DROP TABLE marketfetch.ohlcv CASCADE"),
        _forget,
        r'"marketfetch.ohlcv" does not exist; call prepare\(\) first',
        destroys=True,
    ),
    _sql(
        "CHECK added",
        "ALTER TABLE marketfetch.ohlcv ADD CONSTRAINT lower CHECK (open < 0) NOT VALID",
        "ALTER TABLE marketfetch.ohlcv DROP CONSTRAINT lower",
        r"violates check constraint .*; a CHECK of the table refuses a row",
        of_rows=True,
    ),
    _sql(
        "trigger added",
        (
            (
                "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE EXCEPTION 'not today'; END $$"
            ),
            (
                "CREATE TRIGGER refuse BEFORE INSERT ON marketfetch.ohlcv "
                "FOR EACH ROW EXECUTE FUNCTION public.refuse()"
            ),
        ),
        "DROP FUNCTION public.refuse CASCADE",
        r"not today; a trigger of the table refuses a row",
        of_rows=True,
    ),
)


def _grow_table_file(database: Database) -> None:
    """Grow the table's file to the size of a WAL segment, by rows that are deleted again."""
    database.execute(
        "INSERT INTO marketfetch.ohlcv (series_id, open_time) SELECT -1, to_timestamp(n) "
        "FROM generate_series(1, 30000) AS n",
        "DELETE FROM marketfetch.ohlcv WHERE series_id = -1",
    )


def _limit(database: Database) -> None:
    """Limit the size of the server's files to the present size of the table, as a disk quota does."""
    size = database.execute("SELECT pg_relation_size('marketfetch.ohlcv')")
    assert size > 2**20
    _limit_files(database, str(size))


def _limit_files(database: Database, size: str) -> None:
    # Run as the server's user: in some containers root may not change the limits of its processes.
    command = ["prlimit", f"--pid={database.server.process}", f"--fsize={size}:"]
    subprocess.run(command, check=True, cwd="/", **identity(unprivileged()))
    end_sessions(database.owner)  # new sessions inherit the new limit


QUOTA = PermanentFault(
    "files limited in size",
    _limit,
    lambda it: _limit_files(it, "unlimited"),
    r"could not extend file .*: File too large; ",
    before=_grow_table_file,
)


def full_disk(folder: Path) -> PermanentFault:
    """Return the fault of a full disk: the table is on it, and a ballast file takes the free space."""
    return PermanentFault(
        "disk full",
        lambda _: fill(folder),
        lambda _: (folder / "ballast").unlink(),
        r"No space left on device; the server's disk is full; make room",
    )


def move_to_disk(database: Database, folder: Path) -> str:
    """Move the table to a disk; return the name of the tablespace to drop before the disk is unmounted."""
    place = folder / "tables"
    place.mkdir()
    if user := unprivileged():
        os.chown(place, user.pw_uid, user.pw_gid)
    database.execute(
        f"CREATE TABLESPACE small LOCATION '{place}'", "ALTER TABLE marketfetch.ohlcv SET TABLESPACE small"
    )
    return "small"
