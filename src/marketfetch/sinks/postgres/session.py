"""One connection and its transactions; the one place where psycopg's errors become ours."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import quote

import attrs
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from marketfetch.errors import ConfigurationError, SinkError, SinkUnavailable
from marketfetch.values.exhaustion import descriptors_used_up, exhausted
from marketfetch.values.redaction import Secret, redact, without

__all__ = ["Connection", "Session", "parsed", "shown"]

Connection = psycopg.Connection[tuple[Any, ...]]

_OLDEST = 140_000

_PASSING = {
    "08": "write again when the server can be reached",
    "25P03": "the transaction stood still for longer than idle_in_transaction_session_timeout; write again",
    "25P04": "the transaction took longer than transaction_timeout; write again",
    "40": "another transaction was in the way; write again",
    "40P01": "a deadlock was broken; write again",
    "53200": "the server is out of memory; write again when it has some",
    "53300": "raise max_connections, or write with fewer lanes",
    "55P03": "another session holds a lock for longer than lock_timeout; write again",
    "57014": "the statement was cancelled, or took longer than statement_timeout; write again",
    "57P01": "the server ended the connection; write again when it is back",
    "57P02": "the server crashed; write again when it is back",
    "57P03": "the server is starting or stopping; write again when it is up",
    "57P05": "the server ended an idle session; write again",
}
"""What may pass, by SQLSTATE or its class; PgBouncer gives all of its own errors one of class 08."""

_REMEDIES = {
    "22003": "a value does not fit the column's type; widen the column",
    "23502": "a column must not be NULL where there is no value for it; DROP NOT NULL, or give it a default",
    "23514": "a CHECK of the table refuses a row; drop it, or make it allow what the exchange says",
    "25006": "connect to the primary server, not to a read-only one",
    "3F000": "call prepare() first; it makes what is missing",
    "42501": "grant the role what it lacks, or have the owner call prepare() once",
    "42703": "call prepare() first; it makes what is missing",
    "42P01": "call prepare() first; it makes what is missing",
    "53100": "the server's disk is full; make room",
    "57P04": "the database was dropped; make it again",
    "58": "the server's disk fails it; see its log",
    "P0001": "a trigger of the table refuses a row; drop it, or make it allow what the exchange says",
    "XX001": "the server's files are damaged; see its log, and restore them from a copy",
    "XX002": "an index is damaged; REINDEX it",
}
"""What to do about the others, by SQLSTATE or its class."""

_CROWDED = (
    "too many clients",
    "too many connections",
    "connection slots are reserved",
    "no more connections allowed",
)
_REFUSED = {
    "unsupported startup parameter": (
        "a pooler takes no settings in the DSN; give them to the role with ALTER ROLE ... SET"
    ),
    "configuration parameter": "correct the options of the DSN",
    "not currently accepting connections": "ALTER DATABASE ... ALLOW_CONNECTIONS true, or name another one",
    "permission denied for": "GRANT CONNECT ON DATABASE to the role, or name another one",
    "certificate verify failed": "correct the DSN's sslrootcert, or the server's certificate",
    **dict.fromkeys(
        (
            "authentication failed",
            "no password supplied",
            "pg_hba.conf",
            "does not exist",
            "no such user",
            "no such database",
            "is not permitted to log in",
        ),
        "correct the DSN, or make the role or database it names",
    ),
}
"""What is said of a connection that is refused for good, and the remedy; libpq gives no SQLSTATE there."""

# A server that is gone without a word is noticed within a minute or so; the DSN may say otherwise.
_DEFAULTS = {
    "connect_timeout": 10,
    "fallback_application_name": "marketfetch",
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}


def parsed(dsn: Secret) -> dict[str, Any]:
    """Take a DSN apart as libpq does, without connecting.

    Raises ConfigurationError, which quotes nothing of the DSN: where it is torn apart wrongly, any piece may
    be of the password.

    >>> parsed(Secret("postgresql://ann:hunter2@db.example:5432/market"))["host"]
    'db.example'
    """
    parts = _taken_apart(dsn)
    if parts is None:
        raise ConfigurationError(
            "dsn: cannot be read; write postgresql://user:password@host:port/database, "
            "with special characters of the password percent-encoded (@ is %40, / is %2F)"
        )
    return parts


def _taken_apart(dsn: Secret) -> dict[str, Any] | None:
    # Not where an error is raised: debuggers show the values that a raising frame holds.
    try:
        parts = conninfo_to_dict(dsn.reveal())
    except psycopg.Error:
        return None
    return None if _misplaced(parts) else parts


def shown(dsn: Secret) -> str:
    """Return where a DSN leads, without user and password.

    >>> shown(Secret("host=db.example dbname=market password=hunter2"))
    'postgresql://db.example/market'
    """
    parts = parsed(dsn)
    port = f":{parts['port']}" if "port" in parts else ""
    host = quote(str(parts.get("host", "")), safe=":,[]")  # the folder of a socket is percent-encoded
    return f"postgresql://{host}{port}/{parts.get('dbname', '')}"


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

        Raises SinkUnavailable where the same may work later, else SinkError: both say what the `purpose` was
        and what to do, and nothing of the password.
        """
        try:
            connection = self._open()
            with connection.transaction():
                yield connection
        except psycopg.Error as error:
            # The cause is cut off: debuggers show the DSN that its frames hold.
            raise self._translated(error.with_traceback(None), purpose) from None
        finally:
            if self._connection is not None and self._connection.closed:
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

    def _open(self) -> Connection:
        if self._connection is None:
            connection = _connected(self._dsn)
            if connection.info.server_version < _OLDEST:
                connection.close()
                raise SinkError(f"{shown(self._dsn)} is older than PostgreSQL 14; upgrade the server")
            # Every statement shall see what others committed while we waited for a lock.
            connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
            self._connection = connection
        return self._connection

    def _translated(self, error: psycopg.Error, purpose: str) -> SinkError:
        state = error.sqlstate or ""
        text = ", ".join(filter(None, (error.diag.message_primary, error.diag.message_detail))) or str(error)
        text = _without_secrets(" ".join(text.split()), self._dsn)
        said = f"{shown(self._dsn)}: cannot {purpose}: {text}"
        if passing := _by_state(_PASSING, state):
            return SinkUnavailable(f"{said}; {passing}")
        if not state and isinstance(error, psycopg.OperationalError):
            return _unconnected(said, text)
        remedy = _by_state(_REMEDIES, state) or "mend what the server names, then run again"
        return SinkError(f"{said}; {remedy}")


