"""Write the zip files of an archive, right and broken ones."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType

import attrs

from marketfetch.testing.archives.faults import ArchiveFaultKind

__all__ = ["HTML_PAGE", "ZipMember", "write_zip"]

HTML_PAGE = (
    b'<!DOCTYPE html>\n<html lang="en">\n<head><title>Binance Data Collection</title></head>\n'
    b'<body><div id="listing"></div><script src="list.js"></script></body>\n</html>\n'
)
"""What a client gets in place of a file or a listing when it is led to the archive's site."""

_LEVEL = 1
"""Of deflate: higher levels take six times as long and save a tenth."""
_CENTRAL = b"PK\x01\x02"
# Where a member's flags and CRC are, behind the local header and behind that of the central directory.
_FLAGS, _CENTRAL_FLAGS = 6, 8
_CRC, _CENTRAL_CRC = 14, 16
_BOMB = 100 * 2**20
_EARLIEST = 315_532_800_000
"""1980-01-01, the first day that a zip file can name."""


@attrs.frozen
class ZipMember:
    """The one member of a zip file: a name, a text, and the time of its last change (UTC ms)."""

    name: str
    text: bytes
    modified: int


def write_zip(member: ZipMember, faults: tuple[ArchiveFaultKind, ...] = ()) -> bytes:
    """Return a zip file with one deflated member; the same member gives the same bytes.

    >>> write_zip(ZipMember("BTCUSDT-1m-2024-01.csv", b"", 1_704_067_200_000))[:2]
    b'PK'
    """
    data = _zip(member, faults)
    for kind in faults:
        if kind in _BROKEN:
            data = _BROKEN[kind](data)
    return data


def _zip(member: ZipMember, faults: tuple[ArchiveFaultKind, ...]) -> bytes:
    time = datetime.fromtimestamp(max(member.modified, _EARLIEST) // 1000, UTC)
    names = [member.name]
    if ArchiveFaultKind.SEVERAL_MEMBERS in faults:
        names.append(f"copy/{member.name}")
    text = member.text + b"\n" * _BOMB if ArchiveFaultKind.BOMB in faults else member.text
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in names:
            entry = zipfile.ZipInfo(name, time.timetuple()[:6])
            file.writestr(entry, text, zipfile.ZIP_DEFLATED, _LEVEL)
    return buffer.getvalue()


def _patched(data: bytes, local: int, central: int, bits: int) -> bytes:
    """Flip bits of a byte in the first member's local header and in its entry of the central directory."""
    changed = bytearray(data)
    changed[local] ^= bits
    changed[data.rindex(_CENTRAL) + central] ^= bits
    return bytes(changed)


_BROKEN: Mapping[ArchiveFaultKind, Callable[[bytes], bytes]] = MappingProxyType(
    {
        ArchiveFaultKind.NOT_A_ZIP: lambda _: HTML_PAGE,
        ArchiveFaultKind.TRUNCATED_ZIP: lambda data: data[: len(data) // 2],
        ArchiveFaultKind.WRONG_CRC: lambda data: _patched(data, _CRC, _CENTRAL_CRC, 0xFF),
        ArchiveFaultKind.ENCRYPTED: lambda data: _patched(data, _FLAGS, _CENTRAL_FLAGS, 1),
    }
)
