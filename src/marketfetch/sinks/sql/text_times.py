"""Times as text in a table of the user's, such as `2026-06-01 00:00:00` of SQLite."""

from __future__ import annotations

import re

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfetch.errors import RowsRefused
from marketfetch.values.spans import MAX_TIMESTAMP

__all__ = ["TextTime"]

_TIME_PATTERN = re.compile(
    r"\d{4}-\d\d-\d\d(?P<divider>[ T])\d\d:\d\d:\d\d(?P<fraction>\.\d{3}(?:\d{3})?)?(?P<zone>Z|\+00:00)?"
)


@attrs.frozen
class TextTime:
    """A format of UTC times: the divider between date and time, the digits of a second, the zone.

    All rows of a table have one format: times of several formats could not be compared as text.

    >>> TextTime.of("2026-06-01T00:00:00.000Z")
    TextTime(divider='T', digits=3, zone='Z')
    """

    divider: str = " "
    digits: int = 0
    zone: str = ""

    @classmethod
    def of(cls, sample: str) -> TextTime | None:
        """Return the format of a stored time; None for a format that is not supported."""
        found = _TIME_PATTERN.fullmatch(sample)
        if found is None:
            return None
        fraction = found["fraction"] or "."
        return cls(found["divider"], len(fraction) - 1, found["zone"] or "")

    def format_times(self, times: NDArray[np.int64], column: str) -> NDArray[np.str_]:
        """Write UTC milliseconds as text; raises RowsRefused for one that the format cannot express.

        >>> TextTime(digits=3).format_times(np.array([1_780_272_000_009]), "candles.ts").tolist()
        ['2026-06-01 00:00:00.009']
        """
        if not self.digits and np.any(times % 1000):
            raise RowsRefused(
                f"{column} holds times to the second, which is too coarse for this dataset; "
                "store them to the millisecond, such as 2026-06-01 00:00:00.000, or in an INTEGER column"
            )
        moments = times.astype("datetime64[ms]")
        text = np.datetime_as_string(moments, unit="ms" if self.digits else "s")
        text = np.char.replace(text, "T", self.divider)
        return np.char.add(text, "0" * max(0, self.digits - 3) + self.zone)

    def bound(self, ms: int) -> str:
        """Write a moment, rounded up to the next time that the format can express.

        >>> TextTime().bound(1_780_272_000_009)
        '2026-06-01 00:00:01'
        """
        step = 1 if self.digits else 1000
        nearest = min(max(-(-ms // step) * step, 0), MAX_TIMESTAMP - step)
        return str(self.format_times(np.array([nearest]), "")[0])

    def milliseconds(self, column: str) -> str:
        """Write the SQLite expression that reads a column as UTC milliseconds."""
        seconds = f"CAST(strftime('%s', substr({column}, 1, 19)) AS INTEGER) * 1000"
        return f"{seconds} + CAST(substr({column}, 21, 3) AS INTEGER)" if self.digits else seconds
