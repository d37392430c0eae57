"""Rows that are taken away by hand: what is not there is not called complete, and there is a way back."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from shutil import rmtree

import numpy as np
import pytest
from pyarrow import parquet

from marketfetch.errors import SinkError
from marketfetch.protocols import Writer
from marketfetch.sinks.parquet.sink import ParquetSink
from marketfetch.testing import GeneratedMarket, SimulatedExchange, SimulatorOptions
from marketfetch.values.coverage import Coverage
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Series
from marketfetch.values.settings import RetryPolicy, Settings
from marketfetch.values.spans import Span, SpanSet
from tests.support.batches import EVER, MINUTE, START, batch, candles
from tests.support.worlds import World, assert_holds, run, span_of

SERIES = Series.of("binance-usdm", "ohlcv", "BTCUSDT", "1m")
SPAN = ("2026-04-28", "2026-06-03")
MAY = span_of("2026-05-01", "2026-06-01")


@pytest.fixture(scope="module")
def market() -> GeneratedMarket:
    return GeneratedMarket(["BTCUSDT"])


@pytest.fixture
def world(market: GeneratedMarket) -> Iterator[World]:
    with SimulatedExchange(market, SimulatorOptions(limits=None)) as exchange:
        yield World(exchange, settings=Settings(retries=RetryPolicy(attempts=2, initial=0.01, cap=0.05)))


def fetch(world: World, store: ParquetSink) -> None:
    assert run(world.pipeline(store, symbols=["BTCUSDT"], start=SPAN[0], end=SPAN[1])).complete


def deleted(file: Path) -> None:
    file.unlink()


def moved_away(file: Path) -> None:
    (file.parent / "away").mkdir()
    file.rename(file.parent / "away" / file.name)


def renamed(file: Path) -> None:
    file.rename(file.with_name(f"_{file.name}"))


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


TAKEN = [deleted, moved_away, renamed]
HARMED = [emptied, cut]


@pytest.mark.parametrize("harm", [*TAKEN, *HARMED])
def test_a_month_that_is_gone_ends_the_run_and_comes_back_when_it_is_forgotten(
    tmp_path: Path, world: World, market: GeneratedMarket, harm: Callable[[Path], None]
) -> None:
    store = ParquetSink(tmp_path / "my market")
    fetch(world, store)
    (file,) = store.folder.rglob("2026-05.parquet")
    harm(file)
    for ask in (
        lambda: fetch(world, store),
        lambda: store.coverage([SERIES]),
        lambda: store.read(SERIES, MAY),
    ):
        with pytest.raises(SinkError, match=re.escape(str(file))) as caught:
            ask()
        command = shlex.split(str(caught.value).partition("anew: ")[2])
        options = dict(zip(command[2:-1:2], command[3:-1:2], strict=True))
        assert command[:2] == ["marketfetch", "forget"]
        assert command[-1] == "--rows"
        assert options == {
            "--to": f"parquet:{store.folder}",
            "--exchange": "binance-usdm",
            "--dataset": "ohlcv",
            "--symbol": "BTCUSDT",
            "--interval": "1m",
            "--start": "2026-05-01T00:00:00Z",
            "--end": "2026-06-01T00:00:00Z",
        }
    # The other months are read as ever, and the ledger claims nothing that is not there.
    assert len(store.read(SERIES, span_of("2026-04-28", "2026-05-01"))) == 3 * 1440
    assert len(store.read(SERIES, span_of("2026-06-01", "2026-06-03"))) == 2 * 1440
    assert store.ledger()[SERIES].present == SpanSet.of(span_of(*SPAN)) - SpanSet.of(MAY)
    store.forget(SERIES, SpanSet.of(MAY), rows=True)
    fetch(world, store)
    assert_holds(store, market, SERIES, span_of(*SPAN))


class FileDeletingSink(ParquetSink):
    """A store whose first file is deleted as soon as it is there."""

    def delete(self, file: Path) -> None:
        file.unlink()

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        with super().writer() as write:
            batches = count()

            def write_and_delete(one: Batch) -> None:
                write(one)
                if next(batches) == 0:
                    (file,) = self.folder.rglob("2026-*.parquet")
                    self.delete(file)

            yield write_and_delete


class FolderDeletingSink(FileDeletingSink):
    """The same of the whole folder of the series."""

    def delete(self, file: Path) -> None:
        rmtree(file.parent)


class FolderReplacingSink(FileDeletingSink):
    """The same, and an empty folder takes its place: most file systems give it the same inode number."""

    def delete(self, file: Path) -> None:
        rmtree(file.parent)
        file.parent.mkdir()


@pytest.mark.parametrize("kind", [FileDeletingSink, FolderDeletingSink, FolderReplacingSink])
def test_files_that_are_deleted_under_a_run_are_not_called_complete(
    tmp_path: Path, world: World, market: GeneratedMarket, kind: type[FileDeletingSink]
) -> None:
    store = kind(tmp_path / "market")
    with pytest.raises(SinkError, match=r"2026-0\d.parquet was deleted under the run") as caught:
        fetch(world, store)
    assert caught.value.report is not None
    assert not caught.value.report.complete
    if kind is not FileDeletingSink:  # else the ledger misses the file, and says so
        intact = ParquetSink(store.folder)
        fetch(world, intact)
        assert_holds(intact, market, SERIES, span_of(*SPAN))


def test_a_file_that_is_written_again_has_not_lost_its_first_rows(tmp_path: Path) -> None:
    store, again = ParquetSink(tmp_path / "market"), ParquetSink(tmp_path / "market")
    store.prepare([SERIES.dataset])
    refusal = pytest.raises(SinkError, match=r"2020-01.parquet was deleted under the run")
    with refusal, store.writer() as write:
        write(batch(SERIES, [0, 1]))
        (home,) = {file.parent for file in store.folder.rglob("2020-01.parquet")}
        rmtree(home)
        home.mkdir()
        write(batch(SERIES, [2, 3]))
    again.prepare([SERIES.dataset])
    with again.writer() as write:
        write(batch(SERIES, [0, 1]))
    (home / "2020-01.parquet").unlink()
    with (
        pytest.raises(SinkError, match=r"is missing, and the ledger counts on its rows"),
        store.writer() as write,
    ):
        write(batch(SERIES, [2, 3]))


def test_what_is_forgotten_under_a_run_was_not_deleted(tmp_path: Path) -> None:
    store = ParquetSink(tmp_path / "market")
    store.prepare([SERIES.dataset])
    with store.writer() as write:
        write(batch(SERIES, [0, 1]))
        store.forget(SERIES, SpanSet.of(EVER), rows=True)
    with store.writer() as write:
        write(batch(SERIES, [0, 1]))
        store.forget(SERIES, SpanSet.of(EVER), rows=True)
        write(batch(SERIES, [2, 3]))
    assert len(store.read(SERIES, EVER)) == 2


def test_a_file_that_is_put_back_counts_again(tmp_path: Path, world: World, market: GeneratedMarket) -> None:
    store = ParquetSink(tmp_path / "market")
    fetch(world, store)
    (file,) = store.folder.rglob("2026-05.parquet")
    file.rename(tmp_path / "copy")
    with pytest.raises(SinkError, match=r"is missing, and the ledger counts on its rows; put it back"):
        store.coverage([SERIES])
    (tmp_path / "copy").rename(file)
    fetch(world, store)
    assert_holds(store, market, SERIES, span_of(*SPAN))


def test_a_damaged_page_is_noticed_when_it_is_read(tmp_path: Path) -> None:
    """A bit that flips on the disk: the footer is sound, and so are the other files."""
    store, months = ParquetSink(tmp_path), (0, 44_640)
    with store.writer() as take:
        for month in months:
            take(batch(candles(), range(month, month + 1000), open=range(1000)))
    file = next(tmp_path.rglob("2020-01.parquet"))
    sound = file.read_bytes()
    column = parquet.read_metadata(file).row_group(0).column(1)
    at = column.data_page_offset + column.total_compressed_size // 2
    file.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
    with pytest.raises(
        SinkError, match=r"2020-01\.parquet is not a file that marketfetch wrote \(.*checksum"
    ):
        store.read(candles(), EVER)
    february = Span(START + months[1] * MINUTE, EVER.end)
    assert len(store.read(candles(), february)) == 1000
    january = store.partition(candles(), START)
    with pytest.raises(SinkError, match=r"2020-01\.parquet"):
        store.forget(candles(), SpanSet.of(january), rows=False)
    with pytest.raises(SinkError, match=r"2020-01\.parquet"):
        store.forget(candles(), SpanSet.of(Span(START, START + MINUTE)), rows=True)
    store.forget(candles(), SpanSet.of(january), rows=True)
    assert not file.exists()
    assert store.coverage([candles()])[candles()].covered.hull == store.ledger()[candles()].covered.hull
    assert len(store.read(candles(), EVER)) == 1000


@pytest.mark.parametrize(
    ("series", "name"),
    [
        (candles(interval="1s"), "2020-01-01.parquet"),
        (candles(interval="1h"), "2020.parquet"),
        (Series.of("okx", "funding_rate", "BTC-USDT-SWAP", "event"), "2020.parquet"),
    ],
    ids=str,
)
def test_days_years_and_events(tmp_path: Path, series: Series, name: str) -> None:
    store = ParquetSink(tmp_path)
    with store.writer() as take:
        times = START + 3_600_000 * np.arange(5)
        rows = Columns(times, np.ones((len(series.dataset.columns), 5)))
        take(Batch(series, rows, Coverage(series.interval.cover(times))))
    next(tmp_path.rglob(name)).unlink()
    with pytest.raises(SinkError, match=rf"{name} is missing") as caught:
        store.coverage([series])
    assert ("--interval" in str(caught.value)) is not series.interval.is_event
    with pytest.raises(SinkError, match=rf"{name} is missing"):
        store.read(series, Span(START, START + 1))
    store.forget(series, SpanSet.of(store.partition(series, START)), rows=False)
    assert store.coverage([series])[series] == Coverage()
    assert series not in store.ledger()


def test_periods_that_never_had_rows_are_not_missed(tmp_path: Path) -> None:
    store = ParquetSink(tmp_path)
    empty = SpanSet.of(Span(START - 400 * 86_400_000, START))
    with store.writer() as take:
        take(batch(candles(), [0], open=1))
        take(Batch(candles(), Columns.empty(candles().dataset), Coverage(empty, empty)))
    known = store.coverage([candles()])[candles()]
    assert known.empty == empty
    assert len(list(tmp_path.rglob("2*.parquet"))) == 2, "a month that is known in part, and one with a row"
    next(tmp_path.rglob("2020-01.parquet")).unlink()
    with pytest.raises(SinkError, match="2020-01"):
        store.coverage([candles()])
