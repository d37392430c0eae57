"""The two boards that come with the package, held against the contract, and what each says when it fails."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import psycopg
import pytest

from marketfetch.api.budget_sharing import sharing_of
from marketfetch.errors import ConfigurationError, SinkError, SinkUnavailable
from marketfetch.protocols import Board, Sharing
from marketfetch.proxies.board_urls import board_from
from marketfetch.proxies.file_board import FileBoard
from marketfetch.sinks.memory import MemorySink
from marketfetch.sinks.postgres import PostgresBoard, PostgresSink
from marketfetch.testing.contracts.board import BoardContract
from marketfetch.values.datasets import datasets


class TestFileBoard(BoardContract):
    def make_board(self, place: Path) -> Board:
        return FileBoard(place)


class TestPostgresBoard(BoardContract):
    @pytest.fixture(autouse=True)
    def database(self, postgres_dsn: str) -> None:
        self.dsn = postgres_dsn

    def make_board(self, place: Path) -> Board:
        return PostgresBoard(self.dsn)


def read(text: str | None, _now: float) -> tuple[str, str | None]:
    return text or "x", text


def test_files_of_a_board_are_the_user_s_alone_and_old_ones_go(tmp_path: Path) -> None:
    board = FileBoard(tmp_path / "state" / "board")
    board.change("x", read)
    assert stat.S_IMODE(board.folder.stat().st_mode) == 0o700
    old = board.folder / "0123456789ab-00.json"
    for file in (old, old.with_suffix(".lock")):
        file.write_text("{}")
    os.utime(old, (0, 0))
    board.change("y", read)
    assert not old.exists()
    assert not old.with_suffix(".lock").exists()
    assert len(list(board.folder.glob("*.json"))) == 2


def test_a_folder_that_cannot_be_had_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match=r"board: .*file/board cannot be used \(Not a directory\); .*board="):
        FileBoard(tmp_path / "file" / "board").change("x", read)


def test_a_user_without_a_home_has_no_board() -> None:
    with pytest.raises(SinkError, match="no home"):
        FileBoard(Path("~/state")).change("x", read)


def test_the_table_is_made_by_the_first_who_may(postgres_dsn: str) -> None:
    sink = PostgresSink(postgres_dsn, schema="My schema")
    sink.prepare([*datasets().values()])
    assert sink.board() == PostgresBoard(postgres_dsn, schema="My schema")
    sink.board().change("x", read)
    with psycopg.connect(postgres_dsn) as connection:
        found = connection.execute("""SELECT name, text FROM "My schema".board""").fetchall()
    assert found == [("x", "x")]


def test_a_table_of_somebody_else_is_left_alone(postgres_dsn: str) -> None:
    with psycopg.connect(postgres_dsn) as connection:
        connection.execute("CREATE SCHEMA marketfetch CREATE TABLE board (id integer)")
    with pytest.raises(SinkError, match=r"marketfetch\.board was not made by marketfetch; choose another"):
        PostgresBoard(postgres_dsn).change("x", read)


def test_a_server_that_is_away_may_come_back(tmp_path: Path) -> None:
    with pytest.raises(SinkUnavailable, match="check that the server runs"):
        PostgresBoard(f"postgresql:///x?host={tmp_path}").change("x", read)


def test_a_board_that_stays_locked_may_be_had_later(postgres_dsn: str) -> None:
    board = PostgresBoard(postgres_dsn)
    board.change("x", read)
    with psycopg.connect(postgres_dsn) as other:
        other.execute("LOCK TABLE marketfetch.board IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(SinkUnavailable, match="lock_timeout"):
            board.change("x", read)
    assert board.change("x", read) == "x"


def test_no_board_shows_a_password() -> None:
    board = PostgresBoard("postgresql://ann:hunter2@db.example/market")
    assert "hunter2" not in repr(board) + repr(Sharing((board,)))


def test_which_boards_a_pipeline_has(tmp_path: Path) -> None:
    dsn = "postgresql://db.example/market"
    user = FileBoard.of_user()
    assert sharing_of("auto", MemorySink()) == Sharing((user,))
    assert sharing_of("auto", PostgresSink(dsn)) == Sharing((user, PostgresBoard(dsn)))
    assert sharing_of(None, PostgresSink(dsn)) == sharing_of("none", PostgresSink(dsn)) == Sharing()
    assert sharing_of(f"file:{tmp_path}", MemorySink()) == Sharing((FileBoard(tmp_path),), required=True)
    assert sharing_of(dsn, MemorySink()) == Sharing((PostgresBoard(dsn),), required=True)
    assert sharing_of(user, MemorySink()) == Sharing((user,), required=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fil:/x", "board: 'fil' is unknown; did you mean 'file'?"),
        ("nobody", "board: write auto, none, or a kind of board and its place"),
        ("file:", "board: name a folder"),
        ("ann:hunter2@db", "board: 'ann' is unknown"),
    ],
)
def test_a_wrong_board_is_refused_without_its_password(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        board_from(text)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("board", [3, FileBoard, object()])
def test_what_is_no_board_is_refused(board: object) -> None:
    with pytest.raises(ConfigurationError, match=r"board: .* has no change"):
        sharing_of(board, MemorySink())  # type: ignore[arg-type]
