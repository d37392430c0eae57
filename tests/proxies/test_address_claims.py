"""A pool and its boards: what it asks of them, what it gives back, and what it does without them."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.lowlevel
import attrs
import pytest

from marketfetch.errors import ConfigurationError, SinkError, SinkUnavailable
from marketfetch.protocols import Sharing
from marketfetch.proxies import address_claims
from marketfetch.proxies.file_board import FileBoard
from marketfetch.proxies.pool import RotatingProxies
from marketfetch.proxies.registry import Registry
from marketfetch.values.http import Cost, LimitPool, Request, Response

T = TypeVar("T")
HOST = "https://exchange.example"
CALLS = LimitPool("calls", 10, 60_000)
URLS = [f"http://ann:hunter2@10.0.0.{number}:3128" for number in range(1, 5)]


@attrs.define(eq=False)
class MemoryBoard:
    """A board whose clock stands still, and which can be away."""

    texts: dict[str, str] = attrs.field(factory=dict)
    failure: Exception | None = None
    now: float = 100.0
    changes: int = 0

    def change(self, name: str, step: Callable[[str | None, float], tuple[str, T]]) -> T:
        self.changes += 1
        if self.failure is not None:
            raise self.failure
        self.texts[name], result = step(self.texts.get(name), self.now)
        return result

    def claimed(self) -> int:
        return len(json.loads(self.texts[f"{HOST} calls"])["claims"])


@attrs.define(eq=False)
class Elsewhere:
    """The same board by a way that does not show it, as through another mount of its folder."""

    board: FileBoard

    def change(self, name: str, step: Callable[[str | None, float], tuple[str, T]]) -> T:
        return self.board.change(name, step)


def pool(
    *boards: object, urls: list[str] = URLS, term: float = 30.0, required: bool = False
) -> RotatingProxies:
    sharing = Sharing(boards, required)  # type: ignore[arg-type]
    return RotatingProxies(urls, direct=False, registry=Registry(sharing=sharing, term=term))


async def spend(pool: RotatingProxies, weight: int = 1, seconds: float = 5.0) -> bool:
    """Whether a request is served in time."""
    with anyio.move_on_after(seconds):
        async with pool.lease(Request("/x", cost=Cost(CALLS, weight), base_url=HOST)) as lease:
            lease.answered(Response(200, {}, b"", 0, 0))
            return True
    return False


async def test_what_one_has_claimed_another_waits_for() -> None:
    board = MemoryBoard()
    assert await spend(pool(board))
    other = pool(board)
    async with anyio.create_task_group() as group:
        group.start_soon(spend, other, 1, 60.0)
        with anyio.fail_after(20):
            await other.waiting_changed()
        assert other.waiting() == "waiting for another process's share of the limit calls"
        assert {line.state for line in other.statistics()} == {other.waiting()}
        group.cancel_scope.cancel()


async def test_the_end_of_a_session_gives_back_what_is_left_and_says_what_is_spent() -> None:
    board = MemoryBoard()
    first, second = pool(board, urls=URLS[:1]), pool(board, urls=URLS[:1])
    async with first.session(Sharing()):
        assert await spend(first, 7)
        assert board.claimed() == 1
    assert board.claimed() == 0
    assert await spend(second, 3)
    assert not await spend(second, 1, seconds=0.1)


async def test_one_session_after_another_need_not_wait_for_itself() -> None:
    board = MemoryBoard()
    mine = pool(board, urls=URLS[:1])
    for _ in range(3):
        async with mine.session(Sharing()):
            assert await spend(mine, 3)


async def test_a_session_that_ends_takes_nothing_from_one_that_goes_on() -> None:
    board = MemoryBoard()
    mine = pool(board)
    async with mine.session(Sharing()):
        async with mine.session(Sharing()):
            assert await spend(mine)
        assert board.claimed() == 4
        before = board.changes
        assert await spend(mine)
        assert board.changes == before
    assert board.claimed() == 0


async def test_of_two_boards_the_second_is_asked_for_what_the_first_grants() -> None:
    near, far = MemoryBoard(), MemoryBoard()
    other = pool(near, urls=URLS[:2])
    assert await spend(other)
    both = pool(near, far)
    assert await spend(both)
    assert far.claimed() == 2
    async with both.session(Sharing()):
        assert await spend(both)
    assert far.claimed() == 0
    assert near.claimed() == 2


async def test_an_address_that_is_granted_later_serves_as_soon_as_it_is() -> None:
    board = MemoryBoard()
    other, mine = pool(board, urls=URLS[1:]), pool(board)
    async with other.session(Sharing()):
        await spend(other)
        assert await spend(mine)
    for _ in range(1000):
        with mine._registry.lock:
            for line in mine._limit_queues.values():
                for claims in line.claims:
                    claims.due = 0
        async with AsyncExitStack() as leases:
            for _ in URLS:
                request = Request("/x", cost=Cost(CALLS, 0), base_url=HOST)
                lease = await leases.enter_async_context(mine.lease(request))
                assert lease.egress.proxy
        if all(line.requests for line in mine.statistics()):
            break
        await anyio.sleep(0.005)
    assert all(line.requests for line in mine.statistics())


async def test_share_of_the_addresses_is_known() -> None:
    board = MemoryBoard()
    one, two = pool(board), pool(board, urls=URLS[:2])
    assert one.share() == 4
    await spend(one)
    assert one.share() == 4
    await spend(two, seconds=0.5)
    assert two.share() == 1


@pytest.mark.parametrize("required", [False, True])
async def test_a_machine_that_stays_without_free_files_does_not_wait_for_ever(
    required: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run has to fail with that reason: for a moment the board is waited for, but not longer."""
    board, full = MemoryBoard(), SinkUnavailable(f"board: {os.strerror(errno.EMFILE)}")
    board.failure = full
    mine = pool(board, required=required)
    async with anyio.create_task_group() as group:
        group.start_soon(spend, mine, 1, 30.0)
        while not board.changes:  # noqa: ASYNC110  # a turn on another thread
            await anyio.sleep(0.01)
        board.failure = None
    assert board.claimed()

    monkeypatch.setattr(address_claims, "_RESOURCE_TIMEOUT", 0)
    board = MemoryBoard(failure=full)
    mine = pool(board, required=required)
    if required:
        with pytest.raises(SinkUnavailable, match=os.strerror(errno.EMFILE)):
            await spend(mine, seconds=20.0)
    else:
        assert await spend(mine, seconds=20.0)
    assert not board.texts


