"""A Dask cluster on loopback: a scheduler and workers, each a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs

__all__ = ["Cluster", "cluster"]

_HERE = ("--host", "127.0.0.1", "--no-dashboard")
_DEADLINE = 60.0


@attrs.define
class Cluster:
    """The address of the scheduler, all processes, and the folder of their logs."""

    address: str
    scheduler: subprocess.Popen[bytes]
    workers: Sequence[subprocess.Popen[bytes]]
    folder: Path

    def logs(self) -> str:
        """Return what all processes have logged so far."""
        return "".join(path.read_text("utf-8") for path in sorted(self.folder.glob("*.log")))


@contextmanager
def cluster(folder: Path, workers: int, environment: Mapping[str, str] | None = None) -> Iterator[Cluster]:
    """Run a scheduler and workers with one thread each; the processes are killed when the block is left."""
    file = folder / "scheduler.json"
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, **(environment or {})}
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str, *words: str) -> None:
        with (folder / f"{name}.log").open("wb") as log:
            command = [sys.executable, "-m", "dask", *words, *_HERE, "--scheduler-file", str(file)]
            started.append(
                subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, env=environment)
            )

    try:
        start("scheduler", "scheduler", "--port", "0")
        _wait_for(file, started[0])
        for number in range(workers):
            start(f"worker-{number}", "worker", "--nthreads", "1", "--no-nanny")
        from distributed import Client

        with Client(scheduler_file=str(file), set_as_default=False) as client:
            if workers:
                client.wait_for_workers(workers, timeout=_DEADLINE)
            address = str(client.scheduler.address)
        yield Cluster(address, started[0], started[1:], folder)
    finally:
        for process in reversed(started):
            process.kill()
            process.wait()


def _wait_for(file: Path, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + _DEADLINE
    while not file.exists():
        assert process.poll() is None, "the scheduler has ended"
        assert time.monotonic() < give_up, "the scheduler does not start"
        time.sleep(0.05)
