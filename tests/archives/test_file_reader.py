"""One file of an archive becomes exactly the rows that may be stored, and an account of everything else."""

from __future__ import annotations

import gzip
import hashlib
import io
import tracemalloc
import weakref
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfetch.archives import file_reader
from marketfetch.archives.checksums import Checksum
from marketfetch.archives.containers import InflateLimits, open_member
from marketfetch.archives.file_reader import FileContent, FileReader, FileSummary
from marketfetch.archives.periods import CalendarPeriod
from marketfetch.decoding.csv_layouts import CsvLayout
from marketfetch.decoding.layouts import DecodedRows
from marketfetch.errors import ArchiveDamaged, DecodeError
from marketfetch.values.pages import Columns
from marketfetch.values.series import Series
from marketfetch.values.spans import DAY, HOUR, MINUTE, Span

START = 1_704_067_200_000
FIELDS = ("open", "high", "low", "close", "volume", "", "quote_volume", "trades", "taker_buy_volume")
KLINES = CsvLayout(
    {name: at for at, name in enumerate([*FIELDS, "taker_buy_quote_volume"], 1) if name}, width=12
)
HEADER = b"open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,"
HEADER += b"taker_buy_quote_volume,ignore\n"
SERIES = Series.of("binance-usdm", "ohlcv", "BTCUSDT", "1m")
ANY_FILE = FileContent(SERIES, CalendarPeriod.parse("2024-01-01"), KLINES)
DAY_FILE = attrs.evolve(ANY_FILE, member="BTCUSDT-1m-2024-01-01.csv")


def row(minute: float, price: object = 1, *, time: object = None) -> bytes:
    opened = START + int(minute * MINUTE) if time is None else time
    return f"{opened},{price},9,1,2,5.5,{START},10,3,2,4,0\n".encode()


def rows(count: int, first: int = 0) -> bytes:
    return b"".join(row(minute) for minute in range(first, first + count))


def zipped(text: bytes, name: str = "BTCUSDT-1m-2024-01-01.csv") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, text)
    return file.getvalue()


def read(content: bytes, expected: FileContent = DAY_FILE) -> tuple[Columns, FileSummary]:
    reader = FileReader(io.BytesIO(content), expected)
    pieces = [*reader]
    assert all(len(piece) and piece.is_sorted for piece in pieces)
    found = Columns.join(pieces or [Columns.empty(SERIES.dataset)])
    assert len(found) == sum(map(len, pieces))
    return found, reader.summary


def minutes(columns: Columns) -> list[float]:
    return [(time - START) / MINUTE for time in columns.times.tolist()]


def test_a_whole_day_is_read_with_nothing_to_say() -> None:
    content = zipped(HEADER + rows(1440))
    columns, summary = read(content)
    assert minutes(columns) == [*range(1440)]
    assert columns.values[:, 0].tolist() == [1, 9, 1, 2, 5.5, 10, 3, 2, 4]
    digest = hashlib.sha256(content).hexdigest()
    assert summary == FileSummary(len(content), digest, False, {})


@pytest.mark.parametrize("pack", [zipped, gzip.compress, bytes], ids=["zip", "gzip", "plain"])
@pytest.mark.parametrize("header", [b"", HEADER], ids=["bare", "header"])
@pytest.mark.parametrize("unit", ["", "000", "000000", "s"])
def test_containers_headers_and_units_make_no_difference(pack: object, header: bytes, unit: str) -> None:
    assert callable(pack)
    times = [str(START + at * MINUTE) for at in range(3)]
    written = [time[:-3] if unit == "s" else time + unit for time in times]
    columns, _ = read(pack(header + b"".join(row(0, time=time) for time in written)), ANY_FILE)
    assert minutes(columns) == [0, 1, 2]


