"""Files of public archives as values: an entry of a listing, and the provenance of stored rows."""

from __future__ import annotations

import attrs

from marketfetch.values.spans import Span

__all__ = ["ArchiveFile", "Provenance"]


@attrs.frozen
class ArchiveFile:
    """One file of a public archive, as the listing shows it.

    `key` is the path below the host, `size` the number of bytes, `modified` the time of the last change in
    UTC milliseconds. `etag` is an opaque text that differs after each upload of other bytes.

    >>> ArchiveFile("data/spot/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2024-01.zip", 2_281_123, 0).name
    'BTCUSDT-1m-2024-01.zip'
    """

    key: str
    size: int
    modified: int
    etag: str = ""

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition("/")[2]


@attrs.frozen
class Provenance:
    """The file of an archive from which rows of a series came, as it was when they were read.

    `span` is the calendar span of the file. `digest` is the SHA-256 of the bytes that were read, in
    hexadecimal; `verified` tells whether the archive published the same digest.

    >>> january = Span(1_704_067_200_000, 1_706_745_600_000)
    >>> Provenance("BTCUSDT-1m-2024-01.zip", january, 2_281_123, 0, "9f86d0", verified=True).verified
    True
    """

    key: str
    span: Span
    size: int
    modified: int
    digest: str
    verified: bool = attrs.field(kw_only=True)
