"""One family under atheris: `python -m chaos.fuzz.guided FAMILY RUNS SEED SECONDS FOLDER`.

`FOLDER/seeds` and `FOLDER/inputs` hold the first inputs. An input that reaches a new branch is kept in
`FOLDER/inputs`, and so is one that failed, as `crash-...`. `FOLDER/counts.json` has the number of inputs that
each decoder read and refused, in this process and in all before it. libFuzzer reports coverage on stderr.
"""

from __future__ import annotations

import json
import random
import resource
import sys
import warnings
from pathlib import Path

import atheris

LIMIT = 600
"""The longest input, in bytes: pages of a few rows. `chaos.fuzz.big` makes the long inputs."""
_SAVED = 1_000
"""After so many inputs the counts are written: a process that is killed loses no more of them."""


def main() -> None:
    """Fuzz one family; does not return, libFuzzer ends the process."""
    family, runs, seed, seconds, folder = sys.argv[1:]
    # Coverage is measured only in modules imported here.
    with atheris.instrument_imports(include=["marketfetch", "email._parseaddr"]):
        from chaos.fuzz.mutating import mutated
        from chaos.fuzz.targets import addressed, families

    warnings.simplefilter("error")  # a NumPy warning is a failure too
    members, rng = families()[family], random.Random(f"{seed} {family}")
    counts = _Counts(Path(folder, "counts.json"), [target.name for target in members])

    def read(message: bytes) -> None:
        target, text = addressed(members, message)
        counts.add(target.name, target.read(text))
        if counts.tried % _SAVED == 0 or counts.tried == int(runs):  # libFuzzer exits without a callback
            counts.save()

    def mutate(message: bytes, limit: int, _seed: int) -> bytes:
        text = message[1:]
        # Our mutations know rows and tokens; libFuzzer's know which comparisons failed.
        text = mutated(text, rng, limit - 1) if rng.random() < 0.6 else atheris.Mutate(text, limit - 1)
        # What is new for one member is mostly not new for its relatives, and is kept for that one alone.
        to = message[:1] if rng.random() < 0.5 else bytes([rng.randrange(len(members))])
        return to + text

    # ru_maxrss of a new process starts with the peak of its parent.
    inherited = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    options = [
        *(
            f"-runs={runs}",
            f"-max_len={1 + LIMIT}",
            f"-seed={seed}",
            f"-max_total_time={seconds}",
            "-len_control=0",
        ),
        *(
            "-mutate_depth=2",  # after five changes, as is usual, hardly any input is read
            "-reduce_inputs=0",  # a shorter input for the same branches is one more file in each turn
            "-timeout=10",
            f"-rss_limit_mb={inherited + 1024}",
            f"-artifact_prefix={folder}/inputs/",
        ),
    ]
    # libFuzzer writes what it keeps into the first folder alone.
    folders = [f"{folder}/inputs", f"{folder}/seeds"]
    atheris.Setup([sys.argv[0], *options, *folders], read, custom_mutator=mutate)
    atheris.Fuzz()


class _Counts:
    """How many inputs each decoder read and refused, in a file that a stopped process leaves whole."""

    def __init__(self, file: Path, names: list[str]) -> None:
        self._file = file
        before = json.loads(file.read_text("utf-8")) if file.exists() else {}
        self._all = {name: before.get(name, {"read": 0, "refused": 0}) for name in names}
        self.tried = 0
        """The inputs of this process alone."""

    def add(self, name: str, verdict: str) -> None:
        self._all[name][verdict] += 1
        self.tried += 1

    def save(self) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(self._all), "utf-8")
        new.replace(self._file)


if __name__ == "__main__":
    main()
