"""Faults of a simulated archive: their kinds, and the choice of the faulty files and requests."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from types import MappingProxyType

import attrs

from marketfetch.testing.archives.paths import CANDLES, ArchivePath
from marketfetch.testing.markets.noise import hash_key

__all__ = ["ArchiveFaultKind", "ArchiveFaultSchedule", "ArchiveFaults", "ArchiveRequest"]


class ArchiveRequest(enum.StrEnum):
    """What a request to an archive asks for."""

    LISTING = "listing"
    FILE = "file"
    CHECKSUM = "checksum"


class ArchiveFaultKind(enum.StrEnum):
    """Everything that can be wrong with an archive.

    First the faults of a published file, which stay until the file is issued anew: rows, container,
    publication. Size, ETag and digest are those of the faulty file. Then the faults of a reply, which may
    heal: the published file is right.
    """

    MISSING_DAYS = "missing_days"
    """One to three whole days lack in a monthly file; the daily files have them."""
    FIRST_WEEK = "first_week"
    """A monthly file holds the first seven days alone."""
    ENDS_EARLY = "ends_early"
    """A daily file ends before its day."""
    OTHER_VALUES = "other_values"
    """Some rows of a monthly file have other values than the daily files and the API."""
    ZERO_VOLUME = "zero_volume"
    """Some candles have the volume 0 and no trades; the API has the volume."""
    REPEATED_ROWS = "repeated_rows"
    CONFLICTING_ROWS = "conflicting_rows"
    """Two different rows of one moment, the right one first."""
    UNSORTED_ROWS = "unsorted_rows"
    OFF_GRID_ROW = "off_grid_row"
    """One candle opens some seconds late."""
    TEXT_VALUE = "text_value"
    """`n/a` in place of a number."""
    BLANK_VALUE = "blank_value"
    """Empty text in place of a number, as in metrics."""
    WRONG_COLUMNS = "wrong_columns"
    """The third column lacks, in the header as well."""
    OTHER_SYMBOL = "other_symbol"
    """The file of another symbol, whose name its member has."""

    NOT_A_ZIP = "not_a_zip"
    """An HTML page under the name of a zip file."""
    TRUNCATED_ZIP = "truncated_zip"
    """The first half of the zip file."""
    WRONG_CRC = "wrong_crc"
    SEVERAL_MEMBERS = "several_members"
    """Two members with the same rows."""
    ENCRYPTED = "encrypted"
    """The flag of an encrypted member, though the bytes are those of a plain one."""
    BOMB = "bomb"
    """The rows, followed by 100 MB of line ends."""

    LATE = "late"
    """Published ten days after its time."""
    UNLISTED = "unlisted"
    """In no listing, but it can be downloaded."""
    NO_CHECKSUM = "no_checksum"
    """Without a digest file."""

    ABSENT = "absent"
    """404 for a listed file."""
    WRONG_DIGEST = "wrong_digest"
    """The digest file has the digest of other bytes."""
    TRUNCATED_BODY = "truncated_body"
    """The first half of the file, and Content-Length is that of the half."""
    DAMAGED_BODY = "damaged_body"
    """One bit differs."""
    PAGE_BODY = "page_body"
    """An HTML page with status 200 in place of the file."""
    CUT_BODY = "cut_body"
    """The connection is closed before the body is complete."""
    BLOCKED = "blocked"
    """403 with the HTML page of a CDN that blocks the client."""
    SLOW_DOWN = "slow_down"
    """503 with S3's error `SlowDown`."""
    CUT_LISTING = "cut_listing"
    """The XML ends early, and Content-Length is that of the shorter body."""
    SHORT_LISTING = "short_listing"
    """The first half of the entries, as if there were no more."""
    ENDLESS_LISTING = "endless_listing"
    """The first page whatever the marker, and always more."""
    PAGE_LISTING = "page_listing"
    """An HTML page with status 200 in place of the XML."""


