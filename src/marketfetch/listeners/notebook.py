"""Progress in a notebook: one display of HTML that is updated, and wiped at the end."""

from __future__ import annotations

import sys
from importlib import import_module
from types import TracebackType
from typing import Any, Self

from marketfetch.common.html import html_page, html_table
from marketfetch.common.text import format_counts, format_crossed, format_rate, pluralize
from marketfetch.listeners.run_numbers import LiveDisplay

__all__ = ["NotebookProgress", "in_notebook"]

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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._display.update({"text/html": "", "text/plain": ""}, raw=True)

    def _refresh(self) -> None:
        while not self._stopped.wait(_PERIOD):
            self._display.update(self)

    def __repr__(self) -> str:
        return f"<NotebookProgress: {self._numbers.written:,} of {pluralize(self._numbers.planned, 'row')}>"

    def _repr_html_(self) -> str:
        numbers, elapsed = self._numbers, self._elapsed
        notes = [numbers.outage.text, numbers.request_wait, numbers.store_wait, *numbers.given_up[:3]]
        if numbers.crossed:
            notes.append(format_crossed(numbers.crossed))
        if numbers.failures:
            notes.append(f"failed: {format_counts(numbers.failures)}")
        lines = html_table((), [(note,) for note in notes if note])
        if not numbers.planned:
            return html_page("asking what there is", "<progress></progress>", lines)
        left = numbers.time_left(elapsed)
        return html_page(
            f"{numbers.done:,} of {pluralize(numbers.planned, 'row')} written, "
            f"{format_rate(numbers.done, elapsed)}, {left} left",
            f'<progress value="{numbers.done}" max="{numbers.planned}"></progress>',
            lines,
        )
