"""Checksum files are read, and files are compared with them."""

from __future__ import annotations

import hashlib
import io

import pytest

from marketfetch.archives.checksums import Checksum, digest_of, parse_checksum
from marketfetch.errors import ArchiveDamaged, DecodeError

NAME = "BTCUSDT-1m-2024-01.zip"
SHA = hashlib.sha256(b"archive").hexdigest()
MD5 = hashlib.md5(b"archive").hexdigest()


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
@pytest.mark.parametrize("digest", [SHA, SHA.upper(), MD5])
def test_a_checksum_file_has_a_digest_and_a_name(digest: str, end: str) -> None:
    found = parse_checksum(f"{digest}  {NAME}{end}".encode(), NAME)
    assert found.algorithm == ("md5" if len(digest) == 32 else "sha256")
    found.check(digest_of(io.BytesIO(b"archive"), found.algorithm))
    with pytest.raises(ArchiveDamaged, match=found.digest):
        found.check(digest_of(io.BytesIO(b"archivE"), found.algorithm))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        SHA.encode(),
        f"{SHA[:-1]}  {NAME}".encode(),
        f"{SHA}  BTCUSDT-1m-2024-02.zip".encode(),
        f"{SHA}  {NAME}\n{SHA}  {NAME}".encode(),
        f"{SHA}  ../{NAME}".encode(),
        b"<html><body>404</body></html>",
        b"\xff" * 70,
    ],
)
def test_anything_else_is_refused(body: bytes) -> None:
    with pytest.raises(DecodeError):
        parse_checksum(body, NAME)


def test_a_file_is_read_from_its_beginning() -> None:
    file = io.BytesIO(b"archive")
    file.read()
    assert digest_of(file) == SHA
    assert Checksum("md5", digest_of(file, "md5")) == Checksum("md5", MD5)
