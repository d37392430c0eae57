"""A large file of an archive: candles of 1s in lines as long as one likes."""

from __future__ import annotations

import random
import zipfile
from collections.abc import Iterator
from pathlib import Path

from marketfetch.testing import ArchiveOptions, GeneratedMarket, simulate_binance
from marketfetch.values.spans import DAY, format_utc
from tests.support.peak_memory import backfill

__all__ = ["peak_of_run"]

_SYMBOL = "BTCUSDT"
_START = 1_704_067_200_000  # 2024-01-01
_STEM = f"{_SYMBOL}-1s-2024-01"
_KEY = f"data/spot/monthly/klines/{_SYMBOL}/1s/{_STEM}.zip"
_POOL = 1 << 20


def peak_of_run(folder: Path, rows: int, *, line: int) -> int:
    """Fill a store from a file of so many rows, in a process of its own; return its peak memory in kB."""
    folder.mkdir()
    file = folder / "month.zip"
    _write(file, rows, line=line)
    after = _START + 40 * DAY
    files = ArchiveOptions(since=after)  # the market itself has no file: the run would prefer its days
    market = GeneratedMarket([_SYMBOL])
    with simulate_binance(market, archive=files, now=lambda: after) as (exchange, archive):
        archive.put(_KEY, file.read_bytes())
        report, peak = backfill(
            [
                *("--exchange", "binance-spot", "--base-url", exchange.base_url),
                *("--archive-url", archive.base_url, "--sources", "archive"),
                *("--symbol", _SYMBOL, "--interval", "1s", "--start", format_utc(_START)),
                *("--end", format_utc(_START + rows * 1000), "--to", f"sqlite:{folder / 'market.db'}"),
            ],
            timeout=900,
        )
    if report["archive"]["rows"] != rows:
        raise AssertionError(f"expected {rows:,} rows of the file, found {report['archive']}")
    return peak


def _write(path: Path, rows: int, *, line: int) -> None:
    """Write a zip file with the first candles of January 2024, each in a line of about `line` bytes.

    A third of a line is noise, which deflate cannot shrink by more than half.
    """
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(f"{_STEM}.csv", "w", force_zip64=True) as out,
    ):
        for text in _texts(rows, line):
            out.write(text)


def _texts(rows: int, line: int) -> Iterator[bytes]:
    noise = random.Random(1).randbytes(_POOL // 2).hex()
    length = line // 3
    padding = "0" * (line - length - 110)
    for first in range(0, rows, 10_000):
        lines = []
        for row in range(first, min(rows, first + 10_000)):
            at = row * 7919 % (_POOL - length)
            lines.append(
                f"{_START + row * 1000},{row % 977}.25,999.5,0.125,{row % 977}.5,{row % 97}.75,0,1.5,"
                f"{row % 7},0.5,0.25,{padding}{noise[at : at + length]}\n"
            )
        yield "".join(lines).encode()
