"""Fuzz every decoder: any bytes give a valid result or the documented error, and nothing else."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

import attrs

from chaos.fuzz import sanitized
from chaos.fuzz.big import big
from chaos.fuzz.mutating import mutations
from chaos.fuzz.targets import CORPUS, Target, targets
from chaos.harness.trials import Effort, Result, Trial

__all__ = ["corpus", "fuzzing", "guided", "large", "memory", "mutated"]

_INPUTS = 10_000_000
_LONGEST = 600
_COVERAGE = re.compile(r"\bcov: (\d+)")


def fuzzing(effort: Effort) -> Iterator[Result]:
    """Fuzz every decoder with the corpus of former failures, large inputs and millions of mutated inputs."""
    yield corpus(effort)
    yield large(effort)
    has_atheris = importlib.util.find_spec("atheris") is not None
    if effort.name == "quick" or not has_atheris:
        yield mutated(effort)
    else:
        yield guided(effort)
    yield memory(effort)


def corpus(effort: Effort) -> Result:
    """Give every input of the corpus to every target, not to its own alone."""
    trial = Trial("each corpus input, given to each decoder, is read soundly or refused", unit="inputs")
    inputs = [(str(file.relative_to(CORPUS)), file.read_bytes()) for file in sorted(CORPUS.glob("*/*"))]
    with warnings.catch_warnings(action="error"):
        for target in targets().values():
            for name, text in inputs:
                with trial.attempt(f"{target.name}: {name}"):
                    target.read(text)
    return trial.result()


def large(effort: Effort) -> Result:
    """Try inputs of a megabyte, numbers of 100,000 digits, and arrays nested 100,000 deep."""
    trial = Trial("a large or deep input is read soundly or refused", unit="inputs")
    with warnings.catch_warnings(action="error"):
        for target in targets().values():
            for name, text in big(max(target.seeds(), key=len)):
                with trial.attempt(f"{target.name}: {name}"):
                    target.read(text)
    return trial.result()


def mutated(effort: Effort) -> Result:
    """Try random mutations of the corpus, without coverage guidance; the same seed gives the same inputs."""
    each = effort.choose(1_000, _INPUTS // len(targets()) + 1)
    trial = Trial("a mutated input is read soundly or refused", unit="inputs", bar="all")
    with warnings.catch_warnings(action="error"):
        for target in targets().values():
            rng = effort.rng(target.name)
            for text in islice(mutations(target.seeds(), rng, _LONGEST), each):
                with trial.attempt(f"{target.name}: {text!r}"):
                    target.read(text)
    return trial.result()


@attrs.frozen
class _Fuzzed:
    """The result of one `chaos.fuzz.guided` process."""

    target: str
    counts: Counter[str]
    edges: int
    seconds: float
    failure: str | None

    def __str__(self) -> str:
        return (
            f"    {self.target:<34} {self.counts.total():>9,} inputs, {self.counts['read']:>9,} read,"
            f" {self.counts['refused']:>9,} refused, {self.edges:>4} edges, {self.seconds:4.0f} s"
        )


def guided(effort: Effort) -> Result:
    """Let atheris search inputs that reach new branches, each target in its own process."""
    known = targets()
    each = effort.choose(5_000, _INPUTS // len(known) + 1, 20 * _INPUTS // len(known))
    with ThreadPoolExecutor(min(len(known), os.cpu_count() or 1)) as pool:
        results = []
        for fuzzed in pool.map(partial(_guide, runs=each, seed=effort.seed), known.values()):
            print(fuzzed, flush=True)
            results.append(fuzzed)
    tried = sum(fuzzed.counts.total() for fuzzed in results)
    failures = [f"{fuzzed.target}: {fuzzed.failure}" for fuzzed in results if fuzzed.failure]
    bar = min(each * len(known), _INPUTS)
    if tried < bar and not failures:
        failures.append(f"only {tried:,} inputs were tried in the time there was")
    return Result(
        f"an input of a coverage-guided fuzzer is read soundly or refused, {len(known)} decoders",
        f"{tried:,} inputs",
        f"{tried - len(failures):,}",
        f"{bar:,}",
        tuple(failures),
    )


def _guide(target: Target, runs: int, seed: int) -> _Fuzzed:
    began = time.monotonic()
    # A time limit of about 100 x the usual; a target that reaches it is reported with too few inputs.
    bound = 30 + runs // 200
    with tempfile.TemporaryDirectory(prefix="marketfetch-fuzz-") as name:
        folder = Path(name)
        (folder / "seeds").mkdir()
        for number, text in enumerate(target.seeds()):
            (folder / "seeds" / f"{number}").write_bytes(text)
        command = [sys.executable, "-m", "chaos.fuzz.guided", target.name, str(runs)]
        command += [str(seed + 1), str(bound), name]  # seed 0 means "random" to libFuzzer
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=2 * bound, check=False
        )
        counts = folder / "counts.json"
        seen = Counter[str](json.loads(counts.read_text("utf-8")) if counts.exists() else {})
        found = [f"{file.name[:8]} {file.read_bytes()!r}" for file in folder.glob("*-*") if file.is_file()]
    failure = None
    if done.returncode or found:
        place = CORPUS / target.corpus
        failure = f"{' '.join(found)}; mend it, and keep the input in {place}\n{done.stderr[-600:]}"
    edges = max(map(int, _COVERAGE.findall(done.stderr)), default=0)
    return _Fuzzed(target.name, seen, edges, time.monotonic() - began, failure)


def memory(effort: Effort) -> Result:
    """Run the compiled decoder under the compiler's sanitizers, on buffers without any spare bytes."""
    inputs = effort.choose(50_000, 10_000_000, 1_000_000_000)
    promise = "the compiled decoder accesses no memory outside its buffers"
    with tempfile.TemporaryDirectory(prefix="marketfetch-fuzz-") as name:
        program = sanitized.build(Path(name))
        if isinstance(program, str):
            return Result(promise, "nothing", program, "where they are")
        files = [*CORPUS.glob("rows-*/*"), *CORPUS.glob("binance-klines/*"), *CORPUS.glob("csv*/*")]
        done = sanitized.drive(program, inputs, effort.seed + 1, sorted(files))
    if isinstance(done, str):
        return Result(promise, f"{inputs:,} inputs", "not all", "all", (done,))
    failures = () if done.pages and done.locations else (f"no page was among them: {done}",)
    return Result(promise, f"{done.inputs:,} inputs", f"{done.inputs:,}", "all", failures)
