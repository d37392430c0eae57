"""Running a pipeline until it ends, fails, or a signal stops it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from traceback import extract_tb

import anyio
import attrs

from marketfetch.api.pipeline import Pipeline
from marketfetch.cli.signals import SignalHandler
from marketfetch.errors import MarketfetchError
from marketfetch.reports import Report

__all__ = ["RunResult", "describe_crash", "run_with_signals"]


@attrs.frozen
class RunResult:
    """How a run ended: its report, what ended it early, if anything did, and the error if it is a defect."""

    report: Report
    trouble: str = ""
    defect: Exception | None = None


async def run_with_signals(
    pipeline: Pipeline, signals: SignalHandler, give_up: Callable[[RunResult], object]
) -> RunResult:
    """Run a pipeline; a signal cancels it, and everything committed by then stays.

    Should a cancelled run not end, because a store does not answer, `give_up` is called on another thread
    before the process is ended. Raises the MarketfetchError of a run that failed before anything was sent.
    """

    def stopped() -> RunResult:
        return _ended_early(pipeline, f"stopped by {signals.received}; what was committed stays")

    def cancel() -> None:
        with suppress(RuntimeError):  # the loop is closed: the run has ended by itself
            loop.call_soon_threadsafe(work.cancel)

    loop, work = asyncio.get_running_loop(), anyio.CancelScope()
    signals.cancel(cancel, lambda: give_up(stopped()))
    with work:
        return await _ended(pipeline)
    return stopped()


async def _ended(pipeline: Pipeline) -> RunResult:
    try:
        return RunResult(await pipeline)
    except MarketfetchError as error:
        if error.report is None or not error.report.requests:
            raise
        return RunResult(error.report, str(error))
    except Exception as error:  # noqa: BLE001  # whatever it is, what was done is told
        return _ended_early(pipeline, describe_crash(error), error)


def _ended_early(pipeline: Pipeline, trouble: str, defect: Exception | None = None) -> RunResult:
    return RunResult(attrs.evolve(pipeline.report(), error=trouble), trouble, defect)


def describe_crash(error: Exception) -> str:
    """Say what is to be said of an error that nobody foresaw: what, and whose it is.

    >>> try:
    ...     1 / 0
    ... except ZeroDivisionError as error:
    ...     print(describe_crash(error))
    ZeroDivisionError: division by zero (in <module>, <doctest marketfetch...>, line 2); this is a defect:
    tell its author, with what --verbose shows
    """
    if isinstance(error, OSError) and error.errno is not None:
        return f"the system refuses: {error}; mend what it names, then run again"
    *_, last = extract_tb(error.__traceback__)
    place = f"{last.name}, {Path(last.filename).name}, line {last.lineno}"
    return (
        f"{type(error).__name__}: {error} (in {place}); this is a defect: tell its author, "
        "with what --verbose shows"
    )