async def test_a_required_board_that_never_works_is_waited_for_visibly_and_then_fails_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    board = MemoryBoard(failure=SinkUnavailable("board: the server is away"))
    mine = pool(board, required=True)
    async with anyio.create_task_group() as group:
        group.start_soon(spend, mine, 1, 60.0)
        with anyio.fail_after(20):
            await mine.waiting_changed()
        reason = mine.waiting()
        group.cancel_scope.cancel()
    assert reason.startswith("waiting for the board of the limit calls: the server is away; given up in ")

    monkeypatch.setattr(address_claims, "_MAX_WAIT", 0)
    with pytest.raises(SinkUnavailable, match="the server is away"):
        await spend(pool(board, required=True), seconds=20.0)
    assert not board.texts


async def test_what_is_claimed_is_spent_while_the_board_is_away_and_then_it_is_waited_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    board = MemoryBoard()
    mine = pool(board, term=2.0)
    assert await spend(mine)
    board.failure = SinkUnavailable("board: the server is away")
    assert await spend(mine)
    with anyio.fail_after(60), caplog.at_level(logging.INFO, "marketfetch"):
        while await spend(mine, seconds=0.5):  # noqa: ASYNC110  # until the claims are over
            await anyio.sleep(0.1)
        async with anyio.create_task_group() as group:
            group.start_soon(spend, mine, 1, 60.0)
            await mine.waiting_changed()
            assert mine.waiting() == "waiting for the board of the limit calls: the server is away"
            board.failure = None
    assert mine.waiting() == ""
    assert caplog.messages.count("the board is back") == 1
    assert sum("then the board is waited for" in message for message in caplog.messages) == 1


