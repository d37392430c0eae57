"""Refuse a release on whose version the tag, the package and the changelog do not agree.

    python tools/release_check.py v0.2.0 dist > notes.md

Prints the section of the changelog, the notes of the release. Needs nothing but Python.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path

__all__ = ["Project", "Section", "faults", "faults_of_files", "links", "sections_of"]

PROJECT = Path(__file__).parents[1]
UNRELEASED = "Unreleased"
_VERSION = re.compile(r"(?P<numbers>\d+\.\d+\.\d+)(?:(?P<stage>a|b|rc)(?P<number>\d+))?", re.ASCII)
_HEADING = re.compile(r"^## \[(?P<version>.+)\](?: - (?P<date>.+))?$", re.MULTILINE)
_LINK = re.compile(r"^\[(?P<version>[^\]]+)\]: +(?P<url>\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Project:
    """What pyproject.toml says about a release: its version, and the address of the repository."""

    version: str
    repository: str


@dataclass(frozen=True)
class Section:
    """A part of the changelog: the version and the date of its heading, and the text below."""

    version: str
    date: str | None
    text: str


def sections_of(changelog: str) -> list[Section]:
    """Return the sections of a changelog in the form of Keep a Changelog, the newest first."""
    parts = _HEADING.split(_LINK.sub("", changelog))[1:]
    return [
        Section(version, day, text.strip())
        for version, day, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    ]


def faults(tag: str, project: Project, changelog: str, today: date) -> Iterator[str]:
    """Yield what is wrong with the release of a tag on a day."""
    version = project.version
    if _VERSION.fullmatch(version) is None:
        yield f"pyproject.toml: the version {version} is not like 1.2.3 or 1.2.3rc1"
    if tag != f"v{version}":
        yield f"tag: {tag} is not v{version}, which follows from the version in pyproject.toml"
    yield from _faults_of_sections(version, sections_of(changelog), today)
    yield from _faults_of_links(project.repository, changelog)


def faults_of_files(names: Collection[str], version: str) -> Iterator[str]:
    """Yield what is wrong with the names of the files that would be published."""
    expected = (f"marketfetch-{version}-", f"marketfetch-{version}.tar.gz")
    for name in names:
        if not name.startswith(expected):
            yield f"files: {name} is not of version {version}"
    if {Path(name).suffix for name in names} != {".gz", ".whl"}:
        yield "files: a release has a source distribution, wheels, and nothing else"


def _faults_of_sections(version: str, sections: Sequence[Section], today: date) -> Iterator[str]:
    if len(sections) < 2 or (sections[0].version, sections[1].version) != (UNRELEASED, version):
        yield f"CHANGELOG.md: does not begin with [{UNRELEASED}], and then [{version}]"
        return
    if sections[0].text:
        yield f"CHANGELOG.md: has entries under [{UNRELEASED}] that would be in no release; move them"
    for section in sections[1:]:
        day = _day(section.date)
        if day is None or day > today:
            yield f"CHANGELOG.md: [{section.version}] has no date like {today}, or one that is to come"
        if not section.text:
            yield f"CHANGELOG.md: [{section.version}] has no entries"
    versions = [section.version for section in sections[1:]]
    ranks = [_rank(each) for each in versions]
    if any(earlier >= later for later, earlier in pairwise(ranks)):
        yield f"CHANGELOG.md: {', '.join(versions)} are not in order, the newest first"


def _faults_of_links(repository: str, changelog: str) -> Iterator[str]:
    written = {found["version"]: found["url"] for found in _LINK.finditer(changelog)}
    for version, url in links(repository, sections_of(changelog)).items():
        if written.get(version) != url:
            yield f"CHANGELOG.md: lacks the line at its end\n    [{version}]: {url}"


def links(repository: str, sections: Sequence[Section]) -> Mapping[str, str]:
    """Return the address of each section: what changed since the version before it."""
    ends = ["HEAD" if each.version == UNRELEASED else f"v{each.version}" for each in sections]
    if ends == ["HEAD"]:
        return {UNRELEASED: f"{repository}/commits/HEAD"}
    compared = [f"{repository}/compare/{start}...{end}" for end, start in pairwise(ends)]
    addresses = [*compared, f"{repository}/releases/tag/{ends[-1]}"]
    return dict(zip((each.version for each in sections), addresses, strict=True))


def _day(text: str | None) -> date | None:
    try:
        return date.fromisoformat(text) if text and re.fullmatch(r"\d{4}-\d\d-\d\d", text) else None
    except ValueError:
        return None


def _rank(version: str) -> tuple[object, ...]:
    """Return what versions are sorted by: 1.0.0a1 < 1.0.0rc1 < 1.0.0 < 1.0.1."""
    found = _VERSION.fullmatch(version)
    if found is None:
        return ()
    return (*map(int, found["numbers"].split(".")), found["stage"] or "stable", int(found["number"] or 0))


def main() -> int:
    """Check the release of a tag; return the exit code."""
    parser = argparse.ArgumentParser(description="Check a release and print its notes.")
    parser.add_argument("tag", help="such as v0.2.0")
    parser.add_argument("dist", nargs="?", type=Path, help="the folder of the files to publish")
    arguments = parser.parse_args()
    metadata = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
    project = Project(metadata["version"], metadata["urls"]["Source"])
    changelog = (PROJECT / "CHANGELOG.md").read_text("utf-8")
    found = [*faults(arguments.tag, project, changelog, datetime.now(UTC).date())]
    if arguments.dist is not None:
        found += faults_of_files([path.name for path in arguments.dist.iterdir()], project.version)
    if found:
        print(*found, sep="\n", file=sys.stderr)
        return 1
    print(sections_of(changelog)[1].text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
