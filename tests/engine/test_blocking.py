from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable

import anyio
import pytest

from marketfetch.engine.blocking import call_on_loop, run_in_thread


async def test_cancelling_waits_until_the_work_has_ended() -> None:
    begun, ended = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        time.sleep(0.2)
        ended.set()

    task = asyncio.create_task(run_in_thread(work))
    assert await asyncio.to_thread(begun.wait, 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def cancelled_once_begun(begun: threading.Event, running: Awaitable[object]) -> None:
    """Cancel work on a thread when it has begun: before, it would never begin."""
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:

            async def cancel() -> None:
                assert await asyncio.to_thread(begun.wait, 20)
                scope.cancel()

            group.start_soon(cancel)
            await running
    assert scope.cancelled_caught


async def test_a_thread_that_hangs_is_left_behind_and_cannot_call_back() -> None:
    begun, let_go, ended = threading.Event(), threading.Event(), threading.Event()
    calls: list[int] = []

    async def call() -> None:
        calls.append(1)

    def work() -> None:
        begun.set()
        let_go.wait(60)
        try:
            call_on_loop(call)
        finally:
            ended.set()

    await cancelled_once_begun(begun, run_in_thread(work))
    assert not ended.is_set(), "the cancelled call waited for its thread"
    let_go.set()
    assert await asyncio.to_thread(ended.wait, 20)
    assert not calls


async def test_work_that_hangs_is_interrupted_and_waited_for() -> None:
    begun, let_go, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert let_go.wait(60)
        ended.set()

    await cancelled_once_begun(begun, run_in_thread(work, interrupt=let_go.set))
    assert ended.is_set()


def test_the_end_of_asyncio_run_waits_for_the_thread() -> None:
    begun, let_go, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert let_go.wait(60)
        ended.set()

    async def host() -> None:
        # At its end asyncio.run() cancels the remaining tasks without any cancel scope of anyio.
        host.run = asyncio.create_task(run_in_thread(work, interrupt=let_go.set))  # type: ignore[attr-defined]
        assert await asyncio.to_thread(begun.wait, 20)

    asyncio.run(host())
    assert ended.is_set()


async def test_work_that_is_cancelled_before_it_began_never_begins() -> None:
    limiter, let_go, begun = anyio.CapacityLimiter(1), threading.Event(), threading.Event()
    first = asyncio.create_task(run_in_thread(lambda: let_go.wait(60), limiter=limiter))
    with anyio.fail_after(20):
        while not limiter.borrowed_tokens:  # noqa: ASYNC110  # a limiter has no event
            await asyncio.sleep(0.001)
    second = asyncio.create_task(run_in_thread(begun.set, limiter=limiter))
    with anyio.fail_after(20):
        while not limiter.statistics().tasks_waiting:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    let_go.set()
    assert await first
    assert not begun.is_set()


async def test_a_callback_after_the_cancellation_is_cancelled_too() -> None:
    begun, scope = threading.Event(), anyio.CancelScope()

    def work() -> None:
        begun.set()
        time.sleep(0.1)
        call_on_loop(anyio.sleep_forever)

    async def cancel() -> None:
        await asyncio.to_thread(begun.wait, 20)
        scope.cancel()

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(cancel)
            with scope:
                await run_in_thread(work)
    assert scope.cancelled_caught


async def test_errors_are_raised_unchanged() -> None:
    with pytest.raises(ZeroDivisionError):
        await run_in_thread(lambda: 1 / 0)
    assert await run_in_thread(lambda: 42) == 42
