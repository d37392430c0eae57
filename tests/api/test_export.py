"""`export`: files with the rows of a store, whole or not at all."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest

import marketfetch as mf
from marketfetch.api.upkeep import export as module
from marketfetch.errors import ConfigurationError, SinkError
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.spans import DAY, HOUR, MINUTE

START = 1_780_272_000_000
HOURS = mf.Series.of("okx", "ohlcv", "BTC-USDT", "1h")
EVENTS = mf.Series.of("okx", "funding_rate", "BTC-USDT-SWAP", "event")


@pytest.fixture
def store() -> mf.MemorySink:
    """48 hours of candles with a gap after the 12th, and two events."""
    store = mf.MemorySink()
    with store.writer() as write:
        times = START + HOUR * np.array([*range(12), *range(18, 48)])
        values = np.linspace(1, 2, 9 * len(times)).reshape(9, -1)
        values[HOURS.dataset.index("trades")] = np.arange(len(times))
        values[HOURS.dataset.index("quote_volume"), 3] = np.nan
        write(Batch(HOURS, Columns(times, values), mf.Coverage(HOURS.interval.cover(times))))
        other = mf.Series.of("okx", "ohlcv", "ETH-USDT", "1h")
        write(Batch(other, Columns(times[:2], values[:, :2]), mf.Coverage(HOURS.interval.cover(times[:2]))))
        moments = np.array([START, START + 8 * HOUR + 3])
        rates = np.array([[0.0001, -2e-05], [np.nan, 5.0], [np.nan, np.nan]])
        span = mf.SpanSet.of(mf.Span(START, START + DAY))
        write(Batch(EVENTS, Columns(moments, rates), mf.Coverage(span)))
    return store


def test_a_csv_has_a_header_iso_times_and_empty_cells_for_null(store: mf.MemorySink, tmp_path: Path) -> None:
    done = mf.export(store, tmp_path / "btc.csv", symbols="BTC-USDT")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "btc.csv").read_text())))
    table = mf.open(store).table(symbols="BTC-USDT", on_missing="ignore")
    assert tuple(rows[0]) == table.columns
    assert [row["open_time"] for row in rows[:2]] == ["2026-06-01T00:00:00Z", "2026-06-01T01:00:00Z"]
    assert (rows[3]["quote_volume"], rows[3]["trades"]) == ("", "3")
    assert [float(row["close"]) for row in rows] == table.of("BTC-USDT").values[3].tolist()
    assert (done.total, done.complete) == (42, False)
    assert done.missing[HOURS] == mf.SpanSet.of(mf.Span(START + 12 * HOUR, START + 18 * HOUR))


def test_events_and_milliseconds(store: mf.MemorySink) -> None:
    text = io.BytesIO()
    mf.export(store, text, "funding_rate")
    assert text.getvalue().decode().splitlines() == [
        "exchange,symbol,interval,open_time,funding_rate,mark_price,special_funding_rate",
        "okx,BTC-USDT-SWAP,event,2026-06-01T00:00:00Z,0.0001,,",
        "okx,BTC-USDT-SWAP,event,2026-06-01T08:00:00.003Z,-2e-05,5.0,",
    ]
    text = io.BytesIO()
    mf.export(store, text, "funding_rate", times="ms", start=START + 1)
    assert text.getvalue().splitlines()[1].startswith(b"okx,BTC-USDT-SWAP,event,1780300800003,")


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.feather"])
def test_binary_files_hold_what_the_table_holds(store: mf.MemorySink, tmp_path: Path, name: str) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq
    from pyarrow import feather

    mf.export(store, tmp_path / name)
    found = (pq.read_table if name.endswith("parquet") else feather.read_table)(tmp_path / name)
    assert found.equals(mf.open(store).table(on_missing="ignore").to_arrow())


def test_the_store_is_read_in_pieces(store: mf.MemorySink, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = io.BytesIO()
    mf.export(store, whole)
    monkeypatch.setattr(module, "_STEP", 5)
    spans: list[mf.Span] = []
    read = store.read

    def noted(series: mf.Series, span: mf.Span) -> Columns:
        spans.append(span)
        return read(series, span)

    monkeypatch.setattr(store, "read", noted)
    pieces = io.BytesIO()
    mf.export(store, pieces)
    assert pieces.getvalue() == whole.getvalue()
    assert max(span.length for span in spans) == 5 * HOUR


def test_a_file_is_replaced_only_on_demand_and_as_a_whole(
    store: mf.MemorySink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "btc.csv"
    file.write_text("mine")
    with pytest.raises(ConfigurationError, match=r"file: .*btc\.csv exists; name another one"):
        mf.export(store, file)

    def fails(*_: object) -> Columns:
        raise SinkError("the disk is gone")

    with monkeypatch.context() as broken:
        broken.setattr(store, "read", fails)
        with pytest.raises(SinkError, match="the disk is gone"):
            mf.export(store, file, overwrite=True)
    assert file.read_text() == "mine"
    assert [each.name for each in tmp_path.iterdir()] == ["btc.csv"]
    mf.export(store, file, overwrite=True)
    assert file.read_text().startswith("exchange,")


@pytest.mark.parametrize(
    ("name", "more", "reason"),
    [
        ("a.xlsx", {}, "format: the name 'a.xlsx' tells none; end it with .csv"),
        ("a.csv", {"format": "cvs"}, "format: 'cvs' is unknown; did you mean 'csv'"),
        ("a.parquet", {"times": "ms"}, "times: 'ms' is for CSV"),
        ("a.csv", {"times": "utc"}, "times: 'utc' is unknown"),
        ("a.csv", {"overwrite": 1}, "overwrite: 1 is neither yes nor no"),
        ("a.csv", {"symbols": "BTC-USD"}, "'BTC-USD' is not held; did you mean 'BTC-USDT'"),
        ("a.csv", {"dataset": "mark_price"}, "dataset: 'mark_price' is not held"),
        ("a.csv", {"start": START + DAY, "end": START}, "start: .* is not before end"),
        ("nowhere/a.csv", {}, "file: the folder .*nowhere does not exist"),
        ("", {"format": "csv"}, "file: .* is a folder; name a file in it"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    store: mf.MemorySink, tmp_path: Path, name: str, more: dict[str, object], reason: str
) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        mf.export(store, tmp_path / name, **more)  # type: ignore[arg-type]
    assert not [*tmp_path.iterdir()]


def test_moments_that_the_store_lacks_are_told(store: mf.MemorySink) -> None:
    done = mf.export(store, io.BytesIO(), symbols="ETH-USDT", start=START, end=START + 2 * HOUR + MINUTE)
    (missing,) = done.missing.values()
    assert missing == mf.SpanSet.of(mf.Span(START + 2 * HOUR, START + 3 * HOUR))
    assert done.as_dict()["complete"] is False
