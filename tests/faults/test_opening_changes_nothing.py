"""Opening a file of somebody else's leaves its modes alone, and reading needs no right to write."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path

import duckdb
import pytest

from marketfetch.errors import SinkError
from marketfetch.sinks import DuckDBSink, SQLiteSink, TableMapping
from tests.support.batches import EVER, batch, candles

MAPPING = TableMapping("candles", time="ts", symbol="symbol", columns={"ohlcv": {"close": "close"}})
TABLE = "CREATE TABLE candles (symbol TEXT, ts BIGINT, close DOUBLE, PRIMARY KEY (symbol, ts))"
SERIES = candles()
Kind = type[DuckDBSink] | type[SQLiteSink]


def fill(store: DuckDBSink | SQLiteSink, rows: range = range(5)) -> None:
    store.prepare([SERIES.dataset])
    with store.writer() as write:
        write(batch(SERIES, rows, close=2.0))


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def modes(path: Path) -> list[object]:
    pragmas = ("journal_mode", "auto_vacuum", "user_version", "application_id", "page_size")
    with closing(sqlite3.connect(path)) as connection:
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas]


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A database of the user's, with modes that are not the usual ones."""
    path = tmp_path / "theirs.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA auto_vacuum = FULL")
        connection.execute("PRAGMA user_version = 7")
        connection.execute(TABLE)
    return path


def test_a_mapped_fetch_keeps_the_modes_of_a_file(theirs: Path) -> None:
    before = modes(theirs)
    fill(SQLiteSink(theirs, table=MAPPING))
    assert modes(theirs) == before
    assert before[0] == "delete"


def test_our_own_tables_in_a_file_of_theirs_keep_its_modes(theirs: Path) -> None:
    before = modes(theirs)
    fill(SQLiteSink(theirs))
    assert modes(theirs) == before


def test_a_file_that_is_made_here_lets_readers_and_a_writer_work_side_by_side(tmp_path: Path) -> None:
    fill(SQLiteSink(tmp_path / "ours.db"))
    assert modes(tmp_path / "ours.db")[0] == "wal"


@pytest.mark.parametrize("mapped", [True, False])
def test_asking_what_is_covered_changes_no_byte(theirs: Path, mapped: bool) -> None:
    store = SQLiteSink(theirs, table=MAPPING if mapped else None)
    before, listed = theirs.read_bytes(), names(theirs.parent)
    store.coverage([SERIES])
    store.ledger()
    store.read(SERIES, EVER)
    assert theirs.read_bytes() == before
    assert names(theirs.parent) == listed
    fill(store)
    before = theirs.read_bytes()
    assert store.coverage([SERIES])[SERIES].covered
    assert theirs.read_bytes() == before
    assert names(theirs.parent) == listed


def test_reading_a_file_in_wal_mode_leaves_nothing_beside_it(tmp_path: Path) -> None:
    store = SQLiteSink(tmp_path / "ours.db")
    fill(store)
    assert len(store.read(SERIES, EVER)) == 5
    assert names(tmp_path) == ["ours.db"]


def _as_nobody(look: Callable[[], None], answers: object) -> None:
    """Do something as a user who owns nothing; the answer is empty, or the error."""
    if not os.geteuid():
        os.setgid(65534)
        os.setuid(65534)
    try:
        look()
    except BaseException as error:  # noqa: BLE001  # it is for the test to see
        answers.put(repr(error))  # type: ignore[attr-defined]
    else:
        answers.put("")  # type: ignore[attr-defined]


@pytest.fixture
def without_rights(tmp_path: Path) -> Iterator[Callable[[Callable[[], None]], str]]:
    """Run a function in a process that may read a folder and what is in it, and write neither."""

    def run(look: Callable[[], None]) -> str:
        for folder in (tmp_path, *tmp_path.parents):
            if folder.owner() == Path.home().owner() or not os.geteuid():
                folder.chmod(folder.stat().st_mode | 0o555)
            if folder == Path(tmp_path.anchor) / "tmp":
                break
        for file in tmp_path.iterdir():
            file.chmod(0o444)
        tmp_path.chmod(0o555)
        spawn = get_context("spawn")
        answers = spawn.Queue()
        child = spawn.Process(target=_as_nobody, args=(look, answers))
        child.start()
        try:
            return str(answers.get(timeout=250))
        finally:
            child.join()

    yield run
    tmp_path.chmod(0o755)


