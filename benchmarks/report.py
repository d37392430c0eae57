"""Figures as lines of the terminal, and as docs/benchmarks.md."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.figures import Figure

__all__ = ["line", "write"]

_PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
_MARKS = {True: "holds", False: "DOES NOT HOLD", None: ""}
_PACKAGES = ("curl-cffi", "psycopg", "numpy", "orjson", "anyio", "duckdb", "pyarrow")
_INTRODUCTION = """\
# Benchmarks

`make bench` measures all of this in one run; this page is written by it (`python -m benchmarks --write`)
and not by hand. The sides of a comparison take turns, and what counts is the median of the rounds. A
comparison whose sides did not produce the same rows ends the run with an error instead of a figure.
Absolute figures are those of the machine below; the ratios are what travels.

- **The exchange** is the simulated one of `marketfetch.testing`, on loopback, in a process of its own. That
  it is not the bottleneck is shown by reading the same bytes through raw sockets, in the same rounds.
- **The seed** is a script as people write it: a curl-cffi session, one task for each symbol, pages of 1500
  one after another, a list of dicts, and `execute_values` upserts of 20,000 rows in a thread.
- **ccxt** is asked in its two ways, with its throttling switched off; **python-binance** without its
  sleeps. Its rows stay text, where everybody else's become numbers.
- **Raw COPY** sends binary bodies that were prepared before the clock started into a table of the same
  columns and the same primary key, in transactions of as many rows as ours.
- **A minute** of the published limits is shortened to seconds for the rate-bound rows; the budget stays
  2400. What is lost at the borders of a minute therefore weighs more here than on the real exchange.
"""


def line(figure: Figure) -> str:
    """Write one figure for the terminal."""
    return f"  {figure.what:<72} {figure.found:>14}  {figure.bar:<14} {_MARKS[figure.holds]}".rstrip()


def write(found: Mapping[str, Sequence[Figure]], minutes: float) -> None:
    """Write the page, with the figures that fall short named first."""
    text = [
        _INTRODUCTION,
        f"Measured on {datetime.now(UTC):%Y-%m-%d} in {minutes:.0f} minutes on {_machine()}.\n",
    ]
    short = [figure for figures in found.values() for figure in figures if figure.holds is False]
    if short:
        text.append("## What falls short\n")
        text += [f"- {figure.what}: {figure.found}, where the bar is {figure.bar}" for figure in short]
        text.append("")
    for title, figures in found.items():
        text += [f"## {title}\n", "| what | found | bar | |", "|---|---:|---|---|"]
        text += [f"| {each.what} | {each.found} | {each.bar} | {_MARKS[each.holds]} |" for each in figures]
        text.append("")
    _PAGE.write_text("\n".join(text), "utf-8")


def _machine() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    python = f"{platform.system()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores ({_processor()}), {python}, {packages}"


def _processor() -> str:
    for entry in Path("/proc/cpuinfo").read_text().splitlines():
        if entry.startswith("model name"):
            return entry.partition(":")[2].strip()
    return platform.machine()
