"""Two decoders of a page of rows: the compiled one and the careful one in Python. They may not differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from marketfetch.decoding.layouts import DecodedRows, RowLayout
from marketfetch.errors import DecodeError
from marketfetch.values.datasets import Dataset

__all__ = ["layouts"]


def layouts() -> Mapping[str, Callable[[bytes], str]]:
    """Return a target for each kind of layout."""
    prices = {"open": 1, "high": 2, "low": 3, "close": 4}
    flow = {"volume": 5, "quote_volume": 7, "trades": 8, "taker_buy_volume": 9, "taker_buy_quote_volume": 10}
    known = {
        "plain": (RowLayout(prices, width=5), "mark_price"),
        "seconds": (RowLayout(prices, width=5, unit=1000), "mark_price"),
        "twelve": (RowLayout(prices | flow, width=12), "ohlcv"),
        "envelope": (RowLayout(prices, width=6, path=("data",), confirm=5), "mark_price"),
        "deep": (RowLayout(prices, width=5, path=("result", "list")), "mark_price"),
        "reversed": (RowLayout({"open": 3, "high": 2, "low": 1, "close": 0}, width=5, time=4), "mark_price"),
    }
    return {
        name: partial(_agree, layout, Dataset.parse(dataset)) for name, (layout, dataset) in known.items()
    }


def _agree(layout: RowLayout, dataset: Dataset, body: bytes) -> str:
    careful, compiled = (
        _outcome(decode, body, dataset) for decode in (layout._decode_row_by_row, layout.decode)
    )
    assert compiled == careful, f"compiled differs from careful: {compiled} is not {careful}"
    return "read" if careful else "refused"


def _outcome(
    decode: Callable[[bytes, Dataset], DecodedRows], body: bytes, dataset: Dataset
) -> tuple[object, ...] | None:
    """Return everything that was decoded, to the bit; None for a refusal."""
    try:
        found = decode(body, dataset)
    except DecodeError:
        return None
    closed = None if found.closed is None else found.closed.tolist()
    columns = found.columns
    return (
        *(columns.times.tolist(), columns.values.shape, columns.values.tobytes()),
        *(closed, found.undecodable, found.received, found.cursor),
    )
