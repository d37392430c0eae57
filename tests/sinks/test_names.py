"""Names of tables, columns and symbols that would be SQL, or no names of files, if they were not quoted."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from marketfetch.protocols import Store
from marketfetch.sinks import DuckDBSink, SQLiteSink
from marketfetch.sinks.parquet.paths import lock_path, series_path
from marketfetch.sinks.table_mapping import TableMapping
from tests.support.batches import EVER, batch, candles

NASTY = '"; DROP TABLE t; --'
LETTERS = st.characters(codec="utf-8", exclude_characters=".\0", exclude_categories=["Cs"])
NAMES = st.lists(
    st.text(LETTERS, min_size=1, max_size=10).filter(str.strip),
    min_size=4,
    max_size=4,
    unique_by=lambda name: name.casefold(),
)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _connect(kind: type[Any], path: Path) -> Any:
    if kind is SQLiteSink:
        return sqlite3.connect(path, isolation_level=None)
    return pytest.importorskip("duckdb").connect(path)


@pytest.mark.parametrize("kind", [SQLiteSink, DuckDBSink])
@settings(max_examples=8)
@example(names=[NASTY, "'", '""', "select"], symbol=NASTY)
@example(names=["a b", "%s", "?", "$1"], symbol="' OR ''='")
@given(names=NAMES, symbol=st.text(LETTERS, min_size=1, max_size=10))
def test_any_name_is_only_a_name(kind: type[Any], names: list[str], symbol: str) -> None:
    table, time, label, column = names
    with TemporaryDirectory() as folder:
        path = Path(folder) / "market"
        with closing(_connect(kind, path)) as database:
            database.execute(
                f"CREATE TABLE {_quoted(table)} ({_quoted(time)} BIGINT, {_quoted(label)} VARCHAR, "
                f"{_quoted(column)} DOUBLE, PRIMARY KEY ({_quoted(time)}, {_quoted(label)}))"
            )
        mapping = TableMapping(table, time=time, symbol=label, columns={"ohlcv": {"open": column}})
        store: Store = kind(path, table=mapping)
        series = candles(symbol)
        with closing(_connect(kind, path)) as database:  # held open: opening takes longest
            store.prepare([series.dataset])
            with store.writer() as write:
                write(batch(series, range(3), open=1.5))
                write(batch(series, range(2, 5), open=2.5))
            assert store.read(series, EVER).values[0].tolist() == [1.5, 1.5, 2.5, 2.5, 2.5]
            ((found,),) = database.execute(
                f"SELECT DISTINCT {_quoted(label)} FROM {_quoted(table)}"
            ).fetchall()
        assert found == symbol


RESERVED = {
    "CON",
    "PRN",
    "AUX",
    "NUL",
    *(f"{port}{number}" for port in ("COM", "LPT") for number in range(10)),
}


@example("CON")
@example("aux.txt")
@example("COM1")
@example("BTC.")
@example("..")
@example(" a ")
@example('<>:"/\\|?*')
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20))
def test_any_symbol_is_a_folder_and_a_lock_file_on_every_system(symbol: str) -> None:
    root, series = Path("market"), candles(symbol)
    home = series_path(root, series)
    for part in (*home.relative_to(root).parts, *lock_path(root, series).relative_to(root).parts):
        assert part.isascii()
        assert part.isprintable()
        assert not set(part) & set('<>:"/\\|?*')
        assert part[-1] not in ". "
        assert part.partition(".")[0].upper() not in RESERVED
    assert unquote(home.parent.name) == f"symbol={symbol}"
