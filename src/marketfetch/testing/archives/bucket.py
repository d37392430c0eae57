"""The files of an archive as they are at a time: rendered when somebody asks, and kept for a while."""

from __future__ import annotations

import hashlib
import heapq
import threading
from collections import OrderedDict
from collections.abc import Iterator
from itertools import groupby

import attrs
import numpy as np

from marketfetch.testing.archives.csv_text import CsvText, read_csv
from marketfetch.testing.archives.faults import ArchiveFaultKind, ArchiveFaultSchedule
from marketfetch.testing.archives.okx import OkxPath, parse_path, read_okx_csv
from marketfetch.testing.archives.paths import CHECKSUM, ArchivePath
from marketfetch.testing.archives.publication import Publication
from marketfetch.testing.archives.row_faults import break_rows
from marketfetch.testing.archives.tree import ArchiveTree
from marketfetch.testing.archives.zip_files import ZipMember, write_zip
from marketfetch.testing.markets.noise import hash_key
from marketfetch.values.archives import ArchiveFile
from marketfetch.values.spans import DAY

__all__ = ["ArchiveBucket"]

_LATE = 10 * DAY


@attrs.frozen
class _Issue:
    """One edition of a zip file: when its rows were written, when it was uploaded, and its faults."""

    written: int
    uploaded: int
    faults: tuple[ArchiveFaultKind, ...]


class _Bodies:
    """Bytes by key, the latest ones: at most `limit` bytes, or one object if it is larger."""

    def __init__(self, limit: int) -> None:
        self._room = limit
        self._held: OrderedDict[str, bytes] = OrderedDict()

    def get(self, key: str) -> bytes | None:
        if key in self._held:
            self._held.move_to_end(key)
        return self._held.get(key)

    def put(self, key: str, body: bytes) -> None:
        self._held[key] = body
        self._room -= len(body)
        while self._room < 0 and len(self._held) > 1:
            self._room += len(self._held.popitem(last=False)[1])

    def discard(self, key: str) -> None:
        self._room += len(self._held.pop(key, b""))

    def clear(self) -> None:
        for key in tuple(self._held):
            self.discard(key)


