from __future__ import annotations

import errno
import os
import random
import re
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pytest
from pyarrow import parquet

from marketfetch.errors import ConfigurationError, RowsRefused, SinkError
from marketfetch.protocols import SupportsPartitions
from marketfetch.sinks.parquet.codec import write_rows
from marketfetch.sinks.parquet.paths import series_path
from marketfetch.sinks.parquet.sink import ParquetSink
from marketfetch.values.coverage import Coverage
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet
from tests.support.batches import EVER, MINUTE, START, batch, candles

MONTH = 31 * 1440
_NAMED = b'{"format": 2, "series": ["binance-usdm", "ohlcv", "BTCUSDT", "1m"]'


def write(store: ParquetSink, *batches: Batch) -> None:
    with store.writer() as take:
        for one in batches:
            take(one)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def files(folder: Path) -> list[Path]:
    """The files of rows: a ledger has none."""
    return sorted(path for path in folder.rglob("*.parquet") if path.name != "_ledger.parquet")


def names(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in files(folder)]


def chunks() -> list[Batch]:
    """Forty days of minutes in five batches, across the end of a month; rows 3 and 4 overlap."""
    bounds = [(0, 20_000), (20_000, 40_000), (40_000, 50_000), (49_000, 57_600), (60_000, 60_001)]
    return [batch(candles(), range(*ends), open=np.arange(*ends) / 7, trades=8) for ends in bounds]


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ("1s", ["2020-01-31.parquet", "2020-02-01.parquet"]),
        ("1m", ["2020-01.parquet", "2020-02.parquet"]),
        ("30m", ["2020-01.parquet", "2020-02.parquet"]),
        ("1h", ["2020.parquet"]),
        ("1M", ["2020.parquet"]),
    ],
)
def test_a_file_is_a_day_a_month_or_a_year(tmp_path: Path, interval: str, expected: list[str]) -> None:
    write(ParquetSink(tmp_path), batch(candles(interval=interval), [MONTH - 1, MONTH], open=1))
    folder = f"ohlcv/exchange=binance-usdm/symbol=BTCUSDT/interval={interval}"
    assert names(tmp_path) == [f"{folder}/{name}" for name in expected]


def test_events_are_kept_by_year(tmp_path: Path) -> None:
    write(ParquetSink(tmp_path), batch(Series.of("okx", "funding_rate", "X", "event"), [-1, 0]))
    folder = "funding_rate/exchange=okx/symbol=X/interval=event"
    assert names(tmp_path) == [f"{folder}/2019.parquet", f"{folder}/2020.parquet"]


def test_duckdb_and_pyarrow_read_the_folder(tmp_path: Path) -> None:
    symbols = ["BTCUSDT", "a/b%c'd e=f", "币安人生USDT"]
    for symbol in symbols:
        write(ParquetSink(tmp_path), batch(candles(symbol), [0, 1], open=0.5, trades=[3, np.nan]))
    # What a crash leaves behind is in nobody's way.
    (tmp_path / "_marketfetch" / "aside" / "elsewhere.0.0.1.2.3").write_bytes(b"torn")
    columns = ["exchange", "symbol", "interval", "open", "trades", "quote_volume"]
    with duckdb.connect() as connection:
        rows = connection.execute(
            f"SELECT epoch_ms(open_time), {', '.join(columns)} "
            f"FROM read_parquet('{tmp_path}/ohlcv/**/*.parquet', hive_partitioning = true) ORDER BY ALL"
        ).fetchall()
    table = pa.dataset.dataset(tmp_path / "ohlcv", partitioning="hive").to_table()
    assert table.schema.field("open_time").type == pa.timestamp("ms", "UTC")
    assert table.schema.field("open").type == pa.float64()
    assert table.schema.field("trades").type == pa.int64()
    lines = [table["open_time"].cast(pa.int64()), *(table[name] for name in columns)]
    told = zip(*(line.to_pylist() for line in lines), strict=True)
    expected = [
        (START + minute * MINUTE, "binance-usdm", symbol, "1m", 0.5, trades, None)
        for minute, trades in ((0, 3), (1, None))
        for symbol in symbols
    ]
    assert sorted(rows) == sorted(told) == expected


