"""A board in a table beside the coverage: processes that share a database share budgets, on any machine."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import closing
from typing import Any, TypeVar

import attrs
from psycopg_pool import ConnectionPool

from marketfetch.errors import ConfigurationError, SinkError
from marketfetch.redaction import Secret
from marketfetch.sinks.postgres.connections import Connections, connections_of
from marketfetch.sinks.postgres.coverage_tables import lock
from marketfetch.sinks.postgres.schema.introspection import lookup_table
from marketfetch.sinks.postgres.session import Connection, PostgresSession
from marketfetch.sinks.sql.identifiers import escaped, quoted

__all__ = ["PostgresBoard"]

_T = TypeVar("_T")
_COLUMNS = {"name", "text"}
_NOW = "extract(epoch FROM clock_timestamp())::float8"


@attrs.frozen(init=False, repr=False)
class PostgresBoard:
    """Keeps each text in a row of the table `board` in a schema, which is made when it is first used.

    Its clock is that of the server. It is given a DSN or a service's `pool`, as a PostgresSink is. Boards in
    one schema of one database are equal, however the DSN is written and whatever the user. No connection
    stays open between two changes.

    >>> PostgresBoard("postgresql://ann:hunter2@db.example/market")
    PostgresBoard('postgresql://db.example/market')
    >>> PostgresBoard("postgresql://ann@h/db") == PostgresBoard("host=h dbname=db user=bob")
    True
    """

    _connections: Connections = attrs.field(eq=False)
    schema: str
    _database_key: Hashable = attrs.field(
        default=attrs.Factory(lambda self: self._connections.database_key, takes_self=True), init=False
    )

    def __init__(
        self,
        dsn: str | Secret | None = None,
        *,
        pool: ConnectionPool[Any] | None = None,
        schema: str = "marketfetch",
    ) -> None:
        # Debuggers show the local variables of a frame that raises: `dsn` is bound anew.
        connections, dsn = connections_of(dsn, pool), None
        if isinstance(connections, ConfigurationError):
            raise connections
        self.__attrs_init__(connections, schema)  # pyright: ignore[reportAttributeAccessIssue]

    @classmethod
    def on(cls, connections: Connections, schema: str) -> PostgresBoard:
        """Make the board of a sink, with the connections of the sink."""
        board = cls.__new__(cls)
        board.__attrs_init__(connections, schema)  # pyright: ignore[reportAttributeAccessIssue]
        return board

    @classmethod
    def from_url(cls, url: str) -> PostgresBoard:
        """Make the board that a `postgresql://` URL of the command line names."""
        dsn, url = Secret(url), ""  # debuggers show the values that a raising frame holds
        return cls(dsn)

    def change(self, name: str, step: Callable[[str | None, float], tuple[str, _T]]) -> _T:
        table = escaped(quoted(self.schema, "board"))
        session = PostgresSession(self._connections)
        with closing(session), session.transaction("change the board") as connection:
            connection.execute("SELECT set_config('lock_timeout', '2s', true)")
            self._make_if_missing(connection)
            lock(connection, f"{self.schema} board {name}")
            # A statement of its own: the snapshot of the one that waited for the lock is older than the wait.
            row = connection.execute(
                f"SELECT (SELECT text FROM {table} WHERE name = %s), {_NOW}".encode(), [name]
            ).fetchone()
            assert row is not None
            text, result = step(row[0], row[1])
            connection.execute(
                f"INSERT INTO {table} (name, text) VALUES (%s, %s) "
                "ON CONFLICT (name) DO UPDATE SET text = EXCLUDED.text".encode(),
                [name, text],
            )
        return result

    def _make_if_missing(self, connection: Connection) -> None:
        schema, table = quoted(self.schema), quoted(self.schema, "board")
        found = lookup_table(connection, table)
        if found is None:
            lock(connection, f"{self.schema} prepare")
            known = connection.execute("SELECT to_regnamespace(%s)", [schema])
            if known.fetchone() == (None,):  # even IF NOT EXISTS needs the right to make one
                connection.execute(f"CREATE SCHEMA {schema}".encode())
            columns = "name text PRIMARY KEY, text text NOT NULL"
            connection.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns})".encode())
        elif not set(found.columns) >= _COLUMNS:
            raise SinkError(f"{found.title} was not made by marketfetch; choose another schema=")

    def __repr__(self) -> str:
        return f"PostgresBoard({self._connections!r})"
