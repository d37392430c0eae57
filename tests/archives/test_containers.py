"""The one text of a file comes out whole, or ArchiveDamaged says what is wrong with the file."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfetch.archives import containers
from marketfetch.archives.containers import InflateLimits, open_member
from marketfetch.errors import ArchiveDamaged

TEXT = b"".join(b"%d,1.5,%d\n" % (1_704_067_200_000 + at, at * at) for at in range(40_000))


@pytest.fixture(params=["zlib", "isal.isal_zlib"], autouse=True)
def codec(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test with the codec of Python, and with the faster one where it is installed."""
    module = pytest.importorskip(request.param)
    monkeypatch.setattr(containers, "_codec", lambda: module)


def zipped(text: bytes = TEXT, name: str = "a.csv", method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr(zipfile.ZipInfo(name), text, method)
    return file.getvalue()


def several(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"" if name.endswith("/") else b"1,2\n")
    return file.getvalue()


def text_of(content: bytes, limits: InflateLimits | None = None) -> bytes:
    pieces = [*open_member(io.BytesIO(content), limits).pieces]
    assert max(map(len, pieces), default=0) <= 256 << 10
    return b"".join(pieces)


def changed(content: bytes, at: int, replacement: bytes) -> bytes:
    at %= len(content)
    return content[:at] + replacement + content[at + len(replacement) :]


def directory(content: bytes) -> int:
    """Return where the central directory begins."""
    return content.rindex(b"PK\1\2")


@pytest.mark.parametrize(
    "pack",
    [
        zipped,
        lambda text: zipped(text, method=zipfile.ZIP_STORED),
        gzip.compress,
        lambda text: gzip.compress(text[:1000]) + gzip.compress(text[1000:]),
        bytes,
    ],
    ids=["zip", "stored", "gzip", "two gzips", "plain"],
)
@pytest.mark.parametrize("text", [TEXT, b"1,2\n"], ids=["long", "short"])
def test_first_bytes_tell_the_container(pack: Callable[[bytes], bytes], text: bytes) -> None:
    assert text_of(pack(text)) == text


def test_a_zip_of_64_bits_is_read() -> None:
    file = io.BytesIO()
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.csv", "w", force_zip64=True) as out,
    ):
        out.write(TEXT)
    assert text_of(file.getvalue()) == TEXT


def test_a_zip_of_a_stream_has_its_sizes_behind_the_data() -> None:
    class Unseekable(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: int) -> int:
            raise io.UnsupportedOperation

        def tell(self) -> int:
            raise io.UnsupportedOperation

    file = Unseekable()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", TEXT)
    assert text_of(file.getvalue()) == TEXT


def test_a_member_may_have_no_name() -> None:
    nameless = zipped(name="")
    assert open_member(io.BytesIO(nameless)).name == ""
    assert text_of(nameless) == TEXT


def test_the_name_of_a_member_is_only_reported() -> None:
    assert open_member(io.BytesIO(zipped(name="..b.csv"))).name == "..b.csv"
    assert open_member(io.BytesIO(gzip.compress(TEXT))).name is None


