"""The time to import the package, and the two names that most programs start with."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial

from benchmarks.harness.comparison import child
from benchmarks.harness.results import Result, at_most, interleaved, medians, without_bar

__all__ = ["startup"]

_ROUNDS = 10
_UNWANTED = ("duckdb", "numpy", "pandas", "polars", "psycopg", "pyarrow")

# A module imported before the measurement, such as json, would be missing from it.
_PROGRAM = """
import sys, time
clock = time.perf_counter()
import marketfetch
{touched}
seconds = time.perf_counter() - clock
import json
print(json.dumps({{"seconds": seconds, "loaded": sorted(sys.modules.keys() & set({watched}))}}))
"""


def startup() -> Iterator[Result]:
    """Import marketfetch in fresh interpreters; AssertionError if it imports an optional package."""
    _milliseconds("", _UNWANTED)  # compiles changed modules and fills the file cache
    # Every run needs NumPy; the others belong to one sink or one kind of table each.
    optional = tuple(name for name in _UNWANTED if name != "numpy")
    sides = {
        "import marketfetch": partial(_milliseconds, "", _UNWANTED),
        "… and marketfetch.Pipeline": partial(_milliseconds, "marketfetch.Pipeline", optional),
        "… and marketfetch.fetch": partial(_milliseconds, "marketfetch.fetch", optional),
    }
    alone, *others = medians(interleaved(sides, _ROUNDS)).items()
    yield at_most(*alone, 150, " ms")
    for name, found in others:
        yield without_bar(name, found, " ms")


def _milliseconds(touched: str, unwanted: tuple[str, ...]) -> float:
    """Return the milliseconds of the import; AssertionError if it imported an unwanted package."""
    program = _PROGRAM.format(touched=touched, watched=unwanted)
    found = child([sys.executable, "-c", program], core=None)
    if found["loaded"]:
        raise AssertionError(f"import marketfetch {touched} loads {', '.join(found['loaded'])}")
    return float(found["seconds"] * 1000)
