"""One target under atheris: `python -m chaos.fuzz.guided TARGET RUNS SEED SECONDS FOLDER`.

`FOLDER/seeds` holds the first inputs. After the process `FOLDER/counts.json` has the number of inputs that
the target read and refused; an input that failed is in `FOLDER` as `crash-...`. libFuzzer reports coverage on
standard error.
"""

from __future__ import annotations

import json
import random
import resource
import sys
import warnings
from collections import Counter
from pathlib import Path

import atheris

LIMIT = 600
"""The longest input, in bytes: pages of a few rows. `chaos.fuzz.big` makes the long inputs."""


def main() -> None:
    """Fuzz one target; does not return, libFuzzer ends the process."""
    name, runs, seed, seconds, folder = sys.argv[1:]
    # Coverage is measured only in modules imported here.
    with atheris.instrument_imports(include=["marketfetch", "email._parseaddr"]):
        from chaos.fuzz.mutating import mutated
        from chaos.fuzz.targets import targets

    warnings.simplefilter("error")  # a NumPy warning is a failure too
    target, rng = targets()[name], random.Random(f"{seed} {name}")
    counts: Counter[str] = Counter()

    def read(text: bytes) -> None:
        counts[target.read(text)] += 1
        if counts.total() % 10_000 == 0 or counts.total() == int(runs):  # libFuzzer exits without a callback
            Path(folder, "counts.json").write_text(json.dumps(counts), "utf-8")

    def mutate(text: bytes, limit: int, _seed: int) -> bytes:
        # Our mutations know rows and tokens; libFuzzer's know which comparisons failed.
        return mutated(text, rng, limit) if rng.random() < 0.6 else atheris.Mutate(text, limit)

    # ru_maxrss of a new process starts with the peak of its parent.
    inherited = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    options = [
        *(
            f"-runs={runs}",
            f"-max_len={LIMIT}",
            f"-seed={seed}",
            f"-max_total_time={seconds}",
            "-len_control=0",
        ),
        *(
            "-timeout=10",
            f"-rss_limit_mb={inherited + 1024}",
            f"-artifact_prefix={folder}/",
        ),
    ]
    atheris.Setup([sys.argv[0], *options, f"{folder}/seeds"], read, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
