"""The compiled decoder gives the same bits as the careful one in Python."""

from __future__ import annotations

import json
import math
import shutil
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marketfetch.decoding.compiled import COMPILED
from marketfetch.decoding.layouts import DecodedRows, ObjectLayout, RowLayout, excerpt, parse_json
from marketfetch.decoding.native import read_rows
from marketfetch.errors import DecodeError
from marketfetch.testing.contracts.malformed import NOT_A_PAGE, malformed_bodies
from marketfetch.values.datasets import Dataset

PRICES = {"open": 1, "high": 2, "low": 3, "close": 4}
PLAIN = RowLayout(PRICES, width=5)
ENVELOPE = RowLayout(PRICES, width=6, path=("data",), confirm=5)
SECONDS = RowLayout(PRICES, width=5, unit=1000)
MARK = Dataset.parse("mark_price")

compiled_only = pytest.mark.skipif(COMPILED is None, reason="nothing is compiled here")

decimals = st.decimals(-(10**12), 10**12, allow_nan=False, allow_infinity=False, places=8).map(str)
shortest = st.floats(allow_nan=False, allow_infinity=False).map(repr)
digits = st.from_regex(r"-?[0-9]{1,25}(\.[0-9]{1,20})?(e[+-]?[0-9]{1,2})?", fullmatch=True)
odd = st.sampled_from(["", "0", "-0.0", "5e-324", "1e308", "NaN", "abc", " 1", "1_0", "1e400", "\u0661"])
texts = st.one_of(decimals, shortest, digits, digits, odd)


@st.composite
def halves(draw: st.DrawFn) -> str:
    """Texts half way between two neighbouring doubles, or a hair to one side: the hardest to round."""
    low = abs(draw(st.floats(allow_nan=False, allow_infinity=False, max_value=1.7e308, min_value=-1.7e308)))
    with localcontext(prec=1_200):
        middle = (Decimal(low) + Decimal(math.nextafter(low, math.inf))) / 2
        text = format(middle, draw(st.sampled_from(["f", "e"])))
    mantissa, mark, exponent = text.partition("e")
    tail = draw(st.sampled_from(["", "0", "1", "0" * 30 + "1"]))
    tail = ("" if "." in mantissa or not tail else ".") + tail
    return draw(st.sampled_from(["", "-"])) + mantissa + tail + mark + exponent


