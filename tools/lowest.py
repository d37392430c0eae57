"""Print the lowest versions that pyproject.toml allows, as constraints for pip.

    python tools/lowest.py > lowest.txt && pip install -c lowest.txt '.[all]' --group test

The requirements of the tests alone are not constrained.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

_NEWEST = {"anyio"}
"""Its pytest plugin runs the tests, and the oldest version lacks a setting that they need."""

_FLOOR = re.compile(r"(?P<name>[\w.-]+)(\[[\w,]+\])?>=(?P<version>[\d.]+)", re.ASCII)


def main() -> None:
    """Print one constraint per line: the newest patch of the lowest minor version."""
    config = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    project, extras = config["project"], config["project"]["optional-dependencies"]
    wanted = [
        *project["dependencies"],
        *(one for extra, some in extras.items() if extra != "testing" for one in some),
    ]
    floors = {found["name"]: found["version"] for found in filter(None, map(_FLOOR.match, wanted))}
    for name, version in sorted((name, floors[name]) for name in floors.keys() - _NEWEST):
        print(f"{name}=={version}" if version.count(".") > 1 else f"{name}=={version}.*")


if __name__ == "__main__":
    main()