_KIND = ArchiveFaultKind
_REPLY_FAULTS: Mapping[ArchiveRequest, frozenset[ArchiveFaultKind]] = MappingProxyType(
    {
        ArchiveRequest.FILE: frozenset(
            {
                *(_KIND.ABSENT, _KIND.TRUNCATED_BODY, _KIND.DAMAGED_BODY, _KIND.PAGE_BODY),
                *(_KIND.CUT_BODY, _KIND.BLOCKED, _KIND.SLOW_DOWN),
            }
        ),
        ArchiveRequest.CHECKSUM: frozenset({_KIND.WRONG_DIGEST, _KIND.BLOCKED, _KIND.SLOW_DOWN}),
        ArchiveRequest.LISTING: frozenset(
            {
                *(_KIND.CUT_LISTING, _KIND.SHORT_LISTING, _KIND.ENDLESS_LISTING, _KIND.PAGE_LISTING),
                *(_KIND.BLOCKED, _KIND.SLOW_DOWN),
            }
        ),
    }
)
_OF_REPLIES = frozenset().union(*_REPLY_FAULTS.values())
_LIMITED: Mapping[ArchiveFaultKind, Callable[[ArchivePath], bool]] = MappingProxyType(
    {
        _KIND.MISSING_DAYS: lambda path: path.grain == "monthly",
        _KIND.FIRST_WEEK: lambda path: path.grain == "monthly",
        _KIND.OTHER_VALUES: lambda path: path.grain == "monthly",
        _KIND.ENDS_EARLY: lambda path: path.grain == "daily",
        _KIND.ZERO_VOLUME: lambda path: path.type == "klines",
        _KIND.OFF_GRID_ROW: lambda path: path.type in CANDLES,
    }
)


def _can_have(path: ArchivePath, kind: ArchiveFaultKind) -> bool:
    """Whether a file can have a fault: whole days can lack in a monthly file, not in a daily one."""
    return kind not in _OF_REPLIES and (kind not in _LIMITED or _LIMITED[kind](path))


def _kinds(kinds: Iterable[ArchiveFaultKind | str]) -> tuple[ArchiveFaultKind, ...]:
    return tuple(ArchiveFaultKind(kind) for kind in kinds)


def _patterns(keys: str | Iterable[str]) -> tuple[str, ...]:
    return (keys,) if isinstance(keys, str) else tuple(keys)


@attrs.frozen(kw_only=True)
class ArchiveFaults:
    """Which files and replies are faulty: a share `rate` (0 to 1) of them, each with one of the `kinds`.

    The choice depends on the seed and on the key of the file or the prefix of the listing, never on the order
    of requests. `keys` are patterns as in a shell, one of which a key or prefix must match. Faults of files
    stay until the file is issued anew; faults of replies hit the first `times` requests for a key, or all of
    them with None.

    >>> faults = ArchiveFaults(rate=1, kinds=["missing_days"], keys="*/BTCUSDT-1m-2024-0?.zip")
    >>> path = ArchivePath.parse("data/spot/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2024-01.zip")
    >>> faults.of_file(path)
    <ArchiveFaultKind.MISSING_DAYS: 'missing_days'>
    """

    rate: float = attrs.field(default=0.1, validator=[attrs.validators.ge(0), attrs.validators.le(1)])
    kinds: tuple[ArchiveFaultKind, ...] = attrs.field(default=tuple(ArchiveFaultKind), converter=_kinds)
    seed: int = 0
    times: int | None = None
    keys: tuple[str, ...] = attrs.field(default=("*",), converter=_patterns)

    def of_file(self, path: ArchivePath) -> ArchiveFaultKind | None:
        """Return the fault of a published file; None for a right one."""
        return self._choose([kind for kind in self.kinds if _can_have(path, kind)], "file", path.key)

    def of_reply(self, request: ArchiveRequest, key: str, seen: int) -> ArchiveFaultKind | None:
        """Return the fault of the reply to a request that was made `seen` times before, or None."""
        if self.times is not None and seen >= self.times:
            return None
        return self._choose(
            [kind for kind in self.kinds if kind in _REPLY_FAULTS[request]], f"{request} reply", key
        )

    def _choose(self, kinds: list[ArchiveFaultKind], place: str, key: str) -> ArchiveFaultKind | None:
        if not kinds or not any(fnmatchcase(key, pattern) for pattern in self.keys):
            return None
        if hash_key(self.seed, place, key) >= self.rate * 2**64:
            return None
        return kinds[hash_key(self.seed, place, "kind", key) % len(kinds)]


class ArchiveFaultSchedule:
    """Several faults at once, and the number of times that each request was made."""

    def __init__(self, faults: Iterable[ArchiveFaults]) -> None:
        self._faults = tuple(faults)
        self._seen: Counter[tuple[ArchiveRequest, str]] = Counter()

    def of_file(self, path: ArchivePath) -> tuple[ArchiveFaultKind, ...]:
        """Return the faults of a published file, at most one of each `ArchiveFaults`."""
        return _present(faults.of_file(path) for faults in self._faults)

    def next(self, request: ArchiveRequest, key: str) -> ArchiveFaultKind | None:
        """Return the fault of this reply, and count the request."""
        seen = self._seen[request, key]
        self._seen[request, key] += 1
        found = _present(faults.of_reply(request, key, seen) for faults in self._faults)
        return found[0] if found else None


def _present(kinds: Iterable[ArchiveFaultKind | None]) -> tuple[ArchiveFaultKind, ...]:
    return tuple(kind for kind in kinds if kind is not None)
