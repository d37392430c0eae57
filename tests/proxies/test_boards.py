"""The two boards that come with the package, held against the contract, and what each says when it fails."""

from __future__ import annotations

import errno
import ntpath
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
from tests.support.plug_ins import install_plug_in


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


@pytest.mark.parametrize(
    "number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EBUSY, errno.ESTALE]
)
def test_an_error_that_passes_is_no_final_one(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    board = FileBoard(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", fail)
        with pytest.raises(SinkUnavailable, match=os.strerror(number)):
            board.change("x", read)
    assert board.change("x", read) is None


def test_a_drive_is_found_in_a_url_where_there_are_drives(monkeypatch: pytest.MonkeyPatch) -> None:
    assert FileBoard.from_url("file:///C:/board") == FileBoard("/C:/board")
    monkeypatch.setattr(os.path, "splitdrive", ntpath.splitdrive)
    assert FileBoard.from_url("file:///C:/board") == FileBoard("C:/board")
    for folder in ("C:/board", r"C:\board", r"\\server\share\board", "/srv/board", "board"):
        assert FileBoard.from_url(f"file:{folder}") == FileBoard(folder)


def test_a_user_without_a_home_has_no_board() -> None:
    with pytest.raises(SinkError, match="no home"):
        FileBoard(Path("~nobody-of-this-name/state")).change("x", read)


def test_a_home_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    board_from("file:~/boards").change("x", read)
    assert list((tmp_path / "boards").glob("*.json"))


def test_boards_of_one_folder_are_equal_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    spellings = ["b", "./b", "x/../b", "~/b", "link/b", str(tmp_path / "b")]
    boards = [FileBoard(spelling) for spelling in spellings]
    assert set(boards) == {FileBoard(tmp_path / "b")}
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    boards[0].change("x", read)
    assert boards[-1].change("x", read) == "x"


def test_a_folder_that_can_be_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=r"board: 'a\\x00b' is not a folder here"):
        FileBoard("a\0b")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ConfigurationError, match=r"board: 'b' is not a folder here .*absolute"):
        FileBoard("b")


def test_files_of_a_machine_that_takes_turns_stay(tmp_path: Path) -> None:
    """Its key file is written once; only its other files are young."""
    board = FileBoard(tmp_path)
    key, turns = tmp_path / "0123456789ab-00.json", tmp_path / "0123456789ab-01.json"
    for file in (key, turns):
        file.write_text("{}")
    os.utime(key, (0, 0))
    board.change("x", read)
    assert key.exists()
    os.utime(turns, (0, 0))
    board.change("y", read)
    assert not key.exists()
    assert not turns.exists()


def test_a_file_that_another_machine_deletes_first_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = FileBoard(tmp_path)
    monkeypatch.setattr(Path, "glob", lambda *_: [tmp_path / "0123456789ab-00.json"])
    assert board.change("x", read) is None


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
        (r"C:\board", "board: write auto, none, or a kind of board and its place, such as file:"),
    ],
)
def test_a_wrong_board_is_refused_without_its_password(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        board_from(text)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("json:JSONDecoder", r"board: the plug-in plain \(json:JSONDecoder\) has no from_url"),
        (
            "nosuch_module:Board",
            r"board: the plug-in plain \(nosuch_module:Board\) cannot be loaded: No module",
        ),
        ("json:Nothing", r"board: the plug-in plain \(json:Nothing\) cannot be loaded: .*Nothing"),
    ],
)
def test_a_plug_in_that_is_no_board_is_named(
    target: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_plug_in(tmp_path, "marketfetch.boards", name="plain", target=target)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigurationError, match=says):
        board_from("plain:x")


def test_a_board_of_a_wrong_kind_is_refused_without_its_password() -> None:
    with pytest.raises(
        ConfigurationError, match=r"board: \{'url': 'postgresql://\*\*\*@h/db'\} has no change"
    ):
        sharing_of({"url": "postgresql://ann:hunter2@h/db"}, MemorySink())  # type: ignore[arg-type]


@pytest.mark.parametrize("board", [3, FileBoard, object()])
def test_what_is_no_board_is_refused(board: object) -> None:
    with pytest.raises(ConfigurationError, match=r"board: .* has no change"):
        sharing_of(board, MemorySink())  # type: ignore[arg-type]
