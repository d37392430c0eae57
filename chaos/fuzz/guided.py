"""One target under atheris: `python -m chaos.fuzz.guided TARGET RUNS SEED SECONDS FOLDER`.

`FOLDER/seeds` holds the inputs to begin with. When the process ends, `FOLDER/counts.json` tells how often the
target read an input and how often it refused one; an input that broke a promise lies in `FOLDER` under a name
that begins with `crash-`. What libFuzzer prints about coverage goes to standard error.
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
"""The longest input, in bytes: pages of a few rows. What is long is tried elsewhere."""


def main() -> None:
    """Fuzz one target; does not return, libFuzzer ends the process."""
    name, runs, seed, seconds, folder = sys.argv[1:]
    # Only what is imported here is watched.
    with atheris.instrument_imports(include=["marketfetch", "email._parseaddr"]):
        from chaos.fuzz.mutating import mutated
        from chaos.fuzz.targets import targets

    warnings.simplefilter("error")  # a warning of numpy's is an answer that nobody planned
    target, chance = targets()[name], random.Random(f"{seed} {name}")
    counts: Counter[str] = Counter()

    def read(text: bytes) -> None:
        counts[target.read(text)] += 1
        if counts.total() % 10_000 == 0 or counts.total() == int(runs):  # libFuzzer ends without a last word
            Path(folder, "counts.json").write_text(json.dumps(counts), "utf-8")

    def mutate(text: bytes, limit: int, _seed: int) -> bytes:
        # By turns what knows rows and tokens, and what knows which comparisons failed.
        return mutated(text, chance, limit) if chance.random() < 0.6 else atheris.Mutate(text, limit)

    # A process is said to have needed at least what its parent did before it was started.
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