def _by_state(table: dict[str, str], state: str) -> str | None:
    """Look up what is said of an SQLSTATE, or else of its class."""
    return table.get(state) or table.get(state[:2])


def _unconnected(said: str, text: str) -> SinkError:
    """Tell a connection that is refused for good from one that broke or may be had later."""
    # libpq has no words for a socket that could not be opened.
    if lacking := exhausted(errno.EMFILE if descriptors_used_up() else None, text):
        return SinkUnavailable(f"{said}; {lacking}")
    for phrase, remedy in _REFUSED.items():
        if phrase in text:
            return SinkError(f"{said}; {remedy}")
    if any(phrase in text for phrase in _CROWDED):
        return SinkUnavailable(f"{said}; allow more connections there, or write with fewer lanes")
    return SinkUnavailable(f"{said}; check that the server runs and can be reached from here")


def _connected(dsn: Secret) -> Connection:
    parts = {**_DEFAULTS, **parsed(dsn)}
    parts["client_encoding"] = "UTF8"  # statements are kept as they are sent
    return psycopg.connect(make_conninfo(**parts), autocommit=True, prepare_threshold=None)


def _misplaced(parts: dict[str, Any]) -> bool:
    """Tell whether an @ or / of a password that was not percent-encoded moved the rest of it elsewhere.

    libpq would also take a whole DSN, password and all, for the name of the database.
    """
    elsewhere = f"{parts.get('host', '')}{parts.get('dbname', '')}"
    return "@" in elsewhere or "=" in elsewhere or not str(parts.get("port", "0")).replace(",", "").isdigit()


def _without_secrets(text: str, dsn: Secret) -> str:
    """Cut the passwords out of what a server or libpq says, which may quote them anywhere."""
    parts = parsed(dsn)
    for name in ("password", "sslpassword"):
        text = without(text, str(parts.get(name) or ""))
    return redact(text)
