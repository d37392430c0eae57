"""A file arrives in parts: whole and hashed, or an error says what a host has sent instead."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfetch.archives import downloads
from marketfetch.archives.downloads import Download, FilePart
from marketfetch.errors import ArchiveDamaged, DecodeError, LocalResourceError
from marketfetch.values.http import Cost, LimitPool, Request, Response

FILE = Request("/a.zip", cost=Cost(LimitPool("files", 1, 1)), headers={"Accept-Encoding": "identity"})


def answer(body: bytes, content_range: str | None = None, status: int = 206) -> Response:
    headers: Mapping[str, str] = {} if content_range is None else {"content-range": content_range}
    return Response(status, headers, body, 0, 0)


@given(st.binary(min_size=1, max_size=100), st.integers(1, 40))
def test_parts_make_the_file(body: bytes, part: int) -> None:
    with pytest.MonkeyPatch.context() as patch, closing(Download()) as download:
        patch.setattr(downloads, "PART", part)
        while not download.is_complete:
            request = download.next_request(FILE, len(body))
            if len(body) <= part:
                assert request is FILE
                download.append(FilePart.of(answer(body, status=200), 0))
                continue
            assert request.headers["Accept-Encoding"] == "identity"
            first, last = map(int, request.headers["Range"].removeprefix("bytes=").split("-"))
            piece = body[first : last + 1]
            announced = f"bytes {first}-{first + len(piece) - 1}/{len(body)}"
            download.append(FilePart.of(answer(piece, announced), download.size))
        assert download.file.read() == download.file.read() == body
        assert (download.size, download.digest) == (len(body), hashlib.sha256(body).hexdigest())


def test_a_host_that_does_not_know_ranges_sends_all_at_once() -> None:
    assert FilePart.of(answer(b"1234", status=200), 0) == FilePart(0, b"1234", 4)
    with pytest.raises(DecodeError, match="from 2 on, found HTTP 200"):
        FilePart.of(answer(b"1234", status=200), 2)


@pytest.mark.parametrize(
    "announced",
    [
        *(None, "", "bytes */9", "bytes 0-3/*", "bytes 0-2/9", "bytes 0-4/9", "bytes 1-4/9"),
        *("bytes 0-3/3", "bytes 4-3/9", "bytes 0-3", "0-3/9", f"bytes 0-3/{'9' * 40}"),
    ],
)
def test_another_part_than_the_one_asked_for_is_refused(announced: str | None) -> None:
    with pytest.raises(DecodeError, match="bytes of a file from 0 on, found HTTP 206"):
        FilePart.of(answer(b"1234", announced), 0)
    with pytest.raises(DecodeError):
        FilePart.of(answer(b"", announced), 0)  # without progress there would be no end


def test_a_file_that_changes_or_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Download()) as download:
        download.append(FilePart(0, b"12", 5))
        with pytest.raises(ArchiveDamaged, match="had 5 bytes and has 6 now"):
            download.append(FilePart(2, b"34", 6))
    monkeypatch.setattr(downloads, "MAX_FILE", 4)
    with closing(Download()) as download, pytest.raises(ArchiveDamaged, match="5 bytes, more than 4"):
        download.append(FilePart(0, b"12", 5))


def test_a_large_file_has_no_name_and_a_small_one_is_in_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(downloads, "PART", 100)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with closing(Download()) as download:
        download.append(FilePart(0, bytes(150), 150))
        assert download.file.read() == bytes(150)
        assert not [*tmp_path.iterdir()]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with closing(Download()) as download:
        download.append(FilePart(0, bytes(100), 150))
        with pytest.raises(LocalResourceError, match=r"150 bytes cannot be kept .* set TMPDIR"):
            download.append(FilePart(100, bytes(50), 150))
