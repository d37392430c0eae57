"""Checksums that an archive publishes beside its files."""

from __future__ import annotations

import hashlib
import re
from typing import BinaryIO, Literal

import attrs

from marketfetch.decoding.layouts import excerpt
from marketfetch.errors import ArchiveDamaged, DecodeError

__all__ = ["Algorithm", "Checksum", "digest_of", "parse_checksum"]

Algorithm = Literal["md5", "sha256"]

_LINE = re.compile(rb"([0-9A-Fa-f]{32}|[0-9A-Fa-f]{64})[ \t]+\*?([^\s/]+)\s*")
"""What `sha256sum` and `md5sum` write about one file; `*` marks a binary file."""


@attrs.frozen
class Checksum:
    """The digest of a file, in small hexadecimal digits, and the algorithm."""

    algorithm: Algorithm
    digest: str

    def check(self, found: str) -> None:
        """Raise ArchiveDamaged if a file has another digest than the published one."""
        if found != self.digest:
            raise ArchiveDamaged(
                f"the file has the {self.algorithm} digest {found}, published is {self.digest}; "
                "fetch file and checksum again"
            )


def parse_checksum(body: bytes, name: str) -> Checksum:
    r"""Read a checksum file about one file; DecodeError if the text is not one, or is about another file.

    A digest of 32 digits is MD5, one of 64 is SHA-256.

    >>> parse_checksum(b"9E107D9D372BB6826BD81D3542A419D6  BTC-2024-01.zip\n", "BTC-2024-01.zip")
    Checksum(algorithm='md5', digest='9e107d9d372bb6826bd81d3542a419d6')
    """
    found = _LINE.fullmatch(body)
    if found is None:
        raise DecodeError(f"expected a digest and the name {name}, found {excerpt(body)}")
    digest, named = (part.decode("utf-8", "replace") for part in found.groups())
    if named != name:
        raise DecodeError(f"expected the digest of {name}, found the digest of {named[:100]!r}")
    return Checksum("md5" if len(digest) == 32 else "sha256", digest.lower())


def digest_of(file: BinaryIO, algorithm: Algorithm = "sha256") -> str:
    """Return the digest of a file, which is read from its beginning.

    >>> import io
    >>> digest_of(io.BytesIO(b"archive"))[:16]
    '0eb3e36bfb24dcd9'
    """
    file.seek(0)
    # MD5 guards against accidents of transport here, not against an attacker.
    digest = hashlib.new(algorithm, usedforsecurity=False)
    while piece := file.read(1 << 20):
        digest.update(piece)
    return digest.hexdigest()
