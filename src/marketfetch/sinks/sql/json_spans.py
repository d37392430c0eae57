"""Spans as JSON, which databases in files store as text. Pure."""

from __future__ import annotations

import msgspec

from marketfetch.values.spans import Span, SpanSet

__all__ = ["dump_spans", "load_spans"]

_ENDS = msgspec.json.Decoder(list[tuple[int, int]])


def dump_spans(spans: SpanSet) -> str:
    """Write spans as JSON, which both databases and people can read.

    >>> dump_spans(SpanSet.of(Span(0, 60_000), Span(120_000, 180_000)))
    '[[0,60000],[120000,180000]]'
    """
    return msgspec.json.encode([(span.start, span.end) for span in spans]).decode()


def load_spans(text: str) -> SpanSet:
    """Read the text of `dump_spans`; raises ValueError or TypeError for any other text."""
    return SpanSet(tuple(Span(*ends) for ends in _ENDS.decode(text)))
