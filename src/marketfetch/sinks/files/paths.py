"""Paths of files and folders, from the texts that users write."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from marketfetch.errors import ConfigurationError
from marketfetch.redaction import Secret, redact

__all__ = ["check_folder", "file_identity", "file_path", "path_from_uri", "require"]


def path_from_uri(text: str | Secret) -> str:
    """Return the path in `scheme:path`.

    Raises ConfigurationError if there is none, or if it is written like the address of a server: readers of
    `sqlite:///market.db` do not agree whether the path is absolute.

    >>> path_from_uri("duckdb:data/market.duckdb")
    'data/market.duckdb'
    """
    text = Secret.of(text)  # under the same name: debuggers show the values that a raising frame holds
    scheme = text.reveal().partition(":")[0]
    if not _path(text):
        raise ConfigurationError(f"to: {redact(text.reveal())!r} names no place; write {scheme}:PATH")
    if _path(text).startswith("//"):
        meant = "PATH" if "@" in _path(text) else _path(text).lstrip("/")  # with @ it may hold credentials
        raise ConfigurationError(
            f"to: {redact(text.reveal())!r} is not a path; write {scheme}:{meant}, or one slash for the root"
        )
    return _path(text)


def _path(text: Secret) -> str:
    return text.reveal().partition(":")[2]


def file_path(path: str | os.PathLike[str]) -> Path:
    r"""Make the path of a database file, with `~` expanded.

    Raises ConfigurationError for anything but a path, for characters that no path has, and for `:memory:` and
    an empty text, with which each connection would have a database of its own.

    >>> file_path("a\0b")
    Traceback (most recent call last):
    marketfetch.errors.ConfigurationError: path: 'a\x00b' has a character that no path has; remove it
    """
    if not isinstance(path, str | os.PathLike):
        raise ConfigurationError(f"path: {path!r} is not a path; write text such as 'market.sqlite'")
    if str(path) in {"", ":memory:"}:
        raise ConfigurationError(f"path: {str(path)!r} is not a file; name one, or take MemorySink()")
    try:
        is_possible = b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:  # half of a character
        is_possible = False
    if not is_possible:
        raise ConfigurationError(f"path: {str(path)!r} has a character that no path has; remove it")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigurationError(
            f"path: {str(path)!r} begins with a home folder that this system does not know; set HOME, or "
            "write the whole path"
        ) from error


def file_identity(path: Path) -> tuple[int, int] | None:
    """Return device and inode, which differ for a file that replaces another; None if no file is found."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def check_folder(path: Path, other: str = "file") -> None:
    """Raise ConfigurationError if the parent folder of a file or folder does not exist."""
    if not path.is_absolute():
        try:
            os.getcwd()  # noqa: PTH109  # Path.cwd is the same
        except FileNotFoundError as error:
            raise ConfigurationError(
                f"{path}: the folder that this process works in was removed; change to another, or write the "
                "whole path"
            ) from error
    folder = os.path.dirname(os.path.realpath(path))  # noqa: PTH120  # a link is followed
    if not os.path.isdir(folder):  # noqa: PTH112  # Path.is_dir raises without the right to look
        raise ConfigurationError(f"{path}: there is no folder {folder}; create it, or name another {other}")


def require(package: str, *, extra: str, user: str) -> None:
    """Check that an optional package is installed; raises ConfigurationError that says how to get it."""
    if find_spec(package) is None:
        raise ConfigurationError(f"{user} needs {package}; pip install 'marketfetch[{extra}]'")
