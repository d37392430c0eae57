"""Write the public names of marketfetch with their signatures into tests/public_api.txt, one on each line.

    python tools/public_api.py

Refuses while a name whose line is removed or changed is not in the section [Unreleased] of CHANGELOG.md.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import griffe

PROJECT = Path(__file__).parents[1]
sys.path.insert(0, str(PROJECT))  # this file is run by its path

from tools.docs.griffe_extension import import_paths  # noqa: E402
from tools.release_check import sections_of  # noqa: E402

__all__ = ["SNAPSHOT", "public_api", "unexplained"]

SNAPSHOT = PROJECT / "tests" / "public_api.txt"
_NAME = re.compile(r"^[\w.]+", re.MULTILINE)


def public_api() -> str:
    """Return a line for each public name and for each public member of a class, sorted.

    They are read from the source, so that every version of Python has the same lines.
    """
    extensions = griffe.load_extensions(f"{PROJECT}/tools/docs/griffe_extension.py")
    package = griffe.load("marketfetch", search_paths=[PROJECT / "src"], extensions=extensions)
    lines: list[str] = []
    for home, (path, *others) in import_paths().items():
        lines += _lines(path, _defined(package[home.removeprefix("marketfetch.")]))
        lines += [f"{other} = {path}" for other in others]
    return "".join(f"{line}\n" for line in sorted(lines))


def unexplained(before: str, after: str, changes: str) -> list[str]:
    """Return the names whose lines were removed or changed without a word in the text about the changes.

    >>> unexplained("mf.fetch(symbol)", "mf.fetch(symbols)", "- `open` is new.")
    ['mf.fetch']
    """
    gone = {*_NAME.findall("\n".join({*before.splitlines()} - {*after.splitlines()}))}
    words = set(re.findall(r"\w+", changes))
    return sorted(name for name in gone if name.rpartition(".")[2] not in words)


def _defined(found: griffe.Object | griffe.Alias) -> griffe.Object:
    return found.final_target if isinstance(found, griffe.Alias) else found


def _lines(path: str, found: griffe.Object) -> Iterator[str]:
    """Yield the line of a name, and those of its members; a base that is public has lines of its own."""
    if isinstance(found, griffe.Function):
        yield found.signature(return_type=True, name=path)
    elif isinstance(found, griffe.Class):
        bases = [str(base) for base in found.bases if not _is_private(base)]
        yield " < ".join([found.signature(name=path) or path, *filter(None, [", ".join(bases)])])
        for name, member in found.all_members.items():
            made = _defined(member)
            owner = made.path.rpartition(".")[0]
            inherited = owner != found.path and owner in import_paths()
            if not name.startswith(("_", "test_")) and not inherited:
                yield from _lines(f"{path}.{name}", made)
    elif isinstance(found, griffe.Attribute):
        is_constant = "class-attribute" in found.labels or "module-attribute" in found.labels
        value = f" = {found.value}" if is_constant else ""
        yield path + (f": {found.annotation}" if found.annotation else value)


def _is_private(base: str | griffe.Expr) -> bool:
    home = base if isinstance(base, str) else base.canonical_path
    return home.startswith("marketfetch.") and home not in import_paths()


def main() -> int:
    """Write the file, or say which changes have to be explained; return the exit code."""
    before, after = SNAPSHOT.read_text("utf-8") if SNAPSHOT.exists() else "", public_api()
    (unreleased, *_) = sections_of((PROJECT / "CHANGELOG.md").read_text("utf-8"))
    missing = unexplained(before, after, unreleased.text)
    if missing:
        print("CHANGELOG.md: [Unreleased] does not say what happened to", *missing, sep="\n", file=sys.stderr)
        return 1
    SNAPSHOT.write_text(after, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
