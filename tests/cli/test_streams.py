from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from marketfetch.decoding.compiled import DECODER
from marketfetch.testing import SimulatedExchange
from tests.support.commands import Command

HOUR = (
    "--exchange",
    "binance-usdm",
    "--symbol",
    "BTCUSDT",
    "--start",
    "2026-06-01",
    "--end",
    "2026-06-01T01:00Z",
)


def _job(exchange: SimulatedExchange, folder: Path, *words: str) -> list[str]:
    store = ["--to", f"sqlite:{folder}/market.db", "--base-url", exchange.base_url]
    return [sys.executable, "-m", "marketfetch", "backfill", *HOUR, *store, *words]


def test_version_is_told(marketfetch_process: Command) -> None:
    result = marketfetch_process("--version")
    assert (result.returncode, result.stdout) == (
        0,
        f"marketfetch {version('marketfetch')}\ndecoder: {DECODER}\n",
    )


def test_words_that_are_no_text_are_refused(exchange: SimulatedExchange, tmp_path: Path) -> None:
    words = [*map(os.fsencode, _job(exchange, tmp_path)), b"--symbol", b"\xff\xfe"]
    result = subprocess.run(words, capture_output=True, text=True, check=False, timeout=250)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"marketfetch: arguments: word {len(words) - 3} is not text")
    assert exchange.request_log.total == 0


def test_a_terminal_of_few_letters_gets_the_report_all_the_same(
    exchange: SimulatedExchange, tmp_path: Path
) -> None:
    plain = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    for words, first in ([], "Incomplete"), (["--json"], "{"):
        job = _job(exchange, tmp_path, "--symbol", "ÄUSDT", *words)
        result = subprocess.run(job, capture_output=True, check=False, timeout=250, env=plain)
        assert result.returncode == 1, result.stderr
        assert result.stdout.decode().startswith(first)
    assert "ÄUSDT" in json.loads(result.stdout)["unknown_symbols"]


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_streams_are_no_harm_to_the_store(
    exchange: SimulatedExchange, tmp_path: Path, marketfetch: Command, closed: str
) -> None:
    job = _job(exchange, tmp_path, "--verbose")
    shell = ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *job]
    assert subprocess.run(shell, check=False, timeout=250, capture_output=True).returncode == 0
    assert marketfetch("coverage", "--to", f"sqlite:{tmp_path}/market.db").returncode == 0


def test_output_that_cannot_be_written_is_told(exchange: SimulatedExchange, tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            _job(exchange, tmp_path, "--json"), stdout=full, stderr=subprocess.PIPE, check=False, timeout=250
        )
    assert result.returncode == 1
    last = result.stderr.decode().splitlines()[-1]
    assert last == "marketfetch: standard output cannot be written: No space left on device"


CLOSED = """
import errno, sys
from marketfetch.cli.output import StdoutClosed, stdout_errors

for number in errno.EPIPE, errno.EINVAL:
    try:
        with stdout_errors():
            raise OSError(number, "Invalid argument")
    except StdoutClosed as error:
        sys.stderr.write(f"{str(error)!r} ")
"""


def test_a_pipe_whose_reader_has_closed_it_is_no_message() -> None:
    """Windows says EINVAL of it."""
    result = subprocess.run([sys.executable, "-c", CLOSED], capture_output=True, text=True, check=True)
    assert result.stderr == "'' '' "


FAULTY = """
import sys
from marketfetch.cli.main import main
from marketfetch.engine.pages import workers

def fail(*_):
    return 1 / 0

workers.defer_recent_absence = fail
sys.exit(main())
"""


def test_a_defect_of_an_adapter_is_one_line_beside_the_report(
    exchange: SimulatedExchange, tmp_path: Path
) -> None:
    job = [sys.executable, "-c", FAULTY, *_job(exchange, tmp_path, "--json")[3:]]
    result = subprocess.run(job, capture_output=True, text=True, check=False, timeout=250)
    assert result.returncode == 1
    report = json.loads(result.stdout)
    assert report["complete"] is False
    assert report["error"].startswith("ZeroDivisionError: division by zero (in fail, <string>, line 7)")
    assert result.stderr.splitlines()[-1] == f"marketfetch: {report['error']}"
    assert "Traceback" not in result.stderr

    result = subprocess.run([*job, "--verbose"], capture_output=True, text=True, check=False, timeout=250)
    assert "Traceback" in result.stderr
    assert "Exception Group" not in result.stderr
