"""Run `marketfetch backfill` in a child process against a simulated exchange in this process."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from signal import SIGKILL

import attrs

from marketfetch.testing import SimulatedExchange

__all__ = ["FILES_FIRST", "MARKETFETCH", "Command", "backfill"]

MARKETFETCH = ("-m", "marketfetch")
FILES_FIRST = ("-P", str(Path(__file__).with_name("files_first.py")))
"""The same with files of the archive preferred; -P keeps the script's folder out of the imports."""
_TIMEOUT = 60.0
"""Seconds after which a run counts as hanging; it usually takes two."""


@attrs.frozen(eq=False)
class Command:
    """A running `marketfetch backfill`."""

    process: subprocess.Popen[str]
    started: float = attrs.field(factory=time.monotonic)

    @property
    def elapsed(self) -> float:
        """Seconds since the process was started."""
        return time.monotonic() - self.started

    def kill_when(self, moment: Callable[[float], bool]) -> bool:
        """Send SIGKILL as soon as `moment(elapsed)` is true; returns False if the command ended before."""
        if not self.until(moment):
            return False
        self.process.kill()
        _, err = self.process.communicate()
        code = self.process.returncode
        assert code in {0, -SIGKILL}, f"exit code {code}: {err}"
        return code != 0

    def until(self, moment: Callable[[float], bool]) -> bool:
        """Wait until `moment(elapsed)` is true; returns False if the command ended before that."""
        while self.process.poll() is None:
            if moment(self.elapsed):
                return True
            if self.elapsed > _TIMEOUT:
                raise AssertionError(f"still running after {_TIMEOUT:.0f} s: {self.process.args!r}")
            time.sleep(0.001)
        self.finish()
        return False

    def finish(self) -> str:
        """Wait for exit code 0, which says that nothing is missing, and return standard error."""
        out, err = self.process.communicate(timeout=_TIMEOUT)
        assert self.process.returncode == 0, f"exit code {self.process.returncode}: {err or out}"
        return err


@contextmanager
def backfill(
    exchange: SimulatedExchange, url: str, words: Sequence[str], program: Sequence[str] = MARKETFETCH
) -> Iterator[Command]:
    """Start `marketfetch backfill` into a store; the process is killed when the block is left.

    `program` are the arguments of Python that start the command line.
    `--board none`: a killed run returns no budget to a shared board, and this exchange has no rate limits.
    """
    command = [sys.executable, *program, "backfill", "--base-url", exchange.base_url]
    process = subprocess.Popen(
        [*command, "--exchange", "binance-usdm", "--board", "none", "--to", url, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Command(process)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