def test_files_are_compressed_and_have_no_dictionaries(tmp_path: Path) -> None:
    write(ParquetSink(tmp_path), batch(candles(), range(100), open=1, trades=2))
    group = parquet.ParquetFile(files(tmp_path)[0]).metadata.row_group(0)
    stored = [group.column(number) for number in range(group.num_columns)]
    assert {column.compression for column in stored} == {"LZ4"}
    encodings = {column.path_in_schema: set(column.encodings) - {"RLE"} for column in stored}
    assert encodings["open"] == {"PLAIN"}
    assert encodings["open_time"] == encodings["trades"] == {"DELTA_BINARY_PACKED"}


def test_bytes_depend_on_the_rows_alone(tmp_path: Path) -> None:
    straight, shuffled, whole = (ParquetSink(tmp_path / name) for name in ("straight", "shuffled", "whole"))
    parts = chunks()
    write(straight, *parts)
    order = random.Random(5)
    for _ in range(3):
        order.shuffle(parts)
        write(shuffled, *parts)
    columns = Columns.join([part.columns for part in chunks()])
    covered = Coverage(SpanSet.of(*(span for part in parts for span in part.coverage.covered)))
    write(whole, Batch(candles(), columns, covered))
    assert contents(straight.folder) == contents(shuffled.folder) == contents(whole.folder)


class Killed(BaseException):
    """As if the process had ended there."""


@pytest.mark.parametrize("calls", range(0, 27, 3))
@pytest.mark.parametrize("at", ["writing", "syncing", "replacing"])
def test_a_run_that_was_stopped_anywhere_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str, calls: int
) -> None:
    undisturbed, stopped = ParquetSink(tmp_path / "undisturbed"), ParquetSink(tmp_path / "stopped")
    write(undisturbed, *chunks())
    sync, replace, left = os.fsync, Path.replace, iter(range(calls))

    def dying_sync(handle: int) -> None:
        if at != "replacing" and next(left, None) is None:
            if at == "writing" and stat.S_ISREG(os.fstat(handle).st_mode):
                os.truncate(handle, 7)  # the disk had seen no more of it
            raise Killed
        sync(handle)

    def dying_replace(self: Path, target: Path) -> Path:
        if at == "replacing" and next(left, None) is None:
            raise Killed
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", dying_sync)
        patch.setattr(Path, "replace", dying_replace)
        with suppress(Killed):
            write(stopped, *chunks())
    if stopped.folder.exists():
        there = candles().interval.cover(stopped.read(candles(), EVER).times)
        assert not stopped.ledger().get(candles(), Coverage()).covered - there, "covered, but not there"
    write(stopped, *chunks())
    assert contents(stopped.folder) == contents(undisturbed.folder)


@pytest.mark.parametrize(("interval", "days"), [("1m", 31), ("1h", 366), ("1s", 1)])
def test_a_partition_is_what_one_file_holds(tmp_path: Path, interval: str, days: int) -> None:
    store, series = ParquetSink(tmp_path), candles(interval=interval)
    assert isinstance(store, SupportsPartitions)
    whole = Span(START, START + days * 86_400_000)
    assert store.partition(series, START) == store.partition(series, whole.end - 1) == whole
    times = np.array([whole.start - 1000, whole.start, whole.end - 1000, whole.end])
    write(store, Batch(series, Columns(times, np.zeros((9, 4))), Coverage()))
    assert len(files(tmp_path)) == 3


def test_an_identical_batch_leaves_the_files_untouched(tmp_path: Path) -> None:
    store = ParquetSink(tmp_path)
    write(store, *chunks())
    before = {path: path.stat().st_ino for path in tmp_path.rglob("*")}
    write(store, *chunks())
    assert {path: path.stat().st_ino for path in tmp_path.rglob("*")} == before