class ArchiveBucket:
    """The objects of an archive by key: zip files and their digests. Times are UTC milliseconds.

    Objects are rendered on demand; at most `cache` bytes of them are kept. Threads may share a bucket.
    """

    def __init__(self, tree: ArchiveTree, publication: Publication, cache: int) -> None:
        self._tree = tree
        self._publication = publication
        self._schedule = ArchiveFaultSchedule(())
        self._issues: dict[str, _Issue] = {}
        self._strays: dict[str, tuple[bytes, ArchiveFile]] = {}
        self._entries: dict[str, ArchiveFile] = {}
        self._bodies = _Bodies(cache)
        self._lock = threading.RLock()

    def set_faults(self, schedule: ArchiveFaultSchedule) -> None:
        """Replace the faults of all files that were not issued anew."""
        with self._lock:
            self._schedule = schedule
            self._entries.clear()
            self._bodies.clear()

    def faults(self, path: ArchivePath) -> tuple[ArchiveFaultKind, ...]:
        """Return the faults of a published file."""
        return self._issue(path).faults

    def keys(self, prefix: str, after: str, now: int) -> Iterator[str]:
        """Yield the listed keys with a prefix that come after `after`, in byte order."""
        strays = sorted(key for key in self._strays if key > after and key.startswith(prefix))
        for key, _ in groupby(heapq.merge(self._keys(prefix, after, now), strays)):
            yield key

    def _keys(self, prefix: str, after: str, now: int) -> Iterator[str]:
        """Yield the listed keys of the market's files."""
        for path in self._tree.paths(prefix, after, now):
            faults = self._issue(path).faults
            if ArchiveFaultKind.UNLISTED in faults or not self._published(path, now):
                continue
            digest = () if ArchiveFaultKind.NO_CHECKSUM in faults else (path.key + CHECKSUM,)
            for key in (path.key, *digest):
                if key > after and key.startswith(prefix):
                    yield key

    def entry(self, key: str, now: int) -> ArchiveFile | None:
        """Return the entry of a key in a listing; None if there is no object."""
        with self._lock:
            if key in self._strays:
                return self._strays[key][1]
            path = self._path(key, now)
            if path is None:
                return None
            if key not in self._entries:
                self._body(key, path)
            return self._entries[key]

    def read(self, key: str, now: int) -> bytes | None:
        """Return the bytes of an object; None if there is none."""
        with self._lock:
            if key in self._strays:
                return self._strays[key][0]
            path = self._path(key, now)
            return None if path is None else self._body(key, path)

    def put(self, key: str, body: bytes, now: int) -> None:
        """Put any bytes under a key, in place of the market's file if the key is that of one."""
        self._strays[key] = (body, ArchiveFile(key, len(body), now, _etag(body)))

    def reissue(self, key: str, now: int, faults: tuple[ArchiveFaultKind, ...]) -> None:
        """Write the zip file of a key anew, with the given faults. Raises KeyError if there is none."""
        with self._lock:
            self._replace(key, now, _Issue(now, now, faults))

    def upload_again(self, key: str, now: int) -> None:
        """Upload the same bytes of a zip file again. Raises KeyError if there is none."""
        with self._lock:
            path = self._path(key, now)
            issue = None if path is None else attrs.evolve(self._issue(path), uploaded=now)
            self._replace(key, now, issue)

    def _replace(self, key: str, now: int, issue: _Issue | None) -> None:
        if issue is None or key.endswith(CHECKSUM) or self._path(key, now) is None:
            raise KeyError(f"{key}: the archive has no such zip file at {now}")
        self._issues[key] = issue
        for stale in (key, key + CHECKSUM):
            self._strays.pop(stale, None)
            self._entries.pop(stale, None)
            self._bodies.discard(stale)

    def _path(self, key: str, now: int) -> ArchivePath | None:
        """Return the path of an object that exists now."""
        path = parse_path(key.removesuffix(CHECKSUM))
        if path is None or not self._published(path, now):
            return None
        has_digest = path.has_digest and ArchiveFaultKind.NO_CHECKSUM not in self._issue(path).faults
        return path if has_digest or not key.endswith(CHECKSUM) else None

    def _issue(self, path: ArchivePath) -> _Issue:
        if path.key in self._issues:
            return self._issues[path.key]
        faults = self._schedule.of_file(path)
        due = self._publication.time(path) + (_LATE if ArchiveFaultKind.LATE in faults else 0)
        return _Issue(due, due, faults)

    def _published(self, path: ArchivePath, now: int) -> bool:
        return self._issue(path).uploaded <= now and self._tree.has_rows(path)

    def _body(self, key: str, path: ArchivePath) -> bytes:
        """Return the bytes of an object, and remember its entry in a listing."""
        body = self._bodies.get(key)
        if body is None:
            body = self._digest(path) if key.endswith(CHECKSUM) else self._zip(path)
            self._entries[key] = ArchiveFile(key, len(body), self._issue(path).uploaded, _etag(body))
            self._bodies.put(key, body)
        return body

    def _digest(self, path: ArchivePath) -> bytes:
        digest = hashlib.sha256(self._body(path.key, path)).hexdigest()
        # Some digest files end with a line end, some do not.
        end = "\n" if hash_key(path.key) % 2 else ""
        return f"{digest}  {path.name}{end}".encode()

    def _zip(self, path: ArchivePath) -> bytes:
        issue = self._issue(path)
        source = self._tree.neighbour(path) if ArchiveFaultKind.OTHER_SYMBOL in issue.faults else path
        text = self._text(source)
        for kind in issue.faults:
            text = break_rows(kind, text, hash_key(kind, path.key))
        return write_zip(ZipMember(source.member, text.text, issue.written), issue.faults)

    def _text(self, path: ArchivePath) -> CsvText:
        sources = [(source.market, source.instrument.symbol) for source in self._tree.sources(path)]
        parts = [
            read_okx_csv(*source, path) if isinstance(path, OkxPath) else read_csv(*source, path)
            for source in sources
        ]
        times = np.concatenate([part.times for part in parts])
        return CsvText(parts[0].header, times, b"".join([part.rows for part in parts]))


def _etag(body: bytes) -> str:
    return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
