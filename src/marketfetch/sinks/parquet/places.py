"""Where the files of a Parquet store are."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

from marketfetch.values.series import Series

__all__ = ["LEDGER", "WORK", "home_of", "lock_of", "locks_of", "temporary_folder"]

LEDGER = "_ledger.parquet"
"""A Parquet file without rows, so that readers of the folder find only Parquet files of one schema."""

WORK = "_marketfetch"
"""The folder for lock files and temporary files, which exist only during a write."""

_LONG = 100
"""The most characters that the name of a lock file takes from the names of its series."""


def locks_of(root: Path) -> Path:
    """Return the folder of a store's lock files."""
    return root / WORK / "locks"


def temporary_folder(root: Path) -> Path:
    """Return the folder of a store's temporary files, which are renamed into their places."""
    return root / WORK / "aside"


def home_of(root: Path, series: Series) -> Path:
    """Return the folder of a series.

    >>> print(home_of(Path("market"), Series.of("okx", "ohlcv", "BTC/USDT", "1m")))
    market/ohlcv/exchange=okx/symbol=BTC%2FUSDT/interval=1m
    """
    names = {"exchange": series.exchange, "symbol": series.symbol, "interval": series.interval.name}
    parts = (f"{name}={_quoted(value)}" for name, value in names.items())
    return root.joinpath(series.dataset.name, *parts)


def lock_of(root: Path, series: Series) -> Path:
    """Return the lock file of a series; names that differ in case may share a folder, and so share a lock."""
    names = (series.exchange, series.dataset.name, series.symbol, series.interval.name)
    name = ",".join(map(_quoted, names))
    if len(name) > _LONG:  # a guard and a probe get longer names, up to 255 bytes
        name = f"{name[:_LONG]},{sha256(name.casefold().encode()).hexdigest()[:16]}"
    return locks_of(root) / f"{name}.lock"


def _quoted(name: str) -> str:
    """Percent-encode what a file system may refuse, and a dot at the end, which Windows leaves out.

    >>> _quoted('a:b?."'), _quoted("CON."), _quoted("v1.5")
    ('a%3Ab%3F.%22', 'CON%2E', 'v1.5')
    """
    quoted = quote(name, safe="")
    return f"{quoted[:-1]}%2E" if quoted.endswith(".") else quoted
