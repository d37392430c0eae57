"""No number without a unit is added to a time: NumPy warns of it since 2.5, and will refuse it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from marketfetch.sinks.parquet.sink import ParquetSink
from marketfetch.values.coverage import Coverage
from marketfetch.values.intervals import Interval
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Series
from marketfetch.values.spans import Span
from tests.support.batches import EVER, START, candles

PROJECT = Path(__file__).parents[2]
INTERVALS = ["1s", "1m", "1h", "1d", "1w", "1M"]


@pytest.mark.parametrize("interval", INTERVALS)
def test_a_store_of_files_for_days_months_and_years(tmp_path: Path, interval: str) -> None:
    series = candles(interval=interval)
    store, step = ParquetSink(tmp_path), series.interval
    first = step.ceil(START)
    times = step.grid(Span(first, step.shift(first, 400)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with store.writer() as take:
            take(Batch(series, Columns(times, np.ones((9, 400))), Coverage(step.cover(times))))
        assert store.partition(series, first).start <= first
        assert len(store.read(series, EVER)) == 400
        assert store.ledger()[series].present == step.cover(times)


@pytest.mark.parametrize("interval", INTERVALS)
def test_the_arithmetic_of_intervals(interval: str) -> None:
    step = Interval.parse(interval)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = step.ceil(START)
        opens = step.grid(Span(first, step.shift(first, 30)))
        assert len(opens) == step.count(Span(first, step.shift(first, 30))) == 30
        assert step.aligned(opens).all()
        assert step.cover(opens).spans == step.cells(opens).spans == (Span(first, step.shift(first, 30)),)


def test_a_process_in_which_every_warning_is_an_error(tmp_path: Path) -> None:
    script = """
import sys
from marketfetch.sinks.urls import sink_from
from tests.support.batches import EVER, batch, candles

store = sink_from(sys.argv[1])
store.prepare([candles().dataset])
with store.writer() as take:
    take(batch(candles(), range(44_000, 45_000), open=1))
assert len(store.read(candles(), EVER)) == 1000
"""
    command = [sys.executable, "-W", "error", "-c", script, f"parquet:{tmp_path / 'market'}"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run(command, cwd=PROJECT, env=environment, check=True, timeout=250)


def test_no_time_without_a_unit_is_made_anywhere() -> None:
    """`np.timedelta64(1)` and `np.datetime64(x, …)` from a variable unit are where such numbers come from."""
    found = []
    for file in sorted((PROJECT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(node, ast.Call)
                and ast.unparse(node.func) == "np.timedelta64"
                and len(node.args) < 2
            ):
                found.append(f"{file}:{node.lineno}")
            # `period + 1` for a period that is annotated as a moment of NumPy's.
            if isinstance(node, ast.FunctionDef):
                moments = {
                    argument.arg
                    for argument in node.args.args
                    if argument.annotation and ast.unparse(argument.annotation) == "np.datetime64"
                }
                found += [
                    f"{file}:{one.lineno}"
                    for one in ast.walk(node)
                    if isinstance(one, ast.BinOp)
                    and isinstance(one.right, ast.Constant)
                    and ast.unparse(one.left) in moments
                ]
    assert not found


def test_series_of_events(tmp_path: Path) -> None:
    series = Series.of("okx", "funding_rate", "BTC-USDT-SWAP", "event")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store = ParquetSink(tmp_path)
        assert store.partition(series, START) == Span(START, START + 366 * 86_400_000)
