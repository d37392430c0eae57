"""The type of the fixtures that run a command of the command line."""

from __future__ import annotations

from collections.abc import Callable
from subprocess import CompletedProcess

__all__ = ["Command"]

Command = Callable[..., CompletedProcess[str]]
"""Takes the words of the command line; returns the exit code and both outputs."""
