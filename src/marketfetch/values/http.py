"""HTTP as values: requests and their costs, rate limits, egresses, and responses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv6Address
from math import inf
from typing import Literal
from urllib.parse import quote, quote_plus, urlsplit

import attrs

from marketfetch.common.type_checks import is_whole, plain_int
from marketfetch.errors import ConfigurationError
from marketfetch.redaction import Secret, redact

__all__ = ["Burst", "Cost", "Egress", "LimitPool", "Request", "Response", "host_url", "one_spelling"]


# A run quotes the same few names in every URL.
_quoted = lru_cache(maxsize=4096)(quote_plus)


@lru_cache(maxsize=256)
def _path(path: str) -> str:
    return quote(path, safe="/%")


def one_spelling(host: str) -> str:
    """Return the canonical form of a host: lower case, no dot at the end, IPv6 shortened.

    >>> one_spelling("Proxy.Example."), one_spelling("[2001:DB8:0::1]")
    ('proxy.example', '[2001:db8::1]')
    """
    host = host.lower()
    if host.startswith("["):
        return f"[{IPv6Address(host[1:-1]).compressed}]"
    return host.removesuffix(".") or host


_PORTS = {"http": 80, "https": 443}
"""The default ports, which a URL need not name."""
_HOST = re.compile(r"[\w-]+(\.[\w-]+)*|\[[0-9a-f:.]+\]")


def host_url(argument: str, given: object, *, like: str = "https://files.example.com") -> str:
    """Return the canonical form of a host's http(s) URL, which is the key of its budgets; a path may follow.

    Raises ConfigurationError, which names the `argument` and says what to write `like`, for another scheme,
    no host, a space or control character, a wrong port, credentials, a query and a fragment. The
    message shows the text only where it has no credential.

    >>> host_url("base_url", "https://API.Binance.com.:443/")
    'https://api.binance.com'
    >>> host_url("base_url", "https://e.org:99999")
    Traceback (most recent call last):
    marketfetch.errors.ConfigurationError: base_url: its port is not a number from 1 to 65535; write one...
    """
    if not isinstance(given, str):
        raise ConfigurationError(f"{argument}: {type(given).__name__} is no URL; write text such as {like}")
    text = given.strip(" ").rstrip("/")
    # Python drops line breaks and tabs silently, and a backslash ends a host for some programs only.
    if not text.isprintable() or " " in text or "\\" in text:
        raise ConfigurationError(
            f"{argument}: a space, control character or backslash has no place in it; write {like!r}"
        )
    if "?" in text or "#" in text:  # it may have a key in it: the message does not repeat the text
        raise ConfigurationError(
            f"{argument}: a query or fragment (? or #) has no place in it; write {like!r}"
        )
    wrong = f"is not an http(s) URL; write {like!r} or like it"
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
        host = one_spelling(f"[{host}]" if ":" in host else host)
    except ValueError:  # the text of the error may have a credential in it
        raise ConfigurationError(f"{argument}: what was given {wrong}") from None
    if "@" in parts.netloc:
        raise ConfigurationError(f"{argument}: credentials have no place in it; public endpoints need none")
    if not _HOST.fullmatch(host) or parts.scheme not in _PORTS:
        raise ConfigurationError(f"{argument}: {redact(repr(text))} {wrong}")
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0 or parts.netloc.endswith(":"):
        raise ConfigurationError(
            f"{argument}: its port is not a number from 1 to 65535; write one, or leave it out"
        )
    shown = "" if port in {None, _PORTS[parts.scheme]} else f":{port}"
    return parts._replace(netloc=f"{host}{shown}").geturl()


@attrs.frozen
class Burst:
    """The second limit of a LimitPool: at most `capacity` of its units in each `period` milliseconds."""

    capacity: int = attrs.field(converter=plain_int)
    period: int = attrs.field(converter=plain_int)


@attrs.frozen(cache_hash=True)
class LimitPool:
    """One published rate limit of one or several hosts, counted for each address.

    `capacity` units may be spent in each `period` milliseconds. A `clock` window begins at multiples of the
    period on the server's clock; a `sliding` window is the last `period` before any moment. `used_header`
    names the response header with the used part of the window, if the exchange sends one. `burst` is for an
    exchange that limits the same requests in a shorter period, too. `hosts` are those that count the units
    together; without them each host counts its own.

    Example: 300 requests in each minute, and never more than 10 in one second:

    >>> LimitPool("calls", 300, 60_000, burst=Burst(10, 1000)).burst
    Burst(capacity=10, period=1000)
    """

    name: str
    capacity: int = attrs.field(converter=plain_int)
    period: int = attrs.field(converter=plain_int)
    window: Literal["clock", "sliding"] = "sliding"
    used_header: str | None = None
    burst: Burst | None = attrs.field(default=None, kw_only=True)
    published: bool = attrs.field(default=True, kw_only=True)
    """Whether an exchange counts these units; reports leave out those of a limit that is only ours."""
    hosts: tuple[str, ...] = attrs.field(default=(), kw_only=True)

    def counted_hosts(self, host: str) -> tuple[str, ...]:
        """Return the hosts that count together with one, itself among them.

        >>> pool = LimitPool("calls", 10, 1000, hosts=("https://a.org", "https://b.org"))
        >>> pool.counted_hosts("https://b.org"), pool.counted_hosts("http://127.0.0.1:8000")
        (('https://a.org', 'https://b.org'), ('http://127.0.0.1:8000',))
        """
        return self.hosts if host in self.hosts else (host,)


@attrs.frozen
class Cost:
    """How many units a request takes from a limit pool."""

    pool: LimitPool
    weight: int = attrs.field(default=1, converter=plain_int)


@attrs.frozen
class Request:
    """An HTTP request of an endpoint; its Exchange fills in `base_url`.

    `params` are the query of the URL, which percent-encodes them; write a symbol in a `path` with
    `quote(symbol, safe="")`. A `body` needs `method="POST"` and, mostly, a header `content-type`.

    >>> Request("/api/v3/time", cost=Cost(LimitPool("spot", 6000, 60_000)), base_url="https://e.org").url
    'https://e.org/api/v3/time'
    """

    path: str
    params: Mapping[str, str | int] = attrs.field(factory=dict)
    cost: Cost = attrs.field(kw_only=True)
    method: Literal["GET", "POST"] = attrs.field(default="GET", kw_only=True)
    body: bytes | None = attrs.field(default=None, kw_only=True)
    headers: Mapping[str, str] = attrs.field(factory=dict, kw_only=True)
    base_url: str = attrs.field(default="", kw_only=True)
    max_wait: float = attrs.field(default=inf, kw_only=True)
    """Seconds for which the request may wait for an egress; a pool may set a lower limit of its own."""

    @property
    def url(self) -> str:
        """The absolute URL, percent-encoded as UTF-8 (some symbols are not ASCII)."""
        query = "&".join(
            f"{_quoted(name)}={value if isinstance(value, int) or is_whole(value) else _quoted(value)}"
            for name, value in self.params.items()
        )
        return f"{self.base_url}{_path(self.path)}{'?' if query else ''}{query}"


@attrs.frozen
class Response:
    """A complete HTTP response; header names are lower case.

    `sent_at` and `received_at` are UTC milliseconds by the local clock.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = attrs.field(repr=False)
    sent_at: int
    received_at: int


@attrs.frozen
class Egress:
    """The way by which a request leaves: the direct connection, or one proxy.

    `name` is for display and never has a credential in it.
    """

    name: str
    proxy: Secret | None = None
