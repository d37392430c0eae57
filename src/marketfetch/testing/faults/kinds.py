"""Faults on request: which request is hit by what, decided by the request itself and nothing else."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable
from hashlib import blake2b

import attrs

__all__ = ["FaultKind", "FaultSchedule", "Faults"]


class FaultKind(enum.StrEnum):
    """What can go wrong with an answer.

    The first group are refusals, redirects and server errors, the second broken bodies, the third rows that
    are well-formed but not true, the fourth wrong clocks, the last what happens to the connection.
    """

    STATUS_429 = "status_429"
    STATUS_429_DATE = "status_429_date"
    """`Retry-After` is an HTTP date."""
    STATUS_429_BARE = "status_429_bare"
    """Without `Retry-After`."""
    STATUS_429_PAST = "status_429_past"
    """`Retry-After` is a date that is over."""
    STATUS_429_NEGATIVE = "status_429_negative"
    STATUS_429_DAYS = "status_429_days"
    """Two days; whoever keeps to it has lost the address for this run."""
    STATUS_429_ABSURD = "status_429_absurd"
    """Thirty years."""
    STATUS_429_RUBBISH = "status_429_rubbish"
    """`Retry-After` is a word."""
    STATUS_418 = "status_418"
    """The end of the ban stands in `Retry-After` and in the text."""
    STATUS_418_TEXT = "status_418_text"
    """In the text alone."""
    STATUS_418_BARE = "status_418_bare"
    """Nowhere."""
    STATUS_403 = "status_403"
    """A gateway's page."""
    STATUS_403_LOCATION = "status_403_location"
    """A gateway's page that shuts out a country: a legal refusal."""
    STATUS_451 = "status_451"
    STATUS_451_PAGE = "status_451_page"
    """The same as a page of HTML."""
    REDIRECT_AWAY = "redirect_away"
    """To another host, which does not exist."""
    REDIRECT_LOOP = "redirect_loop"
    """To the very same address."""
    STATUS_500 = "status_500"
    STATUS_502 = "status_502"
    STATUS_503 = "status_503"

    ERROR_IN_200 = "error_in_200"
    PAGE_IN_200 = "page_in_200"
    """A gateway's page of HTML with status 200."""
    EMPTY_BODY = "empty_body"
    TRUNCATED_JSON = "truncated_json"
    """The body ends early and Content-Length agrees with it."""
    OBJECT_INSTEAD_OF_LIST = "object_instead_of_list"
    NULL = "null"
    CUT_GZIP = "cut_gzip"
    """A compressed body ends early and Content-Length agrees with it, asked for or not."""
    DAMAGED_GZIP = "damaged_gzip"
    GZIP_BOMB = "gzip_bomb"
    """A body of 100 KB that becomes 100 MB, asked for or not."""
    HUGE_BODY = "huge_body"
    """The truth, and 100 MB of blanks behind it."""
    HUGE_CHUNKED_BODY = "huge_chunked_body"
    """The same without Content-Length."""

    WRONG_WINDOW = "wrong_window"
    REPEATED_PAGE = "repeated_page"
    """The page before this one, once more."""
    SINCE_IGNORED = "since_ignored"
    REVERSED_ORDER = "reversed_order"
    """Newest first where oldest first is right, and the other way round."""
    SHORT_PAGE = "short_page"
    EMPTY_PAGE = "empty_page"
    REPEATED_ROWS = "repeated_rows"
    UNSORTED_ROWS = "unsorted_rows"
    OFF_GRID_ROW = "off_grid_row"
    OUT_OF_RANGE_ROW = "out_of_range_row"
    IMPOSSIBLE_ROW = "impossible_row"
    """A candle whose high lies below its low."""
    NEGATIVE_VOLUME = "negative_volume"
    NAN_TEXT = "nan_text"
    TEXT_VALUE = "text_value"
    """A word where a number belongs."""
    NO_VALUE = "no_value"
    """Empty text where a number belongs: the exchange fills it in later."""
    HUGE_NUMBER = "huge_number"
    """`1e400`, which no float64 can hold."""
    PLAIN_NUMBERS = "plain_numbers"
    """JSON numbers where the exchange sends text."""

    CLOCK_HOURS_AHEAD = "clock_hours_ahead"
    """The route that tells the time is two hours ahead."""
    CLOCK_HOURS_BEHIND = "clock_hours_behind"
    CLOCK_YEARS_AHEAD = "clock_years_ahead"
    CLOCK_YEARS_BEHIND = "clock_years_behind"
    DATE_AHEAD = "date_ahead"
    """The `Date` header is a year ahead."""
    DATE_BEHIND = "date_behind"

    HANG = "hang"
    SLOW_DRIP = "slow_drip"
    """Ten pieces, one each tenth of a second."""
    SLOW_LORIS = "slow_loris"
    """Byte by byte, headers too, and it never ends."""
    ENDLESS_HEADERS = "endless_headers"
    """Megabytes of headers, and no body."""
    CUT_BODY = "cut_body"
    """The connection is closed before Content-Length is reached."""
    LONG_BODY = "long_body"
    """More comes than Content-Length says."""
    CUT_CHUNKS = "cut_chunks"
    """A chunked body ends without its last chunk."""
    RESET = "reset"


def _kinds(kinds: Iterable[FaultKind | str]) -> tuple[FaultKind, ...]:
    return tuple(FaultKind(kind) for kind in kinds)


def _paths(paths: Iterable[str]) -> frozenset[str]:
    return frozenset(paths)


@attrs.frozen(kw_only=True)
class Faults:
    """Which requests are hit: a share `rate` (0 to 1) of them, each by one of the `kinds`.

    Whether and how a request is hit follows from (seed, the request, how often it was seen before), never
    from the order of calls: a run with the same requests meets the same faults. Only the first `times`
    sights of a request can be hit, so that an exchange tells the truth in the end. `paths` limits faults to
    some routes; by default every route has them.
    """

    rate: float = attrs.field(default=0.1, validator=[attrs.validators.ge(0), attrs.validators.le(1)])
    kinds: tuple[FaultKind, ...] = attrs.field(default=tuple(FaultKind), converter=_kinds)
    seed: int = 0
    times: int = 1
    paths: frozenset[str] = attrs.field(default=frozenset(), converter=_paths)

    def choose(self, path: str, key: str, seen: int) -> FaultKind | None:
        """Return what hits a request that was `seen` before so many times; None for the truth."""
        if seen >= self.times or not self.kinds or (self.paths and path not in self.paths):
            return None
        digest = blake2b(f"{self.seed}/{seen}/{key}".encode(), digest_size=16).digest()
        if int.from_bytes(digest[:8], "little") >= self.rate * 2**64:
            return None
        return self.kinds[int.from_bytes(digest[8:], "little") % len(self.kinds)]


class FaultSchedule:
    """Faults together with the count of how often every request was seen."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._seen: Counter[str] = Counter()

    def next(self, path: str, key: str) -> FaultKind | None:
        """Return what hits this request now, and count it."""
        seen = self._seen[key]
        self._seen[key] += 1
        return self._faults.choose(path, key, seen)
