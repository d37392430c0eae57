"""The run of a command that fetches: progress while it works, and its report at the end."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

from marketfetch.cli.documents import Document
from marketfetch.cli.output import print_error, print_result
from marketfetch.cli.report_view import report_page
from marketfetch.cli.runner import Job, RunResult, run_with_signals
from marketfetch.cli.signals import SignalHandler
from marketfetch.common.event_loop import run
from marketfetch.common.local_resources import naming_exhaustion
from marketfetch.listeners.progress import Progress
from marketfetch.reports import Report

__all__ = ["run_and_report"]

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

    `shown` returns what is printed of a report, as plain values and as a page.
    """
    tell = partial(_print_report, arguments, shown)
    with listener or nullcontext(), naming_exhaustion():
        result = run(run_with_signals, job, signals, tell)
    signals.finish()
    return tell(result)


def _print_report(arguments: Namespace, shown: _Shown, result: RunResult) -> int:
    """Print the report and the message of what ended the run early; return the exit code."""
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
