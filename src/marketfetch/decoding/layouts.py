"""Decoding: from the bytes of a response to columns.

Exchanges answer with rows (`[[time, "open", …], …]`) or with objects (`[{"time": …}, …]`). A layout says
where each column is. Decoding returns columns or raises DecodeError. Rows that are nothing but numbers are
read by the compiled decoder (`native.py`); everything else is read carefully, row by row.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
import msgspec
import numpy as np
from numpy.typing import NDArray

from marketfetch.common.type_checks import is_whole
from marketfetch.decoding.native import MOMENT_DIGITS, read_rows
from marketfetch.errors import AdapterError, DecodeError, unknown, wrong_kind
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Columns
from marketfetch.values.rejected_rows import RejectedRow, raw_text

__all__ = [
    "DecodedRows",
    "ObjectLayout",
    "RowLayout",
    "check_decoded",
    "decode_errors_as",
    "excerpt",
    "parse_json",
    "parse_number",
]

_LATEST = 2**63 - 1
_SPACE = b" \t\n\r"
"""White space in JSON, which is less than white space in Python."""


@attrs.frozen(eq=False)
class DecodedRows:
    """The rows of one response as they came: unsorted, unchecked, and perhaps not closed yet."""

    columns: Columns
    closed: NDArray[np.bool_] | None = None
    """Whether each row is finished; None if the exchange does not say."""
    undecodable: int = 0
    """The number of rows with a value that is not a number; they are not in `columns`."""
    cursor: str | None = None
    """The token of the next page, if the endpoint pages by token."""
    received: int = attrs.field(
        default=attrs.Factory(lambda self: len(self.columns) + self.undecodable, takes_self=True)
    )
    """How many rows the response had; two of them may be one row here (regular and special funding)."""
    raw: Callable[[int], str] | None = None
    """Returns the text of a row of `columns` as it came, by position; None: write its values instead."""
    broken: Sequence[RejectedRow] = ()
    """Those of the undecodable rows whose times are known."""


def excerpt(body: bytes, length: int = 80) -> str:
    r"""Return the beginning of a body for an error message.

    >>> excerpt(b"<html>\n<head>" + b"x" * 100, length=12)
    "'<html> <head' …"
    """
    text = " ".join(body[: 4 * length].decode("utf-8", "replace").split())
    return f"{text[:length]!r} …" if len(text) > length else repr(text)


def parse_json(body: bytes) -> Any:
    """Parse a JSON body; DecodeError with an excerpt if the body is not JSON."""
    try:
        return msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"not JSON ({error}): {excerpt(body)}") from None


@contextmanager
def decode_errors_as(content: str) -> Iterator[None]:
    """Turn the errors of the code in the block into DecodeError: the response is not what it reads.

    >>> with decode_errors_as("an object with serverTime"):
    ...     {}["serverTime"]
    Traceback (most recent call last):
    marketfetch.errors.DecodeError: expected an object with serverTime, found KeyError('serverTime')
    """
    try:
        yield
    except AdapterError:
        raise  # a mistake of the adapter, which no other response cures
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise DecodeError(f"expected {content}, found {reprlib.repr(error)}") from None


def _rows_at(payload: Any, path: Sequence[str]) -> list[Any]:
    for key in path:
        if not isinstance(payload, dict):
            raise DecodeError(f"expected an object with {key!r}, found {type(payload).__name__}")
        if key not in payload:
            raise DecodeError(f"expected an object with {key!r}, found one with {reprlib.repr([*payload])}")
        payload = payload[key]
    if not isinstance(payload, list):
        raise DecodeError(f"expected a list of rows, found {type(payload).__name__}")
    return payload


def parse_number(value: Any) -> float:
    """Read a number written as a number or as text; NaN for null and "", which mean "no value".

    Raises ValueError for anything else. The text "NaN" gives infinity, so that its row is refused.
    """
    if value is None or value == "":
        return np.nan
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(value)
    if isinstance(value, str) and ("_" in value or not value.isascii()):
        raise ValueError(value)  # `float` reads 1_000 and the digits of other scripts
    try:
        number = float(value)
    except OverflowError:  # a whole number beyond float64: its row is refused
        return np.inf
    # The text "NaN" must not become a NULL; as an infinite value its row is refused.
    return number if number == number else np.inf  # noqa: PLR0124  # quicker than isnan in a hot loop


def _is_one(value: Any) -> bool:
    try:
        return parse_number(value) == 1
    except ValueError:
        return False


def _milliseconds(value: Any, unit: int) -> int:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DecodeError(f"{reprlib.repr(value)} is not a time")
    try:
        return int(value) * unit
    except ValueError:
        raise DecodeError(f"{reprlib.repr(value)} is not a time") from None


@attrs.define(eq=False)
class _RowCollector:
    """Collects the rows of a response that are read one by one, and the undecodable ones apart."""

    dataset: Dataset
    confirms: bool = False
    """Whether the rows say whether they are finished."""
    times: list[int] = attrs.field(factory=list)
    lines: list[list[float]] = attrs.field(factory=list)
    rows: list[Any] = attrs.field(factory=list)
    closed: list[bool] = attrs.field(factory=list)
    broken: list[RejectedRow] = attrs.field(factory=list)

    def add(self, row: Any, time: int, values: Sequence[Any], *, closed: bool = True) -> None:
        """Read the values of a row: one for each column of the dataset."""
        if abs(time) > _LATEST:
            raise DecodeError("a time is beyond 64 bits")
        try:
            line = [parse_number(value) for value in values]
        except ValueError:
            self.broken.append(RejectedRow(time, "undecodable" if closed else "unfinished", raw_text(row)))
            return
        self.times.append(time)
        self.lines.append(line)
        self.rows.append(row)
        self.closed.append(closed)

    def decoded(self) -> DecodedRows:
        """Return the rows read so far."""
        stamps = np.array(self.times, np.int64)
        values = (
            np.array(self.lines, np.float64).T if self.lines else np.empty((len(self.dataset.columns), 0))
        )
        return DecodedRows(
            Columns(stamps, np.ascontiguousarray(values)),
            np.array(self.closed, np.bool_) if self.confirms else None,
            len(self.broken),
            raw=lambda at: raw_text(self.rows[at]),
            broken=tuple(self.broken),
        )


def _is_field(key: str, before: bytes, after: bytes) -> bool:
    """Tell whether a list between the two texts is the value of `key` in the outermost object.

    Example: before `{"code":"0","data":` and after `}` the list is the value of `data`.
    """
    # Without a backslash no quote is escaped: `"data":` is a key and not the inside of a text.
    if b"\\" in before or not before.endswith(f'"{key}":'.encode()):
        return False
    try:
        msgspec.json.decode(before + b"[]" + after)
        msgspec.json.decode(before + b"[]}")  # one brace closes everything: the list is not deeper
        later = msgspec.json.decode(b"{" + after.removeprefix(b","))
    except (ValueError, RecursionError):
        return False
    return key not in later  # of two fields with one name the last one counts


@attrs.define(eq=False)
class _RawRows:
    """The rows of a response as text; the response is parsed again when one of them is needed."""

    body: bytes
    path: tuple[str, ...]
    rows: list[Any] | None = None

    def text(self, at: int) -> str:
        """Return the text of the row at a position."""
        if self.rows is None:
            self.rows = _rows_at(parse_json(self.body), self.path)
        return raw_text(self.rows[at])


def _check_layout(layout: RowLayout | ObjectLayout) -> None:
    """Refuse a layout whose arguments are of another kind, such as text for a tuple."""
    name, path, unit = type(layout).__name__, layout.path, layout.unit
    if not isinstance(layout.columns, Mapping):
        raise wrong_kind(f"{name}: columns", layout.columns, "map column names to places: {'open': …}")
    keys: object = path
    if not isinstance(keys, tuple | list) or not all(isinstance(key, str) for key in keys):
        remedy = "write a tuple of the keys that lead to the rows, such as ('data',)"
        raise wrong_kind(f"{name}: path", path, remedy)
    if not is_whole(unit) or unit < 1:
        remedy = "write how many milliseconds one unit of time has: 1000 for seconds, 1 for milliseconds"
        raise wrong_kind(f"{name}: unit", unit, remedy)


def _check_columns(layout: RowLayout | ObjectLayout, dataset: Dataset) -> None:
    """Refuse columns that the dataset does not have."""
    if not layout.columns.keys() <= set(dataset.names):
        strange = next(name for name in layout.columns if name not in dataset.names)
        error = unknown(f"column of {dataset.name}", strange, dataset.names)
        raise AdapterError(f"{type(layout).__name__}: {error}")


@attrs.frozen
class RowLayout:
    """Where the columns are in responses made of rows.

    `columns` maps column names to positions; columns that are not mapped are NULL. `width` is the number of
    fields of a row, `time` the position of the open time, `unit` the milliseconds in one unit of it. `path`
    has the keys that lead to the list inside an envelope. `confirm` is the position of a flag that is 1 once
    the row is final.

    >>> from marketfetch.adapter import Dataset
    >>> layout = RowLayout({"open": 1, "high": 2, "low": 3, "close": 4}, width=5)
    >>> layout.decode(b'[[60000,"1.5","2","1","1.7"]]', Dataset.parse("mark_price")).columns.values[:, 0]
    array([1.5, 2. , 1. , 1.7])
    """

    columns: Mapping[str, int]
    width: int
    time: int = 0
    path: tuple[str, ...] = ()
    confirm: int | None = None
    unit: int = 1

    def __attrs_post_init__(self) -> None:
        _check_layout(self)
        positions = [self.time, *self.columns.values(), *([] if self.confirm is None else [self.confirm])]
        whole = all(map(is_whole, [self.width, *positions]))
        if not whole or min(positions) < 0 or max(positions) >= self.width:
            raise AdapterError(
                f"RowLayout: positions {positions} in rows of {self.width!r} fields; "
                "write whole numbers from 0 to width - 1"
            )

    def decode(self, body: bytes, dataset: Dataset) -> DecodedRows:
        """Decode one response; DecodeError if it is not made of such rows.

        Raises AdapterError for columns that the dataset does not have.
        """
        _check_columns(self, dataset)
        fast = self._decode_compiled(body, dataset)
        return fast if fast is not None else self._decode_row_by_row(body, dataset)

    def _rows_of(self, body: bytes) -> bytes | None:
        """Return the text of the list of rows; None if its place is not certain without parsing."""
        start, stop = body.find(b"[["), body.rfind(b"]]") + 2
        if start < 0 or stop < start:
            return None
        before, after = body[:start].strip(_SPACE), body[stop:].strip(_SPACE)
        if self.path:
            *outer, key = self.path
            if outer or not _is_field(key, before, after):
                return None
        elif before or after:
            return None
        return body[start:stop]

    def _decode_compiled(self, body: bytes, dataset: Dataset) -> DecodedRows | None:
        """Decode with the compiled decoder; None if a row has anything but numbers, quoted or not."""
        rows = self._rows_of(body)
        if rows is None:
            return None
        mapped = {name: self.columns[name] for name in dataset.names if name in self.columns}
        fields = [*mapped.values(), *([] if self.confirm is None else [self.confirm])]
        found = read_rows(rows, width=self.width, time=self.time, fields=fields)
        if found is None or self.unit > _LATEST // 10**MOMENT_DIGITS:
            return None
        values = decoded = found.values[: len(mapped)]
        if len(mapped) < len(dataset.names):
            values = np.full((len(dataset.names), len(found.times)), np.nan)
            values[[dataset.index(name) for name in mapped]] = decoded
        closed = None if self.confirm is None else found.values[-1] == 1
        raw = _RawRows(body, self.path)
        return DecodedRows(Columns(found.times * self.unit, values), closed, raw=raw.text)

    def _decode_row_by_row(self, body: bytes, dataset: Dataset) -> DecodedRows:
        """Decode row by row: a value that is not a number costs its own row only."""
        collector = _RowCollector(dataset, confirms=self.confirm is not None)
        positions = [self.columns.get(column) for column in dataset.names]
        for row in _rows_at(parse_json(body), self.path):
            if not isinstance(row, list) or len(row) != self.width:
                raise DecodeError(f"expected rows of {self.width} fields, found {reprlib.repr(row)}")
            stamp = _milliseconds(row[self.time], self.unit)
            values = [None if at is None else row[at] for at in positions]
            closed = self.confirm is None or _is_one(row[self.confirm])
            collector.add(row, stamp, values, closed=closed)
        return collector.decoded()


@attrs.frozen
class ObjectLayout:
    """Where the columns are in responses made of objects: `columns` maps column names to keys.

    `time` is the key of the open time. `path` and `unit` are those of RowLayout.

    >>> from marketfetch.adapter import Dataset
    >>> layout = ObjectLayout({"open_interest": "oi"}, time="ts")
    >>> layout.decode(b'[{"ts":"60000","oi":"7.5"}]', Dataset.parse("open_interest")).columns.times
    array([60000])
    """

    columns: Mapping[str, str]
    time: str
    path: tuple[str, ...] = ()
    unit: int = 1

    def __attrs_post_init__(self) -> None:
        _check_layout(self)

    def decode(self, body: bytes, dataset: Dataset) -> DecodedRows:
        """Decode one response; DecodeError if it is not made of such objects."""
        return self.gather(_rows_at(parse_json(body), self.path), dataset)

    def gather(
        self, items: Sequence[Any], dataset: Dataset, *, came_as: Sequence[Any] | None = None
    ) -> DecodedRows:
        """Turn parsed objects into columns; `came_as` has each object as the response had it, if changed.

        Raises DecodeError for anything but a list, and for an object without a time; AdapterError for columns
        that the dataset has not.
        """
        _check_columns(self, dataset)
        if not isinstance(items, list | tuple):  # null, {} and "" in its place are not "no rows"
            raise DecodeError(f"expected a list of objects, found {reprlib.repr(items)}")
        collector = _RowCollector(dataset)
        for item, row in zip(items, came_as or items, strict=True):
            if not isinstance(item, dict) or self.time not in item:
                raise DecodeError(f"expected objects with {self.time!r}, found {reprlib.repr(item)}")
            stamp = _milliseconds(item[self.time], self.unit)
            collector.add(row, stamp, [item.get(self.columns.get(column, "")) for column in dataset.names])
        return collector.decoded()


def check_decoded(place: str, decoded: object, dataset: Dataset) -> DecodedRows:
    """Return what a `decode` method returned; AdapterError if its columns are not those of the dataset."""
    if not isinstance(decoded, DecodedRows) or not isinstance(decoded.columns, Columns):
        remedy = "return DecodedRows(Columns(times, values)), or what a RowLayout or ObjectLayout returns"
        raise wrong_kind(place, decoded, remedy)
    times, values = decoded.columns.times, decoded.columns.values
    if times.dtype != np.int64 or values.dtype != np.float64:
        raise AdapterError(
            f"{place}: times are {times.dtype} and values {values.dtype}; write int64 and float64"
        )
    if len(values) != len(dataset.columns):
        names = ", ".join(dataset.names)
        raise AdapterError(f"{place}: found {len(values)} columns of values; {dataset.name} has {names}")
    return decoded