class Look:
    """Reads all that a store of a kind has, and expects five rows."""

    def __init__(self, kind: Kind, path: Path, table: TableMapping | None = None) -> None:
        self.kind, self.path, self.table = kind, path, table

    def __call__(self) -> None:
        store = self.kind(self.path, table=self.table)
        assert len(store.read(SERIES, EVER)) == 5
        assert store.coverage([SERIES])[SERIES] == batch(SERIES, range(5)).coverage
        assert list(store.ledger()) == [SERIES]


@pytest.mark.parametrize("kind", [SQLiteSink, DuckDBSink])
@pytest.mark.parametrize("mapped", [True, False])
def test_who_may_only_read_can_read(
    tmp_path: Path,
    without_rights: Callable[[Callable[[], None]], str],
    kind: Kind,
    mapped: bool,
) -> None:
    path, connect = tmp_path / "market.db", {SQLiteSink: sqlite3.connect, DuckDBSink: duckdb.connect}[kind]
    if mapped:
        with closing(connect(path)) as connection:  # type: ignore[operator]
            connection.execute(TABLE)
    table = MAPPING if mapped else None
    fill(kind(path, table=table))
    before = sha256(path.read_bytes()).digest()
    assert without_rights(Look(kind, path, table)) == ""
    assert sha256(path.read_bytes()).digest() == before


class Prepare(Look):
    """Begins a run, as if it could store something."""

    def __call__(self) -> None:
        self.kind(self.path, table=self.table).prepare([SERIES.dataset])


@pytest.mark.parametrize("kind", [SQLiteSink, DuckDBSink])
def test_who_may_only_read_is_told_before_anything_is_fetched(
    tmp_path: Path, without_rights: Callable[[Callable[[], None]], str], kind: Kind
) -> None:
    path, connect = tmp_path / "market.db", {SQLiteSink: sqlite3.connect, DuckDBSink: duckdb.connect}[kind]
    with closing(connect(path)) as connection:  # type: ignore[operator]
        connection.execute(TABLE)
    fill(kind(path, table=MAPPING))
    before = path.read_bytes()
    assert "make the file and its folder readable and writable" in without_rights(
        Prepare(kind, path, MAPPING)
    )
    path.chmod(0o644)
    kind(path, table=MAPPING).prepare([SERIES.dataset])  # whoever may write changes nothing either
    if kind is SQLiteSink:
        assert path.read_bytes() == before


def test_duckdb_is_read_beside_another_program_that_reads(tmp_path: Path) -> None:
    """A viewer that has the file open read-only keeps nobody from reading."""
    store = DuckDBSink(tmp_path / "market.duckdb")
    fill(store)
    with closing(duckdb.connect(store.path, read_only=True)) as viewer:
        Look(DuckDBSink, store.path)()
        assert viewer.execute("SELECT count(*) FROM ohlcv").fetchall() == [(5,)]


def test_reading_cannot_write(tmp_path: Path) -> None:
    """The connection itself refuses it, whatever a subclass does with it."""
    for store in (SQLiteSink(tmp_path / "a.db"), DuckDBSink(tmp_path / "b.db")):
        fill(store)
        with store._connected_to_read() as connection, pytest.raises((duckdb.Error, sqlite3.Error)):
            connection.execute("CREATE TABLE mine (a INTEGER)")


class LookInto:
    """Asks for rows in a folder that may not be looked into."""

    def __init__(self, kind: Kind, path: Path) -> None:
        self.kind, self.path = kind, path

    def __call__(self) -> None:
        for question in ("ledger", "coverage", "read"):
            store = self.kind(self.path)
            arguments = {"ledger": (), "coverage": ([SERIES],), "read": (SERIES, EVER)}[question]
            with pytest.raises(SinkError, match="grant the right to look into its folder"):
                getattr(store, question)(*arguments)


@pytest.mark.parametrize("kind", [SQLiteSink, DuckDBSink])
def test_a_folder_that_may_not_be_looked_into_is_not_an_empty_one(tmp_path: Path, kind: Kind) -> None:
    """What cannot be seen is not absent: it would be fetched and reported as if nothing were there."""
    closed = tmp_path / "closed"
    closed.mkdir()
    fill(kind(closed / "market.db"))
    closed.chmod(0o000)
    for folder in tmp_path.parents:
        if folder == Path(tmp_path.anchor) / "tmp":
            break
        folder.chmod(folder.stat().st_mode | 0o555)
    spawn = get_context("spawn")
    answers = spawn.Queue()
    child = spawn.Process(target=_as_nobody, args=(LookInto(kind, closed / "market.db"), answers))
    child.start()
    try:
        assert answers.get(timeout=250) == ""
    finally:
        child.join()
        closed.chmod(0o755)
