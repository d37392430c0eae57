"""One connection and its transactions; here the errors of statements become ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import attrs
import psycopg

from marketfetch.errors import SinkError, SinkUnavailable
from marketfetch.redaction import Secret
from marketfetch.sinks.postgres.connect import Connection, connect
from marketfetch.sinks.postgres.dsn import display_dsn, without_secrets
from marketfetch.sinks.postgres.errors import of_statement

__all__ = ["Connection", "Session"]


@attrs.define
class Session:
    """A connection that is opened when needed, and again after it broke.

    It keeps no state on the server from one transaction to the next, so that a pooler may give each of them
    another server connection (PgBouncer in transaction mode).
    """

    _dsn: Secret
    _connection: Connection | None = attrs.field(default=None, init=False)

    @contextmanager
    def transaction(self, purpose: str) -> Iterator[Connection]:
        """Run the block in one transaction, committed when it ends and undone when it raises.

        Raises SinkUnavailable where the same may work later, RowsRefused where the server refuses a row for
        what is in it, else SinkError: all say what the `purpose` was and what to do, and nothing of the
        password.
        """
        if self._connection is None:
            self._connection = connect(self._dsn, purpose)
        connection = self._connection
        try:
            with connection.transaction():
                yield connection
        except psycopg.Error as error:
            # The cause is cut off: debuggers show the DSN that its frames hold.
            raise self._translated(error.with_traceback(None), purpose) from None
        finally:
            if connection.closed:
                self._connection = None

    def interrupt(self) -> None:
        """Have the server cancel what it is doing for us, if it is; to be called from another thread."""
        connection = self._connection
        if connection is not None:
            with suppress(psycopg.Error):  # it has ended by itself, or cannot be reached
                connection.cancel_safe(timeout=1.0)

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _translated(self, error: psycopg.Error, purpose: str) -> SinkError:
        text = ", ".join(filter(None, (error.diag.message_primary, error.diag.message_detail))) or str(error)
        text = without_secrets(" ".join(text.split()), self._dsn)
        said = f"{display_dsn(self._dsn)}: cannot {purpose}: {text}"
        found = of_statement(error, said)
        return found or SinkUnavailable(f"{said}; check that the server runs and can be reached from here")
