"""Spans as JSON, which databases in files store as text. Pure."""

from __future__ import annotations

from operator import index

import orjson

from marketfetch.values.spans import Span, SpanSet

__all__ = ["dump_spans", "load_spans"]


def dump_spans(spans: SpanSet) -> str:
    """Write spans as JSON, which both databases and people can read.

    >>> dump_spans(SpanSet.of(Span(0, 60_000), Span(120_000, 180_000)))
    '[[0,60000],[120000,180000]]'
    """
    return orjson.dumps([(span.start, span.end) for span in spans]).decode()


def load_spans(text: str) -> SpanSet:
    """Read the text of `dump_spans`; raises ValueError or TypeError for any other text."""
    # `index` refuses numbers that are not whole; a Span would take them.
    return SpanSet(tuple(Span(index(start), index(end)) for start, end in orjson.loads(text)))
