"""The transactions of one writer or one call; here the errors of statements become ours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock

import attrs
import psycopg
from psycopg.errors import UniqueViolation

from marketfetch.errors import SinkError, SinkUnavailable
from marketfetch.sinks.postgres.connect import Connection
from marketfetch.sinks.postgres.connections import Connections
from marketfetch.sinks.postgres.errors import statement_error
from marketfetch.sinks.sql.identifiers import quoted

__all__ = ["Connection", "PostgresSession"]

_OLDEST_VERSION = 140_000
_IS_CONSTRAINT = "SELECT FROM pg_constraint WHERE conname = %s AND conrelid = to_regclass(%s)"


@attrs.define
class PostgresSession:
    """Runs transactions, one at a time, on a connection that it borrows.

    It keeps no state on the server from one transaction to the next, so that each may get another connection
    of a pool, or another one behind PgBouncer in transaction mode.
    """

    _connections: Connections
    _connection: Connection | None = attrs.field(default=None, init=False)
    _process: int | None = attrs.field(default=None, init=False)
    _lock: Lock = attrs.field(factory=Lock, init=False)
    """Held while a request to cancel is under way, so that the connection is not given back meanwhile."""
    _cancelled: bool = attrs.field(default=False, init=False)

    @contextmanager
    def transaction(self, purpose: str) -> Iterator[Connection]:
        """Run the block in one transaction, committed when it ends and undone when it raises.

        Raises SinkUnavailable where the same may work later, RowsRefused where the server refuses a row for
        what is in it, else SinkError. Each message says what the `purpose` was and what to do, and contains
        no password.
        """
        if self._process not in {None, os.getpid()}:
            raise SinkError(
                f"{self._connections}: this process was forked while its parent had the connection open; "
                "open a writer of its own"
            )
        if self._connection is None:
            self._connection = self._borrow(purpose)
        connection = self._connection
        try:
            with self._connections.adjusted(connection), connection.transaction():
                yield connection
        except psycopg.Error as error:
            # The cause is cut off: debuggers show the DSN that its frames hold.
            raise self._sink_error(connection, error.with_traceback(None), purpose) from None
        finally:
            if connection.closed or not self._connections.keeps_connection:
                self._give_back()

    def interrupt(self) -> None:
        """Have the server cancel the statement that runs, if there is one; called from another thread."""
        with self._lock:
            if self._connection is not None:
                self._cancelled = True
                with suppress(psycopg.Error):  # it has ended by itself, or cannot be reached
                    self._connection.cancel_safe(timeout=1.0)

    def close(self) -> None:
        """Give the connection back; in a forked child it is the parent's, and stays untouched."""
        if self._process == os.getpid():
            self._give_back()

    def _borrow(self, purpose: str) -> Connection:
        found = self._connection_or_error(purpose)
        if isinstance(found, SinkError):
            raise found from None  # here: debuggers show what frames hold, and those below hold the password
        self._process = os.getpid()
        return found

    def _connection_or_error(self, purpose: str) -> Connection | SinkError:
        try:
            connection = self._connections.borrow()
        except (psycopg.Error, OSError, UnicodeError) as error:
            return self._connections.refusal(error, purpose)
        if connection.info.server_version < _OLDEST_VERSION:
            self._connections.give_back(connection)
            return SinkError(f"{self._connections} is older than PostgreSQL 14; upgrade the server")
        return connection

    def _give_back(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
            cancelled, self._cancelled = self._cancelled, False
        if connection is not None:
            if cancelled:  # the request may reach the server late, and must not end another user's statement
                connection.pgconn.finish()
            self._connections.give_back(connection)

    def _sink_error(self, connection: Connection, error: psycopg.Error, purpose: str) -> SinkError:
        text = ", ".join(filter(None, (error.diag.message_primary, error.diag.message_detail))) or str(error)
        text = self._connections.without_secrets(" ".join(text.split()))
        message = f"{self._connections}: cannot {purpose}: {text}"
        index = isinstance(error, UniqueViolation) and not self._is_constraint(connection, error)
        found = statement_error(error, message, index=index)
        return found or SinkUnavailable(f"{message}; check that the server runs and can be reached from here")

    def _is_constraint(self, connection: Connection, error: UniqueViolation) -> bool:
        """Ask the server whether a unique key is a constraint, or else an index alone."""
        table = quoted(*filter(None, (error.diag.schema_name, error.diag.table_name)))
        with suppress(psycopg.Error), self._connections.adjusted(connection), connection.transaction():
            return bool(connection.execute(_IS_CONSTRAINT, [error.diag.constraint_name, table]).rowcount)
        return True
