"""The ledger of format 1: one `_coverage.json` with all that is known of a series, beside its files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar, cast

from marketfetch.errors import SinkError
from marketfetch.values.coverage import Coverage
from marketfetch.values.spans import Span, SpanSet

__all__ = ["FIRST_LEDGER", "read_first"]

FIRST_LEDGER = "_coverage.json"

_T = TypeVar("_T")


def read_first(file: Path) -> tuple[tuple[str, ...], Coverage]:
    """Read a ledger file: the names of its series, and what is known of it.

    Raises OSError, and SinkError where it is damaged.
    """
    text = file.read_bytes()
    try:
        entry = json.loads(text)
        exchange, dataset, symbol, interval = _all(str, entry["series"])
        covered, empty = (
            SpanSet(tuple(Span(*_all(int, ends)) for ends in entry[name])) for name in ("covered", "empty")
        )
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise SinkError(f"{file} is damaged; remove it, and its series is asked for anew") from error
    return (exchange, dataset, symbol, interval), Coverage(covered, empty)


def _all(kind: type[_T], values: Sequence[object]) -> tuple[_T, ...]:
    """Return values that are of one type, every one; TypeError where another is among them."""
    if not all(type(value) is kind for value in values):
        raise TypeError(values)
    return cast("tuple[_T, ...]", tuple(values))
