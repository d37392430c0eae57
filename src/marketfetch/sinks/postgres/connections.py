"""Where the connections of a sink or board come from: a DSN, or a connection pool of a service."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import attrs
import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import tuple_row
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from marketfetch.errors import ConfigurationError, SinkError, SinkUnavailable
from marketfetch.redaction import Secret
from marketfetch.sinks.postgres.connect import Connection, open_connection, parameters_of, verdict_of
from marketfetch.sinks.postgres.dsn import (
    database_key_of,
    display_dsn,
    display_parts,
    parse_dsn,
    secret_dsn,
    without_secrets,
)

__all__ = ["Connections", "DsnConnections", "ServicePool", "connections_of"]

_CONNECT_TIMEOUT = 10
_UTF8 = "utf-8"


class Connections(Protocol):
    """Opens or borrows connections, and makes our errors of theirs."""

    @property
    def keeps_connection(self) -> bool:
        """Whether a session keeps its connection from one transaction to the next."""
        ...

    @property
    def database_key(self) -> Hashable:
        """A key that is equal for connections to the same database."""
        ...

    def borrow(self) -> Connection:
        """Return a connection for one thread. Raises SinkError, or an error that `refusal` takes."""
        ...

    def give_back(self, connection: Connection) -> None:
        """Take back a connection that `borrow` returned; it may be closed or broken."""
        ...

    @contextmanager
    def adjusted(self, connection: Connection) -> Iterator[None]:
        """Give a connection the settings that our statements need, until the block is left."""
        ...

    def refusal(self, error: Exception, purpose: str) -> SinkError:
        """Return our error for an error of `borrow`."""
        ...

    def without_secrets(self, text: str) -> str:
        """Cut passwords out of a message of the server."""
        ...


@attrs.frozen(repr=False)
class DsnConnections:
    """Opens a connection for each session, and closes it at the session's end.

    There is no pool and no lock: each thread connects by itself, and a server that does not answer one thread
    delays no other.
    """

    dsn: Secret
    keeps_connection = True

    @property
    def database_key(self) -> Hashable:
        return database_key_of(parse_dsn(self.dsn))

    def borrow(self) -> Connection:
        connection = open_connection(self.dsn)
        _configure(connection)
        return connection

    def give_back(self, connection: Connection) -> None:
        connection.close()

    @contextmanager
    def adjusted(self, connection: Connection) -> Iterator[None]:
        yield

    def refusal(self, error: Exception, purpose: str) -> SinkError:
        return _refusal(error, parameters_of(self.dsn), f"{self}: cannot {purpose}")

    def without_secrets(self, text: str) -> str:
        return without_secrets(text, parse_dsn(self.dsn))

    def __str__(self) -> str:
        return display_dsn(self.dsn)

    def __repr__(self) -> str:
        return repr(str(self))


@attrs.define(repr=False, unsafe_hash=True)
class ServicePool:
    """A pool that a service hands over, opens and closes; each transaction borrows a connection of it.

    What the service has set on a connection is restored before the connection goes back.
    """

    pool: ConnectionPool[Any]
    keeps_connection = False
    _process: int | None = attrs.field(
        default=attrs.Factory(lambda self: None if self.pool.closed else os.getpid(), takes_self=True),
        init=False,
        eq=False,
    )
    """The process whose threads serve the pool, once it has been open: a forked child has none of them."""

    @property
    def database_key(self) -> Hashable:
        return database_key_of(parts) if (parts := self._fixed_parts()) is not None else id(self.pool)

    def borrow(self) -> Connection:
        if self.pool.closed:
            raise SinkError(f"{self}: the pool is not open; open it before the run, and close it afterwards")
        if self._process is None:
            self._process = os.getpid()
        if self._process != os.getpid():
            raise SinkError(
                f"{self}: this process was forked from the one that opened the pool; open a pool of its own"
            )
        connection: Connection = self.pool.getconn()
        return connection

    def give_back(self, connection: Connection) -> None:
        self.pool.putconn(connection)

    @contextmanager
    def adjusted(self, connection: Connection) -> Iterator[None]:
        if connection.info.encoding != _UTF8:
            raise SinkError(
                f"{self}: the connections of the pool have the encoding {connection.info.encoding}; give the "
                "pool kwargs={'client_encoding': 'UTF8'}"
            )
        names = ("isolation_level", "read_only", "prepare_threshold", "row_factory", "cursor_factory")
        before = {name: getattr(connection, name) for name in names}
        _configure(connection)
        connection.read_only = connection.prepare_threshold = None
        connection.row_factory, connection.cursor_factory = tuple_row, psycopg.Cursor
        try:
            yield
        finally:
            if connection.info.transaction_status == pq.TransactionStatus.IDLE:
                for name, value in before.items():
                    setattr(connection, name, value)
            else:
                connection.pgconn.finish()  # close() might return it to the pool

    def refusal(self, error: Exception, purpose: str) -> SinkError:
        prefix = f"{self}: cannot {purpose}"
        if isinstance(error, PoolClosed):
            return SinkError(f"{prefix}: {error}; open the pool before the run, and close it afterwards")
        if isinstance(error, PoolTimeout | TooManyRequests):
            # The pool does not tell why it has no connection: connect once without it.
            reason = self._reason()
            if reason is None:
                return SinkUnavailable(
                    f"{prefix}: {error}; the server can be reached: raise the pool's max_size or timeout, "
                    "use fewer writers, or see the log of psycopg.pool for what its configure= or check= "
                    "raises"
                )
            error = reason
        return _refusal(error, self._parts(), prefix)

    def without_secrets(self, text: str) -> str:
        return without_secrets(text, self._parts())

    def _reason(self) -> Exception | None:
        """Return the error of a connection that is made as the pool makes it, None if there is none."""
        conninfo, kwargs = self._arguments()
        kwargs.setdefault("connect_timeout", self._parts().get("connect_timeout", _CONNECT_TIMEOUT))
        try:
            self.pool.connection_class.connect(conninfo, **kwargs).close()
        except (psycopg.Error, OSError, UnicodeError) as error:
            return error
        return None

    def _arguments(self) -> tuple[str, dict[str, Any]]:
        """Return what the pool passes to `connect`; newer pools take functions that return it."""
        conninfo, kwargs = self.pool.conninfo, self.pool.kwargs
        text: Any = conninfo() if callable(conninfo) else conninfo
        named: Any = kwargs() if callable(kwargs) else kwargs
        return text or "", dict(named or {})

    def _fixed_parts(self) -> dict[str, Any] | None:
        """Return the connection parameters if they are the same for all connections of the pool."""
        if callable(self.pool.conninfo) or callable(self.pool.kwargs):
            return None
        return self._parts()

    def _parts(self) -> dict[str, Any]:
        conninfo, kwargs = self._arguments()
        known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
        try:
            return conninfo_to_dict(
                conninfo, **{name: value for name, value in kwargs.items() if name in known}
            )
        except (psycopg.Error, UnicodeError):
            return {}

    def __str__(self) -> str:
        parts = self._fixed_parts()
        return f"pool {self.pool.name}" if parts is None else display_parts(parts)

    def __repr__(self) -> str:
        return f"pool={str(self)!r}"


def connections_of(dsn: object, pool: object) -> Connections | ConfigurationError:
    """Return the connections of the arguments `dsn` and `pool`, of which exactly one is given.

    An error is returned, not raised; see `secret_dsn`.
    """
    if pool is not None:
        if dsn is not None:
            return ConfigurationError("pool: there is a dsn as well; pass one of the two")
        if not isinstance(pool, ConnectionPool):
            return ConfigurationError(
                f"pool: {type(pool).__name__} is not a pool; pass a psycopg_pool.ConnectionPool, "
                "which is not asynchronous"
            )
        return ServicePool(pool)
    if dsn is None:
        return ConfigurationError(
            "dsn: there is none; write text such as 'postgresql://user@host/database', or pass pool="
        )
    secret = secret_dsn(dsn)
    if isinstance(secret, ConfigurationError):
        return secret
    try:
        parse_dsn(secret)
    except ConfigurationError as error:
        return error.with_traceback(None)
    return DsnConnections(secret)


def _configure(connection: Connection) -> None:
    # Every statement shall see what others committed while we waited for a lock.
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED


def _refusal(error: Exception, parts: dict[str, Any], prefix: str) -> SinkError:
    kind, remedy = verdict_of(error, parts)
    return kind(f"{prefix}: {without_secrets(' '.join(str(error).split()), parts)}; {remedy}")
