"""Decoding of CSV text: from the pieces of a file to columns, in blocks of about 5,000 rows.

Lines of plain numbers are read by the compiled decoder (`native.py`). A line with anything else, such as a
quoted field, is read carefully, alone; then the compiled decoder goes on.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime

import attrs
import numpy as np

from marketfetch.decoding.layouts import DecodedRows, excerpt, parse_number
from marketfetch.decoding.native import LineFormat, LineReader
from marketfetch.errors import AdapterError, DecodeError
from marketfetch.values.pages import Columns
from marketfetch.values.rejected_rows import RejectedRow, raw_text
from marketfetch.values.series import Series
from marketfetch.values.spans import DAY, Span, format_utc

__all__ = ["CsvLayout"]

_BLOCK = 512 << 10
"""Bytes of text that are decoded at once: about 5,000 rows. They are still in the cache of the processor."""
_UNITS = {10: (1000, 1), 13: (1, 1), 16: (1, 1000), 19: (1, 1_000_000)}
"""The number of digits of a time since 2001 → factor and divisor to milliseconds."""
_LATEST = 2**63 - 1
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@attrs.frozen
class _TimeFormat:
    """How the times of a file are written: in a notation of `strptime`, or as a number of some unit."""

    notation: str | None
    factor: int = 1
    divisor: int = 1

    def milliseconds(self, text: str) -> int:
        """Read a time; ValueError if the text is not a time."""
        if self.notation is not None:
            moment = datetime.strptime(text, self.notation).replace(tzinfo=UTC)
            return round(moment.timestamp() * 1000)
        whole, point, fraction = text.partition(".")
        if not (text.isascii() and whole.isdigit() and (fraction.isdigit() or not point)):
            raise ValueError(text)
        # Seconds have thousandths of interest; what is below a millisecond is cut off.
        thousandths = int(f"{fraction}000"[:3]) if self.factor == 1000 else 0
        return int(whole) * self.factor // self.divisor + thousandths


@attrs.frozen
class CsvLayout:
    r"""Where the columns are in files of CSV.

    `columns` maps column names to positions; columns that are not mapped are NULL. `width` is the number of
    fields of a line, `time` the position of the open time. A time is a number of seconds, milliseconds,
    microseconds or nanoseconds, which the number of digits of the first time of a file tells; or, with
    `time_format`, a text in UTC in the notation of `strptime`. `symbol` is the position of a field that must
    be the symbol of the series, `confirm` that of a flag that is 1 once the row is final. A first line
    without a time is a header, and is passed over. Where the rows of files have another meaning than those of
    the dataset, a subclass translates them in `decode`.

    >>> layout = CsvLayout({"open": 1, "high": 2, "low": 3, "close": 4}, width=5)
    >>> series = Series.of("binance-spot", "mark_price", "BTCUSDT", "1m")
    >>> text = [b"open_time,open,high,low,close\n1704067200", b"000,1.5,2,1,1.7\n"]
    >>> (rows,) = layout.decode(text, series, Span(1_704_067_200_000, 1_704_153_600_000))
    >>> rows.columns.times, rows.columns.values[:, 0]
    (array([1704067200000]), array([1.5, 2. , 1. , 1.7]))
    """

    columns: Mapping[str, int]
    width: int
    time: int = 0
    time_format: str | None = None
    symbol: int | None = None
    confirm: int | None = None

    def __attrs_post_init__(self) -> None:
        positions = [self.time, *self.columns.values(), self.symbol or 0, self.confirm or 0]
        for at in positions:
            if not 0 <= at < self.width:
                raise AdapterError(f"columns: a line of {self.width} fields has none at {at}; count from 0")

    def decode(self, pieces: Iterable[bytes], series: Series, span: Span) -> Iterator[DecodedRows]:
        """Yield the rows of a text in its order; a value that is not a number costs its own row only.

        `pieces` is the text, cut anywhere; `span` the time that the file should be about. Raises DecodeError
        if the first row does not have `width` fields, has another symbol, or a time more than a day outside
        the span. Without any row nothing is yielded.
        """
        form: _FileFormat | None = None
        for text in _blocks(pieces):
            at = 0
            if form is None:
                form, at = self._format_of(text, series, span)
            if form is not None:
                yield form.decode(text, at)

    def _format_of(self, text: bytes, series: Series, span: Span) -> tuple[_FileFormat | None, int]:
        """Learn from the first row how the file is written, and where that row begins."""
        at = len(_BYTE_ORDER_MARK) if text.startswith(_BYTE_ORDER_MARK) else 0
        has_header = False
        while at < len(text):
            line, following = _line_at(text, at)
            fields = _fields(line)
            if line and len(fields) != self.width:
                raise DecodeError(f"expected lines of {self.width} fields, found {excerpt(line)}")
            if line and self._is_time(fields[self.time]):
                return self._make_format(fields, series, span), at
            if line and has_header:
                raise DecodeError(f"expected a time as field {self.time}, found {excerpt(line)}")
            has_header, at = has_header or bool(line), following
        return None, 0

    def _is_time(self, text: str) -> bool:
        try:
            _TimeFormat(self.time_format).milliseconds(text)
        except ValueError:
            return False
        return True

    def _make_format(self, fields: list[str], series: Series, span: Span) -> _FileFormat:
        """Make the format of a file from the fields of its first row; DecodeError if they are not of it."""
        text = fields[self.time]
        digits, times = 0, _TimeFormat(self.time_format)
        if self.time_format is None:
            digits = len(text.partition(".")[0])
            if digits not in _UNITS:
                raise DecodeError(f"expected a time of {[*_UNITS]} digits, found {text[:40]!r}")
            times = _TimeFormat(None, *_UNITS[digits])
        first = times.milliseconds(text)
        if not span.start - DAY <= first < span.end + DAY:
            raise DecodeError(f"expected rows of {span}, found {format_utc(first)} in the first one")
        if self.symbol is not None and fields[self.symbol] != series.symbol:
            raise DecodeError(f"expected rows of {series.symbol}, found {fields[self.symbol][:40]!r}")
        return _FileFormat(self, series, times, 0 if "." in text else digits)


def _line_format(file: _FileFormat) -> LineFormat:
    layout, dataset = file.layout, file.series.dataset
    fields = {dataset.index(name): at for name, at in layout.columns.items() if name in dataset.names}
    if layout.confirm is not None:
        fields[len(dataset.columns)] = layout.confirm
    return LineFormat(layout.width, layout.time, file.digits, fields, layout.symbol, file.series.symbol)


@attrs.frozen(eq=False)
class _FileFormat:
    """How the lines of one file are written: the layout, and the format that the first row shows."""

    layout: CsvLayout
    series: Series
    times: _TimeFormat
    digits: int
    """How many digits a time has; 0 if the compiled decoder cannot read the times."""
    lines: LineFormat = attrs.field(default=attrs.Factory(_line_format, takes_self=True), init=False)

    def decode(self, text: bytes, at: int) -> DecodedRows:
        """Decode whole lines from a position on."""
        columns = len(self.series.dataset.columns)
        lines = LineReader.of(text, self.lines, columns=columns + 1, at=at)
        lines.values[sorted({*range(columns)} - {*self.lines.fields})] = np.nan
        broken: list[RejectedRow | None] = []
        while not lines.is_done:
            known = lines.rows
            lines.read_numbers()
            if (self.times.factor, self.times.divisor) != (1, 1):
                found = lines.times[known : lines.rows]
                found *= self.times.factor
                found //= self.times.divisor
            if not lines.is_done:
                self._read_carefully(lines, broken)
        return self._decoded(lines, broken)

    def _read_carefully(self, lines: LineReader, broken: list[RejectedRow | None]) -> None:
        """Read one line of any kind; None in `broken` stands for a row whose time is not known."""
        line, lines.at = _line_at(lines.text, lines.at)
        if not line:
            return
        fields = _fields(line)
        try:
            time = self.times.milliseconds(fields[self.layout.time])
        except (IndexError, ValueError):
            time = _LATEST + 1
        if len(fields) != self.layout.width or time > _LATEST:
            broken.append(None)
            return
        if self.layout.symbol is not None and fields[self.layout.symbol] != self.series.symbol:
            broken.append(RejectedRow(time, "another symbol", raw_text(fields)))
            return
        try:
            lines.add(time, [parse_number(fields[at]) for at in self.lines.fields.values()])
        except ValueError:
            broken.append(RejectedRow(time, "undecodable", raw_text(fields)))

    def _decoded(self, lines: LineReader, broken: list[RejectedRow | None]) -> DecodedRows:
        values, confirm = lines.values[:-1, : lines.rows], lines.values[-1, : lines.rows]
        return DecodedRows(
            Columns(lines.times[: lines.rows], values),
            None if self.layout.confirm is None else confirm == 1,
            undecodable=len(broken),
            broken=tuple(row for row in broken if row is not None),
        )


def _line_at(text: bytes, at: int) -> tuple[bytes, int]:
    """Return the line that begins at a position, without its end, and the position of the next one."""
    stop = text.index(b"\n", at)
    return text[at:stop].removesuffix(b"\r"), stop + 1


def _fields(line: bytes) -> list[str]:
    """Split a line; no field at all if it is no CSV, such as a quote that does not end."""
    try:
        return next(csv.reader([line.decode("utf-8", "replace")], strict=True), [])
    except csv.Error:
        return []


def _blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Join the pieces of a text to blocks of whole lines; each ends with a line feed."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        size += len(piece)
        cut = piece.rfind(b"\n") + 1 if size >= _BLOCK else 0
        if cut:
            yield b"".join([*held, piece[:cut]])
            held, size = [piece[cut:]], len(piece) - cut
        elif size >= 2 * _BLOCK:
            raise DecodeError(f"expected lines, found {size:,} bytes without a line feed")
        else:
            held.append(piece)
    if size:
        rest = b"".join(held)
        yield rest if rest.endswith(b"\n") else rest + b"\n"
