"""Classify errors of the server by SQLSTATE: retry later, one series refused, or final. Pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import psycopg
from psycopg.errors import Diagnostic

from marketfetch.errors import RowsRefused, SinkError, SinkUnavailable
from marketfetch.sinks.postgres.schema.tables import PostgresTable
from marketfetch.sinks.sql.identifiers import quoted
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, format_utc

__all__ = ["missing_partition", "statement_error", "verdict_of_message", "verdict_of_sqlstate"]

_PASSING_REMEDIES = {
    "08": "write again when the server can be reached",
    "25P03": "the transaction stood still for longer than idle_in_transaction_session_timeout; write again",
    "25P04": "the transaction took longer than transaction_timeout; write again",
    "40": "another transaction was in the way; write again",
    "40P01": "a deadlock was broken; write again",
    "53200": "the server is out of memory; write again when it has some",
    "53300": "allow more connections there (max_connections, CONNECTION LIMIT), or use fewer writers",
    "55P03": "another session holds a lock for longer than lock_timeout; write again",
    "57014": "the statement was cancelled, or took longer than statement_timeout; write again",
    "57P01": "the server ended the connection; write again when it is back",
    "57P02": "the server crashed; write again when it is back",
    "57P03": "the server is starting or stopping; write again when it is up",
    "57P05": "the server ended an idle session; write again",
}
"""Errors that may pass, by SQLSTATE or its class; PgBouncer gives its own errors one of class 08."""

_REMEDIES = {
    "22001": "a text is too long for its column; ALTER TABLE ... ALTER COLUMN ... TYPE text",
    "22003": "a value does not fit the column's type; widen the column",
    "23502": "a column must not be NULL where there is no value for it; DROP NOT NULL, or give it a default",
    "23503": "a foreign key refuses a row; add what it refers to, or drop the constraint",
    "23505": "another unique key of the table refuses a row; drop it, or map the columns that it consists of",
    "23514": "a CHECK of the table refuses a row; drop it, or make it allow what the exchange says",
    "23P01": "an exclusion constraint of the table refuses a row; drop it",
    "25006": "connect to the primary server, not to a read-only one; or ALTER ROLE ... SET "
    "default_transaction_read_only = off",
    "28": "correct the DSN, or make the role it names and let it in (pg_hba.conf)",
    "3D000": "correct the DSN, or make the database it names",
    "3F000": "call prepare() first; it makes what is missing",
    "42501": "grant the role what it lacks, or have the owner call prepare() once",
    "42703": "call prepare() first; it makes what is missing",
    "42P01": "call prepare() first; it makes what is missing",
    "44000": "a view's CHECK OPTION refuses a row; map the table behind it",
    "53100": "the server's disk is full; make room",
    "54": "a name is too long for an index of the table; shorten it with rename_symbol=",
    "57P04": "the database was dropped; make it again",
    "58": "the server's disk fails it; see its log",
    "P0001": "a trigger of the table refuses a row; drop it, or make it allow what the exchange says",
    "XX001": "the server's files are damaged; see its log, and restore them from a copy",
    "XX002": "an index is damaged; REINDEX it",
}
"""The remedy for other errors, by SQLSTATE or its class."""

_CONNECTION_REMEDIES = {
    **_REMEDIES,
    "22023": "correct the options of the DSN",
    "42501": "GRANT CONNECT ON DATABASE to the role, or name another one",
    "42704": "correct the options of the DSN",
    "55000": "ALTER DATABASE ... ALLOW_CONNECTIONS true, or name another one",
}
"""The remedy for a connection that the server refuses for good, by SQLSTATE or its class."""

_ONE_SERIES_CLASSES = ("22", "23", "44", "54", "P0")
"""Classes of SQLSTATE for values and constraints: rows of other series can still be written."""

_POLICY_FUNCTION = "ExecWithCheckOptions"
"""The server function that checks row-level policies, whose SQLSTATE is that of a missing right."""

_NO_TRANSACTIONS = (
    "set pool_mode = transaction (or session) in PgBouncer: the rows and what they cover are one"
)
_FINAL_PHRASES = {
    # PgBouncer's own, always English, all of them with the SQLSTATE 08P01
    "statement pooling mode": _NO_TRANSACTIONS,
    "transaction blocks not allowed": _NO_TRANSACTIONS,
    "unsupported startup parameter": (
        "a pooler takes no settings in the DSN; give them to the role with ALTER ROLE ... SET"
    ),
    # libpq's, without an answer of the server
    "certificate verify failed": "correct the DSN's sslrootcert, or the server's certificate",
    "does not match host name": "correct the DSN's host, or the server's certificate",
    "server does not support SSL": "correct the DSN's sslmode, or let the server use SSL",
    "channel binding required": "correct the DSN's channel_binding, or let the server use SSL and SCRAM",
    "root certificate file": "correct the DSN's sslrootcert",
    "no password supplied": "give the DSN a password, or name a passfile",
    # Python's, for the name of a host such as a..b
    "'idna' codec": "correct the DSN's host: each part between dots has 1 to 63 characters",
    # the server's in English, where libpq does not give the SQLSTATE
    "configuration parameter": "correct the options of the DSN",
    "not currently accepting connections": "ALTER DATABASE ... ALLOW_CONNECTIONS true, or name another one",
    "permission denied for": "GRANT CONNECT ON DATABASE to the role, or name another one",
    **dict.fromkeys(
        (
            "authentication failed",
            "pg_hba.conf",
            "does not exist",
            "no such user",
            "no such database",
            "is not permitted to log in",
        ),
        "correct the DSN, or make the role or database it names",
    ),
}
"""Phrases of messages about a connection that is refused for good, and the remedy."""
_CROWDED_PHRASES = (
    "too many clients",
    "too many connections",
    "connection slots are reserved",
    "no more connections allowed",
)


def statement_error(error: psycopg.Error, message: str, *, index: bool = False) -> SinkError | None:
    """Make the error for a statement that failed; None if the connection broke and the server gave no reason.

    `message` is the first part of the text: the purpose and the message of the server. `index` tells that the
    constraint which the server names is only an index, which another statement drops.
    """
    state, diag = error.sqlstate or "", error.diag
    if final := _remedy_of_phrase(_FINAL_PHRASES, message) if state == "08P01" else None:
        return SinkError(f"{message}; {final}")
    if passing := _remedy_of_state(_PASSING_REMEDIES, state):
        return SinkUnavailable(f"{message}; {passing}")
    if not state and isinstance(error, psycopg.OperationalError):
        return None
    if state == "42501" and diag.source_function == _POLICY_FUNCTION:
        return RowsRefused(f"{message}; {_policy_remedy(diag)}")
    remedy = _remedy_of_state(_REMEDIES, state) or "mend what the server names, then run again"
    kind = (
        RowsRefused
        if state.startswith(_ONE_SERIES_CLASSES) or isinstance(error, psycopg.DataError)
        else SinkError
    )
    return kind(f"{message}; {remedy}{_drop_statement(diag, index=index)}")


def verdict_of_sqlstate(state: str) -> tuple[Callable[[str], SinkError], str]:
    """Return the kind of error and the remedy for an SQLSTATE by which a server refuses a connection."""
    if passing := _remedy_of_state(_PASSING_REMEDIES, state):
        return SinkUnavailable, passing
    return SinkError, _remedy_of_state(
        _CONNECTION_REMEDIES, state
    ) or "correct the DSN, or mend what the server names"


def verdict_of_message(text: str) -> tuple[Callable[[str], SinkError], str] | None:
    """Return the kind of error and the remedy for a message about a connection, None if it is not known."""
    if remedy := _remedy_of_phrase(_FINAL_PHRASES, text):
        return SinkError, remedy
    if any(phrase in text for phrase in _CROWDED_PHRASES):
        return SinkUnavailable, "allow more connections there, or use fewer writers"
    return None


def missing_partition(series: Series, table: PostgresTable, span: Span) -> str:
    """Return the message for rows without a partition, with the statement that makes one."""
    first, last = (table.time_codec.bound(moment) for moment in (span.start, span.end))
    start, end = (f"'{bound}'" if isinstance(bound, date) else str(bound) for bound in (first, last))
    name = f"{table.name}_{format_utc(span.start)[:10].replace('-', '')}"
    return (
        f"{series}: {table.title} has no partition for some of the rows of {span}; where {table.time} is the "
        f"partition key, CREATE TABLE {quoted(table.schema, name)} PARTITION OF {table.relation} "
        f"FOR VALUES FROM ({start}) TO ({end}), or make a DEFAULT partition"
    )


def _remedy_of_state(table: dict[str, str], state: str) -> str | None:
    """Look up an SQLSTATE, or else its class."""
    return table.get(state) or table.get(state[:2])


def _remedy_of_phrase(table: dict[str, str], text: str) -> str | None:
    return next((remedy for phrase, remedy in table.items() if phrase in text), None)


def _relation(diag: Diagnostic) -> str:
    return quoted(*filter(None, (diag.schema_name, diag.table_name)))


def _drop_statement(diag: Diagnostic, *, index: bool) -> str:
    """Write the statement that removes a constraint, where the server names it."""
    if not diag.table_name:
        return ""
    if diag.constraint_name and index:
        return f": DROP INDEX {quoted(*filter(None, (diag.schema_name, diag.constraint_name)))}"
    table = f": ALTER TABLE {_relation(diag)}"
    if diag.constraint_name:
        return f"{table} DROP CONSTRAINT {quoted(diag.constraint_name)}"
    return f"{table} ALTER COLUMN {quoted(diag.column_name)} DROP NOT NULL" if diag.column_name else ""


def _policy_remedy(diag: Diagnostic) -> str:
    table = _relation(diag) if diag.table_name else "the table"
    return (
        f"a row-level policy refuses a row; CREATE POLICY marketfetch ON {table} FOR ALL TO the role "
        "USING (true) WITH CHECK (true), or ALTER ROLE ... BYPASSRLS"
    )
