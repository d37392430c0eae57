"""Files of archives while they arrive: small ones at once, large ones in parts, one request for each.

A part is retried alone, its time limit does not depend on the file, and every transport can fetch it. The
bytes are in memory up to the size of one part, beyond it in a temporary file without a name.
"""

from __future__ import annotations

import hashlib
import re
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, cast

import attrs

from marketfetch.errors import ArchiveDamaged, DecodeError, LocalResourceError
from marketfetch.values.http import Request, Response

__all__ = ["MAX_FILE", "PART", "Download", "FilePart"]

PART = 8 << 20
"""Bytes of a part, at most, and of a file that is fetched at once."""
MAX_FILE = 8 << 30
"""Bytes of a file, at most: a month of trades of the busiest symbol has half of it."""
_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})")


@attrs.frozen
class FilePart:
    """Consecutive bytes of a file from the position `start` on, and the size of the whole file."""

    start: int
    body: bytes = attrs.field(repr=False)
    size: int

    @classmethod
    def of(cls, response: Response, start: int) -> FilePart:
        """Read the answer to a request for the bytes from `start` on; DecodeError if it has others.

        A host that does not know ranges sends the whole file.

        >>> response = Response(206, {"content-range": "bytes 4-6/7"}, b"567", 0, 0)
        >>> FilePart.of(response, 4)
        FilePart(start=4, size=7)
        """
        if response.status != 206 and not start:
            return cls(0, response.body, len(response.body))
        announced = response.headers.get("content-range", "")
        found = _RANGE.fullmatch(announced)
        first, last, size = map(int, found.groups()) if found else (-1, -1, -1)
        if first != start or last - first + 1 != len(response.body) or not first <= last < size:
            raise DecodeError(
                f"expected the bytes of a file from {start:,} on, found HTTP {response.status} with "
                f"{len(response.body):,} bytes and the range {announced[:60]!r}"
            )
        return cls(start, response.body, size)


def _spool() -> SpooledTemporaryFile[bytes]:
    return SpooledTemporaryFile(max_size=PART)


@attrs.define(eq=False)
class Download:
    """A file that arrives part by part, and its SHA-256; `close` deletes it.

    >>> from contextlib import closing
    >>> with closing(Download()) as download:
    ...     for part in (FilePart(0, b"1704067200000", 17), FilePart(13, b",1.5", 17)):
    ...         download.append(part)
    ...     download.is_complete, download.digest[:8], download.file.read()
    (True, '667f5819', b'1704067200000,1.5')
    """

    size: int = attrs.field(default=0, init=False)
    """How many bytes have arrived."""
    _whole: int | None = attrs.field(default=None, init=False)
    _file: SpooledTemporaryFile[bytes] = attrs.field(factory=_spool, init=False)
    _digest: Any = attrs.field(factory=hashlib.sha256, init=False)

    @property
    def is_complete(self) -> bool:
        """Whether all bytes have arrived."""
        return self.size == self._whole

    @property
    def digest(self) -> str:
        """The SHA-256 of the bytes that have arrived, in hexadecimal."""
        return str(self._digest.hexdigest())

    @property
    def file(self) -> BinaryIO:
        """The bytes, from their beginning."""
        self._file.seek(0)
        return cast("BinaryIO", self._file)

    def next_request(self, file: Request, size: int | None) -> Request:
        """Return the request for the next part of a file; for all of it if it is small.

        `size` is that of the whole file; None if nothing has told it yet.
        """
        if size is not None and size <= PART:
            return file
        headers = {**file.headers, "Range": f"bytes={self.size}-{self.size + PART - 1}"}
        return attrs.evolve(file, headers=headers)

    def append(self, part: FilePart) -> None:
        """Add the next part; blocks while it is written and hashed.

        Raises ArchiveDamaged for a file that changes meanwhile or is larger than `MAX_FILE`, and
        LocalResourceError if there is no room for it.
        """
        if self._whole not in {None, part.size}:
            raise ArchiveDamaged(
                f"the file had {self._whole:,} bytes and has {part.size:,} now: it has changed"
            )
        if part.size > MAX_FILE:
            raise ArchiveDamaged(f"the file has {part.size:,} bytes, more than {MAX_FILE:,}")
        try:
            self._file.write(part.body)
        except OSError as error:
            raise LocalResourceError(
                f"a file of {part.size:,} bytes cannot be kept while it is read ({error.strerror}): make "
                "room in the folder of temporary files, or set TMPDIR to another one"
            ) from error
        self._digest.update(part.body)
        self._whole, self.size = part.size, self.size + len(part.body)

    def close(self) -> None:
        """Delete the bytes."""
        self._file.close()
