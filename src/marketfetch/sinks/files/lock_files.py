"""Lock files: one at a time, be the others threads, processes, or machines that share the folder."""

from __future__ import annotations

import os
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from socket import gethostname
from urllib.parse import quote

import attrs

__all__ = ["LEASE", "Claim", "Owner", "break_lock", "claim", "holder_of", "is_abandoned", "sweep"]

LEASE = 60.0
"""Seconds after which the lock of a machine that nobody can ask is taken for abandoned; a batch takes one."""

_TORN = 1.0
"""Seconds after which a lock file without an owner is taken for abandoned: it is written as it is made."""

_DAY = 86_400.0


@attrs.frozen
class Owner:
    """A process on a machine, as it is written into lock files and into the names of files aside.

    >>> Owner.parse("db7-1f0c22aa.4711.88123").pid
    4711
    """

    machine: str
    """Host, boot and, in containers, the space in which process numbers mean something."""
    pid: int
    started: str
    """When the process was started, as the system counts it: numbers are used again. May be empty."""

    @classmethod
    def current(cls) -> Owner:
        """Return this process; asked anew each time, since a fork makes another one."""
        pid = os.getpid()
        return cls(_machine(), pid, _started(pid) or "")

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """Read what an owner is written as, with or without a token at the end; None for anything else."""
        parts = text.split(".")
        if len(parts) not in {3, 4} or not parts[1].isdecimal():
            return None
        return cls(parts[0], int(parts[1]), parts[2])

    @property
    def is_alive(self) -> bool | None:
        """Whether the process still runs; None where that cannot be told from here."""
        if self.machine != _machine() or os.name != "posix":
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            return True  # somebody else's process
        started = _started(self.pid)
        return started is None or started == self.started

    def __str__(self) -> str:
        return f"{self.machine}.{self.pid}.{self.started}"


@attrs.frozen
class Claim:
    """A lock that is held, and whether it was taken over from a process that died with it."""

    lock: Path
    text: str
    inherited: bool = False

    def release(self) -> None:
        """Let go of the lock, unless this is a forked child of the process that holds it."""
        owner = Owner.parse(self.text)
        if owner is None or owner.pid != os.getpid():
            return
        with suppress(FileNotFoundError):
            if self.lock.read_text() == self.text:  # else it was taken for abandoned, and is another's now
                self.lock.unlink()


def claim(lock: Path) -> Claim | None:
    """Try once to take a lock in an existing folder; None where somebody else has it. Raises OSError.

    The file is the lock: it is made by whoever holds it, by the one call that every file system, also across
    a network, lets only one of many succeed with. No descriptor is kept, so that a fork inherits nothing.

    1. A lock whose process has died on this machine is taken over at once.
    2. One of another machine is taken over when it is older than LEASE.
    3. One that is not written yet, or was torn by a crash, is taken over after a second.
    """
    inherited = False
    if os.path.exists(lock):  # noqa: PTH110  # Path.exists may raise
        if not is_abandoned(lock):
            return None
        inherited = break_lock(lock)
    text = f"{Owner.current()}.{token_hex(4)}"
    try:
        handle = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return None
    try:
        try:
            os.write(handle, text.encode())
        finally:
            os.close(handle)
    except BaseException:
        lock.unlink(missing_ok=True)
        raise
    return Claim(lock, text, inherited)


def holder_of(lock: Path) -> str:
    """Say who has a lock, for people."""
    try:
        owner = Owner.parse(lock.read_text())
    except (OSError, ValueError):
        owner = None
    return f"process {owner.pid} on {owner.machine.rpartition('-')[0]}" if owner else "another process"


def is_abandoned(lock: Path) -> bool:
    """Tell whether whoever made a lock file has died with it; False where there is none. Raises OSError."""
    try:
        owner = Owner.parse(lock.read_text(errors="replace"))
        alive = None if owner is None else owner.is_alive
        if alive is not None:
            return not alive
        return _age(lock) > (_TORN if owner is None else LEASE)
    except FileNotFoundError:
        return False


def break_lock(lock: Path) -> bool:
    """Remove an abandoned lock; False where another process was faster. Raises OSError."""
    broken = lock.with_name(f"{lock.name}.{Owner.current()}.{token_hex(4)}")
    try:
        lock.rename(broken)
    except FileNotFoundError:
        return False
    # Another process may have broken and made the lock since it was looked at: then it goes back.
    if not is_abandoned(broken):
        with suppress(OSError):
            os.link(broken, lock)
        broken.unlink(missing_ok=True)
        return False
    broken.unlink(missing_ok=True)
    return True


def sweep(folder: Path, prefix: str = "", suffix: str = "") -> None:
    """Remove files that processes which died had put aside in a folder; raises OSError.

    A file is called `{prefix}{owner}.{token}{suffix}`, where the prefix may be longer and ends with a dot.
    What another machine put there stays for a day.
    """
    try:
        with os.scandir(folder) as entries:
            names = [one.name for one in entries if one.name.startswith(prefix) and one.name.endswith(suffix)]
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        owner = Owner.parse(".".join(name.removesuffix(suffix).split(".")[-4:]))
        if owner is None:
            continue
        file, alive = folder / name, owner.is_alive
        with suppress(FileNotFoundError):
            if alive is False or (alive is None and _age(file) > _DAY):
                file.unlink()


def _age(file: Path) -> float:
    """Return how many seconds ago a file was written, by the clock of the file system it is on."""
    probe = file.with_name(f"{file.name}.{Owner.current()}.{token_hex(4)}")
    written = file.stat().st_mtime
    try:
        probe.touch()
        return probe.stat().st_mtime - written
    finally:
        probe.unlink(missing_ok=True)


def _machine() -> str:
    with suppress(OSError):
        known = Path("/proc/sys/kernel/random/boot_id").read_text() + str(
            Path("/proc/self/ns/pid").readlink()
        )
        return f"{_host()}-{sha256(known.encode()).hexdigest()[:8]}"
    return f"{_host()}-0"


def _host() -> str:
    return quote(gethostname()[:32], safe="").replace(".", "%2E")


def _started(pid: int) -> str | None:
    """Return when a process was started; empty for one that has ended, None where the system does not say."""
    try:
        found = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The name of the program, in brackets, may hold anything: what follows it does not.
    state, *fields = found.rpartition(")")[2].split()
    return "" if state in {"Z", "X"} else fields[18]
