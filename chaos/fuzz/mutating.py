"""Mutate good pages and answers: replace, repeat, move or remove tokens, rows and bytes."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence

__all__ = ["ODD", "mutated", "mutations"]

# fmt: off
ODD: tuple[bytes, ...] = (
    b"null", b"true", b"false", b'""', b"0", b"-0", b"-0.0", b"-1", b"1", b"1.0", b"1e0", b"01", b"+1",
    b" 1", b"1.", b".5", b'"0"', b'"-0"', b'"1"', b'"1.0"', b'"01"', b'" 1"', b'"1 "', b'"1_0"', b'"+1"',
    b'"0x1p4"', b'"abc"', b'"\\u0031"', b"NaN", b"Infinity", b'"NaN"', b'"-Infinity"', b"1e400", b'"1e400"',
    b"1e-400", b'"1e-400"', b"1e22", b"1e23", b"5e-324", b"2.4703282292062327e-324",
    b'"2.4703282292062328e-324"', b"1.7976931348623157e308", b"1.7976931348623159e308", b"9007199254740991",
    b"9007199254740992", b'"9007199254740993"', b"9007199254740993.0",
    b"0.1000000000000000055511151231257827", b"123456789012345678",
    b"1234567890123456789012345678901234567890", b"999999999999999", b"1000000000000000", b"1.5e3",
    b"1780272000000", b"1780272060000.0", b'"1780272000000"', b"9223372036854775807",
    b"9223372036854775808", b"-9223372036854775808", b"18446744073709551616", b"1780272000", b"[", b"]",
    b"{", b"}", b",", b":", b'"', b"[]", b"{}", b"[[]]", b"[[", b"]]", b"],[", b'"data":', b'"code":',
    b'"d\\u0061ta":', b"\\", b"\\u0000", b'"\\ud800"', b'"\\ud83d\\ude00"', b"\x00", b"\x1f", b"\xff",
    b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xd9\xa1", b" ", b"\t", b"\n", b"\r\n", b"\x0b", b"\xc2\xa0", b"e",
    b"E", b"-", b"+", b".", b"_", b"/", b"@", b"://", b"#", b"%", b"%ff", b"password=", b"HTTP/",
    b"HTTP/1.1 200 OK", b"Retry-After: ", b"Date: ", b"GMT", b"-0000", b"banned until 1780272000000",
)
# fmt: on
"""Tokens at or beyond the limits of what decoders accept."""

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\w.+-]+|[^\w\s]')
_ROW = re.compile(rb"[\[{][^][{}]*[\]}]")

_Mutation = Callable[[bytes, random.Random], bytes]


def mutated(text: bytes, rng: random.Random, limit: int) -> bytes:
    """Change a text in one to four ways, mostly few; it becomes at most `limit` bytes long."""
    for _ in range(1 + int(4 * rng.random() ** 3)):
        text = _MUTATIONS[int(rng.random() * len(_MUTATIONS))](text, rng)
    return text[:limit]


def mutations(seeds: Sequence[bytes], rng: random.Random, limit: int) -> Iterator[bytes]:
    """Give the seeds themselves, then changed ones without an end."""
    yield from seeds
    while True:
        yield mutated(seeds[int(rng.random() * len(seeds))], rng, limit)


def _place(text: bytes, rng: random.Random) -> int:
    return int(rng.random() * (len(text) + 1))


def _pick(pattern: re.Pattern[bytes], text: bytes, rng: random.Random) -> tuple[int, int]:
    """Return the borders of a random match, or of the whole text if there is none."""
    spans = [match.span() for match in pattern.finditer(text)]
    return spans[int(rng.random() * len(spans))] if spans else (0, len(text))


def _replace_token(text: bytes, rng: random.Random) -> bytes:
    start, stop = _pick(_TOKEN, text, rng)
    return text[:start] + rng.choice(ODD) + text[stop:]


def _quote_or_unquote(text: bytes, rng: random.Random) -> bytes:
    start, stop = _pick(_TOKEN, text, rng)
    token = text[start:stop]
    other = token[1:-1] if token[:1] == b'"' else b'"' + token + b'"'
    return text[:start] + other + text[stop:]


def _copy_token(text: bytes, rng: random.Random) -> bytes:
    (start, stop), (first, last) = _pick(_TOKEN, text, rng), _pick(_TOKEN, text, rng)
    return text[:start] + text[first:last] + text[stop:]


def _repeat_row(text: bytes, rng: random.Random) -> bytes:
    start, stop = _pick(_ROW, text, rng)
    return text[:stop] + b"," + text[start:stop] + text[stop:]


def _drop_row(text: bytes, rng: random.Random) -> bytes:
    start, stop = _pick(_ROW, text, rng)
    return text[:start] + text[stop:].removeprefix(b",")


def _insert(text: bytes, rng: random.Random) -> bytes:
    at = _place(text, rng)
    return text[:at] + rng.choice(ODD) + text[at:]


def _change_digit(text: bytes, rng: random.Random) -> bytes:
    at = _place(text, rng)
    return text[:at] + b"0123456789"[rng.randrange(10) :][:1] + text[at + 1 :]


def _flip_bit(text: bytes, rng: random.Random) -> bytes:
    at = _place(text, rng)
    return text[:at] + bytes([byte ^ 1 << rng.randrange(8) for byte in text[at : at + 1]]) + text[at + 1 :]


def _move_stretch(text: bytes, rng: random.Random) -> bytes:
    start, stop, to = _place(text, rng), _place(text, rng), _place(text, rng)
    return text[:to] + text[start:stop] + text[to:]


def _cut_stretch(text: bytes, rng: random.Random) -> bytes:
    at = _place(text, rng)
    return text[:at] + text[at + 1 + int(rng.random() * 8) :]


def _cut_off(text: bytes, rng: random.Random) -> bytes:
    return text[: _place(text, rng)]


_MUTATIONS: tuple[_Mutation, ...] = (
    *(_replace_token, _replace_token, _quote_or_unquote, _copy_token, _repeat_row, _drop_row),
    *(_insert, _change_digit, _change_digit, _flip_bit, _move_stretch, _cut_stretch, _cut_off),
)