def test_runs_may_write_at_the_same_time(tmp_path: Path) -> None:
    def run(first: int) -> None:
        for step in range(first, 200, 40):
            write(ParquetSink(tmp_path), batch(candles(), range(step, step + 20), open=1.5))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(run, [0, 20, 10, 0]))
    store = ParquetSink(tmp_path)
    assert len(store.read(candles(), EVER)) == 200
    assert store.coverage([candles()])[candles()].covered == SpanSet.of(Span(START, START + 200 * MINUTE))


def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_fetched(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.touch()
    for folder in (taken, taken / "below"):
        with pytest.raises((ConfigurationError, SinkError), match=r"taken.*name (another|a folder)"):
            ParquetSink(folder).prepare([])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(SinkError, match=r"Permission denied.*name another folder"):
        ParquetSink(tmp_path).prepare([])


def test_a_ledger_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    store = ParquetSink(tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match=r"nowhere: no such folder; .*fetch into it first"):
        store.ledger()
    assert store.coverage([candles()]) == {candles(): Coverage()}
    assert not len(store.read(candles(), EVER))
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_a_sink_error_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ParquetSink(tmp_path)
    write(store, batch(candles(), [0], open=1))
    before = contents(tmp_path)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(SinkError, match=r"No space left on device; make room"):
            write(store, batch(candles(), [1], open=1))
    after = {name: data for name, data in contents(tmp_path).items() if not name.endswith(".aside")}
    assert after == before


def test_files_that_are_not_ours_are_named(tmp_path: Path) -> None:
    store = ParquetSink(tmp_path)
    write(store, batch(candles(), [0], open=1))
    (rows,) = files(tmp_path)
    notes = rows.with_name("notes.parquet")
    notes.touch()
    with pytest.raises(SinkError, match=r"notes\.parquet is not a file that marketfetch wrote; move it away"):
        store.read(candles(), EVER)
    notes.unlink()
    rows.write_bytes(b"rubbish")
    with pytest.raises(SinkError, match=r"2020-01\.parquet is not a file that marketfetch wrote"):
        store.read(candles(), EVER)
    parquet.write_table(pa.table({"x": [1]}), rows)
    with pytest.raises(SinkError, match=r"2020-01\.parquet is not a file .*open_time"):
        write(store, batch(candles(), [1], open=1))


@pytest.mark.parametrize(
    "rubbish",
    [
        *(b"{}", b"[]", b"\xff", b"[" * 100_000, b'{"series": 1, "covered": [[2, 1]], "empty": []}'),
        b'{"series": ["okx", [], "A", "1m"], "covered": [], "empty": []}',
        b'{"series": ["okx", "ohlcv", "A", "1m"], "covered": [["a", "b"]], "empty": []}',
        b'{"series": ["okx", "ohlcv", "A", "1m"], "covered": [[1.5, 2.5]], "empty": []}',
    ],
    ids=range(8),
)
def test_a_damaged_ledger_of_the_first_format_is_named_and_nothing_is_changed(
    tmp_path: Path, rubbish: bytes
) -> None:
    store = ParquetSink(tmp_path)
    write(store, batch(candles(), [0], open=1))
    files(tmp_path)[0].with_name("_coverage.json").write_bytes(rubbish)
    before = contents(tmp_path)
    for use in (store.ledger, lambda: store.prepare([]), lambda: store.coverage([candles()])):
        with pytest.raises(SinkError, match=r"_coverage\.json is damaged; remove it"):
            use()
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "note",
    [
        *(b"[]", b"{}", b"\xc3\xa4", b'{"format": "2"}', b'{"format": 2, "series": 5}'),
        _NAMED + b"}",
        _NAMED + b', "files": {"2020-01": [[5]]}}',
        _NAMED + b', "files": [], "fileless": [[], [], []]}',
        _NAMED + b', "files": {}, "fileless": [[2, -1], [], []]}',
        None,
    ],
)
def test_a_damaged_ledger_is_named_and_can_be_removed(tmp_path: Path, note: bytes | None) -> None:
    store = ParquetSink(tmp_path)
    write(store, batch(candles(), [0], open=1))
    before = store.coverage([candles()])
    page = files(tmp_path)[0].with_name("_ledger.parquet")
    if note is None:
        page.write_bytes(b"rubbish")
    else:
        with page.open("wb") as target:
            write_rows(Columns.empty(candles().dataset), candles().dataset, note, target)
    for use in (store.ledger, lambda: store.coverage([candles()]), lambda: store.read(candles(), EVER)):
        with pytest.raises(SinkError, match=r"_ledger\.parquet is damaged .*; remove it"):
            use()
    page.unlink()
    assert store.coverage([candles()]) == store.ledger() == before
    write(store, batch(candles(), [0], open=1))
    assert page.exists()


