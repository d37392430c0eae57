"""Packages that an extra of marketfetch installs, imported where they are used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from marketfetch.errors import ConfigurationError

__all__ = ["from_extra"]


@contextmanager
def from_extra(extra: str, user: str) -> Iterator[None]:
    """Raise ConfigurationError, which names the extra to install, for a package that is not there.

    >>> with from_extra("plot", "plot"):
    ...     import no_such_package
    Traceback (most recent call last):
    marketfetch.errors.ConfigurationError: plot: needs no_such_package; pip install 'marketfetch[plot]'
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"{user}: needs {error.name}; pip install 'marketfetch[{extra}]'") from error
