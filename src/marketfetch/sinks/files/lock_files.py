"""Lock files: mutual exclusion between threads, processes, and machines that share a folder.

The package `filelock` does not do: its locks have no lease for the machines of a network file system, and a
forked child inherits them.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

import attrs

from marketfetch.common.platforms import retry_while_open_elsewhere
from marketfetch.common.processes import ProcessIdentity

__all__ = ["LEASE", "HeldLock", "break_lock", "holder_of", "is_abandoned", "sweep", "try_lock", "unique_name"]

LEASE = 60.0
"""Seconds after which a lock of another machine counts as abandoned; a batch takes about one second."""

_UNREADABLE_LEASE = 1.0
"""Seconds after which a lock file without an identity counts as abandoned: its holder died as it wrote it."""

_TEMPORARY_FILE_LEASE = 86_400.0
"""Seconds after which a temporary file of another machine counts as abandoned."""

_GUARD_SUFFIX = ".break"
_GUARD_LEASE = 10.0
"""Seconds after which a guard counts as abandoned, whoever created it; it is needed for milliseconds."""

_OWNED_LOCKS: set[str] = set()
"""The texts of the lock files that this process holds, its one record of them.

No lock guards the set: a fork may come while another thread holds it. `add` and `discard` are atomic.
"""

if hasattr(os, "register_at_fork"):  # there is no fork on Windows
    os.register_at_fork(after_in_child=_OWNED_LOCKS.clear)


@attrs.frozen
class HeldLock:
    """A lock that this process holds.

    `taken_over` says that the lock was taken over from a holder that died with it.
    """

    lock: Path
    text: str
    taken_over: bool = False

    def release(self) -> None:
        """Remove the lock file; does nothing in a forked child of the process that holds the lock.

        Never raises OSError: the work under the lock is done. A lock file that cannot be removed now, for
        lack of descriptors or because a server is away, is abandoned: the next `try_lock` here removes it.
        """
        if self.text not in _OWNED_LOCKS:
            return
        try:
            with suppress(OSError):
                # Another text: the lease was over, and another process has the lock.
                if self.lock.read_text("ascii") == self.text:
                    retry_while_open_elsewhere(self.lock.unlink)
        finally:
            # After the unlink: before it, a thread that takes the lock for abandoned would take it over, and
            # this unlink would remove that thread's lock.
            _OWNED_LOCKS.discard(self.text)


def unique_name() -> str:
    """Return a name for a temporary file; once this process has died, `sweep` removes the file."""
    return f"{ProcessIdentity.current()}.{token_hex(4)}"


def try_lock(lock: Path) -> HeldLock | None:
    """Try once to take a lock in an existing folder; None where another holder has it. Raises OSError.

    The file is the lock: `O_EXCL` lets only one of many callers create it, on every file system, also across
    a network. No descriptor is kept, so that a forked child inherits nothing.

    1. A lock whose process has died on this machine is taken over at once.
    2. So is a lock that this process wrote, but does not hold: it could not be removed at its release.
    3. A lock of another machine is taken over when it is older than LEASE.
    4. A lock file that is empty or cut off is taken over after a second.
    """
    taken_over = False
    if os.path.exists(lock):  # noqa: PTH110  # Path.exists may raise
        if not is_abandoned(lock):
            return None
        taken_over = break_lock(lock)
    text = _create(lock)
    return None if text is None else HeldLock(lock, text, taken_over)


def holder_of(lock: Path) -> str:
    """Name the process that holds a lock, for people."""
    try:
        holder = ProcessIdentity.parse(lock.read_text("ascii"))
    except (OSError, ValueError):
        holder = None
    return "another process" if holder is None else f"process {holder.pid} on {holder.host}"


def is_abandoned(lock: Path) -> bool:
    """Tell whether the holder of a lock file has died; False where there is no file. Raises OSError."""
    try:
        text = lock.read_text("ascii", "replace")
        holder = ProcessIdentity.parse(text)
        if holder == ProcessIdentity.current():
            # A text that has left `_OWNED_LOCKS` never returns. Read the file again: a thread may have
            # released the lock between the reading and the check, and another holder may have it now.
            return text not in _OWNED_LOCKS and lock.read_text("ascii", "replace") == text
        alive = None if holder is None else holder.is_alive
        if alive is not None:
            return not alive
        return _age(lock) > (_UNREADABLE_LEASE if holder is None else LEASE)
    except FileNotFoundError:
        return False


def break_lock(lock: Path) -> bool:
    """Remove an abandoned lock; False where another process was faster. Raises OSError.

    Invariant: a lock that may be alive is neither moved nor removed. Example: A and B both see a dead lock, B
    removes it and takes the lock, and only then A goes on. A must not touch the lock of B. So the lock is
    removed only under a guard file, and looked at again under the guard.

    1. One process at a time can create the guard, and only its owner removes the lock.
    2. A guard that a dead process left is taken away, and this call ends: the next one creates its own.
    3. The guard is renamed before it is judged: of many processes one takes it away. If it turns out to be
       alive it is put back. A third process could create a guard in between; that process then sees in the
       lock file what the others left there.
    """
    guard = lock.with_name(f"{lock.name}{_GUARD_SUFFIX}")
    text = _create(guard)
    if text is None:
        if _is_old_guard(guard):
            _remove_old_guard(guard)
        return False
    try:
        if not is_abandoned(lock) or guard.read_text("ascii") != text:
            return False
        lock.unlink()
    except FileNotFoundError:
        return False
    finally:
        HeldLock(guard, text).release()
    return True


def sweep(folder: Path, prefix: str = "", suffix: str = "") -> None:
    """Remove the temporary files of dead processes from a folder; raises OSError.

    A file is called `{prefix}{unique_name}{suffix}`, where the prefix may be longer and ends with a dot. A
    file of another machine stays for a day. Guards of `break_lock` are removed, too.
    """
    try:
        with os.scandir(folder) as entries:
            names = [one.name for one in entries if one.name.startswith(prefix) and one.name.endswith(suffix)]
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        writer = ProcessIdentity.parse(".".join(name.removesuffix(suffix).split(".")[-6:]))
        file = folder / name
        with suppress(FileNotFoundError):
            if name.endswith(_GUARD_SUFFIX):
                abandoned = _is_old_guard(file)
            elif writer is None:
                continue
            else:
                alive = writer.is_alive
                abandoned = alive is False or (alive is None and _age(file) > _TEMPORARY_FILE_LEASE)
            if abandoned:
                file.unlink()


def _create(lock: Path) -> str | None:
    """Create a lock file and return its text; None where the file is there. Raises OSError."""
    text = unique_name()
    try:
        handle = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return None
    _OWNED_LOCKS.add(text)  # before another thread can read the text
    try:
        try:
            os.write(handle, text.encode())
        finally:
            os.close(handle)
    except BaseException:
        _OWNED_LOCKS.discard(text)
        lock.unlink(missing_ok=True)
        raise
    return text


def _remove_old_guard(guard: Path) -> None:
    """Remove an old guard; put it back if another process has created a new one meanwhile."""
    aside = guard.with_name(f"{guard.name}.{unique_name()}{_GUARD_SUFFIX}")
    with suppress(FileNotFoundError):
        guard.rename(aside)
        if not _is_old_guard(aside):
            with suppress(OSError):  # a newer guard is there, or the file system has no links
                os.link(aside, guard)
        aside.unlink()


def _is_old_guard(guard: Path) -> bool:
    try:
        return is_abandoned(guard) or _age(guard) > _GUARD_LEASE
    except FileNotFoundError:
        return False


def _age(file: Path) -> float:
    """Return how many seconds ago a file was written, by the clock of the file system."""
    probe = file.with_name(f"{file.name}.{unique_name()}")
    written = file.stat().st_mtime
    try:
        probe.touch()
        return probe.stat().st_mtime - written
    finally:
        probe.unlink(missing_ok=True)