exponents = st.from_regex(r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?[eE][+-]?[0-9]{1,5}", fullmatch=True)
long = st.builds(
    lambda head, digit, count, tail: head + digit * count + tail,
    st.sampled_from(["0.", "1", "-0.0", "179769313486231.5"]),
    st.sampled_from("0123456789"),
    st.integers(0, 3_000),
    st.sampled_from(["", "1", "e-300", "e300"]),
)
hard = st.one_of(halves(), exponents, long, st.floats(-1e-300, 1e-300).map(repr))


def same(one: DecodedRows, two: DecodedRows) -> None:
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
def test_the_compiled_decoder_gives_the_same_bits(layout: RowLayout, data: st.DataObject) -> None:
    body = data.draw(pages(layout))
    fast = layout._decode_compiled(body, MARK)
    if fast is not None:
        same(fast, layout._decode_row_by_row(body, MARK))


@pytest.mark.parametrize("layout", [PLAIN, ENVELOPE, SECONDS], ids=["plain", "envelope", "seconds"])
def test_without_a_compiler_the_careful_decoder_reads_pages(
    layout: RowLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = b'[["60","1.5",2,"1e0","1.7","1"]]' if layout is ENVELOPE else b'[["60","1.5",2,"1e0","1.7"]]'
    body = b'{"code":"0","data":%b}' % rows if layout is ENVELOPE else rows
    compiled = layout.decode(body, MARK)
    monkeypatch.setattr("marketfetch.decoding.native.COMPILED", None)
    assert layout._decode_compiled(body, MARK) is None
    same(layout.decode(body, MARK), compiled)


@compiled_only
@given(st.lists(st.tuples(decimals, decimals, decimals, decimals), min_size=1, max_size=5))
def test_ordinary_pages_are_read_by_the_compiled_decoder(rows: list[tuple[str, ...]]) -> None:
    page = [[60_000 * at, *row] for at, row in enumerate(rows)]
    body = json.dumps(page, separators=(",", ":")).encode()
    expected = [[float(text) for text in row] for row in rows]
    found = PLAIN._decode_compiled(body, MARK)
    assert found is not None
    assert found.columns.values.T.tolist() == expected


@given(hard, st.booleans())
@example("2.4703282292062327208e-324", True)  # half of the smallest: rounds to zero
@example("2.4703282292062327209e-324", True)
@example("2.2250738585072011e-308", False)  # hangs some parsers
@example("1.7976931348623158079e308", True)
@example("9007199254740993", False)
@example("9007199254740993.0", False)
@example("-0", True)
@example("-0", False)
@example("0.0", False)
@example("1" * 400, True)
@example("0." + "0" * 400 + "1", True)
def test_each_number_is_rounded_as_float_rounds_it(text: str, quoted: bool) -> None:
    mark = '"' if quoted else ""
    body = f"[[60000,{mark}{text}{mark}]]".encode()
    expected = float(text) if quoted or text.strip("-").strip("0") or "." in text else 0.0
    rows = read_rows(body, width=2, time=0, fields=[1])
    if rows is not None:
        assert rows.values.tobytes() == np.array([[expected]]).tobytes()


def test_this_installation_has_the_compiled_decoder() -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler: decoding is done in Python, and slower")
    assert COMPILED is not None
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
        b'[[0,""1,2,3,4]]',
        b"[[0,1,2,3,4],5[,1,2,3,4]]",
        b"[[0,1,2,3,4],[5,1,2,3,]4]",
        b'[[0,1e-4000"",2,3,4]]',
        b'[["0.0",1,2,3,4]]',
        b"[[1.78e12,1,2,3,4]]",
        b"[[60e3,1,2,3,4],[120000,1,2,3,4]]",
        b"[[-1,1,2,3,4]]",
        b"[[01,1,2,3,4]]",
        b"[[true,1,2,3,4]]",
        b"[[1000000000000000,1,2,3,4]]",
        b'[["1_0",1,2,3,4]]',
        b'[[0,"1_0",2,3,4]]',
        b'[[0,"\\u0031",2,3,4]]',
        b"[[0,1,2,3,4]]\x00",
        b"[[0,1\x00,2,3,4]]",
        b"[[0,1,2,3,4]\x00]",
    ],
)
def test_what_is_not_quite_a_page_is_left_to_the_careful_decoder(rows: bytes) -> None:
    found = PLAIN._decode_compiled(rows, MARK)
    if found is not None:  # then the careful decoder does not refuse it
        same(found, PLAIN._decode_row_by_row(rows, MARK))


@pytest.mark.parametrize("positions", [(1, 2, 3, 3), (1, 2, 3, 0)])
def test_odd_layouts_give_what_the_careful_decoder_gives(positions: tuple[int, ...]) -> None:
    layout = RowLayout(dict(zip(PRICES, positions, strict=True)), width=4)
    body = b"[[60000,1,2,3],[120000,4,5,6]]"
    same(layout.decode(body, MARK), layout._decode_row_by_row(body, MARK))


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
@given(body=malformed_bodies())
@example(b"[" * 1020 + b"]" * 1020)
@example(b'[[9223372036854775807,"1","2","1","1"]]')
def test_anything_else_is_refused_with_one_error(layout: RowLayout, body: bytes) -> None:
    try:
        found = layout.decode(body, MARK)
    except DecodeError:
        return
    assert found.columns.values.shape == (4, len(found.columns))


