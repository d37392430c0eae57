"""Proxy addresses as people write them, turned into URLs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote

from marketfetch.errors import ConfigurationError
from marketfetch.values.redaction import Secret

__all__ = ["parse_proxy", "read_proxies"]

_HOST_PORT = r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>\d{1,5})"
_FORMS = (
    re.compile(rf"{_HOST_PORT}/?"),
    re.compile(rf"(?P<user>[^:\s]+)(:(?P<password>\S*))?@{_HOST_PORT}/?"),
    re.compile(rf"{_HOST_PORT}:(?P<user>[^:\s]+):(?P<password>\S*)"),
)
_SCHEMES = ("http", "https", "socks5", "socks5h")


def parse_proxy(text: str, entry: str) -> Secret:
    """Turn one address into a proxy URL; `entry` says where it stands, as in "entry 3".

    Accepted are `host:port`, `user:password@host:port` and `host:port:user:password`, each with or without
    a scheme in front: http (the default), https, socks5 or socks5h. Anything else raises
    ConfigurationError; the message shows the shape of the address, but not a letter of its content.

    >>> parse_proxy("10.0.0.1:3128:anna:hunter2", "entry 1").reveal()
    'http://anna:hunter2@10.0.0.1:3128'
    """
    text = text.strip()
    scheme, separator, rest = text.partition("://")
    scheme, rest = (scheme.lower(), rest) if separator else ("http", text)
    found = next(filter(None, (form.fullmatch(rest) for form in _FORMS)), None)
    if scheme not in _SCHEMES or found is None or not 0 < int(found["port"]) < 65536:
        shape = re.sub(r"[^:/@\[\]]+", "…", text)
        raise ConfigurationError(
            f"proxies: {entry} is malformed (its shape is {shape!r}); a right one looks like "
            f"http://user:password@203.0.113.7:3128, with one of the schemes {', '.join(_SCHEMES)}"
        )
    parts = found.groupdict()
    credential = [
        quote(unquote(part), safe="") for part in (parts.get("user"), parts.get("password")) if part
    ]
    at = "@" if credential else ""
    return Secret(f"{scheme}://{':'.join(credential)}{at}{found['host'].lower()}:{int(found['port'])}")


def read_proxies(path: Path) -> Iterator[tuple[str, str]]:
    """Read a file with one address per line; blank lines and what follows a `#` are left out.

    Gives each address with the number of its line. Raises ConfigurationError if the file cannot be read.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigurationError(f"proxies: {path} cannot be read: {reason}") from error
    for number, line in enumerate(lines, start=1):
        address = re.split(r"(?:^|\s)#", line)[0].strip()
        if address:
            yield address, f"line {number} of {path}"
