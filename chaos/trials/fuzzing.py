"""Fuzz every decoder: any bytes give a valid result or the documented error, and nothing else."""

from __future__ import annotations

import importlib.util
import tempfile
import warnings
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from chaos.fuzz import sanitized
from chaos.fuzz.big import big, long_numbers
from chaos.fuzz.mutating import mutations
from chaos.fuzz.searching import searches, turns
from chaos.fuzz.targets import CORPUS, families, targets
from chaos.harness.trials import Effort, Result, Trial

__all__ = ["corpus", "fuzzing", "guided", "large", "memory", "mutated"]

_INPUTS = 3_000_000
_NIGHTLY = 200_000_000
_LONGEST = 600


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
            long = chain.from_iterable(map(long_numbers, target.seeds()))
            for name, text in chain(big(max(target.seeds(), key=len)), long):
                with trial.attempt(f"{target.name}: {name}"):
                    target.read(text)
    return trial.result()


def mutated(effort: Effort) -> Result:
    """Try random mutations of the corpus, without coverage guidance; the same seed gives the same inputs."""
    each = effort.choose(300, _INPUTS // len(targets()) + 1)
    trial = Trial("a mutated input is read soundly or refused", unit="inputs", bar="all")
    with warnings.catch_warnings(action="error"):
        for target in targets().values():
            rng = effort.rng(target.name)
            for text in islice(mutations(target.seeds(), rng, _LONGEST), each):
                with trial.attempt(f"{target.name}: {text!r}"):
                    target.read(text)
    return trial.result()


def guided(effort: Effort) -> Result:
    """Let atheris search inputs that reach new branches, each family of decoders in its own process."""
    known = families()
    each = effort.choose(5_000, _INPUTS // len(known), _NIGHTLY // len(known))
    tried, failures = 0, list[str]()
    with tempfile.TemporaryDirectory(prefix="marketfetch-fuzz-") as folder:
        for turn in turns(searches(Path(folder)), each, effort.seed):
            print(turn, flush=True)
            tried += turn.tried
            failures += turn.failures
    bar = each * len(known)
    if tried < bar and not failures:
        failures.append(f"only {tried:,} inputs were tried in the time there was")
    return Result(
        f"an input of a guided fuzzer is read soundly or refused, {len(targets())} decoders",
        f"{tried:,} inputs",
        f"{tried - len(failures):,}",
        f"{bar:,}",
        tuple(failures),
    )


def memory(effort: Effort) -> Result:
    """Run the compiled decoder under the compiler's sanitizers, on buffers without any spare bytes."""
    inputs = effort.choose(50_000, 10_000_000, 1_000_000_000)
    promise = "the compiled decoder accesses no memory outside its buffers"
    with tempfile.TemporaryDirectory(prefix="marketfetch-fuzz-") as name:
        program = sanitized.build(Path(name))
        if isinstance(program, str):
            return Result(promise, "nothing", program, "where they are")
        files = [file for pattern in sanitized.INPUTS for file in CORPUS.glob(pattern)]
        done = sanitized.drive(program, inputs, effort.seed + 1, sorted(files))
    if isinstance(done, str):
        return Result(promise, f"{inputs:,} inputs", "not all", "all", (done,))
    failures = () if done.pages and done.locations else (f"no page was among them: {done}",)
    return Result(promise, f"{done.inputs:,} inputs", f"{done.inputs:,}", "all", failures)
