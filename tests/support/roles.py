"""Roles on a PostgreSQL server for single tests."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

__all__ = ["role"]


@contextmanager
def role(dsn: str, *statements: str) -> Iterator[str]:
    """Make a role that may log in, run statements that name it as `{role}` and its database as `{database}`.

    Yields a DSN that names the role. Afterwards it is dropped, with all rights that it was given.
    """
    name = f"mf_{uuid.uuid4().hex[:12]}"
    identifiers = {
        "role": sql.Identifier(name),
        "database": sql.Identifier(str(conninfo_to_dict(dsn)["dbname"])),
    }

    def run(statement: str) -> None:
        # A new connection for each statement: a test may have ended all sessions of its database.
        with psycopg.connect(dsn, autocommit=True) as database:
            database.execute(sql.SQL(statement).format(**identifiers))

    run("CREATE ROLE {role} LOGIN")
    try:
        for statement in statements:
            run(statement)
        yield make_conninfo(dsn, user=name)
    finally:
        run("DROP OWNED BY {role}")
        run("DROP ROLE {role}")
