"""Random numbers and prices as functions of time: the same on any machine and in any order."""

from __future__ import annotations

from hashlib import blake2b

import attrs
import numpy as np
from numpy.typing import NDArray

__all__ = ["PriceFunction", "hash_key", "random_ints"]

_MINUTE = 60_000
_SPLITMIX = tuple(np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
# Waves of 45 days, 3 days, 4 hours and half an hour: 2**bits minutes long; shorter waves are weaker.
_WAVE_BITS = (16, 12, 8, 5)
_WAVE_DAMPING = (2, 4, 6, 8)


def hash_key(*parts: object) -> int:
    """Return a 64-bit hash of a seed and some names."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little")


def random_ints(key: int, numbers: NDArray[np.int64], *widths: int) -> NDArray[np.int64]:
    """Return random integers for each number (splitmix64): for each width w one from 0 to 2**w - 1.

    The same key and number give the same result. The sum of the widths is at most 64. The shape is
    (widths, numbers).
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
    """A price as a function of time, in units of 10**-places, within a third of `swing` around `centre`."""

    key: int
    centre: int
    swing: int
    places: int

    def at(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the values at the given times (UTC ms), which change every minute."""
        # Triangle waves of integers: the last bit of a sine may differ between processors.
        minutes = times // _MINUTE
        bits = np.array(_WAVE_BITS)[:, np.newaxis]
        periods = 1 << bits
        phases = np.array([self.key >> shift & 0xFFFF for shift in (0, 16, 32, 48)])[:, np.newaxis]
        away = np.abs(((minutes + phases) & (periods - 1)) * 2 - periods) - periods // 2
        waves = (away * self.swing) >> (bits + np.array(_WAVE_DAMPING)[:, np.newaxis] - 1)
        result: NDArray[np.int64] = waves.sum(axis=0) + random_ints(self.key, minutes, 4)[0] + self.centre
        return result
