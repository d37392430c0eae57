"""Holding the outcome of a trial of `chaos` against its promise."""

from __future__ import annotations

from collections.abc import Iterable

from chaos.harness.trials import Result

__all__ = ["assert_kept"]


def assert_kept(results: Result | Iterable[Result]) -> None:
    """Fail with all failures of the trials."""
    for result in [results] if isinstance(results, Result) else results:
        assert result.holds, "\n".join([result.promise, *result.failures])
