"""Reading a DSN as libpq does, and showing where it leads without its secrets. Pure: nothing is opened."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict

from marketfetch.errors import ConfigurationError
from marketfetch.redaction import Secret, redact, without

__all__ = ["display_dsn", "each_host", "parse_dsn", "without_secrets"]

_PLACE = ("host", "hostaddr", "port")


def parse_dsn(dsn: Secret) -> dict[str, Any]:
    """Take a DSN apart as libpq does, without connecting.

    Raises ConfigurationError, which quotes nothing of the DSN: where it is torn apart wrongly, any piece may
    be of the password.

    >>> parse_dsn(Secret("postgresql://ann:hunter2@db.example:5432/market"))["host"]
    'db.example'
    """
    parts = _taken_apart(dsn)
    if parts is None:
        raise ConfigurationError(
            "dsn: cannot be read; write postgresql://user:password@host:port/database, "
            "with special characters of the password percent-encoded (@ is %40, / is %2F)"
        )
    return parts


def display_dsn(dsn: Secret) -> str:
    """Return where a DSN leads, without user and password.

    >>> display_dsn(Secret("host=db.example dbname=market password=hunter2"))
    'postgresql://db.example/market'
    >>> display_dsn(Secret("postgresql://ann@[::1]:5432,db2/market"))
    'postgresql://[::1]:5432,db2/market'
    """
    parts = parse_dsn(dsn)
    places = [_written(place) for place in each_host(parts)]
    service = f"?service={quote(str(parts['service']))}" if "service" in parts else ""
    return f"postgresql://{','.join(places)}/{parts.get('dbname', '')}{service}"


def each_host(parts: dict[str, Any]) -> Sequence[dict[str, Any]]:
    """Return the parameters of one connection for each host that a DSN names.

    >>> each_host({"host": "a,b", "port": "1,2", "dbname": "m"})[1]
    {'dbname': 'm', 'host': 'b', 'port': '2'}
    """
    lists = {name: str(parts[name]).split(",") for name in _PLACE if name in parts}
    count = max([len(lists.get("host", [])), len(lists.get("hostaddr", [])), 1])
    rest = {name: value for name, value in parts.items() if name not in _PLACE}
    every = []
    for i in range(count):
        # One port is that of all hosts; an empty item stands for the default.
        own = {
            name: items[i if len(items) > 1 else 0] for name, items in lists.items() if i < max(len(items), 2)
        }
        every.append({**rest, **{name: value for name, value in own.items() if value}})
    return every


def without_secrets(text: str, dsn: Secret) -> str:
    """Cut the passwords of a DSN out of what a server or libpq says, which may quote them anywhere."""
    parts = parse_dsn(dsn)
    for name in ("password", "sslpassword"):
        text = without(text, str(parts.get(name) or ""))
    return redact(text)


def _taken_apart(dsn: Secret) -> dict[str, Any] | None:
    # Not where an error is raised: debuggers show the values that a raising frame holds.
    text = dsn.reveal()
    try:
        parts = conninfo_to_dict(text)
    except psycopg.Error:
        return None
    return None if _misplaced(text, parts) else parts


def _misplaced(text: str, parts: dict[str, Any]) -> bool:
    """Tell whether an @ or / of a password that was not percent-encoded moved the rest of it elsewhere.

    In `postgresql://ann:hun@ter2@db.example/market` libpq takes `ter2@db.example` for the host, and in
    `postgresql://ann:12/ter2@db.example/market` it takes `ann` for the host and the rest for the database.
    It would also take a whole DSN, password and all, for the name of the database.
    """
    database, ports = str(parts.get("dbname", "")), str(parts.get("port", "")).split(",")
    if "@" in database or "=" in database or not all(port.isdigit() or not port for port in ports):
        return True
    if text.startswith(("postgresql://", "postgres://")):
        authority = re.split("[/?]", text.partition("://")[2], maxsplit=1)[0]
        # Two @ before the path: one of them is of the password. None in a place that names a host: what
        # stands there may be a user and a password, and the @ further on their end.
        at_may_occur = authority.count("@") == (1 if authority else 0)
    else:
        at_may_occur = True
    return any(_strange(host, at_may_occur=at_may_occur) for host in str(parts.get("host", "")).split(","))


def _strange(host: str, *, at_may_occur: bool) -> bool:
    """Tell whether a host can be none: an @ is only in the path of a socket, or begins an abstract one."""
    return "@" in host and not (at_may_occur and (host.startswith("/") or host.rindex("@") == 0))


def _written(place: dict[str, Any]) -> str:
    host = str(place.get("host") or place.get("hostaddr") or "")
    # The folder of a socket is percent-encoded, and so is the @ of an abstract one.
    host = f"[{host}]" if ":" in host else quote(host, safe="")
    return f"{host}:{place['port']}" if "port" in place else host
