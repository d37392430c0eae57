"""Connecting to the server, and telling a refusal that is final from one that may pass."""

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

from marketfetch.common.local_resources import descriptors_used_up, exhausted
from marketfetch.errors import SinkError, SinkUnavailable
from marketfetch.redaction import Secret
from marketfetch.sinks.postgres.dsn import display_dsn, each_host, parse_dsn, without_secrets
from marketfetch.sinks.postgres.errors import final_in_words, of_state

__all__ = ["Connection", "connect"]

Connection = psycopg.Connection[tuple[Any, ...]]

_Verdict = tuple[Callable[[str], SinkError], str]
"""The kind of error, and the remedy."""

_OLDEST = 140_000
_AWAY: _Verdict = (SinkUnavailable, "check that the server runs and can be reached from here")
_WRONG: _Verdict = (SinkError, "correct the options of the DSN")

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
_TRACED = 65_536
_PATIENCE = 10.0
"""Seconds that a second attempt to connect may take."""


def connect(dsn: Secret, purpose: str) -> Connection:
    """Open a connection for a purpose.

    Raises SinkUnavailable where the same may work later, else SinkError: both say what the purpose was and
    what to do, and nothing of the password.
    """
    found = _connected(dsn, purpose)
    if isinstance(found, SinkError):
        raise found from None  # here: debuggers show what frames hold, and those below hold the password
    if found.info.server_version < _OLDEST:
        found.close()
        raise SinkError(f"{display_dsn(dsn)} is older than PostgreSQL 14; upgrade the server")
    # Every statement shall see what others committed while we waited for a lock.
    found.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    return found


def _connected(dsn: Secret, purpose: str) -> Connection | SinkError:
    """Open a connection, or return the refusal."""
    parts = {**_DEFAULTS, **parse_dsn(dsn)}
    parts["client_encoding"] = "UTF8"  # statements are kept as they are sent
    try:
        return _opened(parts)
    except (psycopg.Error, OSError) as error:
        kind, remedy = _verdict(error, parts)
        text = without_secrets(" ".join(str(error).split()), dsn)
        return kind(f"{display_dsn(dsn)}: cannot {purpose}: {text}; {remedy}")


def _opened(parts: dict[str, Any]) -> Connection:
    if not any(host.startswith("@") for host in str(parts.get("host", "")).split(",")):
        return psycopg.connect(make_conninfo(**parts), autocommit=True, prepare_threshold=None)
    # psycopg asks the DNS for an abstract socket; libpq knows what it is.
    said = ""
    for host in each_host(parts):
        opened = _started(host)
        _poll(opened, monotonic() + _PATIENCE)
        if opened.status == pq.ConnStatus.OK:
            opened.nonblocking = 1
            connection = Connection(opened, row_factory=tuple_row)
            connection.autocommit, connection.prepare_threshold = True, None
            return connection
        said = opened.error_message.decode(errors="replace")
        opened.finish()
    raise psycopg.OperationalError(said)


def _verdict(error: Exception, parts: dict[str, Any]) -> _Verdict:
    """Say whether a connection is refused for good, and what to do.

    libpq has no SQLSTATE for a connection that fails, and its message is in the server's language. So a
    message that is not known is followed by a second attempt, whose conversation with the server is read.
    With several hosts each is judged by itself, and one that may be had later is enough to go on.
    """
    # libpq has no words for a socket that could not be opened.
    number = errno.EMFILE if descriptors_used_up() else getattr(error, "errno", None)
    if lacking := exhausted(number, str(error)):
        return SinkUnavailable, lacking
    if isinstance(error, OSError | psycopg.errors.ConnectionTimeout):
        return _AWAY
    if not isinstance(error, psycopg.OperationalError):
        return _WRONG
    hosts = each_host(parts)
    if len(hosts) == 1 and (known := final_in_words(str(error))) is not None:
        return known
    if _options_are_wrong(hosts[0]):
        return _WRONG
    verdicts = [_verdict_of_host(host) for host in hosts]
    return next((verdict for verdict in verdicts if verdict[0] is SinkUnavailable), verdicts[-1])


def _verdict_of_host(parts: dict[str, Any]) -> _Verdict:
    state, text = _second_attempt(parts)
    known = final_in_words(text)
    if state is None or (state == "08P01" and known is not None):  # PgBouncer says so of all its errors
        return known or _AWAY
    return of_state(state)


def _options_are_wrong(parts: dict[str, Any]) -> bool:
    """Tell whether libpq refuses the options before it looks at the host: it says the same of any host.

    Nothing is sent: there are no such sockets.
    """
    rest = {name: value for name, value in parts.items() if name not in {"host", "hostaddr"}}
    said = {_started({**rest, "host": f"/nowhere/{number}"}).error_message for number in range(2)}
    return len(said) == 1


def _started(parts: dict[str, Any]) -> pq.abc.PGconn:
    return pq.PGconn.connect_start(make_conninfo(**parts).encode())


def _second_attempt(parts: dict[str, Any]) -> tuple[str | None, str]:
    """Connect once more to one host, and return the SQLSTATE that the server answers and libpq's message.

    The SQLSTATE is None where the server gives none, or where libpq cannot tell (it can on Linux).
    """
    connection = _started(parts)
    try:
        give_up = monotonic() + _PATIENCE
        state = None
        if sys.platform == "linux":
            state = _traced(connection, give_up)
        else:
            _poll(connection, give_up)
        return state, connection.error_message.decode(errors="replace")
    finally:
        connection.finish()


def _traced(connection: pq.abc.PGconn, give_up: float) -> str | None:
    """Go on connecting, and return the SQLSTATE of the server's refusal, if it gives one."""
    # Not a file on the disk: what libpq notes of a conversation has the password in it.
    reading, writing = os.pipe()
    try:
        for end in (reading, writing):
            os.set_blocking(end, False)
        connection.trace(writing)
        _poll(connection, give_up)
        connection.untrace()
        with suppress(BlockingIOError):  # nothing was said
            if found := _ERROR_RESPONSE.search(os.read(reading, _TRACED)):
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