@pytest.mark.parametrize("left", ["_ledger.parquet", "2020-01.parquet", "_coverage.json"])
def test_a_file_system_that_confuses_minutes_and_months_is_noticed(tmp_path: Path, left: str) -> None:
    store = ParquetSink(tmp_path)
    write(store, batch(candles(), [0], open=1))
    home = files(tmp_path)[0].parent
    (home / "_coverage.json").write_text(
        '{"series": ["binance-usdm", "ohlcv", "BTCUSDT", "1m"], "covered": [], "empty": []}'
    )
    for file in list(home.iterdir()):
        if file.name != left:
            file.unlink()
    if left == "2020-01.parquet":
        (home / left).rename(home / "2020.parquet")
    home.rename(home.with_name("interval=1M"))
    with pytest.raises(SinkError, match="capital and small"):
        store.coverage([candles(interval="1M")])


@pytest.mark.parametrize(
    ("held", "other"),
    [(candles("kPEPEUSDT"), candles("KPEPEUSDT")), (candles(), candles(interval="1M"))],
    ids=["symbols", "intervals"],
)
def test_two_series_that_meet_in_one_folder_are_kept_apart(
    tmp_path: Path, held: Series, other: Series
) -> None:
    """A link stands for a file system that does not tell capital from small letters."""
    store = ParquetSink(tmp_path)
    write(store, batch(held, range(3), open=1))
    home, meets = series_path(tmp_path, held), series_path(tmp_path, other)
    if home.parent != meets.parent:
        home, meets = home.parent, meets.parent
    meets.symlink_to(home, target_is_directory=True)
    with pytest.raises(SinkError, match="capital and small letters for the same; keep the two in different"):
        write(store, batch(other, [0], open=2))
    assert store.read(held, EVER).values[0].tolist() == [1, 1, 1]
    assert store.coverage([held])[held].present


def test_a_count_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    store = ParquetSink(tmp_path)
    for value in (1.5, 2.0**63, np.inf):
        rows = batch(candles(), [0, 50_000], trades=[1.0, value])  # the first month would be fine
        with pytest.raises(
            RowsRefused, match=rf"BTCUSDT.*ohlcv\.trades .* whole: {re.escape(repr(value))} is"
        ):
            write(store, rows)
    assert not store.ledger()


def test_without_pyarrow_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'marketfetch\[parquet\]'"):
        ParquetSink("market")


def test_a_url_names_the_folder() -> None:
    assert repr(ParquetSink.from_url("parquet:data/market")) == "ParquetSink('data/market')"


def test_rows_are_stored_and_read_without_pandas(tmp_path: Path) -> None:
    code = """
import sys
from marketfetch.sinks.parquet.sink import ParquetSink
from tests.support.batches import EVER, batch, candles
store = ParquetSink(sys.argv[1])
for at in (0, 1):  # the second one is merged with what is held
    with store.writer() as take:
        take(batch(candles(), [at], open=1))
assert len(store.read(candles(), EVER)) == 2
print("pandas" in sys.modules)
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"
