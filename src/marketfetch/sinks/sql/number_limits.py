"""The numbers that a column of an SQL type can hold, and how it rounds other numbers. Pure."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

__all__ = ["NumberLimits"]

_DECIMAL = re.compile(r"(?:numeric|decimal)\((\d+)(?:,\s*(-?\d+))?\)", re.IGNORECASE)
_BITS = {
    "tinyint": 8,
    "smallint": 16,
    "integer": 32,
    "bigint": 64,
    "hugeint": 128,
}
_SINGLE_PRECISION = {"real", "float"}

_MAX_EXACT_STEPS = 2.0**50
"""Below it, the number of decimal steps in a float64 is found without an error."""
_MAX_POWER = 22
"""The largest power of ten that a float64 holds exactly."""


@attrs.frozen
class NumberLimits:
    """The numbers that a column can hold: those below `limit` in magnitude, with `scale` decimal places.

    `scale` is None where the places are not limited. A `single` column keeps 24 bits of a value. The smallest
    value of an integer column, `-limit`, does not count.

    >>> NumberLimits.of("numeric(18,8)").as_stored(np.array([0.1, 1.23e-9, 1e10]))
    array([0.1, 0. , nan])
    """

    limit: float = np.inf
    scale: int | None = None
    single: bool = False

    @classmethod
    def of(cls, sql_type: str) -> NumberLimits:
        """Read the name of a type as PostgreSQL and DuckDB spell it; an unknown type holds every number.

        >>> NumberLimits.of("smallint"), NumberLimits.of("double precision").exact
        (NumberLimits(limit=32768.0, scale=0, single=False), True)
        """
        name = sql_type.lower()
        if found := _DECIMAL.fullmatch(name):
            digits, scale = int(found[1]), int(found[2] or 0)
            return cls(limit=float(f"1e{digits - scale}"), scale=scale)
        unsigned = name.startswith("u") and name[1:] in _BITS
        if unsigned or name in _BITS:
            return cls(limit=2.0 ** (_BITS[name[1:]] if unsigned else _BITS[name] - 1), scale=0)
        return cls(single=True) if name in _SINGLE_PRECISION else cls()

    @property
    def exact(self) -> bool:
        """Whether the column holds every float64."""
        return self == NumberLimits()

    def as_stored(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return each value as the column stores it: NaN where it does not fit."""
        if self.exact:
            return values
        if self.single:
            with np.errstate(over="ignore"):
                single = values.astype(np.float32).astype(np.float64)
            return np.where(np.isinf(single), np.nan, single)
        assert self.scale is not None
        rounded = _round(values, self.scale)
        return np.where(np.abs(rounded) < self.limit, rounded, np.nan)

    def first_changed(self, values: NDArray[np.float64]) -> tuple[float, float] | None:
        """Return the first value that the column would change, and the value that it would store.

        The second is NaN for a value that does not fit at all. A NULL (NaN) is never changed.

        >>> NumberLimits.of("numeric(12,2)").first_changed(np.array([0.5, np.nan, 0.004]))
        (0.004, 0.0)
        """
        if self.exact:
            return None
        stored = self.as_stored(values)
        changed = np.flatnonzero((stored != values) & ~np.isnan(values))
        return (float(values[changed[0]]), float(stored[changed[0]])) if len(changed) else None


def _round(values: NDArray[np.float64], scale: int) -> NDArray[np.float64]:
    """Round to a number of decimal places, each value by its shortest decimal.

    A value with at most so many places is returned unchanged, to the bit: it is the float64 nearest to a
    whole number of steps, and the division of two exact floats returns that float64.
    """
    if not 0 <= scale <= _MAX_POWER:
        return _round_one_by_one(values, scale)
    power = 10.0**scale
    with np.errstate(over="ignore", invalid="ignore"):
        steps = np.rint(values * power)
        rounded: NDArray[np.float64] = steps / power
    large = np.flatnonzero(np.abs(steps) >= _MAX_EXACT_STEPS)
    if len(large):
        rounded[large] = _round_one_by_one(values[large], scale)
    return rounded


def _round_one_by_one(values: NDArray[np.float64], scale: int) -> NDArray[np.float64]:
    return np.array([_round_by_decimal(value, scale) for value in values.tolist()], np.float64)


def _round_by_decimal(value: float, scale: int) -> float:
    number: Any = Decimal(repr(value))
    if not number.is_finite() or number.as_tuple().exponent >= -scale:
        return value
    step = Decimal(1).scaleb(-scale)
    with_places = (number / step).to_integral_value() * step
    return float(with_places)