@pytest.mark.parametrize(
    ("text", "kept", "rejected"),
    [
        (row(0) + row(2) + row(1), [0, 1, 2], {}),
        (row(2) + row(1) + row(0), [0, 1, 2], {}),
        (row(0) * 3 + row(1) * 2, [0, 1], {"duplicate": 3}),
        (row(0) + row(1) + row(0), [0, 1], {"duplicate": 1}),
        (row(0) + row(1, 1) + row(1, 2) + row(2), [0, 2], {"conflicting": 2}),
        (row(1, 1) + row(1, 2) + row(1, 1), [], {"conflicting": 3}),
        (row(1, 1) + row(1, 99) + row(2), [1, 2], {"impossible": 1}),
        (row(0) + row(1, "NaN") + row(2, "Infinity") + row(3, "-1"), [0], {"impossible": 3}),
        (row(0) + row(1, "") + row(2, "x") + row(3), [0, 3], {"impossible": 1, "undecodable": 1}),
        (row(0) + row(1.5) + row(2), [0, 2], {"off the grid": 1}),
        (row(-1) + row(0) + row(1440), [0], {"outside the window": 2}),
        (row(0) + b"1704067260000,1,2\n" + row(2), [0, 2], {"undecodable": 1}),
        (row(0) + row(1)[:30], [0], {"undecodable": 1}),
        (row(0) + b"\n\r\n" + row(1).replace(b"\n", b"\r\n") + row(2).strip(), [0, 1, 2], {}),
        (HEADER + row(0) + HEADER + row(1), [0, 1], {"undecodable": 1}),
        (row(0, '"1"') + row(1), [0, 1], {}),
        (HEADER, [], {}),
        (b"", [], {}),
    ],
)
def test_each_odd_row_is_handled_and_counted(text: bytes, kept: list[int], rejected: dict[str, int]) -> None:
    columns, summary = read(zipped(text))
    assert minutes(columns) == kept
    assert summary.rejected == rejected


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"", ArchiveDamaged, "empty"),
        (b"<!DOCTYPE html>\n<html>\n</html>", ArchiveDamaged, "no zip file"),
        (rows(9), ArchiveDamaged, "with BTCUSDT-1m-2024-01-01.csv, found no zip file"),
        (
            gzip.compress(rows(9), mtime=0),
            ArchiveDamaged,
            "with BTCUSDT-1m-2024-01-01.csv, found no zip file",
        ),
        (zipped(rows(9), "../../x/BTCUSDT-1m-2024-01-01.csv"), ArchiveDamaged, "without a folder"),
        (zipped(rows(9))[:-40], ArchiveDamaged, "broken or cut"),
        (zipped(rows(9), "ETHUSDT-1m-2024-01-01.csv"), ArchiveDamaged, "found 'ETHUSDT"),
        (zipped(row(0).replace(b",0\n", b"\n")), DecodeError, "12 fields"),
        (zipped(row(0, time=START * 1000 * 1000 // 7)), DecodeError, "digits"),
        (zipped(row(0, time=START + 40 * DAY)), DecodeError, "2024-02-10"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_refused(
    content: bytes, error: type[Exception], message: str
) -> None:
    reader = FileReader(io.BytesIO(content), DAY_FILE)
    with pytest.raises(error, match=message):
        list(reader)
    with pytest.raises(RuntimeError, match="not read to its end"):
        _ = reader.summary


def test_a_bomb_is_refused() -> None:
    reader = FileReader(io.BytesIO(zipped(rows(1440))), DAY_FILE, limits=InflateLimits(size=10_000))
    with pytest.raises(ArchiveDamaged, match="10,000"):
        list(reader)


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_a_published_checksum_is_compared_before_any_row_is_read(algorithm: str) -> None:
    content = zipped(rows(9))
    right = Checksum(algorithm, hashlib.new(algorithm, content).hexdigest())  # type: ignore[arg-type]
    reader = FileReader(io.BytesIO(content), DAY_FILE, right)
    assert sum(map(len, reader)) == 9
    assert reader.summary.verified
    with pytest.raises(ArchiveDamaged, match="published"):
        next(iter(FileReader(io.BytesIO(content), DAY_FILE, attrs.evolve(right, digest="0" * 64))))


def test_a_candle_that_closed_after_the_file_was_made_is_not_taken() -> None:
    for published, kept in ((START + 3 * MINUTE, 3), (START + 3 * MINUTE - 1, 2), (START + 9 * DAY, 5)):
        columns, summary = read(zipped(rows(5)), attrs.evolve(DAY_FILE, published=published))
        assert len(columns) == kept
        assert summary.rejected == ({"unfinished": 5 - kept} if kept < 5 else {})


def test_the_day_of_an_exchange_begins_at_its_midnight() -> None:
    day = CalendarPeriod.parse("2024-01-01", utc_offset=8 * HOUR)
    columns, _ = read(zipped(rows(1440, -480)), attrs.evolve(DAY_FILE, period=day))
    assert minutes(columns) == [*range(-480, 960)]


def test_months_and_events_have_their_own_grids() -> None:
    month = FileContent(Series.of("x", "ohlcv", "B", "1M"), CalendarPeriod.parse("2024-01"), KLINES)
    assert minutes(read(gzip.compress(row(0)), month)[0]) == [0]
    funding = CsvLayout({"funding_rate": 2}, width=3)
    events = FileContent(Series.of("x", "funding_rate", "B", "1m"), CalendarPeriod.parse("2024-01"), funding)
    reader = FileReader(io.BytesIO(b"calc_time,hours,rate\n1704067200003,8,-0.0001\n"), events)
    (columns,) = reader
    assert columns.times.tolist() == [START + 3]


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pieces be of 20 rows, of which 5 are held back, and blocks of text of one row."""
    monkeypatch.setattr(file_reader, "PIECE_ROWS", 20)
    monkeypatch.setattr(file_reader, "_DISORDER", 5)
    monkeypatch.setattr("marketfetch.decoding.csv_layouts._BLOCK", 60)
    monkeypatch.setattr("marketfetch.archives.containers._PIECE", 50)


@pytest.mark.usefixtures("small_pieces")
@given(st.lists(st.integers(0, 3), min_size=100, max_size=100), st.data())
def test_pieces_do_not_show_however_long_the_file_is(delays: Sequence[int], data: st.DataObject) -> None:
    # No row comes more than three rows late, and every tenth row comes twice.
    order = sorted(range(100), key=lambda minute: minute + delays[minute])
    doubled = data.draw(st.sets(st.integers(0, 99), max_size=10))
    text = b"".join(row(minute) * (1 + (minute in doubled)) for minute in order)
    reader = FileReader(io.BytesIO(text), ANY_FILE)
    pieces = [*reader]
    assert np.concatenate([piece.times for piece in pieces]).tolist() == [
        START + minute * MINUTE for minute in range(100)
    ]
    assert len(pieces) >= 4
    assert reader.summary.rejected == ({"duplicate": len(doubled)} if doubled else {})


@pytest.mark.usefixtures("small_pieces")
def test_a_long_file_in_no_order_is_refused() -> None:
    for text, message in (
        (rows(60, 60) + rows(60), "2024-01-01T00:00:00Z is more than"),
        (rows(60) + row(3), "2024-01-01T00:03:00Z is more than"),
        (row(0) * 60, "have one time"),
    ):
        with pytest.raises(ArchiveDamaged, match=message):
            list(FileReader(io.BytesIO(text), ANY_FILE))


@pytest.mark.usefixtures("small_pieces")
def test_copies_on_both_sides_of_a_seam_are_found() -> None:
    text = b"".join(row(minute) * 2 for minute in range(200))
    columns, summary = read(zipped(text))
    assert (len(columns), summary.rejected) == (200, {"duplicate": 200})


def test_memory_does_not_grow_with_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_reader, "PIECE_ROWS", 1_000)
    monkeypatch.setattr(file_reader, "_DISORDER", 100)
    monkeypatch.setattr("marketfetch.decoding.csv_layouts._BLOCK", 20_000)
    monkeypatch.setattr("marketfetch.archives.containers._PIECE", 10_000)
    month = FileContent(SERIES, CalendarPeriod.parse("2024-01"), KLINES)

    def peak(count: int) -> int:
        file = io.BytesIO(gzip.compress(rows(count)))
        tracemalloc.start()
        try:
            assert sum(map(len, FileReader(file, month))) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1_000)  # caches are filled
    assert peak(40_000) < 1.2 * peak(10_000)


def test_a_block_is_freed_before_the_file_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("marketfetch.decoding.csv_layouts._BLOCK", 1_000)
    monkeypatch.setattr("marketfetch.archives.containers._PIECE", 500)
    blocks, alive = list[weakref.ref[object]](), list[int]()

    class Watched(CsvLayout):
        def decode(self, pieces: Iterable[bytes], series: Series, span: Span) -> Iterator[DecodedRows]:
            for decoded in super().decode(pieces, series, span):
                blocks.append(weakref.ref(decoded.columns.values))
                yield decoded
                alive.append(sum(block() is not None for block in blocks))

    content = attrs.evolve(ANY_FILE, layout=Watched(KLINES.columns, width=12))
    (found,) = FileReader(io.BytesIO(rows(1_000)), content)
    assert minutes(found) == [*range(1_000)]
    assert len(blocks) > 20
    assert max(alive) <= 2


@given(st.binary(max_size=200) | st.text('1704067200000,.\n\r"x-', max_size=200).map(str.encode))
def test_any_bytes_are_rows_or_refused(text: bytes) -> None:
    for content in (text, zipped(text), gzip.compress(row(0) + text)):
        try:
            columns, summary = read(content, ANY_FILE)
        except DecodeError:
            continue
        lines = KLINES.decode(open_member(io.BytesIO(content)).pieces, SERIES, ANY_FILE.period.span)
        assert sum(each.received for each in lines) == len(columns) + sum(summary.rejected.values())


@pytest.mark.parametrize(
    "name", ["AVAXUSDT-1m-2026-06", "AVAXUSDT-1m-2026-07", "ALGOUSDT-1m-2024-09", "NEARUSDT-1m-2023-09"]
)
def test_real_months_come_out_bit_for_bit(name: str, shared_data: Path) -> None:
    text = gzip.decompress((shared_data / "binance_usdm_1m" / f"{name}.csv.gz").read_bytes())
    symbol, _, label = name.split("-", 2)
    series = Series.of("binance-usdm", "ohlcv", symbol, "1m")
    content = FileContent(series, CalendarPeriod.parse(label), KLINES, f"{name}.csv")
    columns, summary = read(zipped(text, f"{name}.csv"), content)
    expected = np.array([line.split(b",") for line in text.splitlines()[1:]]).astype(np.float64).T
    assert columns.times.tolist() == expected[0].astype(np.int64).tolist()
    assert columns.values.tobytes() == np.ascontiguousarray(expected[[1, 2, 3, 4, 5, 7, 8, 9, 10]]).tobytes()
    assert not summary.rejected
