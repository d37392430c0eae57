"""binance-bulk-downloader: monthly files to a folder of CSV files, which are not read.

It leaves out a file whose download has failed, and says so on its progress bar alone. So it is run again, and
fetches what is not in the folder yet.
"""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
from binance_bulk_downloader.downloader import BinanceBulkDownloader
from numpy.typing import NDArray

from benchmarks.competitors.job import Job, run

_TRIES = 3


def _fetch(job: Job) -> list[list[Path]]:
    BinanceBulkDownloader._BINANCE_DATA_S3_BUCKET_URL = f"{job.archive_url}/"
    BinanceBulkDownloader._BINANCE_DATA_DOWNLOAD_BASE_URL = job.archive_url
    folder = Path(tempfile.mkdtemp(prefix="marketfetch-"))
    atexit.register(shutil.rmtree, folder)  # the files are read after the measurement
    first, end = (np.datetime64(time, "ms").astype("datetime64[M]") for time in (job.start, job.end))
    wanted = len(job.symbols) * int(end - first)
    for _ in range(_TRIES):
        with redirect_stdout(sys.stderr):  # it draws a progress bar
            BinanceBulkDownloader(
                str(folder), "klines", job.interval, "um", "monthly", list(job.symbols)
            ).run_download()
        if len(list(folder.rglob("*.csv"))) >= wanted:
            break
    return [sorted(folder.rglob(f"{symbol}-*.csv")) for symbol in job.symbols]


def _numbers(files: list[Path]) -> NDArray[np.float64]:
    return np.concatenate([np.loadtxt(file, delimiter=",", skiprows=1, usecols=range(6)) for file in files])


if __name__ == "__main__":
    run(_fetch, _numbers)
