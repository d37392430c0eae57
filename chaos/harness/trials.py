"""Count the attempts at a promise, and sum them up in one line."""

from __future__ import annotations

import random
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import attrs

__all__ = ["Effort", "Result", "Trial"]


@attrs.frozen
class Effort:
    """How many attempts to make, and the seed of all random numbers.

    `name` is `quick` in the tests, `full` in `make chaos` and `nightly` in a run that takes hours.
    """

    name: str
    seed: int = 0

    def choose(self, quick: int, full: int, nightly: int | None = None) -> int:
        """Return the number for this effort."""
        numbers = {"quick": quick, "full": full, "nightly": full if nightly is None else nightly}
        return numbers[self.name]

    def rng(self, purpose: str) -> random.Random:
        """Return a random generator for one purpose; the same seed gives the same numbers."""
        return random.Random(f"{self.seed} {purpose}")


@attrs.frozen
class Result:
    """One line of output: a promise, how often it was tried and kept, the bar, and the failures."""

    promise: str
    tried: str
    survived: str
    bar: str
    failures: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether no attempt failed."""
        return not self.failures


@attrs.define
class Trial:
    """Counts the attempts at one promise and keeps the failures.

    >>> trial = Trial("nothing is lost", unit="kills", bar="all")
    >>> with trial.attempt("sqlite, seed 1"):
    ...     assert 1 + 1 == 2
    >>> trial.result()
    Result(promise='nothing is lost', tried='1 kills', survived='1', bar='all', failures=())
    """

    promise: str
    unit: str
    bar: str = "all"
    tried: int = 0
    failures: list[str] = attrs.field(factory=list)

    @contextmanager
    def attempt(self, name: str) -> Iterator[None]:
        """Count the block as one attempt; `name` says how to repeat it, such as "sqlite, seed 1"."""
        self.tried += 1
        try:
            yield
        except Exception as error:  # noqa: BLE001  # any error breaks the promise, and is reported
            shown = (
                "".join(traceback.format_exception(error)) if not isinstance(error, AssertionError) else error
            )
            self.failures.append(f"{name}: {shown}")

    def result(self) -> Result:
        """Sum up the attempts; a promise without any attempt counts as broken."""
        failures = self.failures if self.tried else ["it was not tried"]
        return Result(
            self.promise,
            f"{self.tried:,} {self.unit}",
            f"{self.tried - len(self.failures):,}",
            self.bar,
            tuple(failures),
        )
