"""What the exchange contract says about a mistake: what was found, and what to write instead."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from marketfetch.decoding.layouts import DecodedRows, excerpt, parse_json
from marketfetch.decoding.validation import check_rows
from marketfetch.errors import ConfigurationError, DecodeError, FetchError
from marketfetch.planning.paginators import CursorPaginator
from marketfetch.sources import Endpoint
from marketfetch.values.http import Request
from marketfetch.values.slices import Slice
from marketfetch.values.spans import DAY, HOUR, MINUTE, Span, format_utc

__all__ = [
    "cursor_in_listing",
    "few_rows_message",
    "naming_raw_errors",
    "no_rows_message",
    "rejected_message",
    "same_values_message",
    "swapped_prices_message",
    "wrong_end_message",
]

_SECONDS_UNTIL, _MICROSECONDS_FROM = 100_000_000_000, 100_000_000_000_000
_TENTH = 10
"""Candles may be lacking at an end of a window, but not as many as this part of it."""
_NOT_THE_WINDOW = "does request send part.span.{}, under the right name and in the right unit?"
_MIN_ROWS_TO_COMPARE = 5
"""Two columns may be equal in a few rows by chance."""
_FAR_BETTER = 4
_CURSORS = frozenset(
    {"after", "cursor", "more"}
    | {f"next{name}" for name in ("", "cursor", "id", "key", "page", "pagecursor", "pagetoken", "token")}
)


@contextmanager
def naming_raw_errors(place: str, given: object, remedy: str) -> Iterator[None]:
    """Fail with the place, what it was given and a remedy if the block raises an error of Python."""
    try:
        yield
    except (FetchError, ConfigurationError):
        raise
    except Exception as error:  # noqa: BLE001  # the code of an adapter may raise anything
        shown = excerpt(given) if isinstance(given, bytes) else str(given)
        pytest.fail(f"{place} raised {error!r} for {shown}: {remedy}")


def _rows_outside(part: Slice, times: Sequence[int]) -> str:
    """Return a message that names the wrong end of the window and the remedy."""
    span, step = part.span, max(part.series.interval.typical, 1000)
    early, late = ([t for t in times if t < span.start], [t for t in times if t >= span.end])
    problems = []
    if late and max(late) < span.end + step:
        problems.append("the exchange's end is inclusive: send part.span.end - 1")
    elif late:
        problems.append(f"such as {format_utc(max(late))}: {_NOT_THE_WINDOW.format('end')}")
    if early and min(early) >= span.start - step:
        problems.append(
            "rows come from before the start: send part.span.start, or one less where it is exclusive"
        )
    elif early:
        problems.append(f"such as {format_utc(min(early))}: {_NOT_THE_WINDOW.format('start')}")
    return f"rows from outside of {span}: {'; '.join(problems)}"


def rejected_message(decoded: DecodedRows, part: Slice) -> str | None:
    """Return why good rows were rejected and what to mend; None if none was."""
    times = decoded.columns.times
    if len(times) and 0 < times.max() < _SECONDS_UNTIL:
        return f"times such as {times[0]} are seconds: say unit=1000"
    if len(times) and times.min() > _MICROSECONDS_FROM:
        return f"times such as {times[0]} are no milliseconds: divide those of the exchange in decode"
    if not (rejected := check_rows(decoded, part.series, part.span).rejected):
        return None
    reasons: dict[str, Callable[[], str]] = {
        "outside the window": lambda: _rows_outside(part, times.tolist()),
        "off the grid": lambda: _off_the_grid(part, times),
        "impossible": lambda: _impossible(decoded, part),
        "without a value": lambda: _impossible(decoded, part),
        "unfinished": lambda: "rows are not closed: is `confirm` the place of a flag that is 1 at last?",
        "undecodable": lambda: f"a value is no number: {[row.raw for row in decoded.broken][:1]}",
    }
    problems = [reasons[reason]() for reason in rejected if reason in reasons]
    return f"good rows were rejected: {rejected} for {part}: {'; '.join(problems)}"


def no_rows_message(part: Slice, request: Request) -> str:
    """Return what to look at if an answer has no row at all."""
    asked = f"{request.method} {request.url} {(request.body or b'').decode(errors='replace')}".strip()
    return (
        f"no row came for {part}, asked with {asked}: are times sent in the exchange's unit, are symbol and "
        "interval its own, and was the symbol traded at `start`?"
    )


def _off_the_grid(part: Slice, times: NDArray[np.int64]) -> str:
    interval = part.series.interval
    at = int(times[~interval.aligned(times)][0])
    shown = f"{format_utc(at)} is no open time of {interval.name}"
    late = at - interval.floor(at)
    if interval.length and late in {interval.length - 1, interval.length - 1000}:
        return f"{shown}, but a close time: map the open time"
    offset = -at % DAY if -at % DAY <= 14 * HOUR else -at % DAY - DAY
    if interval.length and interval.length % DAY == 0 and offset % (15 * MINUTE) == 0 and late % DAY:
        sign, (hours, rest) = "-" if offset < 0 else "+", divmod(abs(offset), HOUR)
        plain = re.split(r"[+-]", interval.name)[0]
        ours = f"{plain}{sign}{hours:02}:{rest // MINUTE:02}" if offset else plain
        return f"{shown}: candles that open at midnight of that zone are {ours!r} in intervals"
    return f"{shown}: are the field of the time, its unit and the name of {interval.name} in intervals right?"


def _impossible(decoded: DecodedRows, part: Slice) -> str:
    """Name the columns because of which rows cannot be true."""
    names, values = part.series.dataset.names, decoded.columns.values
    by_name = dict(zip(names, values, strict=True))
    optional = {column.name for column in part.series.dataset.columns if column.optional}
    problems = [
        f"{name} is NULL: map it in the layout, and check the spelling of its field"
        for name, line in by_name.items()
        if np.isnan(line).any() and (name not in optional or len(optional) == len(names))
    ]
    problems += [f"{name} is infinite or NaN" for name, line in by_name.items() if np.isinf(line).any()]
    if {"high", "low"} <= by_name.keys():
        low, high = by_name["low"], by_name["high"]
        if (high < low).any():
            problems.append("high is below low: are they swapped?")
        else:
            problems += [
                f"{name} is outside of low and high: is each column mapped to its own field?"
                for name in ("open", "close")
                if ((by_name[name] < low) | (by_name[name] > high)).any()
            ]
    problems += [f"{name} is negative" for name, line in by_name.items() if (line < 0).any()]
    whole = [column.name for column in part.series.dataset.columns if column.integer]
    problems += [
        f"{name} is no whole number: is it mapped to its own field?"
        for name in whole
        if (by_name[name] % 1 > 0).any()
    ]
    return "; ".join(problems)


def same_values_message(decoded: DecodedRows, part: Slice) -> str | None:
    """Return which two columns have the same value in every row, as if both read one field; else None."""
    names, values = part.series.dataset.names, decoded.columns.values
    if values.shape[1] < _MIN_ROWS_TO_COMPARE:
        return None
    for at, name in enumerate(names):
        for other in range(at + 1, len(names)):
            equal = np.array_equal(values[at], values[other])
            if equal and len(set(values[at].tolist())) > 1:
                found = next((found for found in range(len(names)) if found not in {at, other}), None)
                # A market that did not move has four equal prices: then the others are equal, too.
                if found is None or not np.array_equal(values[at], values[found]):
                    both = f"{name} and {names[other]}"
                    return f"{both} are equal in every row: is each mapped to its own field?"
    return None


def swapped_prices_message(decoded: DecodedRows, part: Slice) -> str | None:
    """Return that open and close are swapped, if candles then follow on each other far better; else None."""
    names, order = part.series.dataset.names, np.argsort(decoded.columns.times)
    if len(order) < _MIN_ROWS_TO_COMPARE or not {"open", "close"} <= {*names}:
        return None
    first, last = (decoded.columns.values[names.index(name)][order] for name in ("open", "close"))
    leaps, swapped = (np.abs(a[1:] - b[:-1]).sum() for a, b in ((first, last), (last, first)))
    if leaps <= _FAR_BETTER * swapped:
        return None
    return "each candle closes where the one before it opened: are open and close swapped?"


def few_rows_message(endpoint: Endpoint, part: Slice, times: NDArray[np.int64]) -> str | None:
    """Return the remedy for a page that ends long before its window does; None for one that does not.

    `times` are those of the page, sorted. Candles may be lacking amid the rows.
    """
    interval, opens = part.series.interval, part.series.interval.count(part.span)
    reached = Span(int(times[0]), interval.shift(int(times[-1]), 1)) if len(times) else None
    if reached is not None and opens - interval.count(reached) <= opens // _TENTH:
        return None
    smaller = f"page_sizes = ({len(times)},), or " if len(times) else ""
    return (
        f"{type(endpoint).__name__}.page_sizes: {opens} rows were asked for, and {len(times)} came: "
        f"write {smaller}a `start` after which the symbol traded in each candle"
    )


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


def cursor_in_listing(body: bytes) -> str | None:
    """Return the field of a listing that looks like the cursor of a next page, with its value; else None.

    >>> cursor_in_listing(b'{"symbols":[{"next":"no"}],"page":{"next_cursor":"40"}}')
    "'next_cursor': '40'"
    """
    try:
        content = parse_json(body)
    except DecodeError:
        return None
    return _cursor_in(content)


def _cursor_in(content: Any) -> str | None:
    if not isinstance(content, dict):
        return None
    for name, value in content.items():
        if value and isinstance(value, str | int) and not isinstance(value, bool):
            if name.lower().replace("_", "") in _CURSORS:
                return f"{name!r}: {value!r}"
        elif found := _cursor_in(value):
            return found
    return None
