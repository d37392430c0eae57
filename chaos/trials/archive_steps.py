"""Kill a run that reads files of an archive at each of its steps in turn, then check and complete the store.

    python -m chaos.trials.archive_steps

is a process that runs the command line again and again, each time in a forked child. It reads one line of
JSON for each run, the arguments and the step at which SIGKILL ends it, and answers with the exit code and
what was printed. The library compiled from `crash_points.c` must be preloaded: it counts calls that change
a file or send data. Here each of `_PLACES` counts twice, too: before it is called, and after it has returned.
"""

from __future__ import annotations

import ctypes
import inspect
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from importlib import import_module
from pathlib import Path
from signal import SIGKILL
from typing import Any
from unittest.mock import patch

import attrs

from chaos.harness.archive_site import CheckedStore, archive_site
from chaos.harness.files_first import files_first
from chaos.harness.request_audit import refetched_pages, requested_pages
from chaos.harness.store_contents import fingerprint
from chaos.harness.store_fixtures import KINDS, StoreFixture, left_over
from chaos.harness.trials import Effort, Result, Trial
from chaos.trials.crash_points import counting_environment
from marketfetch.archives import checksums, downloads, file_reader
from marketfetch.cli.main import main as command_line
from marketfetch.decoding import csv_layouts
from marketfetch.engine import state, writers
from marketfetch.engine.archives import files
from marketfetch.sinks.parquet import series_folder
from marketfetch.sinks.postgres import coverage_tables as of_postgres
from marketfetch.sinks.sql import coverage_tables as of_files
from marketfetch.testing import ArchiveFaultKind, ArchiveFaults
from tests.support.worlds import span_of

__all__ = ["killed_at_steps"]

_SPAN = span_of("2024-02-20", "2024-03-03")
"""The end of a month, of which there is one file, and two days, of which there is one each."""
_IMPORTED = (
    *("anyio._backends._asyncio", "curl_cffi", "duckdb", "filelock", "pandas", "psycopg", "pyarrow.parquet"),
    *("marketfetch.cli.pipelines", "marketfetch.cli.reported_run"),
)
_MARK = "@ "
"""Begins the lines of output that name a step."""
_STEPS = 2_000
"""The most steps to try; no store needs as many."""
_EVERY_STORE = {
    "a listing is read": (files, "_listing_page"),
    "a checksum is read": (files, "parse_checksum"),
    "a part is requested": (downloads.Download, "next_request"),
    "a part is kept": (downloads.Download, "append"),
    "a digest is compared": (checksums.Checksum, "check"),
    "a block is decoded": (csv_layouts._FileFormat, "decode"),
    "a piece is put in order": (file_reader, "_unique"),
    "a file is compared with the API": (files.ArchiveFiles, "_difference"),
    "a batch is handed over": (writers.WriterPool, "submit"),
    "a batch is noted as durable": (state.RunState, "record_written"),
    "absence is noted": (files.ArchiveFiles, "_note_absence"),
    "a file is noted as done": (state.RunState, "record_file"),
}


def _of_tables(tables: type[Any]) -> dict[str, tuple[Any, str]]:
    return {"coverage is written": (tables, "_put"), "provenance is written": (tables, "_put_file")}


_PLACES: dict[str, dict[str, tuple[Any, str]]] = {
    "sqlite": _of_tables(of_files.FileCoverageTables),
    "duckdb": _of_tables(of_files.FileCoverageTables),
    "postgresql": _of_tables(of_postgres.PostgresCoverageTables),
    "parquet": {
        "rows, coverage and provenance are written": (series_folder.SeriesFolder, "_put"),
        "the ledger is written": (series_folder.SeriesFolder, "_put_ledger"),
    },
}
"""What is done with files, and with their rows in each kind of store."""


def killed_at_steps(fixture: StoreFixture, effort: Effort) -> Result:
    """Kill runs at every step for one kind of store, and for the others at some of the steps.

    The seed chooses the kind, and the first step of the others; nightly, all kinds are killed at every step.
    Raises RuntimeError where there is no C compiler.
    """
    chosen = KINDS[effort.seed % len(KINDS)] == fixture.kind
    stride = effort.choose(100, 1 if chosen else 10, 1)
    first = effort.rng(f"archive steps {fixture.kind}").randrange(stride)
    often = "every step" if stride == 1 else f"each {stride}th step"
    trial = Trial(f"killed at {often} of reading files, {fixture.kind}: the same final store", "kills")
    killed_at = set[str]()
    with archive_site(["BTCUSDT"], _SPAN, "1h") as site, _running(fixture) as runs:
        site.archive.faults = ArchiveFaults(kinds=[ArchiveFaultKind.MISSING_DAYS], rate=1, keys="*2024-02*")
        store = _SteppedStore(site, fixture.fresh(), runs)
        steps = store.fill()
        expected = fingerprint(store.url)
        unmet = _named_steps(fixture.kind) - set(steps)
        assert not unmet, f"no run comes to these steps: {sorted(unmet)}"
        for step in range(first, _STEPS, stride):
            store = _SteppedStore(site, fixture.fresh(), runs)
            with trial.attempt(f"{fixture.kind}, step {step}"):
                killed_at |= {*store.fill(step)[-1:]}
                assert fingerprint(store.url) == expected, "not what an undisturbed run has stored"
            if not store.kills:
                trial.tried -= 1  # the run has ended before this step
                break
    if stride == 1 and (unmet := _named_steps(fixture.kind) - killed_at):
        trial.failures.append(f"no run was killed at these steps: {sorted(unmet)}")
    return trial.result()


