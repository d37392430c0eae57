"""What a promise is held against: attempts that are counted, and a line that says how many were survived."""

from __future__ import annotations

import random
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import attrs

__all__ = ["Effort", "Result", "Trial"]


@attrs.frozen
class Effort:
    """How hard to try, and the seed of everything that is left to chance.

    `QUICK` is what the tests do, `FULL` what `make chaos` does, `NIGHTLY` what takes hours.
    """

    name: str
    seed: int = 0

    def choose(self, quick: int, full: int, nightly: int | None = None) -> int:
        """Return the number for this scale."""
        numbers = {"quick": quick, "full": full, "nightly": full if nightly is None else nightly}
        return numbers[self.name]

    def chance(self, purpose: str) -> random.Random:
        """Return random numbers of their own for a purpose, the same for the same seed."""
        return random.Random(f"{self.seed} {purpose}")


@attrs.frozen
class Result:
    """One line: a promise, how often it was tried and kept, the bar, and what went wrong."""

    promise: str
    tried: str
    survived: str
    bar: str
    failures: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether the promise was kept every time."""
        return not self.failures


@attrs.define
class Trial:
    """Attempts at one promise.

    >>> trial = Trial("nothing is lost", unit="kills", bar="all")
    >>> with trial.attempt("sqlite, seed 1"):
    ...     assert 1 + 1 == 2
    >>> trial.outcome()
    Outcome(promise='nothing is lost', tried='1 kills', survived='1', bar='all', failures=())
    """

    promise: str
    unit: str
    bar: str = "all"
    tried: int = 0
    failures: list[str] = attrs.field(factory=list)

    @contextmanager
    def attempt(self, name: str) -> Iterator[None]:
        """Count what happens in the block, which is named so that it can be repeated."""
        self.tried += 1
        try:
            yield
        except Exception as error:  # noqa: BLE001  # whatever goes wrong breaks the promise, and is shown
            shown = (
                "".join(traceback.format_exception(error)) if not isinstance(error, AssertionError) else error
            )
            self.failures.append(f"{name}: {shown}")

    def result(self) -> Result:
        """Sum up; a promise that was never tried is not kept."""
        failures = self.failures if self.tried else ["it was not tried"]
        return Result(
            self.promise,
            f"{self.tried:,} {self.unit}",
            f"{self.tried - len(self.failures):,}",
            self.bar,
            tuple(failures),
        )
