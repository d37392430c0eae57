"""Prefer the files of an archive to the API, however little is missing: on loopback the API is always sooner.

Run as a script it is the command line of marketfetch with that preference. Nothing else is changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from marketfetch.cli.main import main
from marketfetch.engine.archives import waves

__all__ = ["files_first"]


@contextmanager
def files_first() -> Iterator[None]:
    """Let runs inside the block take files wherever the archive has some."""
    with (
        patch.object(waves, "files_end_sooner", return_value=True),
        patch.object(waves, "_MIN_PAGES", 0),
    ):
        yield


if __name__ == "__main__":
    with files_first():
        raise SystemExit(main())
