"""Progress and follows in a notebook: one display of HTML that is updated, and wiped at the end."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Self

from marketfetch.common.html import html_page, html_table
from marketfetch.common.text import format_counts, format_crossed, format_rate, pluralize
from marketfetch.events import BatchWritten, Event
from marketfetch.listeners.follow_status import error_lines, status_line
from marketfetch.listeners.run_numbers import LiveDisplay
from marketfetch.reports import SeriesHealth

__all__ = ["NotebookFollow", "NotebookProgress", "in_notebook"]

_PERIOD = 0.25
"""Seconds between two updates: each is a message to the browser."""


def in_notebook() -> bool:
    """Return whether the code runs in a Jupyter kernel, where HTML is shown; no package is imported.

    >>> in_notebook()
    False
    """
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


class NotebookProgress(LiveDisplay):
    """Progress for a notebook: a bar of rows written, waits, failures by cause. Notebooks have IPython.

    Leaving it, also by an interrupt, wipes the display.
    """

    def __init__(self) -> None:
        super().__init__()
        self._display: Any = None

    def __enter__(self) -> Self:
        self._display = import_module("IPython.display").display(self, display_id=True)
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._display.update({"text/html": "", "text/plain": ""}, raw=True)

    def _refresh(self) -> None:
        shown = ""
        while not self._stopped.wait(_PERIOD):
            html = self._repr_html_()
            if html != shown:  # a follow may last for weeks
                self._display.update({"text/html": html, "text/plain": repr(self)}, raw=True)
                shown = html

    def __repr__(self) -> str:
        return f"<NotebookProgress: {self._numbers.written:,} of {pluralize(self._numbers.planned, 'row')}>"

    def _repr_html_(self) -> str:
        numbers, elapsed = self._numbers, self._elapsed
        lines = self._lines(numbers.given_up)
        if not numbers.planned:
            return html_page("requesting clock and symbol list", "<progress></progress>", lines)
        left = numbers.time_left(elapsed)
        return html_page(
            f"{numbers.done:,} of {pluralize(numbers.planned, 'row')} written, "
            f"{format_rate(numbers.done, elapsed)}, {left} left",
            f'<progress value="{numbers.done}" max="{numbers.planned}"></progress>',
            lines,
        )

    def _lines(self, given_up: Sequence[str]) -> str:
        """Return HTML with a line for each trouble: what is given up, waits, and failures."""
        numbers = self._numbers
        notes = [numbers.outage.text, numbers.request_wait, numbers.store_wait, *given_up[:3]]
        if numbers.crossed:
            notes.append(format_crossed(numbers.crossed))
        if numbers.failures:
            notes.append(f"failed: {format_counts(numbers.failures)}")
        return html_table((), [(note,) for note in notes if note])


class NotebookFollow(NotebookProgress):
    """The status of a follow for a notebook: a line, and below it a line for each trouble.

    As a listener it counts rows and notes waits; `show` sets the health that is shown. Leaving it, also by an
    interrupt, wipes the display.
    """

    def __init__(self) -> None:
        super().__init__()
        self.period = 1.0
        """Seconds from one status to the next."""
        self._health: Sequence[SeriesHealth] = ()
        self._rows = 0

    def __call__(self, event: Event) -> None:
        """Note the numbers of an event."""
        super().__call__(event)
        if isinstance(event, BatchWritten):  # datasets are followed side by side, each by runs of its own
            self._rows += event.batch.rows

    def show(self, health: Sequence[SeriesHealth]) -> None:
        """Show this health from now on."""
        self._health = health

    def __repr__(self) -> str:
        return f"<NotebookFollow: {status_line(self._health, self._rows)}>"

    def _repr_html_(self) -> str:
        errors = [*error_lines(self._health).values()]  # those of the health have the unknown symbols, too
        lines = self._lines(errors if self._health else self._numbers.given_up)
        return html_page(status_line(self._health, self._rows), lines)