ZIP, GZIP = zipped(), gzip.compress(TEXT)
ZEROS = b"0" * (32 << 20)
# What takes long to make is made by the test: every process of a test run imports this module.
BROKEN: dict[str, tuple[bytes | Callable[[], bytes], str]] = {
    "empty": (b"", "empty"),
    "no member": (several(), "found 0"),
    "two members": (several("a.csv", "b.csv"), "found 2: 'a.csv', 'b.csv'"),
    "a directory": (several("a/"), "without a folder, found 'a/'"),
    "a path": (several("../../etc/a.csv"), "without a folder, found '../../etc/a.csv'"),
    "an absolute path": (several("/a.csv"), "without a folder, found '/a.csv'"),
    "a path of Windows": (several("..\\a.csv"), "without a folder"),
    "a directory and a member": (several("a/", "a/b.csv"), "found 2"),
    "cut in the directory": (ZIP[:-30], "broken or cut"),
    "cut in the data": (ZIP[:5000], "broken or cut"),
    "only the magic": (b"PK", "broken or cut"),
    "a directory of many": (several(*(f"{at:01000}" for at in range(1_500))), "directory has 1,"),
    "encrypted": (changed(ZIP, directory(ZIP) + 8, b"\1"), "encrypted"),
    "another method": (changed(ZIP, directory(ZIP) + 10, b"\x0c"), "method 12"),
    "wrong CRC": (changed(ZIP, directory(ZIP) + 16, b"\0\0\0\0"), "CRC-32"),
    "declared smaller": (changed(ZIP, directory(ZIP) + 24, struct.pack("<I", 1000)), "1,000"),
    "declared larger": (changed(ZIP, directory(ZIP) + 24, struct.pack("<I", 10**9)), "1,000,000,000"),
    "compressed size smaller": (changed(ZIP, directory(ZIP) + 20, struct.pack("<I", 1000)), "is cut"),
    "compressed size larger": (changed(ZIP, directory(ZIP) + 20, struct.pack("<I", 10**9)), "follow|cut"),
    "data elsewhere": (changed(ZIP, directory(ZIP) + 42, struct.pack("<I", 5)), "byte 5"),
    "data altered": (changed(ZIP, 60, b"\xff" * 40), "broken|CRC-32|cut|follow"),
    "stored and altered": (changed(zipped(method=zipfile.ZIP_STORED), 60, b"X"), "CRC-32"),
    "bomb": (lambda: zipped(ZEROS), "inflate to more than"),
    "gzip bomb": (lambda: gzip.compress(ZEROS), "inflate to more than"),
    "gzip cut": (GZIP[:-9], "cut"),
    "gzip without its length": (GZIP[:-2], "cut"),
    "gzip with a wrong CRC": (changed(GZIP, -8, b"\0\0\0\0"), "broken"),
    "gzip with bytes behind": (GZIP + b"<html>", "broken|cut"),
    "many gzips": (gzip.compress(b"") * 2_000, "follow"),
    "gzip of nothing but the magic": (b"\x1f\x8b", "cut"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_not_one_sound_text_is_refused(kind: str) -> None:
    content, message = BROKEN[kind]
    with pytest.raises(ArchiveDamaged, match=message):
        text_of(content() if callable(content) else content)


def test_no_more_than_the_limits_is_inflated() -> None:
    for content in (zipped(ZEROS), gzip.compress(ZEROS), zipped(), TEXT):
        inflated: list[bytes] = []
        with pytest.raises(ArchiveDamaged, match="300,000"):
            inflated.extend(open_member(io.BytesIO(content), InflateLimits(size=300_000)).pieces)
        assert 0 < sum(map(len, inflated)) <= 300_000


def test_flat_candles_are_no_bomb() -> None:
    line = b"%d,0.1000,0.1000,0.1000,0.1000,0.0000,%d,0.0000,0,0.0000,0.0000,0\n"
    times = range(1_704_067_200_000, 1_706_745_600_000, 60_000)
    text = b"".join(line % (time, time + 59_999) for time in times) * 10
    assert text_of(zipped(text)) == text


@given(st.sampled_from([ZIP, zipped(b"1,2\n"), gzip.compress(b"1,2\n"), several("a")]), st.data())
def test_altered_files_are_refused_or_give_the_text(content: bytes, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(
            st.integers(0, len(content) - 1) | st.integers(max(0, len(content) - 90), len(content) - 1)
        )
        content = changed(content, at, data.draw(st.binary(min_size=1, max_size=4)))[: len(content)]
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    try:
        text = text_of(content, InflateLimits(size=1 << 20))
    except ArchiveDamaged:
        return
    if content[:2] in {b"PK", b"\x1f\x8b"}:
        assert zlib.crc32(text) in {zlib.crc32(TEXT), zlib.crc32(b"1,2\n")}


@given(st.binary(max_size=80), st.sampled_from([b"PK", b"PK\5\6", b"\x1f\x8b", b"\x1f\x8b\x08", b""]))
def test_any_bytes_are_text_or_refused(content: bytes, magic: bytes) -> None:
    try:
        text = text_of(magic + content)
    except ArchiveDamaged:
        return
    assert text == content or magic
