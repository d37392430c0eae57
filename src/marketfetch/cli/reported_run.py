"""The run of a command that fetches: progress and warnings while it works, and its report at the end."""

from __future__ import annotations

import logging
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

from marketfetch.cli.documents import Document
from marketfetch.cli.output import print_error, print_result
from marketfetch.cli.report_view import report_page
from marketfetch.cli.runner import Job, RunResult, run_with_signals
from marketfetch.cli.signals import SignalHandler
from marketfetch.common.event_loop import run
from marketfetch.common.local_resources import raising_resource_errors
from marketfetch.listeners.background import BackgroundQueue
from marketfetch.listeners.progress import Progress
from marketfetch.reports import Report

__all__ = ["printing_warnings", "run_and_report"]

_Shown = Callable[[Report], tuple[object, Document]]


def _report(report: Report) -> tuple[object, Document]:
    return report.as_dict(), report_page(report)


def run_and_report(
    arguments: Namespace,
    signals: SignalHandler,
    job: Job,
    listener: Progress | None,
    shown: _Shown = _report,
) -> int:
    """Run a job to its end, or until a signal, and print the report; return the exit code.

    `shown` returns the plain values of a report, for `--json`, and a document for people.
    """
    print_report = partial(_print_report, arguments, shown)
    with listener or nullcontext(), raising_resource_errors():
        result = run(run_with_signals, job, signals, print_report)
    signals.begin_final_phase()
    return print_report(result)


def _print_report(arguments: Namespace, shown: _Shown, result: RunResult) -> int:
    """Print the report and, if an error ended the run early, its message; return the exit code.

    With `--quiet` a complete report is not printed.
    """
    complete = result.report.complete and not result.message
    try:
        if arguments.json or not (arguments.quiet and complete):
            plain, page = shown(result.report)
            print_result(arguments, plain, lambda: page)
    finally:
        if result.defect is not None and arguments.verbose:
            from traceback import format_exception

            from marketfetch.redaction import printable, redact

            sys.stderr.write(printable(redact("".join(format_exception(result.defect))), keep="\n"))
        if result.message:
            print_error(result.message)
    return 0 if complete else 1


class _Printer(logging.Handler):
    def __init__(self, queue: BackgroundQueue[str]) -> None:
        super().__init__(logging.WARNING)
        self._queue = queue

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the message of a record: the event loop must not wait for standard error."""
        try:
            self._queue.submit(record.getMessage())
        except Exception:  # noqa: BLE001  # e.g. warning("%d", "x"): as in the handlers of logging
            self.handleError(record)


@contextmanager
def printing_warnings(arguments: Namespace) -> Iterator[None]:
    """Print the warnings that are logged in the block in the form of errors; with --verbose the log has them.

    Example of a warning: rate limits are not shared with other processes, since the home folder cannot be
    written.

    If a progress bar is drawn, the warnings are printed after the block, because the bar would erase them.
    `follow` prints warnings at once: the command runs for weeks, and its display is one line.
    """
    if getattr(arguments, "verbose", False):
        yield
        return
    queue, has_bar = BackgroundQueue(print_error), sys.stderr.isatty() and _wants_bar(arguments)
    logger, printer = logging.getLogger("marketfetch"), _Printer(queue)
    logger.addHandler(printer)
    try:
        with nullcontext() if has_bar else queue:
            yield
    finally:
        logger.removeHandler(printer)
        if has_bar:
            with queue:
                pass  # entering starts to print, leaving waits until all is printed


def _wants_bar(arguments: Namespace) -> bool:
    wanted = getattr(arguments, "progress", None) in {None, "auto", "bar"}
    return wanted and not getattr(arguments, "quiet", False) and arguments.command != "follow"
