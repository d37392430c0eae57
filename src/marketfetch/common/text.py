"""Numbers and names as text for people, and whether text has an encoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "clock_text",
    "file_error_reason",
    "format_counts",
    "format_crossed",
    "format_duration",
    "format_rate",
    "is_encodable",
    "join_limited",
    "pluralize",
    "text_in_ipython",
    "time_left",
]


def text_in_ipython(value: object, printer: Any, _in_cycle: object) -> None:
    """Be the `_repr_pretty_` of a class: IPython shows what `print` writes, also inside of a dictionary."""
    printer.text(str(value))


def pluralize(number: int, thing: str) -> str:
    """Write a number with a noun.

    >>> pluralize(1, "row"), pluralize(1200, "row"), pluralize(2, "series")
    ('1 row', '1,200 rows', '2 series')
    """
    return f"{number:,} {thing}{'' if number == 1 or thing.endswith('s') else 's'}"


def format_duration(seconds: float) -> str:
    """Write a duration in seconds, minutes, hours or days.

    >>> format_duration(9.96), format_duration(75), format_duration(3720), format_duration(360_000)
    ('10.0 s', '1 min 15 s', '1 h 02 min', '4 d 04 h')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 48 * 60:
        return f"{minutes // 1440} d {minutes // 60 % 24:02} h"
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def format_rate(rows: int, seconds: float) -> str:
    """Write the number of rows per second.

    >>> format_rate(3000, 1.5)
    '2,000 rows/s'
    """
    return f"{rows / max(seconds, 0.001):,.0f} rows/s"


def time_left(done: int, total: int, elapsed: float) -> str:
    """Write how long the rest takes at the average rate since the start, waits included.

    The rate of the last seconds would be wrong: a run spends the rate limit of a minute in a few seconds,
    then waits.

    >>> time_left(600, 1800, elapsed=60.0), time_left(0, 1800, elapsed=60.0), time_left(1, 100, elapsed=60.0)
    ('02:00', '--:--', '1:39:00')
    """
    if not done:
        return "--:--"
    return clock_text(elapsed * max(0, total - done) / done)


def clock_text(duration: float) -> str:
    """Write seconds as a clock does.

    >>> clock_text(75), clock_text(5940)
    ('01:15', '1:39:00')
    """
    minutes, seconds = divmod(round(duration), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes:02}:{seconds:02}"


def join_limited(names: Sequence[str], limit: int) -> str:
    """Write at most `limit` names, and how many more there are.

    >>> join_limited(["A", "B", "C"], 2)
    'A, B and 1 more'
    """
    shown = ", ".join(names[:limit])
    return f"{shown} and {len(names) - limit:,} more" if len(names) > limit else shown


def format_counts(counts: Mapping[str, int]) -> str:
    """Write the count of each cause, the most frequent first.

    >>> format_counts({"Banned": 1, "TransportError": 12})
    '12 TransportError, 1 Banned'
    """
    frequent = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{count:,} {cause}" for cause, count in frequent)


def format_crossed(rows: int) -> str:
    """Write how many open times were found empty in long stretches.

    >>> format_crossed(525_600)
    '525,600 rows crossed as empty'
    """
    return f"{pluralize(rows, 'row')} crossed as empty"


def file_error_reason(error: Exception) -> str:
    """Say why a file cannot be read or written, without the name of the file.

    >>> file_error_reason(FileNotFoundError(2, "No such file or directory", "name"))
    'No such file or directory'
    """
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    return getattr(error, "strerror", None) or str(error)


def is_encodable(text: str) -> bool:
    r"""Return whether a text has an encoding: Python puts surrogates in place of bytes that it cannot decode.

    >>> is_encodable("ü"), is_encodable("\udcff")
    (True, False)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
