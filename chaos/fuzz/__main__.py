"""Search for what breaks a decoder: `python -m chaos.fuzz [--inputs N] [--folder FOLDER]`, or `make fuzz`.

Stop it at any moment. Started again, it continues: the folder has the inputs that reached new branches, and
how many inputs were tried. If the library's code has changed, it counts from zero and keeps the inputs.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import marketfetch
from chaos.fuzz.searching import Search, searches, turns

_TURN = 200_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Search until so many inputs were tried, all turns together; exit code 1 if a decoder failed."""
    parser = argparse.ArgumentParser(prog="python -m chaos.fuzz", description="Search what breaks a decoder.")
    parser.add_argument(
        "--inputs", type=int, default=10_000_000, help="try so many in all (default: 10 million)"
    )
    parser.add_argument("--folder", type=Path, default=Path(".fuzz"), help="keep the progress there")
    parser.add_argument("--seed", type=int, default=None, help="repeat a search, from an empty folder")
    options = parser.parse_args(arguments)
    if importlib.util.find_spec("atheris") is None:
        parser.error("atheris is not installed, or has no wheel for this system; `make chaos` needs none")
    families = searches(options.folder)
    _forget_other_code(options.folder, families)
    failures: list[str] = []
    try:
        _search(families, options.inputs, options.seed, failures)
    except KeyboardInterrupt:
        print("stopped; the same command continues")
    print(_summary(families))
    for failure in failures:
        print(f"FAILED: {failure}")
    return bool(failures)


def _search(families: list[Search], inputs: int, seed: int | None, failures: list[str]) -> None:
    """Let the searches take turns until each has its share of the inputs; add what failed to `failures`."""
    share = -(-inputs // len(families))
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    print(f"seed {seed}")
    while waiting := [search for search in families if search.tried() < share]:
        runs = min(_TURN, share - min(search.tried() for search in waiting))
        for turn in turns(waiting, runs, seed):
            print(turn, flush=True)
            failures += turn.failures
            if not turn.tried and not turn.failures:
                failures.append(f"{turn.family}: no input was tried")
        if failures:
            break


def _summary(families: list[Search]) -> str:
    nothing = {"read": 0, "refused": 0}
    counts = [
        verdicts.get(target.name, nothing)
        for search in families
        for verdicts in [search.counts()]
        for target in search.members
    ]
    tried = [sum(verdicts.values()) for verdicts in counts]
    read = sum(verdicts["read"] for verdicts in counts)
    least = f"{min(tried):,} or more for each of {len(tried)} decoders"
    return f"{sum(tried):,} inputs so far, {read:,} of them read; {least}"


def _forget_other_code(folder: Path, families: list[Search]) -> None:
    """Begin to count from zero if the inputs so far were given to other code."""
    code = hashlib.sha256()
    for source in (Path(marketfetch.__file__).parent, Path(__file__).parent):
        for file in sorted(source.rglob("*.[pc]*")):
            if file.suffix in {".py", ".c"}:
                code.update(file.read_bytes())
    note = folder / "code"
    if note.exists() and note.read_text("utf-8") != code.hexdigest():
        print("The code has changed: the inputs stay, the count begins at zero.")
        for search in families:
            search.forget_counts()
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(code.hexdigest(), "utf-8")


if __name__ == "__main__":
    sys.exit(main())
