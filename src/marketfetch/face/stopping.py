"""Running a pipeline until it ends, fails, or a signal stops it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from signal import SIGINT, SIGTERM, Signals

import anyio
import attrs

from marketfetch.errors import MarketfetchError
from marketfetch.face.pipeline import Pipeline
from marketfetch.values.report import Report

__all__ = ["Outcome", "run_until_stopped"]

_GRACE = 3.0
"""Seconds that a cancelled run has to end in order: a store may be amidst a transaction."""


@attrs.frozen
class Outcome:
    """How a run ended: its report, and what ended it early, if anything did."""

    report: Report
    trouble: str = ""


async def run_until_stopped(pipeline: Pipeline, give_up: Callable[[Outcome], None]) -> Outcome:
    """Run a pipeline; SIGINT and SIGTERM cancel it, and everything committed by then stays.

    Should a cancelled run not end within three seconds, because a store does not answer, `give_up` is
    called on the event loop: it has to end the process. Raises the MarketfetchError of a run that
    failed before anything was sent.
    """
    outcome: Outcome | MarketfetchError | None = None
    work = anyio.CancelScope()
    received: list[Signals] = []

    def stopped() -> Outcome:
        return Outcome(pipeline.report(), f"stopped by {received[0].name}; what was committed stays")

    async def watch(signals: AsyncIterator[Signals]) -> None:
        async for signal in signals:
            received.append(signal)
            work.cancel()
            await anyio.sleep(_GRACE)  # cut short when the run has ended
            give_up(stopped())

    with anyio.open_signal_receiver(SIGINT, SIGTERM) as signals:
        async with anyio.create_task_group() as group:
            group.start_soon(watch, signals)
            with work:
                outcome = await _ended(pipeline)
            group.cancel_scope.cancel()
    if isinstance(outcome, MarketfetchError):
        raise outcome
    return outcome or stopped()


async def _ended(pipeline: Pipeline) -> Outcome | MarketfetchError:
    try:
        return Outcome(await pipeline)
    except MarketfetchError as error:
        # Out of a task group it would come as a member of an exception group.
        sent = error.report is not None and error.report.requests > 0
        return Outcome(error.report, str(error)) if sent and error.report else error
