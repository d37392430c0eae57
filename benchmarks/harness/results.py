"""The result of a measurement, and the bar that it must reach."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import attrs

__all__ = ["Result", "at_least", "at_most", "interleaved", "medians", "without_bar"]

_T = TypeVar("_T")


@attrs.frozen
class Result:
    """One row of output: what was measured, its value, the bar, and whether it holds (None without a bar)."""

    what: str
    found: str
    bar: str = ""
    holds: bool | None = None


def at_least(what: str, found: float, bar: float, unit: str = "") -> Result:
    """Return a result that holds if the value is at least the bar."""
    return Result(what, f"{_number(found)}{unit}", f"≥ {_number(bar)}{unit}", found >= bar)


def at_most(what: str, found: float, bar: float, unit: str = "") -> Result:
    """Return a result that holds if the value is at most the bar."""
    return Result(what, f"{_number(found)}{unit}", f"≤ {_number(bar)}{unit}", found <= bar)


def without_bar(what: str, found: float, unit: str = "") -> Result:
    """Return a result without a bar, which helps to read the others."""
    return Result(what, f"{_number(found)}{unit}")


def interleaved(sides: Mapping[str, Callable[[], _T]], rounds: int) -> dict[str, list[_T]]:
    """Run the sides in turns, so that a slow phase of the machine affects all of them."""
    found: dict[str, list[_T]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            found[name].append(side())
    return found


def medians(found: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the median of each side."""
    return {name: statistics.median(each) for name, each in found.items()}


def _number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