@pytest.mark.parametrize("body", NOT_A_PAGE, ids=lambda body: repr(body[:12]))
@pytest.mark.parametrize(
    "layout",
    [PLAIN, ENVELOPE, ObjectLayout({"open": "o"}, time="t"), ObjectLayout({}, time="t", path=("a", "b"))],
    ids=["plain", "envelope", "objects", "nested"],
)
def test_garbage_is_refused(layout: RowLayout | ObjectLayout, body: bytes) -> None:
    with pytest.raises(DecodeError):
        layout.decode(body, MARK)


@pytest.mark.parametrize("items", [None, {}, "", 0, {"a": []}, iter(())])
def test_what_is_no_list_of_objects_is_not_taken_for_no_rows(items: Any) -> None:
    with pytest.raises(DecodeError, match="expected a list of objects, found "):
        ObjectLayout({"open_interest": "oi"}, time="ts").gather(items, Dataset.parse("open_interest"))


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


@pytest.mark.parametrize(
    "body",
    [
        b'{"data":[[0,1,2,1,1,1]],"data":[]}',
        b'{"data":[[0,1,2,1,1,1]],"code":"0"}',
        b'{"data":[[0,1,2,1,1,1]],}',
        b'{"data":[[0,1,2,1,1,1]]"code":"0"}',
        b'{"data":[[0,1,2,1,1,1]],"code":"0"',
        b'{"data":[[0,1,2,1,1,1]],"d\\u0061ta":5}',
        b'{"x":{"data":[[0,1,2,1,1,1]]},"data":[]}',
        b'{"msg":"\\"data\\":[[0,1,2,1,1,1]]"}',
        b'{"x\\"data":[[0,1,2,1,1,1]]}',
        b'{"msg":"\\"data\\":[[","data":[[0,1,2,1,1,1]]}',
        b'[{"data":[[0,1,2,1,1,1]]}]',
        b'\x0b{"data":[[0,1,2,1,1,1]]}',
        b'{"data":[[0,1,2,1,1,"1.0"],[1,1,2,1,1,"01"],[2,1,2,1,1,true]]}',
        b'{"data":[[0,1,2,1,1,1.0]]}',
    ],
)
def test_an_envelope_means_what_parsers_read_in_it(body: bytes) -> None:
    try:
        expected = ENVELOPE._decode_row_by_row(body, MARK)
    except DecodeError:
        with pytest.raises(DecodeError):
            pytest.fail(f"became {len(ENVELOPE.decode(body, MARK).columns)} rows")
    else:
        same(ENVELOPE.decode(body, MARK), expected)


@compiled_only
def test_ordinary_envelopes_are_read_by_the_compiled_decoder() -> None:
    rows = b'[["0","1","2","1","1","1"]]'
    for body in (b'{"code":"0","msg":"","data":%b}', b' { "data": %b , "code": "0" } '):
        assert ENVELOPE._decode_compiled(body % rows, MARK) is not None


@pytest.mark.parametrize("layout", [PLAIN, ENVELOPE, ObjectLayout({"open": "o"}, time="t")])
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 1_000_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"data":' * 100_000 + b"[]" + b"}" * 100_000,
        b'[["' + b"9" * 100_000 + b'",1,2,1,1]]',
        b"[[" + b"9" * 100_000 + b",1,2,1,1]]",
        b'[{"t":"' + b"9" * 100_000 + b'"}]',
        b'[{"t":1e400}]',
        b'[{"t":-9223372036854775809}]',
        b'[{"t":1.7e12}]',
        b'[{"t":true}]',
        b'[{"t":"\xed\xa0\x80"}]',
        b"\xef\xbb\xbf[]",
        b'[{"t":"\\ud800"}]',
    ],
    ids=lambda body: repr(body[:14]),
)
def test_what_is_too_deep_or_too_long_is_refused(layout: RowLayout | ObjectLayout, body: bytes) -> None:
    with pytest.raises(DecodeError):
        layout.decode(body, MARK)


def test_excerpts_are_short_and_never_fail() -> None:
    assert len(excerpt(b"\xff" * 10_000)) < 100
    with pytest.raises(DecodeError, match="not JSON"):
        parse_json(b"<html>")
