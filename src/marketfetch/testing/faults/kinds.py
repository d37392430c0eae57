"""Faults of a simulated exchange: their kinds, and the choice of the faulty requests."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable
from hashlib import blake2b

import attrs

__all__ = ["FaultKind", "FaultSchedule", "Faults"]


class FaultKind(enum.StrEnum):
    """Everything that can be wrong with a reply.

    In this order: refusals, redirects and server errors; broken bodies; well-formed rows that are wrong;
    wrong clocks; faults of the connection.
    """

    STATUS_429 = "status_429"
    STATUS_429_DATE = "status_429_date"
    """`Retry-After` is an HTTP date."""
    STATUS_429_BARE = "status_429_bare"
    """Without `Retry-After`."""
    STATUS_429_PAST = "status_429_past"
    """`Retry-After` is a date in the past."""
    STATUS_429_NEGATIVE = "status_429_negative"
    STATUS_429_DAYS = "status_429_days"
    """`Retry-After` is two days: a client that obeys cannot use the address again in this run."""
    STATUS_429_ABSURD = "status_429_absurd"
    """`Retry-After` is thirty years."""
    STATUS_429_RUBBISH = "status_429_rubbish"
    """`Retry-After` is the word "soon"."""
    STATUS_418 = "status_418"
    """The end of the ban is in `Retry-After` and in the body."""
    STATUS_418_TEXT = "status_418_text"
    """The end of the ban is only in the body."""
    STATUS_418_BARE = "status_418_bare"
    """Without the end of the ban."""
    STATUS_403 = "status_403"
    """An HTML page of a gateway."""
    STATUS_403_LOCATION = "status_403_location"
    """An HTML page of a gateway that blocks a country: a legal refusal."""
    STATUS_451 = "status_451"
    STATUS_451_PAGE = "status_451_page"
    """Status 451 with an HTML page."""
    REDIRECT_AWAY = "redirect_away"
    """A redirect to another host, which does not exist."""
    REDIRECT_LOOP = "redirect_loop"
    """A redirect to the same URL."""
    STATUS_500 = "status_500"
    STATUS_502 = "status_502"
    STATUS_503 = "status_503"

    ERROR_IN_200 = "error_in_200"
    PAGE_IN_200 = "page_in_200"
    """An HTML page of a gateway with status 200."""
    EMPTY_BODY = "empty_body"
    TRUNCATED_JSON = "truncated_json"
    """The body ends early, and Content-Length is that of the shorter body."""
    OBJECT_INSTEAD_OF_LIST = "object_instead_of_list"
    NULL = "null"
    CUT_GZIP = "cut_gzip"
    """A gzip body that ends early, also for clients that do not accept gzip."""
    DAMAGED_GZIP = "damaged_gzip"
    GZIP_BOMB = "gzip_bomb"
    """A gzip body of 100 KB that expands to 100 MB, also for clients that do not accept gzip."""
    HUGE_BODY = "huge_body"
    """The correct body, followed by 100 MB of spaces."""
    HUGE_CHUNKED_BODY = "huge_chunked_body"
    """`HUGE_BODY` in chunks, without Content-Length."""

    WRONG_WINDOW = "wrong_window"
    REPEATED_PAGE = "repeated_page"
    """The page before the requested one."""
    SINCE_IGNORED = "since_ignored"
    REVERSED_ORDER = "reversed_order"
    """Newest first instead of oldest first, or the other way round."""
    SHORT_PAGE = "short_page"
    EMPTY_PAGE = "empty_page"
    REPEATED_ROWS = "repeated_rows"
    UNSORTED_ROWS = "unsorted_rows"
    OFF_GRID_ROW = "off_grid_row"
    OUT_OF_RANGE_ROW = "out_of_range_row"
    IMPOSSIBLE_ROW = "impossible_row"
    """A candle whose high is below its low."""
    NEGATIVE_VOLUME = "negative_volume"
    NAN_TEXT = "nan_text"
    TEXT_VALUE = "text_value"
    """`n/a` in place of a number."""
    NO_VALUE = "no_value"
    """Empty text in place of a number, as an exchange sends before it knows the value."""
    HUGE_NUMBER = "huge_number"
    """`1e400`, which is larger than any float64."""
    PLAIN_NUMBERS = "plain_numbers"
    """JSON numbers in place of decimal text."""

    CLOCK_HOURS_AHEAD = "clock_hours_ahead"
    """The server time is two hours ahead."""
    CLOCK_HOURS_BEHIND = "clock_hours_behind"
    CLOCK_YEARS_AHEAD = "clock_years_ahead"
    CLOCK_YEARS_BEHIND = "clock_years_behind"
    DATE_AHEAD = "date_ahead"
    """The `Date` header is a year ahead."""
    DATE_BEHIND = "date_behind"

    HANG = "hang"
    SLOW_DRIP = "slow_drip"
    """The body in ten pieces, one every 0.1 s."""
    SLOW_LORIS = "slow_loris"
    """Headers and body byte by byte, without an end."""
    ENDLESS_HEADERS = "endless_headers"
    """Megabytes of headers and no body."""
    CUT_BODY = "cut_body"
    """The connection is closed before the body is complete."""
    LONG_BODY = "long_body"
    """The body is longer than Content-Length."""
    CUT_CHUNKS = "cut_chunks"
    """A chunked body ends without its last chunk."""
    RESET = "reset"


def _kinds(kinds: Iterable[FaultKind | str]) -> tuple[FaultKind, ...]:
    return tuple(FaultKind(kind) for kind in kinds)


def _paths(paths: Iterable[str]) -> frozenset[str]:
    return frozenset(paths)


@attrs.frozen(kw_only=True)
class Faults:
    """Which requests fail: a share `rate` (0 to 1) of them, each with one of the `kinds`.

    The choice depends on the seed, the request and the number of its repetitions, never on the order of
    requests: a run with the same requests has the same faults. Only the first `times` repetitions of a
    request can fail; after that the exchange answers correctly. `paths` limits faults to some routes.

    >>> faults = Faults(rate=1, kinds=["reset"])
    >>> [faults.choose("/fapi/v1/time", "/fapi/v1/time?", seen) for seen in (0, 1)]
    [<FaultKind.RESET: 'reset'>, None]
    """

    rate: float = attrs.field(default=0.1, validator=[attrs.validators.ge(0), attrs.validators.le(1)])
    kinds: tuple[FaultKind, ...] = attrs.field(default=tuple(FaultKind), converter=_kinds)
    seed: int = 0
    times: int = 1
    paths: frozenset[str] = attrs.field(default=frozenset(), converter=_paths)

    def choose(self, path: str, key: str, seen: int) -> FaultKind | None:
        """Return the fault of a request that was made `seen` times before; None for a correct reply."""
        if seen >= self.times or not self.kinds or (self.paths and path not in self.paths):
            return None
        digest = blake2b(f"{self.seed}/{seen}/{key}".encode(), digest_size=16).digest()
        if int.from_bytes(digest[:8], "little") >= self.rate * 2**64:
            return None
        return self.kinds[int.from_bytes(digest[8:], "little") % len(self.kinds)]


class FaultSchedule:
    """Faults, and the number of times that each request was made."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._seen: Counter[str] = Counter()

    def next(self, path: str, key: str) -> FaultKind | None:
        """Return the fault of this request, and count the request."""
        seen = self._seen[key]
        self._seen[key] += 1
        return self._faults.choose(path, key, seen)
