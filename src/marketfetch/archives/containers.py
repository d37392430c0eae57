"""Containers of archives: the text in a zip or gzip file, inflated piece by piece.

Nothing is written, and the name of a member is only reported. Every file that is not exactly one sound text
raises ArchiveDamaged: cut, altered, encrypted, with several members, with a path in place of a name, or
inflating beyond the limits.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import Any, BinaryIO, cast

import attrs

from marketfetch.errors import ArchiveDamaged

__all__ = ["InflateLimits", "Member", "open_member"]

_PIECE = 128 << 10
"""Bytes of text in a piece, at most: what is inflated is read before it leaves the cache of the processor."""
_ALWAYS = 16 << 20
"""Text of this size is not measured against the size of its file: few flat rows may shrink much."""
_RAW, _GZIP = -15, 31
"""Parameters of zlib: deflate without a header, as in zip files; and with the header of gzip."""
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_ENCRYPTED = 1
_LONGEST_DIRECTORY = 1 << 20
_MOST_STREAMS = 1_000
"""How many gzip streams may follow one another; nobody needs more, and each costs time."""
_BROKEN_DIRECTORY = (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, struct.error)
"""What `zipfile` raises for a central directory that it cannot read, such as one before the file's begin."""


@attrs.frozen
class InflateLimits:
    """How large a text may become: in bytes, and as a multiple of its file.

    A month of trades is a few gigabytes, and candles shrink to a third. Candles of a market that stands still
    shrink to a fortieth.
    """

    size: int = 64 << 30
    ratio: int = 250


@attrs.frozen
class Member:
    """The one text in a file, and its name in the file; None if the container has no names.

    The text is sound if `pieces` ends without an exception.
    """

    name: str | None
    pieces: Iterator[bytes] = attrs.field(repr=False)


def open_member(file: BinaryIO, limits: InflateLimits | None = None) -> Member:
    r"""Open the one text of a file; its first bytes tell the container: zip, gzip or none.

    Raises ArchiveDamaged, at once or from `pieces`.

    >>> import gzip, io
    >>> b"".join(open_member(io.BytesIO(gzip.compress(b"1,2\n"))).pieces)
    b'1,2\n'
    """
    limits = limits or InflateLimits()
    size = file.seek(0, 2)
    file.seek(0)
    magic = file.read(2)
    if not magic:
        raise ArchiveDamaged("the file is empty")
    if magic == b"PK":
        return _open_zip(file, size, limits)
    file.seek(0)
    pieces = _chunks(file, size)
    if magic == b"\x1f\x8b":
        return Member(None, _limited(_inflated(pieces, _GZIP), size, limits))
    return Member(None, _limited(pieces, size, limits))


@attrs.frozen
class _SmallReads:
    """A file for `zipfile`, which reads a directory at once, however many members it lists."""

    file: BinaryIO

    def read(self, size: int = -1) -> bytes:
        if size > _LONGEST_DIRECTORY:
            raise zipfile.BadZipFile(f"the directory has {size:,} bytes")
        return self.file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()


def _open_zip(file: BinaryIO, size: int, limits: InflateLimits) -> Member:
    try:
        with zipfile.ZipFile(cast("BinaryIO", _SmallReads(file))) as archive:
            members = archive.infolist()
    except _BROKEN_DIRECTORY as error:
        raise ArchiveDamaged(f"the zip file is broken or cut: {error}") from None
    if len(members) != 1:
        names = ", ".join(repr(member.filename[:80]) for member in members[:3])
        raise ArchiveDamaged(f"expected a zip file with one member, found {len(members)}: {names or 'none'}")
    (member,) = members
    if {*member.filename} & {*"/\\"}:
        raise ArchiveDamaged(f"expected a member without a folder, found {member.filename[:80]!r}")
    if member.flag_bits & _ENCRYPTED:
        raise ArchiveDamaged(f"{member.filename[:80]!r} in the zip file is encrypted")
    if member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise ArchiveDamaged(f"expected deflate or no compression, found method {member.compress_type}")
    file.seek(max(0, member.header_offset))
    header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\3\4"):
        raise ArchiveDamaged(f"the member of the zip file is not at byte {member.header_offset}")
    _, name_length, extra_length = _LOCAL_HEADER.unpack(header)
    file.seek(name_length + extra_length, 1)
    pieces = _chunks(file, member.compress_size)
    if member.compress_type == zipfile.ZIP_DEFLATED:
        pieces = _inflated(pieces, _RAW)
    return Member(member.filename, _verified(_limited(pieces, size, limits), member))


def _chunks(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Read so many bytes from where the file is."""
    while size:
        chunk = file.read(min(size, _PIECE))
        if not chunk:
            raise ArchiveDamaged(f"the file is cut: {size:,} bytes are missing")
        size -= len(chunk)
        yield chunk


def _inflated(chunks: Iterator[bytes], form: int) -> Iterator[bytes]:
    """Inflate one deflate stream, or gzip streams one after another."""
    codec = _codec()
    inflater = codec.decompressobj(form)
    streams_left = _MOST_STREAMS if form == _GZIP else 1
    try:
        for chunk in chunks:
            rest = chunk
            while rest:
                if inflater.eof:
                    streams_left -= 1
                    inflater = codec.decompressobj(form)
                if not streams_left:
                    raise ArchiveDamaged(f"{len(rest):,} bytes follow the end of the compressed text")
                yield inflater.decompress(rest, _PIECE)
                rest = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
        while not inflater.eof:
            piece = inflater.decompress(b"", _PIECE)
            if not piece:
                raise ArchiveDamaged("the compressed text is cut")
            yield piece
    except codec.error as error:
        raise ArchiveDamaged(f"the compressed text is broken: {error}") from None


def _limited(pieces: Iterator[bytes], size: int, limits: InflateLimits) -> Iterator[bytes]:
    most = min(limits.size, max(_ALWAYS, limits.ratio * size))
    total = 0
    for piece in pieces:
        total += len(piece)
        if total > most:
            raise ArchiveDamaged(f"{size:,} bytes inflate to more than {most:,}")
        yield piece


def _verified(pieces: Iterator[bytes], member: zipfile.ZipInfo) -> Iterator[bytes]:
    codec = _codec()
    checksum = total = 0
    for piece in pieces:
        checksum = codec.crc32(piece, checksum)
        total += len(piece)
        if total > member.file_size:
            break
        yield piece
    if total != member.file_size:
        raise ArchiveDamaged(f"expected {member.file_size:,} bytes of text, found {total:,} or more")
    if checksum != member.CRC:
        raise ArchiveDamaged(f"the text has the CRC-32 {checksum:08x}, announced is {member.CRC:08x}")


@cache
def _codec() -> Any:
    """Return `isal`, which inflates at more than twice the speed, or else `zlib`."""
    try:
        return import_module("isal.isal_zlib")
    except ImportError:
        return import_module("zlib")
