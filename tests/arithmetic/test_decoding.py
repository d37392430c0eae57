"""The quick way from bytes to columns gives the same bits as the careful one."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marketfetch.arithmetic.decoding import Decoded, ObjectLayout, RowLayout, excerpt, parse_json
from marketfetch.arithmetic.native import LIBRARY, read_rows
from marketfetch.errors import DecodeError
from marketfetch.testing.rubbish import GARBAGE, rubbish
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Columns

PRICES = {"open": 1, "high": 2, "low": 3, "close": 4}
PLAIN = RowLayout(PRICES, width=5)
ENVELOPE = RowLayout(PRICES, width=6, path=("data",), confirm=5)
SECONDS = RowLayout(PRICES, width=5, unit=1000)
MARK = Dataset.parse("mark_price")

decimals = st.decimals(-(10**12), 10**12, allow_nan=False, allow_infinity=False, places=8).map(str)
shortest = st.floats(allow_nan=False, allow_infinity=False).map(repr)
digits = st.from_regex(r"-?[0-9]{1,25}(\.[0-9]{1,20})?(e[+-]?[0-9]{1,2})?", fullmatch=True)
odd = st.sampled_from(["", "0", "-0.0", "5e-324", "1e308", "NaN", "abc", " 1", "1_0", "1e400", "\u0661"])
texts = st.one_of(decimals, shortest, digits, digits, odd)


def same(one: Decoded, two: Decoded) -> None:
    assert one.columns.times.tobytes() == two.columns.times.tobytes()
    assert one.columns.values.tobytes() == two.columns.values.tobytes()
    assert one.undecodable == two.undecodable
    assert one.received == two.received
    assert (one.closed is None) == (two.closed is None)
    if one.closed is not None and two.closed is not None:
        assert one.closed.tolist() == two.closed.tolist()


@st.composite
def pages(draw: st.DrawFn, layout: RowLayout) -> bytes:
    """Pages as exchanges send them: each field quoted or not, in every row the same."""
    quoted = draw(st.lists(st.booleans(), min_size=5, max_size=5))
    rows = []
    for _ in range(draw(st.integers(1, 6))):
        fields = [str(draw(st.integers(0, 2**53 // layout.unit - 1))), *(draw(texts) for _ in range(4))]
        if layout.confirm is not None:
            fields.append(draw(st.sampled_from("01")))
        marks = [*quoted, True][: len(fields)]
        rows.append(
            "["
            + ",".join(f'"{text}"' if mark else text for text, mark in zip(fields, marks, strict=True))
            + "]"
        )
    body = f"[{','.join(rows)}]"
    return (f'{{"code":"0","data":{body}}}' if layout.path else body).encode()


@pytest.mark.parametrize("layout", [PLAIN, ENVELOPE, SECONDS], ids=["plain", "envelope", "seconds"])
@given(data=st.data())
def test_the_quick_way_gives_the_same_bits(layout: RowLayout, data: st.DataObject) -> None:
    body = data.draw(pages(layout))
    fast = layout._fast(body, MARK)
    if fast is not None:
        same(fast, layout._careful(body, MARK))


@pytest.mark.parametrize("layout", [PLAIN, ENVELOPE, SECONDS], ids=["plain", "envelope", "seconds"])
@pytest.mark.parametrize("way", ["_compiled", "_portable"])
@given(data=st.data())
def test_with_and_without_a_compiler_the_bits_are_the_same(
    layout: RowLayout, way: str, data: st.DataObject
) -> None:
    body = data.draw(pages(layout))
    rows = layout._rows_of(body)
    found = None if rows is None else getattr(layout, way)(rows, list(PRICES.values()))
    if found is not None:
        careful = layout._careful(body, MARK).columns
        assert (found.times * layout.unit).tobytes() == careful.times.tobytes()
        assert found.values.tobytes() == careful.values.tobytes()


@given(st.lists(st.tuples(decimals, decimals, decimals, decimals), min_size=1, max_size=5))
def test_ordinary_pages_go_the_quick_way(rows: list[tuple[str, ...]]) -> None:
    page = [[60_000 * at, *row] for at, row in enumerate(rows)]
    body = json.dumps(page, separators=(",", ":")).encode()
    expected = [[float(text) for text in row] for row in rows]
    for quick in (PLAIN._fast(body, MARK), PLAIN._portable(body, list(PRICES.values()))):
        assert quick is not None
        columns = quick.columns if isinstance(quick, Decoded) else quick
        assert columns.values.T.tolist() == expected


def test_this_installation_has_the_compiled_decoder() -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler: decoding is done in Python, and slower")
    assert LIBRARY.is_file()
    assert read_rows(b'[[60000,"1.5"]]', width=2, time=0, fields=[1]) is not None


@pytest.mark.parametrize(
    "rows",
    [
        b'[[0,1"2",2,3,4]]',
        b"[[0,1,2,3,4]5,[60000,1,2,3,4]]",
        b'[[0,"1\t",2,3,4]]',
        b'[[0,"-0 ",2,3,4]]',
        b"[[0,-0,2,3,4]]",
        b"[[0,1,2,3,4],[60000,1,2,3]]",
        b"[[0,1,2,3],[60000,1,2,3,4,5]]",
    ],
)
def test_what_is_not_quite_a_page_is_left_to_the_careful_decoder(rows: bytes) -> None:
    for way in (PLAIN._compiled, PLAIN._portable):
        found = way(rows, list(PRICES.values()))
        if found is not None:
            same(Decoded(Columns(found.times, found.values)), PLAIN._careful(rows, MARK))


@pytest.mark.parametrize("positions", [(1, 2, 3, -1), (1, 2, 3, 3), (1, 2, 3, 0)])
def test_odd_layouts_give_what_the_careful_decoder_gives(positions: tuple[int, ...]) -> None:
    layout = RowLayout(dict(zip(PRICES, positions, strict=True)), width=4)
    body = b"[[60000,1,2,3],[120000,4,5,6]]"
    same(layout.decode(body, MARK), layout._careful(body, MARK))


def test_a_time_beyond_64_bits_is_refused_whatever_its_unit() -> None:
    with pytest.raises(DecodeError, match="64 bits"):
        RowLayout(PRICES, width=5, unit=60_000).decode(b"[[307445734561826,1,2,1,1]]", MARK)


def test_a_body_may_be_a_bytearray() -> None:
    body = bytearray(b'[[0,"1","2","1","1"]]')
    same(PLAIN.decode(body, MARK), PLAIN.decode(bytes(body), MARK))  # type: ignore[arg-type]


@given(st.binary(max_size=60), st.integers(1, 4))
@example(b"[[1,2],[3,4]]", 2)
@example(b"[" * 30 + b"]" * 30, 1)
@example(b'[[1,"1.', 2)
@example(b"[[1,1e", 2)
def test_the_compiled_decoder_reads_no_further_than_the_text(text: bytes, width: int) -> None:
    found = read_rows(text, width=width, time=0, fields=range(1, width))
    if found is not None:
        assert [len(row) for row in json.loads(text)] == [width] * len(found.times)


@pytest.mark.parametrize("layout", [PLAIN, ENVELOPE, SECONDS], ids=["plain", "envelope", "seconds"])
@given(body=rubbish())
@example(b"[" * 1020 + b"]" * 1020)
@example(b'[[9223372036854775807,"1","2","1","1"]]')
def test_anything_else_is_refused_with_one_error(layout: RowLayout, body: bytes) -> None:
    try:
        found = layout.decode(body, MARK)
    except DecodeError:
        return
    assert found.columns.values.shape == (4, len(found.columns))


@pytest.mark.parametrize("body", GARBAGE, ids=lambda body: repr(body[:12]))
@pytest.mark.parametrize(
    "layout",
    [PLAIN, ENVELOPE, ObjectLayout({"open": "o"}, time="t"), ObjectLayout({}, time="t", path=("a", "b"))],
    ids=["plain", "envelope", "objects", "nested"],
)
def test_garbage_is_refused(layout: RowLayout | ObjectLayout, body: bytes) -> None:
    with pytest.raises(DecodeError):
        layout.decode(body, MARK)


def test_a_value_that_is_no_number_costs_its_row_only() -> None:
    body = b'[[0,"1","2","1","1"],[60000,"1","x","1","1"],[120000,"1","2","1","1"]]'
    found = PLAIN.decode(body, MARK)
    assert found.columns.times.tolist() == [0, 120_000]
    assert (found.undecodable, found.received) == (1, 3)


def test_null_and_empty_text_are_nan() -> None:
    found = ObjectLayout({"open": "o", "high": "h"}, time="t").decode(b'[{"t":1,"o":"","h":null}]', MARK)
    assert np.isnan(found.columns.values).all()


def test_a_cut_envelope_is_refused_though_its_rows_are_whole() -> None:
    with pytest.raises(DecodeError):
        ENVELOPE.decode(b'{"code":"0","data":[[1,"1","2","1","1","1"]]', MARK)


def test_excerpts_are_short_and_never_fail() -> None:
    assert len(excerpt(b"\xff" * 10_000)) < 100
    with pytest.raises(DecodeError, match="not JSON"):
        parse_json(b"<html>")
