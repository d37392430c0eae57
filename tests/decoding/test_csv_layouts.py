"""CSV text becomes the same columns however it is cut, with a compiler and without."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marketfetch.decoding import csv_layouts, native
from marketfetch.decoding.compiled import COMPILED
from marketfetch.decoding.csv_layouts import CsvLayout
from marketfetch.decoding.layouts import DecodedRows
from marketfetch.errors import AdapterError, DecodeError
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Columns
from marketfetch.values.series import Series
from marketfetch.values.spans import DAY, Span

START = 1_704_067_200_000
SPAN = Span(START, START + 31 * DAY)
MARK = Series.of("okx", "mark_price", "BTC-USDT", "1m")
PRICES = {"open": 1, "high": 2, "low": 3, "close": 4}
PLAIN = CsvLayout(PRICES, width=5)
CONFIRMED = CsvLayout(PRICES, width=8, time=6, symbol=0, confirm=7)

compiled_only = pytest.mark.skipif(COMPILED is None, reason="nothing is compiled here")


def decode(layout: CsvLayout, pieces: Iterable[bytes], series: Series = MARK) -> DecodedRows:
    """Decode a text and join its blocks, without sorting."""
    blocks = [*layout.decode(pieces, series, SPAN)]
    if not blocks:
        return DecodedRows(Columns.empty(series.dataset))
    closed = [block.closed for block in blocks if block.closed is not None]
    return DecodedRows(
        Columns(
            np.concatenate([block.columns.times for block in blocks]),
            np.concatenate([block.columns.values for block in blocks], axis=1),
        ),
        np.concatenate(closed) if closed else None,
        undecodable=sum(block.undecodable for block in blocks),
        broken=tuple(row for block in blocks for row in block.broken),
    )


def same(one: DecodedRows, two: DecodedRows) -> None:
    assert one.columns.times.tobytes() == two.columns.times.tobytes()
    assert one.columns.values.tobytes() == two.columns.values.tobytes()
    assert (one.undecodable, one.broken) == (two.undecodable, two.broken)
    assert (one.closed is None) == (two.closed is None)
    if one.closed is not None and two.closed is not None:
        assert one.closed.tolist() == two.closed.tolist()


def careful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "COMPILED", None)


def line(time: object, *prices: object) -> bytes:
    return ",".join(map(str, (time, *(prices or (1.5, 2, 1, "1.7"))))).encode() + b"\n"


decimals = st.decimals(-(10**12), 10**12, allow_nan=False, allow_infinity=False, places=8).map(str)
shortest = st.floats(allow_nan=False, allow_infinity=False).map(repr)
digits = st.integers(10**14, 10**19 - 1) | st.integers(2**53, 2**53 + 1000)
long = st.builds(
    lambda whole, places: format(Decimal(whole).scaleb(-places), "f"), digits, st.integers(0, 19)
)
ties = st.builds(
    lambda whole, half, tail: f"{whole}{half}{tail}",
    st.integers(2**52, 2**53 - 1),
    st.sampled_from([".5", ".25", ".75"]),
    st.sampled_from(["", "0", "01"]),
)
"""Numbers with 16 to 19 digits, many of them half way between two doubles."""
odd = st.sampled_from(
    [
        "",
        "0",
        "-0",
        "-0.0",
        "5e-324",
        "NaN",
        "Infinity",
        "abc",
        " 1",
        "1_0",
        "1e400",
        '"1.5"',
        '"',
        "01",
        ".5",
        "5.",
        "1\r",
    ]
)
numbers = decimals | shortest | shortest | odd
times = st.integers(START, START + DAY) | st.sampled_from([0, -5, 10**14, 10**20, "x", "", '"1704067260000"'])


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    end = draw(st.sampled_from(["\n", "\r\n"]))
    lines = [",".join((str(START), *draw(st.lists(decimals, min_size=4, max_size=4))))]
    for _ in range(draw(st.integers(0, 8))):
        row = [str(draw(times)), *draw(st.lists(numbers, min_size=4, max_size=4))]
        lines.append(",".join(draw(st.sampled_from([row, row, row, row, [], row[:4], [*row, "1"]]))))
    header = draw(st.sampled_from([[], [], ["open_time,open,high,low,close"]]))
    # The compiled decoder reads lines near the end of a text in another way: often others come between.
    far = end + end.join([",".join((str(START), *["2904.05"] * 4))] * 3)
    return (
        end.join([*header, *lines]) + draw(st.sampled_from(["", end, end + end, far, far + end]))
    ).encode()


def cut(text: bytes, places: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[one:two] for one, two in pairwise(edges)]


@given(texts(), st.lists(st.integers(0, 10_000), max_size=8), st.integers(1, 60))
def test_any_cut_of_the_bytes_gives_the_same_rows(text: bytes, places: list[int], block: int) -> None:
    whole = decode(PLAIN, [text])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_layouts, "_BLOCK", block + max(map(len, text.split(b"\n"))))
        same(decode(PLAIN, cut(text, places)), whole)


@given(texts())
@example(line(START) + b"1704067200000,1,2,3,4,\xff\n" + line(START))
@example(line(START) + b"1704067200000,1,2,3,4\r\r\n\r\n\r" + line(START))
@example(line(START) + b"1704067200000,1,2,3,4\x00\n\x00\n" + line(START))
@example(line(START) + b"9223372036854775808,1,2,3,4\n")
def test_the_compiled_decoder_gives_what_the_careful_one_gives(text: bytes) -> None:
    fast = decode(PLAIN, [text])
    with pytest.MonkeyPatch.context() as patch:
        careful(patch)
        same(decode(PLAIN, [text]), fast)


@given(st.lists(st.lists(decimals | shortest | long | ties, min_size=4, max_size=4), min_size=1, max_size=20))
@example([["9007199254740993.0", "-9007199254740993.00", "9007199254740993.01", "9007199254740995.0"]])
@example([["9999999999999999999", "0.9007199254740993", "9.007199254740993001", "4503599627370497.5"]])
def test_each_number_is_rounded_as_float_rounds_it(rows: list[list[str]]) -> None:
    rows += [["1.5"] * 4] * 4  # lines near the end of a text are read in another way
    text = b"".join(line(START + 60_000 * at, *row) for at, row in enumerate(rows))
    found = decode(PLAIN, [text])
    assert found.columns.times.tolist() == [START + 60_000 * at for at in range(len(rows))]
    assert found.columns.values.T.tobytes() == np.array([[*map(float, row)] for row in rows]).tobytes()


@compiled_only
def test_plain_lines_are_read_by_the_compiled_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a plain line was read carefully")

    monkeypatch.setattr(csv_layouts._FileFormat, "_read_carefully", refuse)
    assert len(decode(PLAIN, [b"time,o,h,l,c\n" + line(START) * 3]).columns) == 3
    rows = f"BTC-USDT,1,2,1,1,any text,{START},1\r\n".encode()
    assert len(decode(CONFIRMED, [b"i,o,h,l,c,v,t,confirm\n" + rows * 3]).columns) == 3


@pytest.mark.parametrize(
    "time",
    [
        "1704067200",
        "1704067200000",
        "1704067200000999",
        "1704067200000999999",
        "1704067200.0004",
        "1704067200.",
    ],
)
@pytest.mark.parametrize("header", [b"", b"open_time,open,high,low,close\n", b"\xef\xbb\xbf", b"\n\r\n"])
def test_digits_of_the_first_time_tell_the_unit(time: str, header: bytes) -> None:
    if time.endswith("."):
        with pytest.raises(DecodeError):
            decode(PLAIN, [header + line(time) * 2])
    else:
        assert decode(PLAIN, [header + line(time) * 2]).columns.times.tolist() == [START, START]


def test_seconds_may_have_a_fraction_in_some_rows() -> None:
    text = line("1704067200.5") + line("1704067201") + line("1704067202.0079")
    assert decode(PLAIN, [text]).columns.times.tolist() == [START + 500, START + 1000, START + 2007]


def test_times_may_be_text() -> None:
    layout = CsvLayout(PRICES, width=5, time_format="%Y-%m-%d %H:%M:%S")
    text = (
        b"create_time,a,b,c,d\n"
        + line("2024-01-01 00:00:00")
        + line("2024-01-01")
        + line("2024-01-01 00:05:00")
    )
    found = decode(layout, [text])
    assert found.columns.times.tolist() == [START, START + 300_000]
    assert (found.undecodable, found.broken) == (1, ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (line(START - 2 * DAY), "2023-12-30T00:00:00Z in the first one"),
        (line(START + 40 * DAY), "2024-02-10"),
        (line(START * 1_000_000 // 10), "digits"),
        (line("170406720000"), "digits"),
        (line(START, 1, 2, 3), "5 fields, found '1704067200000,1,2,3'"),
        (line(START, 1, 2, 3, 4, 5), "5 fields"),
        (b"<html>\n<head>\n</html>", "'<html>'"),
        (b'{"code":0}', "code"),
        (b"a,b,c,d,e\nf,g,h,i,j\n", "expected a time as field 0, found 'f,g,h,i,j'"),
        (b'"' + line(START), "5 fields"),
    ],
)
def test_a_text_of_another_kind_is_refused_by_its_first_row(text: bytes, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        decode(PLAIN, [text])


@pytest.mark.parametrize("text", [b"", b"\n", b"\r\n\n", b"time,o,h,l,c", b"time,o,h,l,c\n"])
def test_a_text_without_rows_has_none(text: bytes) -> None:
    assert [*PLAIN.decode([text], MARK, SPAN)] == []


def test_a_wrong_row_costs_itself_only() -> None:
    text = (
        line(START) + line(START + 60_000, 1, "x", 1, 1) + line(START + 120_000, 1) + line("?") + line(START)
    )
    found = decode(PLAIN, [text])
    assert len(found.columns) == 2
    assert (found.undecodable, found.received) == (3, 5)
    (broken,) = found.broken
    assert (broken.time, broken.reason) == (START + 60_000, "undecodable")
    assert broken.raw == '["1704067260000","1","x","1","1"]'


def test_an_empty_field_is_null_and_nan_is_infinite() -> None:
    found = decode(PLAIN, [line(START, "", "NaN", "inf", "-inf")])
    np.testing.assert_array_equal(found.columns.values[:, 0], [np.nan, np.inf, np.inf, -np.inf])


def test_rows_name_their_symbol_and_whether_they_are_final() -> None:
    def row(symbol: str, confirm: object) -> bytes:
        return f"{symbol},1,2,1,1,x,{START},{confirm}\n".encode()

    found = decode(
        CONFIRMED, [row("BTC-USDT", 1) + row("BTC-USDT", 0) + row("BTC-USD", 1) + row("BTC-USDT", "1.0")]
    )
    assert found.closed is not None
    assert found.closed.tolist() == [True, False, True]
    assert [each.reason for each in found.broken] == ["another symbol"]
    for symbol in ("BTC-USDT-SWAP", "BTC-USD", ""):
        with pytest.raises(DecodeError, match="expected rows of BTC-USDT"):
            decode(CONFIRMED, [row(symbol, 1)])


def test_columns_that_a_file_lacks_are_null() -> None:
    series = Series.of("okx", "ohlcv", "BTC-USDT", "1m")
    found = decode(PLAIN, [line(START)], series)
    assert np.isnan(found.columns.values[4:]).all()
    assert found.columns.values[:4, 0].tolist() == [1.5, 2, 1, 1.7]


@pytest.mark.parametrize("positions", [(1, 2, 2, 3), (1, 2, 3, 3), (1, 2, 3, 0)])
def test_odd_layouts_are_read_carefully(positions: tuple[int, ...]) -> None:
    layout = CsvLayout(dict(zip(PRICES, positions, strict=True)), width=4)
    text = line(START, 1, 2, 3)
    expected = [float(text.split(b",")[at]) for at in positions]
    assert decode(layout, [text]).columns.values[:, 0].tolist() == expected


@pytest.mark.parametrize("position", [-1, 5])
def test_a_position_beyond_the_line_is_a_mistake_of_the_adapter(position: int) -> None:
    for wrong in (
        {"columns": {"open": position}},
        {"time": position},
        {"symbol": position},
        {"confirm": position},
    ):
        with pytest.raises(AdapterError, match=f"at {position}"):
            CsvLayout(**({"columns": PRICES, "width": 5} | wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize("symbol", ["A,B", 'A"B', "A\0B", "A", ""])
def test_a_symbol_that_csv_would_quote_is_compared_carefully(symbol: str) -> None:
    layout = CsvLayout({"open": 2, "high": 2, "low": 2, "close": 2}, width=3, symbol=1)
    series = Series.of("okx", "mark_price", symbol, "1m")
    quoted = '"' + symbol.replace('"', '""') + '"'
    text = "".join(f"{START},{each},1\n" for each in (quoted, symbol, "A", "AB", "B")).encode()
    found = decode(layout, [text], series)
    with pytest.MonkeyPatch.context() as patch:
        careful(patch)
        same(decode(layout, [text], series), found)


def test_a_line_without_an_end_is_refused_before_it_fills_the_memory() -> None:
    taken = 0

    def endless() -> Iterable[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"1" * 65_536

    with pytest.raises(DecodeError, match="without a line feed"):
        decode(PLAIN, endless())
    assert taken < 100


@given(st.binary(max_size=80) | st.text('1704067200000,.\n\r"x-', max_size=80).map(str.encode))
def test_any_bytes_are_rows_or_refused(text: bytes) -> None:
    for layout in (PLAIN, CsvLayout({"open": 1}, width=2), CONFIRMED):
        try:
            found = decode(layout, [line(START), text] if layout is PLAIN else [text])
        except DecodeError:
            continue
        assert found.columns.values.shape == (len(Dataset.parse("mark_price").columns), len(found.columns))
