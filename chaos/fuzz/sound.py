"""Check the result of a decoder for an input that it accepted, without the library's own checks."""

from __future__ import annotations

import math

import numpy as np

from marketfetch.decoding.layouts import DecodedRows
from marketfetch.values.instruments import Instrument
from marketfetch.values.pages import Page
from marketfetch.values.slices import Slice

__all__ = ["sound_instrument", "sound_moment", "sound_page"]

_SIGNED = {"premium_index", "funding_rate"}
_RAW = 1000
_YEAR_10000 = 253_402_300_800_000
"""UTC milliseconds; `datetime` cannot represent this year."""


def sound_page(page: Page, decoded: DecodedRows, part: Slice) -> None:
    """Assert that a page has only rows that may be stored, and counts every other one."""
    columns, kind, interval = page.columns, part.series.dataset, part.series.interval
    assert columns.times.dtype == np.int64
    assert columns.values.dtype == np.float64
    assert columns.values.shape == (len(kind.columns), len(columns.times))
    before = part.span.start - 1
    for time, row in zip(columns.times.tolist(), columns.values.T.tolist(), strict=True):
        assert before < time < part.span.end, f"{time} is unsorted, repeated or outside of {part.span}"
        assert interval.floor(time) == time, f"{time} is off the grid of {interval}"
        for column, value in zip(kind.columns, row, strict=True):
            assert not math.isinf(value), f"{column.name} is infinite"
            assert column.optional or not math.isnan(value), f"{column.name} is NULL"
            assert not value < 0 or kind.name in _SIGNED, f"{column.name} is negative"
        if kind.names[:4] == ("open", "high", "low", "close"):
            opened, high, low, close = row[:4]
            assert low <= min(opened, close) <= max(opened, close) <= high, f"no candle: {row[:4]}"
        before = time
    rows, rejected = len(decoded.columns) + decoded.undecodable, sum(page.rejected.values())
    assert len(columns) + rejected == rows, f"{len(columns)} kept, {rejected} rejected, {rows} decoded"
    assert all(count > 0 for count in page.rejected.values())
    assert page.received >= rows
    assert page.has_rows_outside == ("outside the window" in page.rejected)
    assert not page.without_sound_row & interval.cover(columns.times), "a moment is both present and unusable"
    for wrong in page.invalid:
        assert interval.floor(wrong.time) in page.without_sound_row, (
            f"{wrong} stands beside a sound row, or outside"
        )
        assert wrong.reason in page.rejected, f"{wrong} is not counted"
        assert len(wrong.raw) <= _RAW, f"{len(wrong.raw)} characters of a row are kept"
        assert wrong.raw.isascii(), f"{wrong.raw!r} is not plain text"
        assert wrong.raw.isprintable(), f"{wrong.raw!r} is more than a line of text"


def sound_moment(moment: int) -> None:
    """Assert that a server time is an integer that `datetime` can represent."""
    assert type(moment) is int
    assert 0 <= moment < _YEAR_10000, f"{moment} is not a time of this era"


def sound_instrument(instrument: Instrument) -> None:
    """Assert that a listing entry has a symbol and that its times are integers."""
    assert type(instrument.symbol) is str
    assert instrument.symbol
    assert all(type(text) is str for text in (instrument.base, instrument.quote, instrument.unified))
    assert type(instrument.active) is bool
    for moment in (instrument.listed_at, instrument.delisted_at):
        assert moment is None or type(moment) is int
