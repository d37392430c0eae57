"""Spans as the text of an int8multirange, without an object of psycopg for every range. Pure."""

from __future__ import annotations

import re

from marketfetch.values.spans import Span, SpanSet

__all__ = ["dump_multirange", "load_multirange"]

_RANGE = re.compile(r"\[(-?\d+),(-?\d+)\)")


def dump_multirange(spans: SpanSet) -> str:
    """Write spans as the server does.

    >>> dump_multirange(SpanSet.of(Span(0, 60_000), Span(120_000, 180_000)))
    '{[0,60000),[120000,180000)}'
    """
    return "{" + ",".join([f"[{span.start},{span.end})" for span in spans]) + "}"


def load_multirange(text: str) -> SpanSet:
    """Parse the server's text; an unbounded range, which marketfetch never writes, is left out.

    >>> load_multirange("{[0,60000),[120000,)}")
    SpanSet(spans=(Span(start=0, end=60000),))
    """
    return SpanSet(tuple([Span(int(start), int(end)) for start, end in _RANGE.findall(text)]))
