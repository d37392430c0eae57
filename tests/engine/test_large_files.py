"""Large files: fetched in parts, read twice where their rows are many, and nothing is stored too early."""

from __future__ import annotations

import pytest

from marketfetch.archives import downloads, file_reader
from marketfetch.engine.archives import files, waves
from marketfetch.engine.pages.batch_builder import RowBudget
from marketfetch.sinks.memory import MemorySink
from marketfetch.testing import ArchiveFaultKind, ArchiveFaults
from marketfetch.values.series import Series
from tests.support.sites import END, START, SYMBOLS, Site, site
from tests.support.worlds import assert_holds, span_of

SERIES = [Series.of("binance-usdm", "ohlcv", symbol, "1h") for symbol in SYMBOLS]


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetch every file in parts of 2,000 bytes, hold 40 rows, and prefer files however little is missing."""
    for module in (downloads, files, waves):
        monkeypatch.setattr(module, "PART", 2_000)
    monkeypatch.setattr(files, "_HELD_ROWS", 40)
    monkeypatch.setattr(file_reader, "PIECE_ROWS", 30)
    monkeypatch.setattr(file_reader, "_DISORDER", 5)
    monkeypatch.setattr("marketfetch.decoding.csv_layouts._BLOCK", 1_000)
    monkeypatch.setattr("marketfetch.archives.containers._PIECE", 500)
    monkeypatch.setattr(waves, "files_end_sooner", lambda *_: True)
    monkeypatch.setattr(waves, "_MIN_PAGES", 0)


def statuses(place: Site, name: str) -> list[int]:
    return [seen.status for seen in place.archive.request_log.latest if seen.path.endswith(name)]


def test_a_file_is_fetched_in_parts_and_read_in_pieces() -> None:
    store = MemorySink()
    with site() as place:
        report = place.fetch(store, sources="archive")
        for series in SERIES:
            assert_holds(store, place.market, series, span_of(START, END))
            assert all(entry.verified for entry in store.provenance(series))
        (size, *_) = {len(place.archive.read(key)) for key in place.keys_read() if "2026-01.zip" in key}
        parts = statuses(place, "BTCUSDT-1h-2026-01.zip")
    assert report.complete
    assert report.archive.files == 2 * (3 + 14)
    assert len(parts) > size / 3_000 > 5
    assert {*parts} == {206}


def test_a_host_that_does_not_know_ranges_is_asked_once() -> None:
    store = MemorySink()
    with site(ranges=False) as place:
        assert place.fetch(store, sources="archive").complete
        for series in SERIES:
            assert_holds(store, place.market, series, span_of(START, END))
        assert statuses(place, "BTCUSDT-1h-2026-01.zip") == [200]


@pytest.mark.parametrize("kind", ["wrong_crc", "damaged_body", "truncated_body", "cut_body"])
def test_nothing_of_a_damaged_file_is_stored(kind: str) -> None:
    """Damage that shows only at the end of a file, and damage of one of its parts."""
    store = MemorySink()
    faults = ArchiveFaults(kinds=[ArchiveFaultKind(kind)], rate=1.0, keys="*monthly*BTCUSDT-1h-2025-12.zip")
    with site(faults) as place:
        report = place.fetch(store)
        for series in SERIES:
            assert_holds(store, place.market, series, span_of(START, END))
        used = {entry.key.rpartition("/")[2] for entry in store.provenance(SERIES[0])}
    assert report.complete
    assert report.archive.rejected >= 1
    assert "BTCUSDT-1h-2025-12.zip" not in used
    assert {"BTCUSDT-1h-2025-12-01.zip", "BTCUSDT-1h-2026-01.zip"} <= used


def test_of_a_large_month_that_is_mostly_there_the_days_are_read() -> None:
    for end, expected in (("2025-12-10", "/daily/"), ("2025-12-20", "/monthly/")):
        with site() as place:
            report = place.fetch(MemorySink(), start="2025-12-01", end=end)
            assert all(expected in key for key in place.keys_read())
            assert place.files()
        assert report.complete


def test_a_file_above_the_maximum_is_not_requested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waves, "MAX_FILE", 2_500)
    with site() as place:
        report = place.fetch(MemorySink())
        assert not statuses(place, "BTCUSDT-1h-2026-01.zip")
        assert statuses(place, "BTCUSDT-1h-2026-02-01.zip")
    assert report.complete


def test_the_memory_limit_holds_back_the_pieces_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows that wait for the store never exceed the row budget, though a file has many times as many."""
    monkeypatch.setattr(files, "PIECE_ROWS", 40)
    waiting = list[int]()
    acquire = RowBudget.acquire

    async def counting(budget: RowBudget, holder: object, rows: int) -> None:
        await acquire(budget, holder, rows)
        waiting.append(budget.in_use)
        assert budget.in_use <= budget.limit

    monkeypatch.setattr(RowBudget, "acquire", counting)
    with site() as place:
        assert place.fetch(MemorySink(), sources="archive").complete
    assert 30 <= max(waiting) <= 4 * 40 + 40 < 31 * 24
