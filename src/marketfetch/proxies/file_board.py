"""A board for the processes of one machine: small files in a folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import attrs
from filelock import FileLock, Timeout
from platformdirs import user_state_path

from marketfetch.common.processes import machine_id
from marketfetch.errors import ConfigurationError, SinkError, SinkUnavailable
from marketfetch.values.times import uptime

__all__ = ["FileBoard"]

_T = TypeVar("_T")
_PATIENCE = 2.0
_OLD = 7 * 86_400


@attrs.frozen
class FileBoard:
    """Keeps each text in a file, changed under a lock that ends with the process that holds it.

    Its clock is the time since the machine was started, so its files are of use until it is started anew.

    >>> FileBoard.from_url("file:/var/lib/marketfetch")
    FileBoard(folder='/var/lib/marketfetch')
    """

    folder: Path = attrs.field(converter=Path, repr=lambda folder: repr(str(folder)))

    @classmethod
    def from_url(cls, url: str) -> FileBoard:
        """Make the board that `file:FOLDER` names."""
        folder = url.partition(":")[2].removeprefix("//")
        if not folder:
            raise ConfigurationError("board: name a folder, such as file:/var/lib/marketfetch")
        return cls(Path(folder))

    @classmethod
    def of_user(cls) -> FileBoard:
        """Return the board that all processes of this user share; nothing is opened."""
        return cls(user_state_path("marketfetch", appauthor=False) / "board")

    def change(self, name: str, step: Callable[[str | None, float], tuple[str, _T]]) -> _T:
        if not self.folder.is_absolute() and str(self.folder).startswith("~"):
            raise SinkError(f"board: this user has no home for {self.folder}; write board='file:FOLDER'")
        file = self.folder / f"{machine_id()}-{sha256(name.encode()).hexdigest()[:16]}.json"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with FileLock(file.with_suffix(".lock"), timeout=_PATIENCE, poll_interval=0.005):
                # What is no text is no board, either: whoever reads it says so.
                text = file.read_text("utf-8", "replace") if file.exists() else None
                if text is None:
                    self._tidy()
                text, result = step(text, uptime() / 1e9)
                aside = file.with_suffix(".aside")
                aside.write_text(text, "utf-8")
                aside.replace(file)
                return result
        except Timeout as error:
            raise SinkUnavailable(f"board: another process keeps {self.folder} locked for long") from error
        except (OSError, NotImplementedError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise SinkError(
                f"board: {self.folder} cannot be used ({reason}); make it writable, or name another folder "
                "(board='file:FOLDER')"
            ) from error

    def _tidy(self) -> None:
        """Remove what is of no use since the machine was started anew."""
        mine, now = machine_id(), time.time()
        for file in self.folder.glob("*.json"):
            if not file.name.startswith(mine) and file.stat().st_mtime < now - _OLD:
                for each in (file, file.with_suffix(".lock"), file.with_suffix(".aside")):
                    each.unlink(missing_ok=True)
