"""Calls in a Jupyter kernel: a notebook of a few cells is executed in a process of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

COLOUR = re.compile(r"\x1b\[[\d;]*m")
CELLS = (
    """
import os, signal
import marketfetch as mf
from marketfetch.events import BatchWritten
from marketfetch.testing import GeneratedMarket, SimulatedExchange

simulated = SimulatedExchange(GeneratedMarket(["BTCUSDT"])).start()
query = {"interval": "1m", "start": "2026-06-01", "end": "2026-06-15", "base_url": simulated.base_url}

def interrupt(event):
    if isinstance(event, BatchWritten):
        os.kill(os.getpid(), signal.SIGINT)
""",
    'mf.fetch("binance-usdm", "ohlcv", "BTCUSDT", to="duckdb:market.duckdb", listeners=[interrupt], **query)',
    'mf.fetch("binance-usdm", "ohlcv", "BTCUSDT", to="duckdb:market.duckdb", **query)',
    'mf.fetch("binance-usdm", "ohlcv", "BTCUSDT", to="sqlite:no-folder/market.sqlite", **query)',
    'mf.open("sqlite:absent.sqlite").table()',
    'mf.open("duckdb:market.duckdb").latest(5, symbols=5)',
    'mf.open("duckdb:market.duckdb").table()["close"]',
    'market = mf.open("duckdb:market.duckdb")\nmarket.coverage(), market.table().report',
    'mf.Span("2026-06-01", "2026-06-02")',
    "simulated.stop()",
)


@pytest.fixture(autouse=True)
def unblocked_loop() -> None:
    """The code runs in a process of its own; here Jupyter's client is on the loop."""


def traceback_of(cell: NotebookNode) -> str:
    (error,) = [output for output in cell.outputs if output.output_type == "error"]
    return COLOUR.sub("", "\n".join(error.traceback))


@pytest.mark.slow
async def test_stores_and_short_tracebacks(tmp_path: Path) -> None:
    cells = [new_code_cell(cell.strip()) for cell in CELLS]  # type: ignore[no-untyped-call]
    notebook: NotebookNode = new_notebook(cells=cells)  # type: ignore[no-untyped-call]
    place = {"metadata": {"path": str(tmp_path)}}
    await NotebookClient(
        notebook, timeout=120, kernel_name="python3", allow_errors=True, resources=place
    ).async_execute()
    _, interrupted, whole, folder, absent, number, column, held, span, stopped = notebook.cells
    for cell, kind in ((interrupted, "KeyboardInterrupt"), (folder, "ConfigurationError")):
        shown = traceback_of(cell)
        assert shown.splitlines()[1].startswith(kind)
        assert "----> 1 mf.fetch(" in shown
        assert "site-packages" not in shown
        assert "fetch.py" not in shown
    for cell in (number, column):
        shown = traceback_of(cell)
        assert "----> 1 mf.open(" in shown
        assert len(shown.splitlines()) < 8
    assert "----> 1 mf.Span(" in traceback_of(span)
    assert "spans.py" not in traceback_of(span)
    text = held.outputs[0].data["text/plain"]
    assert "({binance-usdm ohlcv BTCUSDT 1m: covered [2026-06-01T00:00:00Z, 2026-06-15T00:00:00Z)}" in text
    assert "Complete: 0 rows written" in text
    assert stopped.outputs == []
    assert traceback_of(folder).endswith("no-folder; create it, or name another file")
    assert "absent.sqlite does not exist" in traceback_of(absent)
    # The display of the progress is wiped, and the table has all rows: those of the interrupted call, too.
    wiped, table = whole.outputs
    assert set(wiped.data.values()) == {""}
    assert "20,160 rows of 1 series, complete" in table.data["text/plain"]
