"""Where the connections of a sink or board come from: a pool of its own, or one that a service hands over."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any, Protocol

import attrs
import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import tuple_row
from psycopg_pool import ConnectionPool, NullConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from marketfetch.errors import ConfigurationError, SinkError, SinkUnavailable
from marketfetch.redaction import Secret
from marketfetch.sinks.postgres.connect import Connection, DsnConnection, parameters_of, verdict_of
from marketfetch.sinks.postgres.dsn import (
    display_dsn,
    display_parts,
    parse_dsn,
    place_of,
    secret_dsn,
    without_secrets,
)

__all__ = ["Connections", "DsnPool", "ServicePool", "connections_of"]

_CONNECT_TIMEOUT = 10
_UTF8 = "utf-8"


class Connections(Protocol):
    """A connection pool, and how its errors are told."""

    @property
    def kept(self) -> bool:
        """Whether a session keeps its connection from one transaction to the next."""
        ...

    @property
    def place(self) -> Hashable:
        """A key that is equal for connections to the same database."""
        ...

    def open(self) -> ConnectionPool[Any]:
        """Return the open pool; each call is followed by one of `close`. Raises SinkError."""
        ...

    def close(self) -> None:
        """End the use of the pool that `open` began."""
        ...

    @contextmanager
    def adjusted(self, connection: Connection) -> Iterator[None]:
        """Give a connection the settings that our statements need, until the block is left."""
        ...

    def refusal(self, error: Exception, purpose: str) -> SinkError:
        """Return our error for a connection that the pool did not give."""
        ...

    def without_secrets(self, text: str) -> str:
        """Cut passwords out of a message of the server."""
        ...


@attrs.define(eq=False)
class _OpenPool:
    """The pool of one process while sessions use it."""

    lock: Lock = attrs.field(factory=Lock)
    pool: ConnectionPool[Any] | None = None
    users: int = 0


@attrs.frozen(repr=False)
class DsnPool:
    """A pool of its own, for a DSN: opened by the first session that needs it, closed by the last.

    It is a NullConnectionPool: that one connects in the thread that asks, which thus learns the reason of a
    refusal at once, and keeps no idle connection. Therefore a session keeps its connection.

    A forked child has a pool of its own. That of the parent stays untouched in `_open`: its lock may have
    been held at that moment, and its connections are the parent's.
    """

    dsn: Secret
    kept = True
    _open: dict[int, _OpenPool] = attrs.field(factory=dict, init=False, eq=False)

    @property
    def place(self) -> Hashable:
        return place_of(parse_dsn(self.dsn))

    def open(self) -> ConnectionPool[Any]:
        state = self._open.setdefault(os.getpid(), _OpenPool())
        with state.lock:
            if state.pool is None:
                state.pool = self._opened()
            state.users += 1
            return state.pool

    def close(self) -> None:
        state = self._open[os.getpid()]
        with state.lock:
            state.users -= 1
            if state.pool is not None and not state.users:
                state.pool.close()
                state.pool = None

    def _opened(self) -> ConnectionPool[Any]:
        pool: ConnectionPool[Any] = NullConnectionPool(
            connection_class=DsnConnection,
            kwargs={"dsn": self.dsn},
            configure=_configure,
            max_size=0,  # no limit: the engine opens `max_writers` writers
            num_workers=1,
            open=False,
            name="marketfetch",
        )
        try:
            pool.open()
        except RuntimeError as error:  # "can't start new thread"
            pool.close()
            raise SinkUnavailable(
                f"{self}: {error}: raise ulimit -u, or run fewer threads on this machine"
            ) from None
        return pool

    @contextmanager
    def adjusted(self, connection: Connection) -> Iterator[None]:
        yield

    def refusal(self, error: Exception, purpose: str) -> SinkError:
        return _refusal(error, parameters_of(self.dsn), f"{self}: cannot {purpose}")

    def without_secrets(self, text: str) -> str:
        return without_secrets(text, parse_dsn(self.dsn))

    def __deepcopy__(self, memo: object) -> DsnPool:
        return self

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
    kept = False
    _process: int | None = attrs.field(
        default=attrs.Factory(lambda self: None if self.pool.closed else os.getpid(), takes_self=True),
        init=False,
        eq=False,
    )
    """The process whose threads serve the pool, once it has been open: a forked child has none of them."""

    @property
    def place(self) -> Hashable:
        return place_of(parts) if (parts := self._fixed_parts()) is not None else id(self.pool)

    def open(self) -> ConnectionPool[Any]:
        if self.pool.closed:
            raise SinkError(f"{self}: the pool is not open; open it before the run, and close it afterwards")
        if self._process is None:
            self._process = os.getpid()
        if self._process != os.getpid():
            raise SinkError(
                f"{self}: this process was forked from the one that opened the pool; open a pool of its own"
            )
        return self.pool

    def close(self) -> None:
        pass  # the service closes it

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
        said = f"{self}: cannot {purpose}"
        if isinstance(error, PoolClosed):
            return SinkError(f"{said}: {error}; open the pool before the run, and close it afterwards")
        if isinstance(error, PoolTimeout | TooManyRequests):
            # The pool does not tell why it has no connection: connect once without it.
            reason = self._reason()
            if reason is None:
                return SinkUnavailable(
                    f"{said}: {error}; the server can be reached: raise the pool's max_size or timeout, use "
                    "fewer writers, or see the log of psycopg.pool for what its configure= or check= raises"
                )
            error = reason
        return _refusal(error, self._parts(), said)

    def without_secrets(self, text: str) -> str:
        return without_secrets(text, self._parts())

    def _reason(self) -> Exception | None:
        """Return the error of a connection that is made as the pool makes it, None if there is none."""
        conninfo, kwargs = self._arguments()
        kwargs.setdefault("connect_timeout", self._parts().get("connect_timeout", _CONNECT_TIMEOUT))
        try:
            self.pool.connection_class.connect(conninfo, **kwargs).close()
        except (psycopg.Error, OSError) as error:
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
                f"pool: {type(pool).__name__} is none; pass a psycopg_pool.ConnectionPool, which is not "
                "asynchronous"
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
    return DsnPool(secret)


def _configure(connection: Connection) -> None:
    # Every statement shall see what others committed while we waited for a lock.
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED


def _refusal(error: Exception, parts: dict[str, Any], said: str) -> SinkError:
    kind, remedy = verdict_of(error, parts)
    return kind(f"{said}: {without_secrets(' '.join(str(error).split()), parts)}; {remedy}")
