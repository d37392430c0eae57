"""Random numbers and prices that are functions of time alone: the same on any machine, in any order."""

from __future__ import annotations

from hashlib import blake2b

import attrs
import numpy as np
from numpy.typing import NDArray

__all__ = ["PriceFunction", "hash_key", "random_ints"]

_MINUTE = 60_000
_SPLITMIX = tuple(np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
# Waves of 45 days, 3 days, 4 hours and half an hour: 2**bits minutes long, the shorter the weaker.
_WAVE_BITS = (16, 12, 8, 5)
_WAVE_DAMPING = (2, 4, 6, 8)


def hash_key(*parts: object) -> int:
    """Return a 64-bit key that stands for a seed and some names."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little")


def random_ints(key: int, numbers: NDArray[np.int64], *widths: int) -> NDArray[np.int64]:
    """Draw random integers for each number: for every width of w bits one from 0 to 2**w - 1 (splitmix64).

    The same key and number always give the same; the widths may add up to 64. Shape (widths, numbers).
    """
    step, first, second = _SPLITMIX
    bits = numbers.view(np.uint64) * step + np.uint64(key)
    bits = (bits ^ (bits >> np.uint64(30))) * first
    bits = (bits ^ (bits >> np.uint64(27))) * second
    bits = bits ^ (bits >> np.uint64(31))
    ends = np.cumsum(widths, dtype=np.uint64)
    shifts = np.append(np.uint64(0), ends[:-1])[:, np.newaxis]
    masks = np.array([2**width - 1 for width in widths], np.uint64)[:, np.newaxis]
    return ((bits >> shifts) & masks).view(np.int64)


@attrs.frozen(eq=False)
class PriceFunction:
    """A price, or something like one, as a function of time, in units of 10**-places.

    It stays within a third of `swing` around `centre`.
    """

    key: int
    centre: int
    swing: int
    places: int

    def at(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the values at given times (UTC ms), which change from minute to minute."""
        # Triangle waves of integers rather than sines: a sine may differ in its last bit between processors.
        minutes = times // _MINUTE
        bits = np.array(_WAVE_BITS)[:, np.newaxis]
        periods = 1 << bits
        phases = np.array([self.key >> shift & 0xFFFF for shift in (0, 16, 32, 48)])[:, np.newaxis]
        away = np.abs(((minutes + phases) & (periods - 1)) * 2 - periods) - periods // 2
        waves = (away * self.swing) >> (bits + np.array(_WAVE_DAMPING)[:, np.newaxis] - 1)
        result: NDArray[np.int64] = waves.sum(axis=0) + random_ints(self.key, minutes, 4)[0] + self.centre
        return result
