"""Compare the three decoders of a page of rows (compiled, NumPy, plain Python): results must be equal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import attrs

from marketfetch.decoding.layouts import Decoded, RowLayout
from marketfetch.decoding.native import RawRows
from marketfetch.errors import DecodeError
from marketfetch.values.datasets import Dataset

__all__ = ["layouts"]


@attrs.frozen
class _WithoutCompiler(RowLayout):
    """A layout on a machine without the compiled decoder."""

    def _compiled(self, rows: bytes, fields: Sequence[int]) -> RawRows | None:
        return self._portable(rows, fields)


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
        name: partial(
            _agree, layout, _WithoutCompiler(**attrs.asdict(layout, recurse=False)), Dataset.parse(dataset)
        )
        for name, (layout, dataset) in known.items()
    }


def _agree(layout: RowLayout, portable: RowLayout, dataset: Dataset, body: bytes) -> str:
    careful = _outcome(layout._careful, body, dataset)
    for way, found in (
        ("compiled", _outcome(layout.decode, body, dataset)),
        ("portable", _outcome(portable.decode, body, dataset)),
    ):
        assert found == careful, f"{way} differs from careful: {found} is not {careful}"
    return "read" if careful else "refused"


def _outcome(
    decode: Callable[[bytes, Dataset], Decoded], body: bytes, dataset: Dataset
) -> tuple[object, ...] | None:
    """Return everything that was decoded, bit by bit; None for a DecodeError."""
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
