"""Write results as lines of the terminal, and as docs/benchmarks.md."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.harness.results import Result

__all__ = ["PAGE", "line", "write"]

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
_SHORT = "What falls short"
_MISSED = re.compile(r"^\| (.*?) \| (.*?) \| (.*?) \| DOES NOT HOLD \|$", re.MULTILINE)
_MARKS = {True: "holds", False: "DOES NOT HOLD", None: ""}
_PACKAGES = ("curl-cffi", "psycopg", "numpy", "msgspec", "anyio", "duckdb", "pyarrow")
_INTRODUCTION = """\
# Benchmarks

`make bench` makes all of these measurements in one run and `python -m benchmarks --write` writes this page.
The sides of a comparison run in turns, and the median of the rounds counts. A comparison whose sides did not
produce the same rows ends with an error and without a result. Absolute values depend on the machine named
below; ratios depend on it much less.

- **The exchange** is the simulated one of `marketfetch.testing`, on loopback, in its own process. It is not
  the bottleneck: in the same rounds, raw sockets read the same bytes at least twice as fast.
- **The naive script** is what people write first: a curl-cffi session, one task for each symbol, pages of
  1500 one after another, a list of dicts, and `execute_values` upserts of 20,000 rows in a thread.
- **ccxt** is measured in its two ways, with its throttling switched off; **python-binance** without its
  sleeps. Its rows stay text, while all others convert them to numbers.
- **The archive** is the simulated one; its files are rendered before the clock starts. **freqtrade** reads
  daily files, five columns of twelve; **binance-bulk-downloader** writes the text of monthly files to a
  folder. Neither looks at a digest. The API's seconds beside them are computed: pages × weight ÷ budget. An
  unspent budget at the start saves up to a minute of them.
- **Raw COPY** sends binary bodies, prepared before the measurement, into a table with the same columns and
  primary key, in transactions of the same size.
- **A minute** of the published limits is shortened to seconds for the rate-bound rows, with the budget of
  2400. The time lost at the border of a minute therefore weighs more here than on the real exchange.
"""


def line(result: Result) -> str:
    """Return one result as a line of the terminal."""
    return f"  {result.what:<72} {result.found:>14}  {result.bar:<14} {_MARKS[result.holds]}".rstrip()


def write(found: Mapping[str, Sequence[Result]], page: Path = PAGE) -> None:
    """Write the page: what falls short, then each section.

    A section that was not measured now stays as it is, with the day of its measurement.
    """
    sections = _sections(page.read_text("utf-8"))
    for title, figures in found.items():
        rows = [f"| {each.what} | {each.found} | {each.bar} | {_MARKS[each.holds]} |" for each in figures]
        table = ["| what | found | bar | |", "|---|---:|---|---|", *rows]
        measured = f"Measured on {datetime.now(UTC):%Y-%m-%d} on {_machine()}."
        sections[title] = "\n".join([*table, "", measured])
    missed = [
        f"- {what}: {figure}, where the bar is {bar}"
        for what, figure, bar in _MISSED.findall("\n".join(sections.values()))
    ]
    if missed:
        sections = {_SHORT: "\n".join(missed)} | sections
    parts = [_INTRODUCTION, *(f"## {title}\n\n{text}\n" for title, text in sections.items())]
    page.write_text("\n".join(parts), "utf-8")


def _sections(page: str) -> dict[str, str]:
    """Return the text of each section of a page, by its title, without what is computed from the others."""
    _, *parts = re.split(r"^## ", page, flags=re.MULTILINE)
    titled = (part.partition("\n") for part in parts)
    return {title: text.strip() for title, _, text in titled if title != _SHORT}


def _machine() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    python = f"{platform.system()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores ({_processor()}), {python}, {packages}"


def _processor() -> str:
    for entry in Path("/proc/cpuinfo").read_text().splitlines():
        if entry.startswith("model name"):
            return entry.partition(":")[2].strip()
    return platform.machine()
