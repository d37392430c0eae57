"""When an archive publishes its files."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from marketfetch.testing.archives.paths import ArchivePath
from marketfetch.values.spans import DAY, HOUR, Span

__all__ = ["Publication"]


def _spans(spans: Iterable[Span]) -> tuple[Span, ...]:
    return tuple(spans)


@attrs.frozen(kw_only=True)
class Publication:
    """When files appear: `daily` and `monthly` milliseconds after the end of their day or month, OKX's `okx`.

    During an outage nothing is published; its files come at its end. An outage until the year 2100 is an
    archive that stands still.

    >>> path = ArchivePath.parse("data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2024-01-01.zip")
    >>> Publication(daily=2 * HOUR).time(path) - path.span.end
    7200000
    """

    daily: int = attrs.field(default=8 * HOUR, validator=attrs.validators.ge(0))
    monthly: int = attrs.field(default=DAY + 8 * HOUR, validator=attrs.validators.ge(0))
    okx: int = attrs.field(default=2 * DAY, validator=attrs.validators.ge(0))
    outages: tuple[Span, ...] = attrs.field(default=(), converter=_spans)

    def time(self, path: ArchivePath) -> int:
        """Return when a file is first published (UTC ms)."""
        # The last candle of a file of weeks closes in the next month.
        closed = path.interval.ceil(path.span.end)
        delay = self.daily if path.grain == "daily" else self.monthly
        due = closed + (self.okx if path.section == "okx" else delay)
        # In the order of their starts: one outage may end inside the next.
        for outage in sorted(self.outages):
            if outage.start <= due < outage.end:
                due = outage.end
        return due
