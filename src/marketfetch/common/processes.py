"""The identity of a process, as lock files and boards name it, and whether that process is still alive."""

from __future__ import annotations

import errno
import os
import platform
import uuid
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from socket import gethostname
from urllib.parse import quote

import attrs

__all__ = ["ProcessIdentity", "has_ended", "machine_id"]

_FIELDS = 5


@attrs.frozen
class ProcessIdentity:
    """A process on a machine. As text it is five fields between dots, fit for the name of a file.

    >>> ProcessIdentity.parse("db7.1f0c22aa93bd.4026531836.4711.88123").pid
    4711
    >>> ProcessIdentity.current().is_alive
    True
    """

    host: str
    machine: str
    """See `machine_id`."""
    namespace: str
    """The PID namespace: in each container, process ids are numbers of their own. Empty where unknown."""
    pid: int
    started: str
    """When it was started, in ticks since the boot: process ids are used again. Empty where unknown."""

    @classmethod
    def current(cls) -> ProcessIdentity:
        """Return the identity of this process; not cached, since a forked child has another one."""
        pid = os.getpid()
        return cls(_host(), machine_id(), _pid_namespace(), pid, _started(pid) or "")

    @classmethod
    def parse(cls, text: str) -> ProcessIdentity | None:
        """Read the text of an identity, which a token may follow after a dot; None for any other text."""
        fields = text.split(".")
        if len(fields) not in {_FIELDS, _FIELDS + 1} or not fields[3].isdecimal():
            return None
        host, machine, namespace, pid, started = fields[:_FIELDS]
        return cls(host, machine, namespace, int(pid), started)

    @property
    def is_alive(self) -> bool | None:
        """Whether the process still runs; None where that cannot be told.

        It cannot be told of a process of another machine or container, on Windows, and on macOS of an id that
        is in use, perhaps by another process.
        """
        here = (_host(), machine_id(), _pid_namespace())
        if os.name != "posix" or (self.host, self.machine, self.namespace) != here:
            return None
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):
            return False
        except OSError:
            pass  # a process of another user
        started = _started(self.pid)
        if started == "ended":
            return False
        return started == self.started if started and self.started else None

    def __str__(self) -> str:
        return f"{self.host}.{self.machine}.{self.namespace}.{self.pid}.{self.started}"


def has_ended(text: str) -> bool:
    """Tell whether the process that a text names has certainly ended; False where that is not known.

    >>> me = ProcessIdentity.current()
    >>> [has_ended(str(one)) for one in (me, attrs.evolve(me, pid=99**9), attrs.evolve(me, host="other"))]
    [False, True, False]
    """
    identity = ProcessIdentity.parse(text)
    return identity is not None and identity.is_alive is False


@cache
def machine_id() -> str:
    """Name the machine since its last boot: all processes and containers on one kernel get the same name.

    >>> machine_id() == machine_id(), len(machine_id())
    (True, 12)
    """
    name = _read("/proc/sys/kernel/random/boot_id") or f"{platform.node()} {uuid.getnode()}"
    return sha256(name.encode()).hexdigest()[:12]


def _host() -> str:
    return quote(gethostname()[:32], safe="").replace(".", "%2E")


def _pid_namespace() -> str:
    with suppress(OSError):  # not Linux
        return "".join(filter(str.isdecimal, str(Path("/proc/self/ns/pid").readlink())))
    return ""


def _started(pid: int) -> str | None:
    """Return when a process was started: "ended" for a zombie, None where the system does not tell."""
    stat = _read(f"/proc/{pid}/stat")
    if not stat:
        return None
    # The name of the program, in brackets, may hold any text: only the fields after it are split safely.
    state, *fields = stat.rpartition(")")[2].split()
    return "ended" if state in {"Z", "X"} else fields[18]


def _read(path: str) -> str:
    """Return the text of a file of the system, empty where this system has no such file.

    Raises OSError if this process has no file descriptor or memory left: an identity made without the file
    would be a false one.
    """
    try:
        return Path(path).read_text("utf-8", "replace").strip()
    except OSError as error:
        if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOMEM}:
            raise
        return ""
