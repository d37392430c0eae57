"""Parsing of proxy addresses, from the forms that people write to URLs."""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from pathlib import Path
from urllib.parse import quote, unquote

from marketfetch.common.text import file_error_reason
from marketfetch.errors import ConfigurationError
from marketfetch.redaction import Secret, redact
from marketfetch.values.http import one_spelling

__all__ = ["parse_proxy", "read_proxies"]

_HOST_PORT = r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>\d{1,5})"
# Surrogates stand for bytes of a command line that are not text; a URL cannot hold them.
_USER, _PASSWORD = r"[^:\s\ud800-\udfff]+", r"[^\s\ud800-\udfff]*"
_FORMS = (
    re.compile(rf"{_HOST_PORT}/?"),
    re.compile(rf"(?P<user>{_USER})(:(?P<password>{_PASSWORD}))?@{_HOST_PORT}/?"),
    re.compile(rf"{_HOST_PORT}:(?P<user>{_USER}):(?P<password>{_PASSWORD})"),
)
_SCHEMES = ("http", "https", "socks5", "socks5h")


def parse_proxy(text: str | Secret, entry: str) -> Secret:
    """Turn one address into a proxy URL; `entry` is its place for error messages, such as "entry 3".

    Accepted are `host:port`, `user:password@host:port` and `host:port:user:password`, each with or without
    a scheme in front: http (the default), https, socks5 or socks5h. Any other text raises
    ConfigurationError; the message shows the shape of the address, but none of its letters.

    >>> parse_proxy("10.0.0.1:3128:anna:hunter2", "entry 1").reveal()
    'http://anna:hunter2@10.0.0.1:3128'
    """
    text = Secret.of(text)  # replaces the plain text: debuggers show the local variables of an error
    proxy = _url(text.reveal().strip())
    if proxy is None:
        raise ConfigurationError(
            f"proxies: {entry} is malformed (its shape is {_shape(text)!r}); a right one looks like "
            f"http://user:password@203.0.113.7:3128, with one of the schemes {', '.join(_SCHEMES)}"
        )
    return proxy


def _url(text: str) -> Secret | None:
    scheme, separator, address = text.partition("://")
    scheme, address = (scheme.lower(), address) if separator else ("http", text)
    found = next(filter(None, (form.fullmatch(address) for form in _FORMS)), None)
    if scheme not in _SCHEMES or found is None or not _exists(found["host"], int(found["port"])):
        return None
    parts = found.groupdict()
    credential = [
        quote(unquote(part), safe="") for part in (parts.get("user"), parts.get("password")) if part
    ]
    at = "@" if credential else ""
    return Secret(f"{scheme}://{':'.join(credential)}{at}{one_spelling(found['host'])}:{int(found['port'])}")


def _exists(host: str, port: int) -> bool:
    """Return whether host and port are possible.

    A host in brackets has to be an IPv6 address. In any other host no part between two dots is empty.
    """
    if host.startswith("["):
        try:
            IPv6Address(host[1:-1])
        except ValueError:
            return False
    elif not all(host.removesuffix(".").split(".")):
        return False
    return 0 < port < 65536


def _shape(text: Secret) -> str:
    """Return the separators of an address, which show its mistake, with "…" for each word.

    >>> _shape(Secret("anna:hunter2@10.0.0.1"))
    '…:…@…'
    """
    return re.sub(r"[^:/@\[\]]+", "…", text.reveal())


def read_proxies(path: Path) -> list[tuple[Secret, str]]:
    """Read a file with one address per line; blank lines and `# comments` are skipped.

    Returns each address with its place, such as "line 3 of proxies.txt". Raises ConfigurationError if the
    file cannot be read.
    """
    addresses, reason = _addresses(path)
    if reason:
        raise ConfigurationError(f"proxies: {redact(str(path))} cannot be read: {reason}") from None
    return [
        (address, f"line {number} of {path}")
        for number, address in enumerate(addresses, start=1)
        if address.reveal()
    ]


def _addresses(path: Path) -> tuple[list[Secret], str]:
    """Return the address of each line, empty for a line without one, or the reason why there are none.

    It does not raise: a UnicodeDecodeError and its frames hold the whole file with all passwords, and the
    error of a file that is missing holds its name, which may be an address given in the wrong argument.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        return [], file_error_reason(error)
    return [Secret(re.split(r"(?:^|\s)#", line)[0].strip()) for line in lines], ""
