"""Holding the outcome of a trial of `chaos` against its promise."""

from __future__ import annotations

from collections.abc import Iterable

from chaos.promises import Outcome

__all__ = ["assert_kept"]


def assert_kept(outcomes: Outcome | Iterable[Outcome]) -> None:
    """Fail with everything that broke a promise."""
    for outcome in [outcomes] if isinstance(outcomes, Outcome) else outcomes:
        assert outcome.holds, "\n".join([outcome.promise, *outcome.failures])
