"""Helpers of the exchange contract: recorded answers, and checks of decoded pages."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from typing import Any

import attrs
import numpy as np
import pytest

from marketfetch.archives.checksums import parse_checksum
from marketfetch.archives.file_reader import FileContent, FileReader
from marketfetch.archives.periods import CalendarPeriod, Grain
from marketfetch.decoding.layouts import check_decoded
from marketfetch.decoding.validation import plausible, validate_page
from marketfetch.errors import DecodeError
from marketfetch.planning.paginators import CursorPaginator
from marketfetch.sources import Archive, Endpoint
from marketfetch.testing.contracts.malformed import NOT_A_PAGE
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
    "check_same_rows",
    "check_side_request",
    "errors_inside",
    "only_decode_errors",
    "refuses_garbage",
    "response",
    "rows_outside_message",
    "usual_intervals",
    "wrong_end_message",
]

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
    """Assert that a request for the server time or the listing has a path and a cost within its pool."""
    assert request.path.startswith("/"), f"path {request.path!r}: the host is added by the exchange"
    cost = request.cost
    assert 1 <= cost.weight <= cost.pool.capacity, f"costs {cost.weight} of {cost.pool.capacity}"


def refuses_garbage(decode: Callable[[bytes], object]) -> None:
    """Assert that `decode` raises DecodeError for every body of NOT_A_PAGE."""
    for body in NOT_A_PAGE:
        with pytest.raises(DecodeError):
            pytest.fail(f"{body[:60]!r}… was taken for {decode(body)!r}")


def only_decode_errors(read: Callable[[], object]) -> None:
    """Call `read`, which may raise DecodeError and no other error."""
    try:
        read()
    except DecodeError:
        return


def assert_decodes_or_rejects(endpoint: Endpoint, body: bytes, part: Slice) -> None:
    """Assert that a body raises DecodeError, or decodes to a page with possible rows alone."""

    def read() -> None:
        decoded = check_decoded(
            f"{type(endpoint).__name__}.decode", endpoint.decode(body, part), endpoint.dataset_type
        )
        page = validate_page(decoded, part)
        assert plausible(endpoint.dataset_type, page.columns.values).all(), (
            f"{body[:200]!r} left an impossible row"
        )
        for row in page.invalid:
            assert row.raw.isascii(), f"{row.raw[:200]!r} is more than ASCII: make it with raw_text"
            assert row.raw.isprintable(), f"{row.raw[:200]!r} is no line of text: make it with raw_text"

    only_decode_errors(read)


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


def _rows_of_file(
    archive: Archive, part: Slice, period: CalendarPeriod, found: tuple[str, bytes, bytes | None]
) -> Columns:
    """Read a file, given as key, bytes and checksum."""
    key, body, digest = found
    name = key.rpartition("/")[2]
    told = archive.period_of(part.series, name)
    assert told == period, f"period_of says that {name} is of {told}, not of {period}"
    checksum = None if digest is None else parse_checksum(digest, name)
    reader = FileReader(BytesIO(body), FileContent(part.series, period, archive.layout), checksum)
    pieces = list(reader)
    assert pieces, f"{key} has no row of {period.span}: {dict(reader.summary.rejected)}"
    assert not reader.summary.rejected, f"{key}: good rows were rejected: {dict(reader.summary.rejected)}"
    times = np.concatenate([piece.times for piece in pieces])
    return Columns(times, np.concatenate([piece.values for piece in pieces], axis=1))


_SAYS_NO: Mapping[str, tuple[object, object]] = {
    # name of a field: its value in an error if it is a number, and if it is text
    "code": (50011, "50011"),
    "retCode": (10006, "10006"),
    "ret_code": (10006, "10006"),
    "err_code": (429, "429"),
    "errno": (429, "429"),
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
    """
    yield json.dumps({"code": 429, "error": "too many requests", "msg": "too many requests"}).encode()
    good = json.loads(body)
    if (
        isinstance(good, dict)
        and (changed := {name: _no(name, value) for name, value in good.items()}) != good
    ):
        codes = {name for name in good if name in _SAYS_NO or isinstance(good[name], bool)}
        if codes:
            yield json.dumps({name: _emptied(value) for name, value in changed.items()}).encode()


def _no(name: str, value: object) -> object:
    if isinstance(value, bool):
        return not value
    number, text = _SAYS_NO.get(name, (value, value))
    return text if isinstance(value, str) else number if isinstance(value, int | type(None)) else value


def _emptied(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _emptied(inner) for name, inner in value.items()}
    return [] if isinstance(value, list) else value


def rows_outside_message(part: Slice, times: Sequence[int]) -> str:
    """Return a message that names the wrong end of the window and the remedy."""
    said = []
    if any(time >= part.span.end for time in times):
        said.append("the exchange's end is inclusive: send part.span.end - 1")
    if any(time < part.span.start for time in times):
        said.append(
            "rows come from before the start: send part.span.start, or one less where it is exclusive"
        )
    return f"rows from outside of {part.span}: {'; '.join(said)}"


def wrong_end_message(endpoint: Endpoint, given: Sequence[int], there: Sequence[int]) -> str | None:
    """Return the remedy if a page holds the other end of its window than the paginator declares, else None.

    `there` are the times of all rows in the window, `given` those of the page, both sorted.
    """
    if not given or len(given) >= len(there):
        return None  # the exchange does not limit its pages
    oldest, newest = list(there[: len(given)]), list(there[-len(given) :])
    chained = isinstance(endpoint.paginator, CursorPaginator)
    last = getattr(endpoint.paginator, "newest_first" if chained else "anchor", None) in {True, "end"}
    if list(given) == (newest if last else oldest):
        return None
    remedy = "CursorPaginator" if chained else "TimeWindowPaginator"
    if list(given) == newest:
        remedy += "(newest_first=True)" if chained else "(anchor='end')"
        return f"a page holds the newest rows of its window: write paginator = {remedy}"
    if list(given) == oldest:
        return f"a page holds the oldest rows of its window: write paginator = {remedy}()"
    return f"{len(given)} rows were given of {len(there)}, neither the oldest nor the newest ones"
