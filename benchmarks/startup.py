"""What importing costs: the package itself, and the two names that most programs begin with."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial

from benchmarks.contest import child
from benchmarks.figures import Figure, at_most, interleaved, known, medians

__all__ = ["startup"]

_ROUNDS = 10
_UNWANTED = ("duckdb", "numpy", "pandas", "polars", "psycopg", "pyarrow")

# Nothing else is imported before the clock has stopped: it would be missing from what is measured.
_PROGRAM = """
import sys, time
clock = time.perf_counter()
import marketfetch
{touched}
seconds = time.perf_counter() - clock
import json
print(json.dumps({{"seconds": seconds, "loaded": sorted(sys.modules.keys() & set({watched}))}}))
"""


def startup() -> Iterator[Figure]:
    """Import marketfetch in fresh interpreters; AssertionError if it brings what not every run needs."""
    _milliseconds("", _UNWANTED)  # reads the files once, and compiles what has changed
    # No run is without NumPy; the others belong to one sink or one kind of table each.
    optional = tuple(name for name in _UNWANTED if name != "numpy")
    sides = {
        "import marketfetch": partial(_milliseconds, "", _UNWANTED),
        "… and marketfetch.Pipeline": partial(_milliseconds, "marketfetch.Pipeline", optional),
        "… and marketfetch.fetch": partial(_milliseconds, "marketfetch.fetch", optional),
    }
    alone, *others = medians(interleaved(sides, _ROUNDS)).items()
    yield at_most(*alone, 150, " ms")
    for name, found in others:
        yield known(name, found, " ms")


def _milliseconds(touched: str, unwanted: tuple[str, ...]) -> float:
    """Return how long a fresh interpreter takes; AssertionError if it has loaded what is unwanted."""
    program = _PROGRAM.format(touched=touched, watched=unwanted)
    found = child([sys.executable, "-c", program], core=None)
    if found["loaded"]:
        raise AssertionError(f"import marketfetch {touched} loads {', '.join(found['loaded'])}")
    return float(found["seconds"] * 1000)
