"""What tells a process and a machine from others."""

from __future__ import annotations

import os
import platform
import uuid
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path

__all__ = ["has_ended", "machine", "process_name"]


@cache
def machine() -> str:
    """Name the machine, as it was started last: all processes and containers on one kernel get the same.

    >>> machine() == machine(), len(machine())
    (True, 12)
    """
    name = _read("/proc/sys/kernel/random/boot_id") or f"{platform.node()} {uuid.getnode()}"
    return sha256(name.encode()).hexdigest()[:12]


def process_name(token: str) -> str:
    """Name this process on a board; `token` tells apart what would have the same name.

    >>> has_ended(process_name("x"))
    False
    """
    return f"{machine()} {_pid_namespace()} {os.getpid()} {_started(os.getpid()) or '-'} {token}"


def has_ended(name: str) -> bool:
    """Tell whether a process has surely ended; of another machine or container that is never known.

    >>> name = process_name("x").split()
    >>> never, elsewhere = [*name[:2], "999999999", *name[3:]], ["elsewhere", *name[1:]]
    >>> has_ended(" ".join(never)), has_ended(" ".join(elsewhere))
    (True, False)
    """
    where, namespace, pid, started, *_ = [*name.split(" "), "", "", "", ""]
    if os.name != "posix" or (where, namespace) != (machine(), _pid_namespace()) or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass  # it is another user's
    return _started(int(pid)) not in {"", started}


def _read(path: str) -> str:
    with suppress(OSError):
        return Path(path).read_text().strip()
    return ""


@cache
def _pid_namespace() -> str:
    """Name the container whose process ids are ours."""
    with suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return "-"


def _started(pid: int) -> str:
    """Return when a process was started; of one that only waits for its parent to notice, that it has ended.

    Where that cannot be seen, as on other systems than Linux, nothing is returned.
    """
    stat = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return "" if len(stat) < 20 else "ended" if stat[0] in "ZX" else stat[19]
