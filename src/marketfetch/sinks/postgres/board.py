"""A board in a table beside the ledger: whoever shares a database shares budgets, on whatever machine."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import TypeVar

import attrs
from psycopg.sql import SQL, Identifier

from marketfetch.errors import SinkError
from marketfetch.redaction import Secret
from marketfetch.sinks.postgres.coverage_tables import lock
from marketfetch.sinks.postgres.dsn import display_dsn, parse_dsn
from marketfetch.sinks.postgres.schema.introspection import lookup_table
from marketfetch.sinks.postgres.session import Connection, Session

__all__ = ["PostgresBoard"]

_T = TypeVar("_T")
_COLUMNS = {"name", "text"}
_NOW = SQL("extract(epoch FROM clock_timestamp())::float8")


def _secret(dsn: str | Secret) -> Secret:
    return Secret.of(dsn)


@attrs.frozen(repr=False)
class PostgresBoard:
    """Keeps each text in a row of the table `board` in a schema, which is made when it is first used.

    Its clock is that of the server. Nothing is kept open between two changes, nor on the server between two
    transactions: PgBouncer in transaction mode will do.

    >>> PostgresBoard.from_url("postgresql://ann:hunter2@db.example/market")
    PostgresBoard('postgresql://db.example/market')
    """

    _dsn: Secret = attrs.field(converter=_secret)
    schema: str = attrs.field(default="marketfetch", kw_only=True)

    def __attrs_post_init__(self) -> None:
        parse_dsn(self._dsn)

    @classmethod
    def from_url(cls, url: str) -> PostgresBoard:
        """Make the board that a `postgresql://` URL of the command line names."""
        dsn, url = Secret(url), ""  # debuggers show the values that a raising frame holds
        return cls(dsn)

    def change(self, name: str, step: Callable[[str | None, float], tuple[str, _T]]) -> _T:
        table = Identifier(self.schema, "board")
        with closing(Session(self._dsn)) as session, session.transaction("change the board") as connection:
            connection.execute("SELECT set_config('lock_timeout', '2s', true)")
            self._make_if_missing(connection, table)
            lock(connection, f"{self.schema} board {name}")
            # In a statement of its own: that which waited for the lock sees what was there before it waited.
            row = connection.execute(
                SQL("SELECT (SELECT text FROM {} WHERE name = %s), {}").format(table, _NOW), [name]
            ).fetchone()
            assert row is not None
            text, result = step(row[0], row[1])
            connection.execute(
                SQL(
                    "INSERT INTO {} (name, text) VALUES (%s, %s) "
                    "ON CONFLICT (name) DO UPDATE SET text = EXCLUDED.text"
                ).format(table),
                [name, text],
            )
        return result

    def _make_if_missing(self, connection: Connection, table: Identifier) -> None:
        found = lookup_table(connection, table)
        if found is None:
            lock(connection, f"{self.schema} prepare")
            known = connection.execute("SELECT to_regnamespace(%s)", [Identifier(self.schema).as_string()])
            if known.fetchone() == (None,):  # even with IF NOT EXISTS it needs the right to make one
                connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(self.schema)))
            connection.execute(
                SQL("CREATE TABLE IF NOT EXISTS {} (name text PRIMARY KEY, text text NOT NULL)").format(table)
            )
        elif not set(found.columns) >= _COLUMNS:
            raise SinkError(f"{found.title} was not made by marketfetch; choose another schema=")

    def __repr__(self) -> str:
        return f"PostgresBoard({display_dsn(self._dsn)!r})"
