"""Running of a job until it ends, fails, or is stopped by a signal."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path
from traceback import extract_tb
from typing import Any, Protocol

import anyio
import attrs

from marketfetch.cli.signals import SignalHandler
from marketfetch.errors import MarketfetchError
from marketfetch.reports import Report

__all__ = ["Job", "RunResult", "describe_crash", "run_with_signals"]


@attrs.frozen
class RunResult:
    """The report of a run, the message of what ended it early, and the error if that is a defect."""

    report: Report
    message: str = ""
    defect: Exception | None = None


class Job(Protocol):
    """What a command runs. It is a Pipeline, or another object that is awaited and reports like one."""

    def __await__(self) -> Generator[Any, None, Report]: ...

    def report(self) -> Report:
        """Return the report so far; also after the run was cancelled."""
        ...


async def run_with_signals(
    job: Job, signals: SignalHandler, give_up: Callable[[RunResult], object]
) -> RunResult:
    """Run a job. A signal cancels the run; everything that was committed stays.

    If the cancelled run does not end, because a store hangs, `give_up` is called on another thread with the
    result so far, before the process is ended. Raises the MarketfetchError of a run that sent no request.
    """

    def stopped() -> RunResult:
        return _ended_early(job, f"stopped by {signals.received}; what was committed stays")

    def cancel() -> None:
        with suppress(RuntimeError):  # the loop is closed: the run has already ended
            loop.call_soon_threadsafe(scope.cancel)

    loop, scope = asyncio.get_running_loop(), anyio.CancelScope()
    signals.begin_cancellable(cancel, lambda: give_up(stopped()))
    if signals.whole_process:
        gc.freeze()  # what is imported stays: each full collection would look through it, for up to 50 ms
    with scope:
        return await _run(job)
    return stopped()


async def _run(job: Job) -> RunResult:
    try:
        return RunResult(await job)
    except MarketfetchError as error:
        if error.report is None or not error.report.requests:
            raise
        return RunResult(error.report, str(error))
    except Exception as error:  # noqa: BLE001  # after any error the report says what was done
        return _ended_early(job, describe_crash(error), error)


def _ended_early(job: Job, message: str, defect: Exception | None = None) -> RunResult:
    return RunResult(attrs.evolve(job.report(), error=message), message, defect)


def describe_crash(error: Exception) -> str:
    """Describe an unexpected error, either of the system or a defect, in one line.

    >>> try:
    ...     1 / 0
    ... except ZeroDivisionError as error:
    ...     print(describe_crash(error))
    ZeroDivisionError: division by zero (in <module>, <doctest marketfetch...>, line 2); this is a defect:
    report it, with what --verbose shows
    """
    if isinstance(error, OSError) and error.errno is not None:
        return f"the system refuses: {error}; mend what it names, then run again"
    if isinstance(error, ImportError):
        return f"a package cannot be imported: {error}; install it again, or what it names"
    *_, last = extract_tb(error.__traceback__)
    place = f"{last.name}, {Path(last.filename).name}, line {last.lineno}"
    return (
        f"{type(error).__name__}: {error} (in {place}); this is a defect: report it, with "
        "what --verbose shows"
    )
