"""Open a connection, and tell a refusal that is final from one that may pass."""

from __future__ import annotations

import errno
import os
import re
import selectors
import sys
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo
from psycopg.rows import tuple_row

from marketfetch.common.local_resources import descriptors_used_up, resource_remedy
from marketfetch.errors import SinkError, SinkUnavailable
from marketfetch.redaction import Secret
from marketfetch.sinks.postgres.dsn import each_host, parse_dsn, without_impossible_hosts
from marketfetch.sinks.postgres.errors import verdict_of_message, verdict_of_sqlstate

__all__ = ["Connection", "Verdict", "open_connection", "parameters_of", "verdict_of"]

Connection = psycopg.Connection[tuple[Any, ...]]

Verdict = tuple[Callable[[str], SinkError], str]
"""The kind of error, and the remedy."""

_SERVER_AWAY: Verdict = (SinkUnavailable, "check that the server runs and can be reached from here")
_WRONG_OPTIONS: Verdict = (SinkError, "correct the options of the DSN")

# A server that is gone without a word is noticed within a minute or so; the DSN may say otherwise.
_DEFAULTS = {
    "connect_timeout": 10,
    "fallback_application_name": "marketfetch",
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}

_ERROR_RESPONSE = re.compile(rb'\tErrorResponse\t[^\n]*? C "([0-9A-Z]{5})"')
_TRACE_BYTES = 65_536
"""Bytes of the trace that are read: an error response is in the first few."""
_TIMEOUT = 10.0
"""Seconds in which libpq has to connect, where this module waits for it and not psycopg."""


def open_connection(dsn: Secret) -> Connection:
    """Open a connection to the first host of a DSN that accepts one.

    A host may be an abstract socket, such as `@postgres`. Raises psycopg.Error, OSError, or UnicodeError if
    no host has a name that can exist.
    """
    parts = parameters_of(dsn)
    if not any(host.startswith("@") for host in str(parts.get("host", "")).split(",")):
        return psycopg.connect(make_conninfo(**parts), autocommit=True, prepare_threshold=None)
    # psycopg would look up the name of an abstract socket in the DNS; libpq does not.
    message = ""
    for host in each_host(parts):
        pgconn = _start_connecting(host)
        _poll(pgconn, monotonic() + _TIMEOUT)
        if pgconn.status == pq.ConnStatus.OK:
            pgconn.nonblocking = 1
            connection = psycopg.Connection(pgconn, row_factory=tuple_row)
            connection.autocommit, connection.prepare_threshold = True, None
            return connection
        message = pgconn.error_message.decode(errors="replace")
        pgconn.finish()
    raise psycopg.OperationalError(message)


def parameters_of(dsn: Secret) -> dict[str, Any]:
    """Return the connection parameters of a DSN, with the defaults above and without impossible hosts."""
    # Statements are sent as bytes in UTF-8, and the server has to read them as UTF-8.
    return {**_DEFAULTS, **without_impossible_hosts(parse_dsn(dsn)), "client_encoding": "UTF8"}


def verdict_of(error: Exception, parts: dict[str, Any]) -> Verdict:
    """Say whether a connection that failed is refused for good, and what to do.

    libpq gives no SQLSTATE for a connection that fails, and its message is in the server's language. The
    cases, in order:

    1. This process has no file descriptor or memory left; libpq has no words for it.
    2. Nobody answered in time, or the operating system refused: it may work later.
    3. No host has this name: Python cannot encode it for the DNS. Example: `a..b`.
    4. The message is one of those that are always English, such as PgBouncer's.
    5. libpq refuses the options, and says the same of any host.
    6. Else connect once more to each host, and read the SQLSTATE out of the conversation with the server.
       One host that may be had later is enough for SinkUnavailable.
    """
    number = errno.EMFILE if descriptors_used_up() else getattr(error, "errno", None)
    if remedy := resource_remedy(number, str(error)):
        return SinkUnavailable, remedy
    if isinstance(error, OSError | psycopg.errors.ConnectionTimeout):
        return _SERVER_AWAY
    if isinstance(error, UnicodeError):
        return verdict_of_message(str(error)) or _WRONG_OPTIONS
    if not isinstance(error, psycopg.OperationalError):
        return _WRONG_OPTIONS
    hosts = each_host(parts)
    if len(hosts) == 1 and (known := verdict_of_message(str(error))) is not None:
        return known
    if _options_are_wrong(hosts[0]):
        return _WRONG_OPTIONS
    verdicts = [_verdict_of_host(host) for host in hosts]
    return next((verdict for verdict in verdicts if verdict[0] is SinkUnavailable), verdicts[-1])


def _verdict_of_host(parts: dict[str, Any]) -> Verdict:
    state, text = _second_attempt(parts)
    known = verdict_of_message(text)
    if state is None or (
        state == "08P01" and known is not None
    ):  # the SQLSTATE that PgBouncer sends with every error
        return known or _SERVER_AWAY
    return verdict_of_sqlstate(state)


def _options_are_wrong(parts: dict[str, Any]) -> bool:
    """Tell whether libpq refuses the options before it looks at the host: it says the same of any host.

    Nothing is sent: the two hosts are sockets that do not exist.
    """
    rest = {name: value for name, value in parts.items() if name not in {"host", "hostaddr"}}
    messages = {
        _start_connecting({**rest, "host": f"/nowhere/{number}"}).error_message for number in range(2)
    }
    return len(messages) == 1


def _start_connecting(parts: dict[str, Any]) -> pq.abc.PGconn:
    return pq.PGconn.connect_start(make_conninfo(**parts).encode())


def _second_attempt(parts: dict[str, Any]) -> tuple[str | None, str]:
    """Connect once more to one host, and return the SQLSTATE that the server answers and libpq's message.

    The SQLSTATE is None where the server sends none, and on other systems than Linux, where psycopg
    cannot trace.
    """
    connection = _start_connecting(parts)
    try:
        give_up = monotonic() + _TIMEOUT
        state = None
        if sys.platform == "linux":
            state = _read_sqlstate(connection, give_up)
        else:
            _poll(connection, give_up)
        return state, connection.error_message.decode(errors="replace")
    finally:
        connection.finish()


def _read_sqlstate(connection: pq.abc.PGconn, give_up: float) -> str | None:
    """Go on connecting, and return the SQLSTATE of the server's refusal, if it gives one."""
    # A pipe and not a file on the disk: libpq's trace of a conversation contains the password.
    reading, writing = os.pipe()
    try:
        for end in (reading, writing):
            os.set_blocking(end, False)
        connection.trace(writing)
        _poll(connection, give_up)
        connection.untrace()
        with suppress(BlockingIOError):  # the trace is empty
            if found := _ERROR_RESPONSE.search(os.read(reading, _TRACE_BYTES)):
                return found[1].decode()
        return None
    finally:
        os.close(writing)
        os.close(reading)


def _poll(connection: pq.abc.PGconn, give_up: float) -> None:
    """Go on connecting until it has succeeded or failed, or time is up."""
    events = {
        pq.PollingStatus.READING: selectors.EVENT_READ,
        pq.PollingStatus.WRITING: selectors.EVENT_WRITE,
    }
    while connection.status != pq.ConnStatus.BAD:
        event = events.get(pq.PollingStatus(connection.connect_poll()))
        if event is None:
            return
        with selectors.DefaultSelector() as selector:
            selector.register(connection.socket, event)
            if not selector.select(max(0.0, give_up - monotonic())):
                return
