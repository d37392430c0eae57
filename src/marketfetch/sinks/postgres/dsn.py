"""Parse a DSN as libpq does, and show where it leads without its secrets. Pure: nothing is opened."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

from marketfetch.errors import ConfigurationError
from marketfetch.redaction import Secret, redact, without

__all__ = [
    "database_key_of",
    "display_dsn",
    "display_parts",
    "each_host",
    "parse_dsn",
    "secret_dsn",
    "without_impossible_hosts",
    "without_secrets",
]

_HOST_KEYWORDS = ("host", "hostaddr", "port")


def secret_dsn(dsn: object) -> Secret | ConfigurationError:
    """Wrap the text of a DSN, or return the error for an argument that is not text.

    The error is returned for the caller to raise after it has bound its own name anew: debuggers show the
    local variables of every frame that an error passes, and the text may contain a password.

    >>> secret_dsn(b"host=db")
    ConfigurationError("dsn: bytes is not a DSN; write text such as 'postgresql://user@host/database'")
    """
    if isinstance(dsn, Secret):
        return dsn
    if isinstance(dsn, str):
        return Secret(dsn)
    return ConfigurationError(
        f"dsn: {type(dsn).__name__} is not a DSN; write text such as 'postgresql://user@host/database'"
    )


def parse_dsn(dsn: Secret) -> dict[str, Any]:
    """Return the connection parameters of a DSN as libpq parses them, without connecting.

    Raises ConfigurationError. The message quotes nothing of the DSN: if libpq splits a malformed DSN at the
    wrong place, any piece of it may be a piece of the password.

    >>> parse_dsn(Secret("postgresql://ann:hunter2@db.example:5432/market"))["host"]
    'db.example'
    """
    parts = _parsed(dsn)
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
    return display_parts(parse_dsn(dsn))


def display_parts(parts: dict[str, Any]) -> str:
    """Return where connection parameters lead, without user and password."""
    hosts = [_host_and_port(host) for host in each_host(parts)]
    service = f"?service={quote(str(parts['service']))}" if "service" in parts else ""
    return f"postgresql://{','.join(hosts)}/{parts.get('dbname', '')}{service}"


def each_host(parts: dict[str, Any]) -> Sequence[dict[str, Any]]:
    """Return the parameters of one connection for each host that a DSN names.

    >>> each_host({"host": "a,b", "port": "1,2", "dbname": "m"})[1]
    {'dbname': 'm', 'host': 'b', 'port': '2'}
    >>> [each["port"] for each in each_host({"host": "a,b,c", "port": "6000"})]
    ['6000', '6000', '6000']
    """
    lists = {name: str(parts[name]).split(",") for name in _HOST_KEYWORDS if name in parts}
    count = max([len(lists.get("host", [])), len(lists.get("hostaddr", [])), 1])
    rest = {name: value for name, value in parts.items() if name not in _HOST_KEYWORDS}
    hosts = []
    for i in range(count):
        # A single port applies to all hosts; an empty item stands for the default.
        own = {
            name: items[i if len(items) > 1 else 0]
            for name, items in lists.items()
            if len(items) == 1 or i < len(items)
        }
        hosts.append({**rest, **{name: value for name, value in own.items() if value}})
    return hosts


def database_key_of(parts: dict[str, Any]) -> Hashable:
    """Return a key that is equal for connection parameters which lead to the same database.

    It contains hosts, ports and the name of the database, with libpq's defaults where one is not given. The
    user matters only where no database is named: its name is that of the user then. Options do not matter.

    >>> url, text = "postgresql://ann@h:5432/db", "host=h dbname=db user=bob"
    >>> database_key_of(parse_dsn(Secret(url))) == database_key_of(parse_dsn(Secret(text)))
    True
    """
    defaults = {
        option.keyword.decode(): option.val.decode(errors="replace")
        for option in pq.Conninfo.get_defaults()
        if option.val
    }
    if "service" in parts:  # a file on this machine says where it leads
        return tuple(str(parts.get(name, "")) for name in ("service", *_HOST_KEYWORDS, "dbname"))
    hosts = {(_folded(host, defaults), host.get("port") or defaults.get("port")) for host in each_host(parts)}
    names = (source.get(name) for name in ("dbname", "user") for source in (parts, defaults))
    return frozenset(hosts), next(filter(None, names), "")


def without_impossible_hosts(parts: dict[str, Any]) -> dict[str, Any]:
    """Return connection parameters without the hosts whose names cannot exist, unless that is every host.

    psycopg raises UnicodeError for such a name, and does not try the other hosts.

    >>> without_impossible_hosts({"host": "a..b,c", "port": "1,2"})
    {'host': 'c', 'port': '2'}
    """
    hosts = each_host(parts)
    possible = [host for host in hosts if _can_be_looked_up(host)]
    if len(possible) in {0, len(hosts)}:
        return parts
    lists = {
        name: ",".join(host.get(name, "") for host in possible) for name in _HOST_KEYWORDS if name in parts
    }
    return {**parts, **lists}


def without_secrets(text: str, parts: dict[str, Any]) -> str:
    """Cut the passwords of connection parameters out of a message of the server or of libpq."""
    for name in ("password", "sslpassword"):
        text = without(text, str(parts.get(name) or ""))
    return redact(text)


def _parsed(dsn: Secret) -> dict[str, Any] | None:
    # No error leaves this frame, whose local variables contain the password.
    text = dsn.reveal()
    try:
        parts = conninfo_to_dict(text)
    except (psycopg.Error, UnicodeError):
        return None
    return None if _misplaced(text, parts) else parts


def _misplaced(text: str, parts: dict[str, Any]) -> bool:
    """Tell whether an @ or / of a password that was not percent-encoded split the DSN at the wrong place.

    In `postgresql://ann:hun@ter2@db.example/market` libpq takes `ter2@db.example` for the host, and in
    `postgresql://ann:12/ter2@db.example/market` it takes `ann` for the host and the rest for the database.
    libpq would also take a whole DSN with its password for the name of the database.
    """
    database, ports = str(parts.get("dbname", "")), str(parts.get("port", "")).split(",")
    if "@" in database or "=" in database or not all(port.isdigit() or not port for port in ports):
        return True
    if text.startswith(("postgresql://", "postgres://")):
        authority = re.split("[/?]", text.partition("://")[2], maxsplit=1)[0]
        # Two @ before the path: one of them belongs to the password. No @ after a first word: that word may
        # be a user and a piece of the password, which ends at an @ further on.
        at_may_occur = authority.count("@") == (1 if authority else 0)
    else:
        at_may_occur = True
    return any(
        _impossible_host(host, at_may_occur=at_may_occur) for host in str(parts.get("host", "")).split(",")
    )


def _impossible_host(host: str, *, at_may_occur: bool) -> bool:
    """Tell whether no host has this name: an @ occurs in the path of a socket, or begins an abstract one."""
    return "@" in host and not (at_may_occur and (host.startswith("/") or host.rindex("@") == 0))


def _can_be_looked_up(parts: dict[str, Any]) -> bool:
    """Tell whether a host is not looked up in the DNS, or has a name that Python can encode for it."""
    host = parts.get("host", "")
    if "hostaddr" in parts or host.startswith(("/", "@")):
        return True
    if host.isascii():  # without the codec: a process without a free file descriptor cannot load it
        return not host or all(0 < len(label) < 64 for label in host.removesuffix(".").split("."))
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return True


def _folded(parts: dict[str, Any], defaults: dict[str, str]) -> str:
    """Return a host in lower case, the path or name of a socket as it is."""
    host = str(parts.get("host") or parts.get("hostaddr") or defaults.get("host", ""))
    return host if host.startswith(("/", "@")) else host.lower()


def _host_and_port(parts: dict[str, Any]) -> str:
    host = str(parts.get("host") or parts.get("hostaddr") or "")
    # The folder of a socket is percent-encoded, and so is the @ of an abstract one.
    host = f"[{host}]" if ":" in host else quote(host, safe="")
    return f"{host}:{parts['port']}" if "port" in parts else host
