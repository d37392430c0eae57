"""Fuzz targets of public archives: CSV text, whole files, listings and checksums."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from functools import partial
from unittest.mock import patch

import numpy as np

from chaos.fuzz.sound import sound_moment
from marketfetch.archives.checksums import parse_checksum
from marketfetch.archives.containers import open_member
from marketfetch.archives.file_reader import FileContent, FileReader
from marketfetch.archives.listing import ListingRequest, parse_listing
from marketfetch.archives.periods import CalendarPeriod
from marketfetch.decoding import native
from marketfetch.decoding.csv_layouts import CsvLayout
from marketfetch.decoding.validation import plausible
from marketfetch.errors import DecodeError, PaginationError
from marketfetch.values.series import Series

__all__ = ["read_file", "readers"]

_PRICES = {"open": 1, "high": 2, "low": 3, "close": 4}
_FLOW = {"volume": 5, "quote_volume": 7, "trades": 8, "taker_buy_volume": 9, "taker_buy_quote_volume": 10}
_LAYOUTS = {
    "flow": CsvLayout(_PRICES | _FLOW, width=12),
    "symbol": CsvLayout(_PRICES, width=8, time=6, symbol=0, confirm=7),
    "dates": CsvLayout(_PRICES, width=12, time_format="%Y-%m-%d %H:%M:%S"),
}
_SERIES = Series.of("okx", "ohlcv", "BTC-USDT", "1m")
_MONTH = CalendarPeriod.parse("2026-06")


def readers() -> Mapping[str, tuple[str, Callable[[bytes], str]]]:
    """Return the targets, each with the name of its corpus."""
    lines = {f"CSV: {name}": ("csv-lines", partial(_lines, layout)) for name, layout in _LAYOUTS.items()}
    return lines | {
        "file of an archive": (
            "archive-file",
            partial(read_file, FileContent(_SERIES, _MONTH, _LAYOUTS["flow"])),
        ),
        "listing of a bucket": ("bucket-listing", _listing),
        "checksum file": ("checksum", _checksum),
    }


def _lines(layout: CsvLayout, text: bytes) -> str:
    """Decode a text whole, in two pieces, and without the compiled decoder: the rows are the same."""
    compiled = _outcome(layout, text)
    assert _outcome(layout, text[: len(text) // 2], text[len(text) // 2 :]) == compiled
    with patch.object(native, "COMPILED", None):
        assert _outcome(layout, text) == compiled, "compiled differs from careful"
    return "read" if compiled else "refused"


def _outcome(layout: CsvLayout, *pieces: bytes) -> list[object] | None:
    """Return everything that was decoded, to the bit, however it was cut into blocks; None for a refusal."""
    try:
        found = list(layout.decode(pieces, _SERIES, _MONTH.span))
    except DecodeError:
        return None
    if not found:
        return []
    return [
        b"".join(each.columns.times.tobytes() for each in found),
        np.concatenate([each.columns.values for each in found], axis=1).tobytes(),
        sum(each.undecodable for each in found),
        [row for each in found for row in each.broken],
        [closed for each in found if each.closed is not None for closed in each.closed.tolist()],
    ]


def read_file(content: FileContent, raw: bytes) -> str:
    """Read a whole file, whose interval has equal steps."""
    reader = FileReader(io.BytesIO(raw), content)
    series, span = content.series, content.period.span
    try:
        pieces = list(reader)
    except DecodeError:
        return "refused"
    times = np.concatenate([np.empty(0, np.int64), *(piece.times for piece in pieces)])
    assert (np.diff(times) > 0).all(), "unsorted or repeated"
    step = series.interval.typical
    assert all(int(time) in span and time % step == 0 for time in times)
    assert all(plausible(series.dataset, piece.values).all() for piece in pieces)
    lines = content.layout.decode(open_member(io.BytesIO(raw)).pieces, series, span)
    assert len(times) == sum(each.received for each in lines) - sum(reader.summary.rejected.values())
    return "read"


def _listing(body: bytes) -> str:
    try:
        page = parse_listing(body)
    except DecodeError:
        return "refused"
    for file in page.files:
        assert file.name
        assert file.size >= 0
        sound_moment(max(0, file.modified))
    for request in (ListingRequest("data/", version=1), ListingRequest("data/", token="t")):
        try:
            following = request.following(page)
        except (DecodeError, PaginationError):
            continue
        assert (following is None) == (not page.is_truncated)
        assert following is None or following.after > request.after
    return "read"


def _checksum(body: bytes) -> str:
    try:
        found = parse_checksum(body, "a.zip")
    except DecodeError:
        return "refused"
    assert len(found.digest) == {"md5": 32, "sha256": 64}[found.algorithm]
    assert set(found.digest) <= set("0123456789abcdef")
    return "read"
