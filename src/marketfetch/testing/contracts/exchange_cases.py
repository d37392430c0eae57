"""Helpers of the exchange contract: recorded answers, and checks of decoded pages."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from io import BytesIO
from typing import Any

import attrs
import numpy as np
import pytest

from marketfetch.adapter_checks.results import check_cost
from marketfetch.archives.checksums import parse_checksum
from marketfetch.archives.file_reader import FileContent, FileReader
from marketfetch.archives.periods import CalendarPeriod, Grain
from marketfetch.decoding.layouts import DecodedRows, check_decoded, excerpt
from marketfetch.decoding.validation import plausible, validate_page
from marketfetch.errors import DecodeError, FetchError
from marketfetch.exchange import Exchange
from marketfetch.sources import Archive, Endpoint
from marketfetch.testing.contracts.exchange_messages import naming_raw_errors
from marketfetch.testing.contracts.malformed import NOT_A_PAGE
from marketfetch.values.archives import ArchiveFile
from marketfetch.values.http import Request, Response
from marketfetch.values.intervals import EVENT
from marketfetch.values.pages import Columns
from marketfetch.values.slices import Slice
from marketfetch.values.spans import SpanSet, format_utc
from marketfetch.values.times import TimeLike

__all__ = [
    "FIXED_NOW",
    "DecodeCase",
    "Recording",
    "assert_decodes_or_rejects",
    "check_refusal",
    "check_same_rows",
    "check_side_request",
    "decode_with",
    "errors_inside",
    "only_decode_errors",
    "refuses_garbage",
    "response",
    "result_of_raise_for_error",
    "usual_intervals",
]

_RAISE_DECODE_ERROR = "raise DecodeError for what is no such answer, as `with decode_errors_as(…)` does"
FIXED_NOW = 1_790_000_000_000
"""The current time of all contract tests, in UTC milliseconds."""


@attrs.frozen
class Recording:
    """A real answer to a request for the rows of `[start, end)`, all of them final."""

    dataset: str
    body: bytes = attrs.field(repr=False)
    start: TimeLike = attrs.field(kw_only=True)
    end: TimeLike = attrs.field(kw_only=True)
    interval: str = attrs.field(default="1m", kw_only=True)
    symbol: str | None = attrs.field(default=None, kw_only=True)


@attrs.frozen
class DecodeCase:
    """One endpoint, a slice, and the body that answers it."""

    endpoint: Endpoint
    part: Slice
    body: bytes


def usual_intervals(endpoint: Endpoint) -> list[str]:
    """Return the endpoint's intervals among 1m, 1h and 1d; its first interval if it has none of them."""
    if endpoint.dataset_type.event:
        return [EVENT.name]
    return [name for name in ("1m", "1h", "1d") if name in endpoint.intervals] or list(endpoint.intervals)[:1]


