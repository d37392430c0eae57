"""Disks that are small enough to be filled."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.postgres import short_folder

__all__ = ["fill", "small_disk"]


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path | None]:
    """Mount a small disk in memory; yields None if that is not permitted, which needs root."""
    folder = short_folder("mf-disk-")
    options = ["-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    try:
        able = os.geteuid() == 0 and shutil.which("mount") is not None
        mounted = (
            able and not subprocess.run(["mount", *options], capture_output=True, check=False).returncode
        )
        try:
            yield folder if mounted else None
        finally:
            if mounted:
                subprocess.run(["umount", folder], check=True)
    finally:
        folder.rmdir()


def fill(folder: Path, *, spare: int = 0) -> Path:
    """Fill the disk of a folder except for some bytes; return the ballast file."""
    ballast = folder / "ballast"
    room = shutil.disk_usage(folder).free - spare
    with ballast.open("wb", buffering=0) as file:
        try:
            while room > 0:
                room -= file.write(bytes(min(room, 65536)))
        except OSError:
            pass  # not a byte more: that is the purpose
    return ballast