def _named_steps(kind: str) -> set[str]:
    return {f"{when} {place}" for place in _EVERY_STORE | _PLACES[kind] for when in ("before", "after")}


@attrs.frozen(eq=False)
class _Runs:
    """The process that runs the command line, and kills itself at a step."""

    process: subprocess.Popen[str]
    kind: str

    def run(self, words: Sequence[str], step: int) -> tuple[int, list[str]]:
        """Run, and return the exit code and the lines of output; a negative `step` kills nothing."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"kind": self.kind, "words": [*words], "step": step}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return answer["code"], answer["output"].splitlines()


@contextmanager
def _running(fixture: StoreFixture) -> Iterator[_Runs]:
    with subprocess.Popen(
        [sys.executable, "-m", "chaos.trials.archive_steps"],
        env=counting_environment(fixture.folder),
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield _Runs(process, fixture.kind)


@attrs.define(eq=False)
class _SteppedStore(CheckedStore):
    """A store that is filled by a run that is killed at a step, and then by one that is not."""

    runs: _Runs

    def fill(self, step: int = -1) -> list[str]:
        """Fill the store; return the named steps that the first run has come to."""
        named: list[str] = []
        site = self.site

        def start(at: int) -> bool:
            site.exchange.request_log.clear()
            base = ["--base-url", site.exchange.base_url, "--exchange", "binance-usdm", "--board", "none"]
            code, lines = self.runs.run(["backfill", *base, "--to", self.url, *site.words()], at)
            assert code in {0, -SIGKILL}, f"exit code {code}: {lines[-20:]}"
            named.extend(line.removeprefix(_MARK) for line in lines if line.startswith(_MARK))
            return code != 0

        if self.run(partial(start, step)):
            reached, before = [*named], self.durable
            assert not self.run(partial(start, -1))
            asked = requested_pages(site.exchange.request_log.latest, site.interval)
            assert not (twice := refetched_pages(asked, before)), f"asked although it was stored: {twice}"
            # The log of a killed writer stays if a run has only read: the next run that writes removes it.
            has_written = bool(asked or site.files_requested())
            assert not has_written or not (found := left_over(self.url)), f"left over: {found}"
            named = reached
        self.assert_complete()
        return named


def _child(words: Sequence[str], kind: str, step: int) -> int:
    """Run the command line in this process, and kill it at a step; return the exit code."""
    library = ctypes.CDLL(None)

    def note(name: str) -> None:
        os.write(2, f"\n{_MARK}{name}\n".encode())  # a pipe: it is not counted
        library.step()

    with files_first(), ExitStack() as patches:
        for name, (owner, attribute) in (_EVERY_STORE | _PLACES[kind]).items():
            noted = _noted(getattr(owner, attribute), name, note)
            patches.enter_context(patch.object(owner, attribute, noted))
        library.arm(ctypes.c_long(step))
        try:
            return command_line(words)
        finally:
            library.arm(ctypes.c_long(-1))


def _noted(call: Callable[..., Any], name: str, note: Callable[[str], None]) -> Callable[..., Any]:
    """Note a name before a function is called and after it has returned."""
    if inspect.iscoroutinefunction(call):

        @wraps(call)
        async def noted_coroutine(*arguments: Any, **named: Any) -> Any:
            note(f"before {name}")
            found = await call(*arguments, **named)
            note(f"after {name}")
            return found

        return noted_coroutine

    @wraps(call)
    def noted(*arguments: Any, **named: Any) -> Any:
        note(f"before {name}")
        found = call(*arguments, **named)
        note(f"after {name}")
        return found

    return noted


def _forked(words: Sequence[str], kind: str, step: int) -> dict[str, Any]:
    """Run the command line in a forked child; return its exit code and its output."""
    read, write_end = os.pipe()
    child = os.fork()
    if not child:
        for file in (1, 2):
            os.dup2(write_end, file)
        # The old streams may take themselves for files that can be sought.
        sys.stdout, sys.stderr = (os.fdopen(file, "w", encoding="utf-8", closefd=False) for file in (1, 2))
        try:
            code = _child(words, kind, step)
        except BaseException:  # noqa: BLE001  # sent to the parent
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    os.close(write_end)
    with os.fdopen(read, "rb") as pipe:
        output = pipe.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    return {"code": os.waitstatus_to_exitcode(status), "output": output}


if __name__ == "__main__":
    # What every run would import: now, before the forks. None of it starts a thread.
    for module in _IMPORTED:
        import_module(module)
    for line in sys.stdin:
        print(json.dumps(_forked(**json.loads(line))), flush=True)