def response(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response received at FIXED_NOW."""
    return Response(status, headers or {}, body, sent_at=FIXED_NOW - 100, received_at=FIXED_NOW)


def check_side_request(request: Request) -> None:
    """Assert that a request for the server time or the listing has a cost within its pool."""
    check_cost(f"the cost of {request.path}", request.cost)


def refuses_garbage(place: str, decode: Callable[[bytes], object]) -> None:
    """Assert that `decode` raises DecodeError for every body of NOT_A_PAGE."""
    for body in NOT_A_PAGE:
        with pytest.raises(DecodeError), naming_raw_errors(place, body, _RAISE_DECODE_ERROR):
            pytest.fail(f"{place}: {body[:60]!r}… was taken for {decode(body)!r}: {_RAISE_DECODE_ERROR}")


def only_decode_errors(place: str, read: Callable[[bytes], object], body: bytes) -> None:
    """Read a body; DecodeError may come of it, and no other error."""
    with suppress(DecodeError), naming_raw_errors(place, body, _RAISE_DECODE_ERROR):
        read(body)


def decode_with(endpoint: Endpoint, body: bytes, part: Slice) -> DecodedRows:
    """Return a decoded answer; AdapterError if its columns are not those of the dataset.

    Fails with the remedy if `decode` raises an error of Python.
    """
    place = f"{type(endpoint).__name__}.decode"
    with naming_raw_errors(place, body, _RAISE_DECODE_ERROR):
        return check_decoded(place, endpoint.decode(body, part), endpoint.dataset_type)


def result_of_raise_for_error(exchange: Exchange, answer: Response) -> object:
    """Return what `raise_for_error` returns: None, unless an error was returned that should be raised."""
    judge: Callable[[Response], object] = exchange.raise_for_error
    return judge(answer)


def check_refusal(exchange: Exchange, answer: Response, expected: type[FetchError]) -> FetchError:
    """Assert that `raise_for_error` raises an error for a response, and return the error."""
    place = f"{type(exchange).__name__}.raise_for_error"
    answer_text = f"HTTP {answer.status} with {excerpt(answer.body)}"
    try:
        with naming_raw_errors(
            place, answer_text, "read the body with decode_errors_as, and only what has one"
        ):
            returned = result_of_raise_for_error(exchange, answer)
    except expected as error:
        return error
    except FetchError as error:
        pytest.fail(f"{place} raised {type(error).__name__} for {answer_text}: raise {expected.__name__}")
    if returned is not None:
        pytest.fail(f"{place} returned {returned!r} for {answer_text}: raise it")
    remedy = "raise the error it stands for" if answer.status == 200 else "end with"
    remedy += " in raise_for_error" if answer.status == 200 else " super().raise_for_error(response)"
    pytest.fail(f"{place} took {answer_text} for a good answer, which is {expected.__name__}: {remedy}")


def assert_decodes_or_rejects(endpoint: Endpoint, body: bytes, part: Slice) -> None:
    """Assert that a body raises DecodeError, or decodes to a page with possible rows alone."""
    try:
        decoded = decode_with(endpoint, body, part)
    except DecodeError:
        return
    page = validate_page(decoded, part)
    assert plausible(endpoint.dataset_type, page.columns.values).all(), (
        f"{body[:200]!r} left an impossible row"
    )
    for row in page.invalid:
        assert row.raw.isascii(), f"{row.raw[:200]!r} is more than ASCII: make it with raw_text"
        assert row.raw.isprintable(), f"{row.raw[:200]!r} is no line of text: make it with raw_text"


def check_same_rows(archive: Archive, case: DecodeCase, file: Callable[[str], bytes | None]) -> int:
    """Assert that a file has the rows of an answer of the API; return how many rows were compared.

    The file is that of the day or month in which the answer begins. 0 rows if `file` does not have it.
    """
    part = case.part
    grains = archive.grains(part.series.interval)
    if not grains:
        return 0
    grain: Grain = "day" if "day" in grains else "month"
    period = CalendarPeriod.containing(part.span.start, grain, utc_offset=archive.utc_offset)
    key = archive.key(part.series, period)
    body = file(key)
    if body is None:
        return 0
    digest = None if archive.checksum_request(key) is None else file(f"{key}.CHECKSUM")
    ours = _rows_of_file(archive, part, period, (key, body, digest))
    ours = ours.within(SpanSet.of(part.span))
    page = validate_page(case.endpoint.decode(case.body, part), part)
    theirs = page.columns.within(SpanSet.of(period.span))
    assert ours.times.tolist() == theirs.times.tolist(), (
        f"{key} has {len(ours)} rows in {part.span}, the API {len(theirs)}: are times and utc_offset right?"
    )
    for name in archive.layout.columns:
        at = part.series.dataset.index(name)
        for time, mine, other in zip(ours.times, ours.values[at], theirs.values[at], strict=True):
            assert mine == other or (np.isnan(mine) and np.isnan(other)), (
                f"{key}: {name} of {format_utc(int(time))} is {mine}, the API has {other}: "
                "is the position in the layout right?"
            )
    return len(ours)


_CLOSED = 4_102_444_800_000
"""The year 2100: a file that was made then has closed rows alone."""


def _rows_of_file(
    archive: Archive, part: Slice, period: CalendarPeriod, found: tuple[str, bytes, bytes | None]
) -> Columns:
    """Read a file, given as key, bytes and checksum."""
    key, body, digest = found
    name = key.rpartition("/")[2]
    parsed = archive.period_of(part.series, name)
    assert parsed == period, f"period_of says that {name} is of {parsed}, not of {period}"
    checksum = None if digest is None else parse_checksum(digest, name)
    content = FileContent.of(ArchiveFile(key, len(body), _CLOSED), part.series, period, archive.layout)
    reader = FileReader(BytesIO(body), content, checksum)
    pieces = list(reader)
    assert pieces, f"{key} has no row of {period.span}: {dict(reader.summary.rejected)}"
    assert not reader.summary.rejected, f"{key}: good rows were rejected: {dict(reader.summary.rejected)}"
    times = np.concatenate([piece.times for piece in pieces])
    return Columns(times, np.concatenate([piece.values for piece in pieces], axis=1))


_ERROR_VALUES: Mapping[str, tuple[object, object]] = {
    # name of a field: its value in an error if it is a number, and if it is text
    "code": (50011, "50011"),
    "retCode": (10006, "10006"),
    "ret_code": (10006, "10006"),
    "err_code": (429, "429"),
    "errno": (429, "429"),
    "errorCode": (429, "429"),
    "error_code": (429, "429"),
    "s": (429, "error"),
    "state": (429, "error"),
    "status": (429, "error"),
    "result": (0, "error"),
    "error": (429, "too many requests"),
    "msg": (429, "too many requests"),
    "message": (429, "too many requests"),
}


def errors_inside(body: bytes) -> Iterator[bytes]:
    """Yield errors that the exchange might send with HTTP 200 in place of a good answer.

    One is an object with an error alone, the other the envelope of the good answer without rows and with
    another code.

    >>> for error in errors_inside(b'{"code": "0", "data": [[1, 2]]}'):
    ...     print(error.decode())
    {"code": 429, "error": "too many requests", "msg": "too many requests"}
    {"code": "50011", "data": []}
    >>> [len(list(errors_inside(body))) for body in (b'{"s": "ok", "t": [1]}', b'{"s": "BTC", "t": [1]}')]
    [2, 1]
    """
    yield json.dumps({"code": 429, "error": "too many requests", "msg": "too many requests"}).encode()
    good = json.loads(body)
    if (
        isinstance(good, dict)
        and (changed := {name: _with_error_value(name, value) for name, value in good.items()}) != good
    ):
        codes = {name for name in good if name in _ERROR_VALUES or isinstance(good[name], bool)}
        if codes:
            yield json.dumps({name: _emptied(value) for name, value in changed.items()}).encode()


def _with_error_value(name: str, value: object) -> object:
    if isinstance(value, bool):
        return not value
    if name == "s" and value != "ok":
        return value  # a symbol
    number, text = _ERROR_VALUES.get(name, (value, value))
    return text if isinstance(value, str) else number if isinstance(value, int | type(None)) else value


def _emptied(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _emptied(inner) for name, inner in value.items()}
    return [] if isinstance(value, list) else value
