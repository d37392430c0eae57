"""The health of a series that is followed: a value for services, and as JSON."""

from __future__ import annotations

from typing import Any

import attrs

from marketfetch.values.series import Series
from marketfetch.values.spans import format_utc

__all__ = ["SeriesHealth"]


@attrs.frozen
class SeriesHealth:
    """How far a series has been followed; times are UTC milliseconds.

    - `covered_until`: the end of what is covered: of the newest final row, or of the newest moment that is
      confirmed empty; None if nothing is covered.
    - `lag`: seconds from `covered_until`, or from the end of a newer provisional row, to now on the
      exchange's clock; None if there is neither. A healthy series of 1m candles has between 0 and 62.
    - `provisional`: the rows that are stored and may still change.
    - `revisions`: the rows that had changed when they were requested for the last time.
    - `last_error`: why rows are missing now, or why nothing is fetched; None if all is well. That rows are
      older than the exchange serves is no error.

    >>> SeriesHealth(Series.of("okx", "ohlcv", "BTC-USDT", "1m"), 1_780_272_000_000, 3.5).as_dict()["lag"]
    3.5
    """

    series: Series
    covered_until: int | None = None
    lag: float | None = None
    provisional: int = 0
    revisions: int = 0
    last_error: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the health in plain types, times as ISO text, for JSON."""
        return {
            **self.series.as_dict(),
            "covered_until": None if self.covered_until is None else format_utc(self.covered_until),
            "lag": self.lag,
            "provisional": self.provisional,
            "revisions": self.revisions,
            "last_error": self.last_error,
        }
