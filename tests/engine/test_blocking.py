from __future__ import annotations

import asyncio
import threading
import time

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
    await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_a_thread_that_hangs_is_left_behind_and_cannot_call_back() -> None:
    let_go, ended = threading.Event(), threading.Event()
    calls: list[int] = []

    async def call() -> None:
        calls.append(1)

    def work() -> None:
        let_go.wait(20)
        try:
            call_on_loop(call)
        finally:
            ended.set()

    with anyio.move_on_after(0.05):
        await run_in_thread(work)
    assert not ended.is_set(), "the cancelled call waited for its thread"
    let_go.set()
    assert await asyncio.to_thread(ended.wait, 10)
    assert not calls


async def test_work_that_hangs_is_interrupted_and_waited_for() -> None:
    let_go, ended = threading.Event(), threading.Event()

    def work() -> None:
        let_go.wait(20)
        ended.set()

    with anyio.move_on_after(0.05):
        await run_in_thread(work, interrupt=let_go.set)
    assert ended.is_set()


def test_the_end_of_asyncio_run_waits_for_the_thread() -> None:
    let_go, ended = threading.Event(), threading.Event()

    def work() -> None:
        let_go.wait(20)
        ended.set()

    async def host() -> None:
        # At its end asyncio.run() cancels the remaining tasks without any cancel scope of anyio.
        host.run = asyncio.create_task(run_in_thread(work, interrupt=let_go.set))  # type: ignore[attr-defined]
        await asyncio.sleep(0.05)

    asyncio.run(host())
    assert ended.is_set()


async def test_work_that_is_cancelled_before_it_began_never_begins() -> None:
    limiter, let_go, begun = anyio.CapacityLimiter(1), threading.Event(), threading.Event()
    first = asyncio.create_task(run_in_thread(lambda: let_go.wait(20), limiter=limiter))
    await asyncio.sleep(0.05)
    second = asyncio.create_task(run_in_thread(begun.set, limiter=limiter))
    await asyncio.sleep(0.05)
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
        await asyncio.to_thread(begun.wait, 10)
        scope.cancel()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(cancel)
            with scope:
                await run_in_thread(work)
    assert scope.cancelled_caught


async def test_errors_are_raised_unchanged() -> None:
    with pytest.raises(ZeroDivisionError):
        await run_in_thread(lambda: 1 / 0)
    assert await run_in_thread(lambda: 42) == 42
