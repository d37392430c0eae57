"""Generate inputs that are too large for the corpus and for a fuzzer."""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["big", "long_numbers"]

_MB = 1_000_000


def big(seed: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield large inputs with their names: generic ones, and enlarged copies of a good input."""
    yield "a megabyte of [", b"[" * _MB
    yield "nested 100,000 deep", b"[" * 100_000 + b"]" * 100_000
    yield "objects nested 100,000 deep", b'{"data":' * 100_000 + b"[]" + b"}" * 100_000
    yield "nested as deep as is just allowed", b"[" * 1020 + b"]" * 1020
    yield "a megabyte of digits", b"9" * _MB
    yield "a megabyte of text", b'"' + b"a" * _MB + b'"'
    yield "a megabyte of zero bytes", b"\x00" * _MB
    yield "a megabyte of spaces", b" " * _MB
    yield "50,000 line breaks", b"\r\n" * 50_000
    yield "a megabyte of colons", b":" * _MB
    yield "a megabyte of word characters with dots", b"a.b-" * (_MB // 4)
    for piece in (b"9" * 5_000, b"0." + b"3" * 100_000, b"1" * 100_000, b"1e" + b"9" * 10_000):
        for place in _places(seed):
            yield f"{len(piece):,} digits {piece[:3]!r}… at {place}", seed[:place] + piece + seed[place:]
    for place in _places(seed):
        yield f"a megabyte of letters at {place}", seed[:place] + b"x" * _MB + seed[place:]
        yield f"depth at {place}", seed[:place] + b"[" * 2_000 + b"]" * 2_000 + seed[place:]
        yield f"repeated from {place}", seed[:place] + seed[place:] * 2_000


def long_numbers(seed: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield a good input once for each of its numbers, with 5,000 digits instead: `int` refuses so many."""
    for found in re.finditer(rb"\d+", seed):
        start, stop = found.span()
        yield f"5,000 digits instead of {found[0]!r} at {start}", seed[:start] + b"9" * 5_000 + seed[stop:]


def _places(seed: bytes) -> Iterator[int]:
    """Yield about eight offsets spread over an input."""
    yield from range(0, len(seed) + 1, max(1, len(seed) // 7))
