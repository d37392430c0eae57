"""Work in parallel: in order, so many at a time, and nothing new after an error."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from marketfetch.common.event_loop import in_parallel, run


def test_work_begins_in_order_and_so_many_at_a_time() -> None:
    begun, working, most = list[int](), set[int](), list[int]()

    async def work(item: int) -> None:
        begun.append(item)
        working.add(item)
        most.append(len(working))
        await anyio.sleep(0.001)
        working.remove(item)

    run(in_parallel, range(10), work, 3)
    assert begun == [*range(10)]
    assert max(most) == 3


def test_after_an_error_no_work_begins() -> None:
    begun = list[int]()

    async def work(item: int) -> None:
        begun.append(item)
        await checkpoint()
        if item == 0:
            raise KeyError(item)

    with pytest.raises(ExceptionGroup) as raised:  # the others end at the same moment
        run(in_parallel, range(10), work, 3)
    assert raised.group_contains(KeyError)
    assert begun == [0, 1, 2]
