"""The paths of the files in a Parquet store."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

from marketfetch.values.series import Series

__all__ = ["LEDGER_FILE", "WORK_FOLDER", "lock_folder", "lock_path", "series_path", "temporary_folder"]

LEDGER_FILE = "_ledger.parquet"
"""A Parquet file without rows, so that readers of the folder find only Parquet files of one schema."""

WORK_FOLDER = "_marketfetch"
"""The folder for lock files and temporary files, which exist only during a write."""

_MAX_NAME_LENGTH = 100
"""The most characters that the name of a lock file takes from the names of its series."""


def lock_folder(root: Path) -> Path:
    """Return the folder of a store's lock files."""
    return root / WORK_FOLDER / "locks"


def temporary_folder(root: Path) -> Path:
    """Return the folder of a store's temporary files, which are renamed into their places."""
    return root / WORK_FOLDER / "aside"


def series_path(root: Path, series: Series) -> Path:
    """Return the folder of a series.

    >>> print(series_path(Path("market"), Series.of("okx", "ohlcv", "BTC/USDT", "1m")))
    market/ohlcv/exchange=okx/symbol=BTC%2FUSDT/interval=1m
    """
    names = {"exchange": series.exchange, "symbol": series.symbol, "interval": series.interval.name}
    parts = (f"{name}={_percent_encode(value)}" for name, value in names.items())
    return root.joinpath(series.dataset.name, *parts)


def lock_path(root: Path, series: Series) -> Path:
    """Return the lock file of a series; names that differ in case may share a folder, and so share a lock."""
    name = ",".join(map(_percent_encode, series.names))
    if len(name) > _MAX_NAME_LENGTH:  # a guard and a probe get longer names, up to 255 bytes
        name = f"{name[:_MAX_NAME_LENGTH]},{sha256(name.casefold().encode()).hexdigest()[:16]}"
    return lock_folder(root) / f"{name}.lock"


def _percent_encode(name: str) -> str:
    """Percent-encode what a file system may refuse, and a dot at the end, which Windows leaves out.

    >>> _percent_encode('a:b?."'), _percent_encode("CON."), _percent_encode("v1.5")
    ('a%3Ab%3F.%22', 'CON%2E', 'v1.5')
    """
    quoted = quote(name, safe="")
    return f"{quoted[:-1]}%2E" if quoted.endswith(".") else quoted
