"""Loads the compiled decoder, `_rows.so`, where this installation has one that is whole and fits."""

from __future__ import annotations

import ctypes
from hashlib import sha256
from pathlib import Path
from warnings import warn

__all__ = ["COMPILED", "DECODER", "LIBRARY", "load"]

LIBRARY = Path(__file__).with_name("_rows.so")
"""One name on every system: the library is loaded by its path and never searched for."""


def _verify(library: Path) -> Path:
    """Return the library if it and its source are the files that `tools/hatch_build.py` has seen."""
    checksums = library.with_suffix(".sha256")
    files = (library.with_suffix(".c"), library)
    found = "".join(f"{sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files)
    if checksums.read_text("ascii") != found:
        raise ValueError(f"{library} is damaged or of another version, as {checksums.name} shows")
    return library


def _declare_types(library: ctypes.CDLL) -> ctypes.CDLL:
    """Declare the arguments and results of the functions."""
    csv, count, rows = library.marketfetch_csv, library.marketfetch_count, library.marketfetch_rows
    text = (ctypes.c_char_p, ctypes.c_size_t)
    count.argtypes, count.restype = (*text, ctypes.c_char), ctypes.c_int64
    pointers = (ctypes.c_void_p,) * 3
    rows.argtypes, rows.restype = (*text, ctypes.c_int64, ctypes.c_int, *pointers), ctypes.c_int
    size = ctypes.POINTER(ctypes.c_size_t)
    line = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p)
    csv.argtypes = (*text, size, *line, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)
    csv.restype = ctypes.c_int64
    return library


def load(library: Path) -> ctypes.CDLL | None:
    """Return the library at a path, beside its source and its checksums; None if there is no library.

    A library that is there and cannot be used is a RuntimeWarning and None. It is compared with its checksums
    before it is loaded, because the system ends a process that reads beyond the end of a truncated library.
    """
    if not library.exists() and not library.with_suffix(".sha256").exists():
        return None  # installed from source, where there was no compiler
    try:
        return _declare_types(ctypes.CDLL(str(_verify(library))))
    except (AttributeError, OSError, ValueError) as error:
        warn(
            "marketfetch decodes in Python, which takes longer, because its compiled decoder cannot be used: "
            f"{error}; write: pip install --force-reinstall --no-deps marketfetch",
            RuntimeWarning,
            stacklevel=2,
        )
        return None


COMPILED = load(LIBRARY)
"""The compiled decoder, loaded at import as an extension module is: so the warning is given once."""
DECODER = "Python" if COMPILED is None else "C"
