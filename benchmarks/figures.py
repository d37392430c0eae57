"""What a benchmark found, beside the bar it is held against."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import attrs

__all__ = ["Figure", "at_least", "at_most", "interleaved", "known", "medians"]

_T = TypeVar("_T")


@attrs.frozen
class Figure:
    """One row: what was measured, what was found, and whether the bar holds (None where there is none)."""

    what: str
    found: str
    bar: str = ""
    holds: bool | None = None


def at_least(what: str, found: float, bar: float, unit: str = "") -> Figure:
    """Hold a figure that should be large against its bar."""
    return Figure(what, f"{_number(found)}{unit}", f"≥ {_number(bar)}{unit}", found >= bar)


def at_most(what: str, found: float, bar: float, unit: str = "") -> Figure:
    """Hold a figure that should be small against its bar."""
    return Figure(what, f"{_number(found)}{unit}", f"≤ {_number(bar)}{unit}", found <= bar)


def known(what: str, found: float, unit: str = "") -> Figure:
    """Give a figure that helps to read the others and has no bar of its own."""
    return Figure(what, f"{_number(found)}{unit}")


def interleaved(sides: Mapping[str, Callable[[], _T]], rounds: int) -> dict[str, list[_T]]:
    """Let the sides take turns, so that a slow spell of the machine hits all of them."""
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
