"""Print the lowest versions that pyproject.toml allows, as constraints for pip: see `make test-oldest`.

    python tools/lowest.py > lowest.txt && pip install -c lowest.txt '.[all]' --group test

Only what users of marketfetch install is constrained. The tests have further requirements.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

_NEWER = {"pytest"}
"""The contract classes work with an older one than our own tests."""

_OF_THEIR_TIME = ("pyparsing<3.3",)
"""matplotlib 3.8 uses names of it that are deprecated since, which is an error in tests."""

_FLOOR = re.compile(r"(?P<name>[\w.-]+)(\[[\w,]+\])?>=(?P<version>[\d.]+)", re.ASCII)


def main() -> None:
    """Print one constraint per line."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    found = filter(None, (_FLOOR.match(wanted) for group in groups for wanted in group))
    floors = {floor["name"]: floor["version"] for floor in found}
    for name in sorted(floors.keys() - _NEWER):
        print(f"{name}=={floors[name]}")
    print(*_OF_THEIR_TIME, sep="\n")


if __name__ == "__main__":
    main()
