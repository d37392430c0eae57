"""Errors of this machine: a resource that is used up, such as file descriptors, and errors that pass."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from marketfetch.errors import LocalResourceError

__all__ = [
    "PASSING_ERRNOS",
    "descriptor_limit",
    "descriptors_used_up",
    "has_no_route",
    "raising_resource_errors",
    "resource_remedy",
]

PASSING_ERRNOS = frozenset({errno.EAGAIN, errno.EBUSY, errno.ESTALE, errno.ETIMEDOUT})
"""Errors of a file system that a retry can mend, such as a network drive that is away for a moment."""

_REMEDIES = {
    # In this order: the system's text for ENFILE contains its text for EMFILE.
    errno.ENFILE: "too many open files on this machine: raise fs.file-max or end other programs",
    errno.EMFILE: "too many open files: raise ulimit -n (now {limit}) or lower concurrency",
    errno.ENOMEM: "this machine is out of memory: free some, or lower concurrency",
    errno.ENOBUFS: "this machine has no room for network buffers: lower concurrency",
    errno.EADDRNOTAVAIL: (
        "no local address or port is free: lower concurrency, or widen net.ipv4.ip_local_port_range"
    ),
}
_FILES_OF_ONE_OPENING = 4
"""Files that a connection or a database opens at a time: names, certificates, the file and its journal."""
_NO_ROUTE_ERRNOS = frozenset({errno.ENETUNREACH, errno.ENETDOWN})


def resource_remedy(number: int | None, text: str = "") -> str | None:
    """Return which resource of this machine is used up and what to do; None if no resource is.

    `number` is the errno, if there is one. `text` is searched for the system's text of each errno, because
    libraries quote that text without the number.

    >>> resource_remedy(None, "failed to open socket: Too many open files")
    'too many open files: raise ulimit -n (now ...) or lower concurrency'
    >>> resource_remedy(errno.ECONNREFUSED) is None
    True
    """
    for known, remedy in _REMEDIES.items():
        if number == known or _quotes_errno(text, known):
            return remedy.format(limit=descriptor_limit() or "without limit")
    return None


def has_no_route(number: int | None, text: str = "") -> bool:
    """Return whether this machine has no route into the network at all."""
    return any(number == known or _quotes_errno(text, known) for known in _NO_ROUTE_ERRNOS)


def _quotes_errno(text: str, number: int) -> bool:
    """Tell whether a text quotes the system's text of an errno; Windows has none for errors of networks."""
    message = os.strerror(number).lower()
    return message in text.lower() and not message.startswith("unknown error")


def descriptor_limit() -> int | None:
    """Return how many files and connections this process may have open; None where there is no limit."""
    try:
        import resource
    except ImportError:  # not a POSIX system
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def descriptors_used_up() -> bool:
    """Return whether this process can open hardly any file.

    Several are opened for the test: the operation that failed has closed a few of its own by now.
    """
    opened: list[int] = []
    try:
        opened.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(_FILES_OF_ONE_OPENING))
    except OSError as error:
        return error.errno in {errno.EMFILE, errno.ENFILE}
    finally:
        for number in opened:
            os.close(number)
    return False


@contextmanager
def raising_resource_errors() -> Iterator[None]:
    """Raise LocalResourceError for an OSError that says that this machine ran out of something.

    Every other error leaves the block unchanged.

    >>> import errno
    >>> with raising_resource_errors():
    ...     raise OSError(errno.ENOBUFS, "no buffer")
    Traceback (most recent call last):
    marketfetch.errors.LocalResourceError: this machine has no room for network buffers: lower concurrency
    """
    try:
        yield
    except OSError as error:
        remedy = resource_remedy(error.errno)
        if remedy is None:
            raise
        raise LocalResourceError(remedy) from error