async def test_without_any_board_budgets_are_those_of_the_process_and_one_line_says_so(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    mine = pool(FileBoard(tmp_path / "file" / "board"))
    with caplog.at_level(logging.INFO, "marketfetch"):
        for _ in range(3):
            async with mine.session(Sharing()):
                assert await spend(mine)
    (message,) = caplog.messages
    assert message.startswith("budgets are those of this process alone: board: ")
    assert "make it writable" in message


async def test_a_board_that_is_required_has_to_work() -> None:
    board = MemoryBoard(failure=SinkError("board: no right to write"))
    mine = pool(board, required=True)
    for _ in range(2):
        with pytest.raises(SinkError, match="board: no right to write"):
            async with mine.session(Sharing()):
                await spend(mine)
    board.failure = None
    async with mine.session(Sharing()):
        assert await spend(mine)


async def test_a_board_of_a_newer_version_is_not_done_without() -> None:
    board = MemoryBoard({f"{HOST} calls": '{"format":99}'})
    with pytest.raises(ConfigurationError, match="newer marketfetch"):
        await spend(pool(board))
    assert board.texts[f"{HOST} calls"] == '{"format":99}'


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\x00", b'{"format":1,"at":"x"}', b"[" * 100_000])
def test_a_damaged_board_is_not_done_without(tmp_path: Path, content: bytes) -> None:
    board = FileBoard(tmp_path)
    board.change(f"{HOST} calls", lambda _text, _now: ("", None))
    (file,) = tmp_path.glob("*.json")
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"not written by marketfetch; delete it.*{tmp_path}"):
        anyio.run(spend, pool(board))
    assert file.read_bytes() == content


@pytest.mark.parametrize("shared", [True, False], ids=["equal boards", "boards that differ"])
async def test_one_place_that_a_process_knows_by_two_names_has_one_holder(
    tmp_path: Path, shared: bool
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    one, two = (RotatingProxies(URLS[:1], direct=False) for _ in range(2))
    folder, link = FileBoard(tmp_path / "folder"), FileBoard(tmp_path / "link")
    async with one.session(Sharing((folder,), required=True)):
        assert await spend(one)
        async with two.session(Sharing((link if shared else Elsewhere(link),), required=True)):
            assert await spend(two, seconds=5.0 if shared else 0.5) is shared
        # The end of the second session has not given back what the first one holds.
        assert not await spend(pool(folder, urls=URLS[:1]), seconds=0.5)
        assert await spend(one)


async def test_nothing_on_a_board_shows_an_address_or_a_password() -> None:
    board = MemoryBoard()
    async with (mine := pool(board)).session(Sharing()):
        await spend(mine)
    shown = json.dumps(board.texts)
    assert not any(secret in shown for secret in ("hunter2", "ann", "10.0.0", "3128"))


async def test_alone_it_asks_the_board_a_few_times_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1_780_272_000_000]
    board = MemoryBoard()
    registry = Registry(lambda: clock[0], sharing=Sharing((board,)))
    mine = RotatingProxies(URLS, direct=False, registry=registry)
    wide = LimitPool("calls", 10**9, 60_000)
    for _ in range(600):
        async with mine.lease(Request("/x", cost=Cost(wide), base_url=HOST)) as lease:
            lease.answered(Response(200, {}, b"", 0, 0))
        while any(claims._running for line in mine._limit_queues.values() for claims in line.claims):
            await anyio.lowlevel.checkpoint()
        clock[0] += 100
    # One made the key; the turns are after 0, 0.1, 0.5, 2.1, 8.5 s, then every 10 s, each up to 30 % sooner.
    assert 1 <= board.changes - 1 <= 13
