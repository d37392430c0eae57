"""What an installation takes: the size of the core and of each extra, and the seconds from a warm cache."""

from __future__ import annotations

import subprocess
import sys
import time
import venv
from collections.abc import Iterable, Iterator
from importlib.metadata import distribution
from pathlib import Path
from tempfile import TemporaryDirectory

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import marketfetch
from benchmarks.harness.results import Result, without_bar

__all__ = ["install", "needed"]

_PROJECT = Path(__file__).parents[2]


def install() -> Iterator[Result]:
    """Add up the files of the packages that are installed here, then install into new environments."""
    core = needed() - {"marketfetch"}
    ours = _megabytes(Path(marketfetch.__file__).parent.rglob("*"))
    yield without_bar(f"size of marketfetch and {len(core)} packages", ours + _size(core), " MB")
    extras = sorted(set(distribution("marketfetch").metadata.get_all("Provides-Extra") or ()) - {"all"})
    for extra in [*extras, "all"]:
        added = needed(extra) - core - {"marketfetch"}
        yield without_bar(f"… {extra}: {_counted(added)} more", _size(added), " MB")
    with TemporaryDirectory() as folder:
        _pip("wheel", "--no-deps", "--wheel-dir", folder, str(_PROJECT))
        (wheel,) = Path(folder).glob("marketfetch-*.whl")
        _seconds(f"{wheel}[all]", folder)  # fills the cache
        for name, wanted in (("the core", str(wheel)), ("all", f"{wheel}[all]")):
            yield without_bar(f"installing {name} from a warm cache", _seconds(wanted, folder), " s")


def needed(*extras: str) -> set[str]:
    """Return the packages that marketfetch with extras needs on this system, itself included."""
    found: dict[str, set[str]] = {}
    wanted = [("marketfetch", {*extras})]
    while wanted:
        package, chosen = wanted.pop()
        if package in found and chosen <= found[package]:
            continue
        found[package] = found.get(package, set()) | chosen
        for requirement in map(Requirement, distribution(package).requires or ()):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ["", *chosen]):
                wanted.append((canonicalize_name(requirement.name), requirement.extras))
    return set(found)


def _counted(packages: set[str]) -> str:
    return "1 package" if len(packages) == 1 else f"{len(packages)} packages"


def _size(packages: Iterable[str]) -> float:
    """Return the megabytes of packages, compiled modules included."""
    return _megabytes(
        Path(str(file.locate())) for name in packages for file in distribution(name).files or ()
    )


def _megabytes(files: Iterable[Path]) -> float:
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def _seconds(wheel: str, folder: str) -> float:
    """Install a wheel and what it needs into a new environment; return the seconds."""
    with TemporaryDirectory(dir=folder) as home:
        venv.create(home, with_pip=False)
        began = time.perf_counter()
        _pip("--python", home, "install", wheel)
        return time.perf_counter() - began


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, timeout=600)
