"""A store that format 1 wrote is read as it is, brought into today's format by `prepare`, and never half."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from marketfetch.errors import SinkError
from marketfetch.sinks.parquet.sink import ParquetSink
from marketfetch.values.coverage import Coverage
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet
from tests.support.batches import EVER, MINUTE, START, batch, candles

DAY = 86_400_000
FUNDING = Series.of("okx", "funding_rate", "BTC-USDT-SWAP", "event")
GONE = candles("GONE/USDT")
SERIES = [candles(), FUNDING, GONE]


def minutes(first: int, last: int) -> Span:
    return Span(START + first * MINUTE, START + last * MINUTE)


ABSENT = SpanSet.of(Span(START - 40 * DAY, START + 5 * DAY), minutes(44_650, 44_660))
KNOWN = {
    candles(): Coverage(
        SpanSet.of(minutes(44_630, 44_650), *(minutes(at, at + 1) for at in range(44_700, 44_720, 2)))
        | ABSENT,
        ABSENT,
    ),
    FUNDING: Coverage(SpanSet.of(Span(START - 5, START + 30_000_000))),
    GONE: Coverage(SpanSet.of(Span(START, START + 70 * DAY)), SpanSet.of(Span(START, START + 70 * DAY))),
}


@pytest.fixture
def old(tmp_path: Path) -> ParquetSink:
    """A store as the version before the format had a number wrote it."""
    with tarfile.open(Path(__file__).parent / "data" / "format1_parquet.tar.gz") as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # not before Python 3.11.4
        archive.extractall(tmp_path)
    return ParquetSink(tmp_path / "format1")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_all_there(store: ParquetSink) -> None:
    assert store.coverage(SERIES) == store.ledger() == KNOWN
    rows = store.read(candles(), EVER)
    assert candles().interval.cover(rows.times) == KNOWN[candles()].present
    assert rows.values[0].tolist() == [*(np.arange(20) / 7), *[2.0] * 10]
    assert store.read(FUNDING, EVER).values[0].tolist() == [1e-4, 2e-4]
    assert not len(store.read(GONE, EVER))
    assert not store.rejected(candles(), EVER)


def test_it_is_read_without_a_change(old: ParquetSink) -> None:
    before = contents(old.folder)
    assert_all_there(old)
    assert contents(old.folder) == before
    assert {path.name for path in old.folder.iterdir()} == {"ohlcv", "funding_rate"}


def test_prepare_brings_it_into_todays_format_and_leaves_the_rows_as_they_are(old: ParquetSink) -> None:
    rows = {name: data for name, data in contents(old.folder).items() if name.endswith(".parquet")}
    old.prepare([])
    assert_all_there(old)
    after = contents(old.folder)
    assert rows.items() <= after.items()
    assert not [name for name in after if not name.endswith(".parquet")]
    old.prepare([])
    assert contents(old.folder) == after


@pytest.mark.parametrize("prepared", [True, False])
def test_writing_goes_on_where_it_ended(old: ParquetSink, *, prepared: bool) -> None:
    if prepared:
        old.prepare([])
    with old.writer() as take:
        take(batch(candles(), range(44_701, 44_720, 2), open=3))
    known = old.coverage([candles()])[candles()]
    assert known.present == SpanSet.of(minutes(44_630, 44_650), minutes(44_700, 44_720))
    assert known.empty == ABSENT
    assert len(old.read(candles(), EVER)) == 40
    assert {**old.coverage(SERIES), candles(): KNOWN[candles()]} == KNOWN
    assert not list(old.folder.glob("ohlcv/*/symbol=BTCUSDT/*/_coverage.json"))


def test_what_is_missing_is_missed_before_and_after(old: ParquetSink) -> None:
    next(old.folder.rglob("2020-02.parquet")).unlink()
    for prepare in (False, True):
        if prepare:
            old.prepare([])
        with pytest.raises(SinkError, match=r"2020-02\.parquet is missing"):
            old.coverage([candles()])
    old.forget(candles(), SpanSet.of(old.partition(candles(), START + 40 * DAY)))
    january = SpanSet.of(Span(START - 40 * DAY, START + 31 * DAY))
    assert old.coverage([candles()])[candles()].covered == KNOWN[candles()].covered & january


@pytest.mark.parametrize("calls", range(16))
def test_killed_at_any_step_it_is_brought_over_by_the_next_run(
    old: ParquetSink, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    class Killed(BaseException):
        pass

    left = iter(range(calls))

    def dying(original: Callable[..., object]) -> Callable[..., object]:
        def act(*given: object, **named: object) -> object:
            if next(left, None) is None:
                raise Killed
            return original(*given, **named)

        return act

    with monkeypatch.context() as patch:
        for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "unlink")):
            patch.setattr(owner, name, dying(getattr(owner, name)))
        with suppress(Killed):
            old.prepare([])
    for lock in old.folder.glob("_marketfetch/locks/*"):
        lock.write_text("")  # this process lives: a torn one is nobody's
        os.utime(lock, (1, 1))
    assert_all_there(old)
    old.prepare([])
    assert_all_there(old)
    assert not [name for name in contents(old.folder) if name.endswith(".json")]


def test_a_store_with_a_damaged_ledger_is_refused_untouched(old: ParquetSink) -> None:
    (old.folder / "ohlcv/exchange=binance-usdm/symbol=GONE%2FUSDT/interval=1m/_coverage.json").write_text("{")
    before = contents(old.folder)
    with pytest.raises(SinkError, match=r"GONE%2FUSDT.*_coverage\.json is damaged; remove it"):
        old.prepare([])
    assert contents(old.folder) == before


def test_a_store_of_a_newer_version_is_refused_untouched(tmp_path: Path) -> None:
    store = ParquetSink(tmp_path / "market")
    store.prepare([])
    with store.writer() as take:
        take(batch(candles(), [0], open=1))
    (store.folder / "_marketfetch" / "format-4").mkdir()
    before = contents(store.folder)
    uses: list[Callable[[], object]] = [
        lambda: store.prepare([]),
        lambda: store.coverage([candles()]),
        store.ledger,
        lambda: store.read(candles(), EVER),
        lambda: store.rejected(candles(), EVER),
        lambda: store.forget(candles(), SpanSet.of(EVER), rows=True),
        lambda: store.writer().__enter__(),
    ]
    for use in uses:
        with pytest.raises(
            SinkError, match=r"newer marketfetch \(format 4; this one knows 3\): upgrade market"
        ):
            use()
    assert contents(store.folder) == before


@pytest.mark.parametrize("name", ["_ledger.parquet", "2020-01.parquet"])
def test_a_file_of_a_newer_version_is_refused_untouched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    store = ParquetSink(tmp_path)
    refusal = pytest.raises(SinkError, match=rf"{name} was written by a newer marketfetch \(format 4")
    with refusal, store.writer() as take:
        take(batch(candles(), [0], open=1))
        file = next(tmp_path.rglob(name))
        old = file.read_bytes()
        file.write_bytes(old.replace(b'{"format":3', b'{"format":4'))
        assert file.read_bytes() != old
        before = contents(tmp_path)
        take(batch(candles(), [1], open=1))
    assert contents(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_reading_needs_no_right_to_write(old: ParquetSink) -> None:
    folders = [old.folder, *(path for path in old.folder.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o500)
    try:
        assert_all_there(old)
    finally:
        for folder in folders:
            folder.chmod(0o700)
