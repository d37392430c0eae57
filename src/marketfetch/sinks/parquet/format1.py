"""The ledger of format 1: a file `_coverage.json` with the whole coverage of a series."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TypeVar, cast

from marketfetch.errors import SinkError
from marketfetch.sinks.parquet.footers import LedgerNote
from marketfetch.sinks.parquet.periods import Period, periods_of
from marketfetch.sinks.sql.packed_coverage import PackedCoverage
from marketfetch.values.coverage import Coverage
from marketfetch.values.intervals import Interval
from marketfetch.values.spans import Span, SpanSet

__all__ = ["FORMAT1_LEDGER_FILE", "merge_format1", "read_format1_ledger"]

FORMAT1_LEDGER_FILE = "_coverage.json"

_T = TypeVar("_T")


def read_format1_ledger(file: Path) -> tuple[tuple[str, ...], Coverage]:
    """Read a ledger file: the names of its series, and the coverage.

    Raises OSError, and SinkError where it is damaged.
    """
    text = file.read_bytes()
    try:
        entry = json.loads(text)
        exchange, dataset, symbol, interval = _all_of_type(str, entry["series"])
        covered, empty = (
            SpanSet(tuple(Span(*_all_of_type(int, ends)) for ends in entry[name]))
            for name in ("covered", "empty")
        )
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise SinkError(f"{file} is damaged; remove it, and its series is asked for anew") from error
    return (exchange, dataset, symbol, interval), Coverage(covered, empty)


def merge_format1(
    ledger: LedgerNote, first: Coverage, stored: Collection[Period], interval: Interval
) -> LedgerNote:
    """Unite a ledger with the coverage of format 1; `stored` are the periods that have a file.

    Candles that are present in that coverage must have a file; a year without any event has none.
    """
    packed, files, fileless = PackedCoverage.of(first), dict(ledger.files), ledger.fileless
    for period in periods_of(first.covered, interval):
        part = packed.within(period.covers(interval))
        if period in stored or (part.unpack().present and not interval.is_event):
            files[str(period)] = (files.get(str(period)) or PackedCoverage()).united_with(part)
        else:
            fileless = fileless.united_with(part)
    return LedgerNote(files, fileless, ledger.provenance)


def _all_of_type(kind: type[_T], values: Sequence[object]) -> tuple[_T, ...]:
    """Return values that are all of one type; TypeError otherwise."""
    if not all(type(value) is kind for value in values):
        raise TypeError(values)
    return cast("tuple[_T, ...]", tuple(values))
