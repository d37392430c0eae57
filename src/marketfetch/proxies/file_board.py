"""A board for the processes of one machine: small files in a folder, each changed under a file lock."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import attrs

from marketfetch.common.local_resources import PASSING_ERRNOS, resource_remedy
from marketfetch.common.platforms import retry_while_open_elsewhere
from marketfetch.common.processes import machine_id
from marketfetch.common.text import file_error_reason
from marketfetch.errors import ConfigurationError, SinkError, SinkUnavailable
from marketfetch.values.times import uptime

__all__ = ["FileBoard"]

_T = TypeVar("_T")
_LOCK_TIMEOUT = 2.0
_UNUSED = 7 * 86_400
"""Seconds after which the files of a machine that has changed none of them are deleted."""


def _resolved(folder: str | os.PathLike[str]) -> Path:
    """Return the one path of a folder, however it was written; an unknown home stays as it is written."""
    expanded = os.path.expanduser(folder)  # noqa: PTH111  # Path.expanduser raises for an unknown home
    try:
        return Path(expanded if expanded.startswith("~") else os.path.realpath(expanded))
    except (OSError, ValueError) as error:  # the working directory was removed; a NUL character
        raise ConfigurationError(
            f"board: {str(folder)!r} is not a folder here ({error}); write an absolute path"
        ) from error


@attrs.frozen
class FileBoard:
    """Keeps each text in a file. The lock of a file ends with the process that holds the lock.

    `folder` is resolved when the board is made: `~`, relative paths and symbolic links of one folder give
    equal boards. The clock is the time since the machine was started, so files of an earlier start are
    not read; the first change of a new text deletes files that are a week old.

    >>> FileBoard.from_url("file:/srv/marketfetch")
    FileBoard(folder='/srv/marketfetch')
    >>> FileBoard("/srv/../srv/marketfetch") == FileBoard("/srv/marketfetch")
    True
    """

    folder: Path = attrs.field(converter=_resolved, repr=lambda folder: repr(str(folder)))

    @classmethod
    def from_url(cls, url: str) -> FileBoard:
        """Make the board that `file:FOLDER` names."""
        folder = url.partition(":")[2].removeprefix("//")
        if os.path.splitdrive(folder[1:])[0]:  # file:///C:/folder
            folder = folder[1:]
        if not folder:
            raise ConfigurationError("board: name a folder, such as file:/var/lib/marketfetch")
        return cls(folder)

    @classmethod
    def of_user(cls) -> FileBoard:
        """Return the board that all processes of this user share; nothing is opened."""
        from platformdirs import user_state_path  # not at the top: most commands make no board

        try:
            return cls(user_state_path("marketfetch", appauthor=False) / "board")
        except RuntimeError:  # this user has no home, of which `change` tells
            return cls("~/board")

    def __attrs_post_init__(self) -> None:
        # Not at the top: the import takes 9 ms, and most commands make no board. Not in `change`: a process
        # that has used up its file descriptors cannot import.
        import filelock  # noqa: F401

    def change(self, name: str, step: Callable[[str | None, float], tuple[str, _T]]) -> _T:
        from filelock import FileLock, Timeout, UnixFileLock, WindowsFileLock

        if not issubclass(FileLock, UnixFileLock | WindowsFileLock):  # others may outlive their process
            raise SinkError("board: this Python has no file locks: write board=None, or another board")
        if not self.folder.is_absolute():
            raise SinkError(
                f"board: this user has no home for {self.folder}; name a folder (board='file:FOLDER', "
                "--board file:FOLDER)"
            )
        file = self.folder / f"{machine_id()}-{sha256(name.encode()).hexdigest()[:16]}.json"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with FileLock(file.with_suffix(".lock"), timeout=_LOCK_TIMEOUT, poll_interval=0.005):
                # Bytes that are not UTF-8 are replaced: `step` refuses the text if it is damaged.
                text = file.read_text("utf-8", "replace") if file.exists() else None
                if text is None:
                    self._delete_unused()
                text, result = step(text, uptime() / 1e9)
                temporary = file.with_suffix(".tmp")
                temporary.write_text(text, "utf-8")
                retry_while_open_elsewhere(partial(temporary.replace, file))
                return result
        except Timeout as error:
            raise SinkUnavailable(f"board: another process keeps {self.folder} locked for long") from error
        except (OSError, NotImplementedError) as error:
            raise self._translated(error) from error

    def _translated(self, error: OSError | NotImplementedError) -> SinkError:
        """Return SinkUnavailable for an error that passes, such as EMFILE, else SinkError."""
        reason = file_error_reason(error)
        number = getattr(error, "errno", None)
        if remedy := resource_remedy(number):
            return SinkUnavailable(f"board: {self.folder}: {reason}; {remedy}")
        if number in PASSING_ERRNOS:
            return SinkUnavailable(f"board: {self.folder}: {reason}; run again when the disk is back")
        return SinkError(
            f"board: {self.folder} cannot be used ({reason}); make it writable, or name another folder "
            "(board='file:FOLDER', --board file:FOLDER)"
        )

    def _delete_unused(self) -> None:
        """Delete the files of each machine, or earlier start of this one, that was not seen for a week.

        One file that is younger keeps all files of a machine. Example: the key file is written once, and
        each turn rewrites another file, so the key file stays as long as the machine takes turns.
        """
        oldest = time.time() - _UNUSED
        files = sorted(self.folder.glob("*.json"))
        for owner, group in groupby(files, key=lambda file: file.name.partition("-")[0]):
            # The board works without this: another machine may delete the same file just now, and a file of
            # another user cannot be deleted here.
            with suppress(OSError):
                if owner != machine_id():
                    _delete_if_older(list(group), oldest)


def _delete_if_older(files: Sequence[Path], oldest: float) -> None:
    if max(file.stat().st_mtime for file in files) < oldest:
        for file in files:
            for path in (file, file.with_suffix(".lock"), file.with_suffix(".tmp")):
                path.unlink(missing_ok=True)
