"""What is published agrees with its tag and the changelog, and no job can do more than it needs."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.release_check import Project, faults, faults_of_files, links, sections_of

PROJECT = Path(__file__).parents[1]
METADATA = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
HOME = METADATA["urls"]["Source"]
TODAY = date(2026, 7, 1)
GOOD = """\
# Changelog

## [Unreleased]

## [0.2.0] - 2026-07-01

### Added

- `mf.open`.

## [0.1.0] - 2026-06-01

- The first.

[Unreleased]: https://host/compare/v0.2.0...HEAD
[0.2.0]: https://host/compare/v0.1.0...v0.2.0
[0.1.0]: https://host/releases/tag/v0.1.0
"""


def check(tag: str = "v0.2.0", version: str = "0.2.0", changelog: str = GOOD) -> str:
    return "\n".join(faults(tag, Project(version, "https://host"), changelog, TODAY))


def test_a_release_on_which_all_agree_is_accepted() -> None:
    assert not check()
    assert sections_of(GOOD)[1].text == "### Added\n\n- `mf.open`."


@pytest.mark.parametrize("tag", ["v0.2.1", "0.2.0", "v0.2", "refs/tags/v0.2.0"])
def test_another_tag_is_refused(tag: str) -> None:
    assert check(tag) == f"tag: {tag} is not v0.2.0, which follows from the version in pyproject.toml"


@pytest.mark.parametrize("version", ["0.2", "0.2.0.dev1", "0.2.0-rc1", "1!0.2.0", "0.2.0+local"])
def test_a_version_that_is_not_semantic_is_refused(version: str) -> None:
    changelog = GOOD.replace("0.2.0", version)
    assert check(f"v{version}", version, changelog).startswith(f"pyproject.toml: the version {version} is")


@pytest.mark.parametrize("version", ["0.2.0a1", "0.2.0rc2", "0.10.0", "1.0.0"])
def test_a_version_after_the_one_before_is_accepted(version: str) -> None:
    assert not check(f"v{version}", version, GOOD.replace("0.2.0", version))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("## [0.2.0] - 2026-07-01", "", r"does not begin with \[Unreleased\], and then \[0.2.0\]"),
        ("## [Unreleased]\n", "", r"does not begin with \[Unreleased\]"),
        ("## [Unreleased]\n", "## [Unreleased]\n\n- Forgotten.\n", "entries under .* in no release"),
        (" - 2026-07-01", "", r"\[0.2.0\] has no date"),
        ("2026-07-01", "2026-7-1", r"\[0.2.0\] has no date"),
        ("2026-07-01", "2026-02-30", r"\[0.2.0\] has no date"),
        ("2026-07-01", "2026-07-02", r"\[0.2.0\] has .* one that is to come"),
        ("2026-06-01", "June 2026", r"\[0.1.0\] has no date"),
        ("### Added\n\n- `mf.open`.\n", "", r"\[0.2.0\] has no entries"),
        ("0.1.0", "0.2.0", "not in order"),
        ("0.1.0", "0.2.1", "not in order"),
        ("0.1.0", "0.10.0", "not in order"),
        (
            "[0.2.0]: https://host/compare/v0.1.0...v0.2.0\n",
            "",
            r"lacks .*\n +\[0.2.0\]: https://host/compare",
        ),
        ("compare/v0.2.0...HEAD", "compare/v0.1.0...HEAD", r"lacks .*\n +\[Unreleased\]: .*v0.2.0...HEAD"),
        (
            "releases/tag/v0.1.0",
            "releases/v0.1.0",
            r"lacks .*\n +\[0.1.0\]: https://host/releases/tag/v0.1.0",
        ),
    ],
)
def test_a_changelog_of_another_release_is_refused(old: str, new: str, complaint: str) -> None:
    assert old in GOOD
    assert re.search(f"^CHANGELOG.md: .*{complaint}", check(changelog=GOOD.replace(old, new)))


def test_files_of_another_version_are_refused() -> None:
    good = ["marketfetch-0.2.0.tar.gz", "marketfetch-0.2.0-py3-none-any.whl"]
    assert not [*faults_of_files(good, "0.2.0")]
    assert [*faults_of_files([*good, "marketfetch-0.1.0-py3-none-any.whl"], "0.2.0")] == [
        "files: marketfetch-0.1.0-py3-none-any.whl is not of version 0.2.0"
    ]
    for names in ([], good[:1], good[1:], [*good, "marketfetch-0.2.0-notes.md"]):
        assert "a source distribution, wheels, and nothing else" in "".join(faults_of_files(names, "0.2.0"))


def released(changelog: str, version: str, day: date) -> str:
    """Return the changelog as the commit of a release has it."""
    head = changelog.replace("## [Unreleased]", f"## [Unreleased]\n\n## [{version}] - {day}", 1)
    kept = re.sub(r"^\[[^\]]+\]: .*\n", "", head, flags=re.MULTILINE)
    return kept + "".join(f"[{name}]: {url}\n" for name, url in links(HOME, sections_of(kept)).items())


def test_what_is_here_could_be_released() -> None:
    changelog, version = (PROJECT / "CHANGELOG.md").read_text("utf-8"), METADATA["version"]
    assert (
        links(HOME, sections_of(changelog)).items()
        <= dict(re.findall(r"^\[([^\]]+)\]: (\S+)$", changelog, re.MULTILINE)).items()
    )
    if version not in {section.version for section in sections_of(changelog)}:
        changelog = released(changelog, version, TODAY)
    assert not [*faults(f"v{version}", Project(version, HOME), changelog, date.max)]


def workflow(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((PROJECT / ".github" / "workflows" / name).read_text("utf-8"))
    return loaded


def test_a_release_is_built_tried_published_tried_again_and_announced() -> None:
    jobs = workflow("release.yml")["jobs"]
    order = ["build", "try-built", "publish", "try-published", "announce"]
    assert list(jobs) == order
    assert [jobs[name].get("needs") for name in order] == [None, *order[:-1]]


def test_only_the_job_that_publishes_has_an_identity_and_only_the_last_one_can_write() -> None:
    release = workflow("release.yml")
    assert release["permissions"] == {}
    can_write = {
        name: sorted(right for right, how in job["permissions"].items() if how == "write")
        for name, job in release["jobs"].items()
    }
    assert {name: rights for name, rights in can_write.items() if rights} == {
        "publish": ["attestations", "id-token"],
        "announce": ["contents"],
    }
    assert release["jobs"]["publish"]["environment"] == "pypi"
    assert "secrets." not in (PROJECT / ".github" / "workflows" / "release.yml").read_text("utf-8")


@pytest.mark.parametrize("name", ["ci.yml", "release.yml"])
def test_actions_are_pinned_by_hash_and_name_their_version(name: str) -> None:
    text = (PROJECT / ".github" / "workflows" / name).read_text("utf-8")
    used = re.findall(r"uses: (.*)", text)
    assert len(used) > 4
    assert not [each for each in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each)]


def test_changes_are_tested_on_three_systems_with_every_python_that_is_promised() -> None:
    jobs = workflow("ci.yml")["jobs"]
    promised = re.findall(r"Python :: (3\.\d+)", "\n".join(METADATA["classifiers"]))
    assert len(promised) > 3
    assert jobs["check"]["strategy"]["matrix"]["python"] == promised
    assert jobs["elsewhere"]["strategy"]["matrix"]["python"] == promised
    systems = {jobs["check"]["runs-on"], *jobs["elsewhere"]["strategy"]["matrix"]["system"]}
    assert {system.partition("-")[0] for system in systems} == {"ubuntu", "macos", "windows"}


def test_the_command_names_what_is_wrong() -> None:
    result = subprocess.run(
        [sys.executable, PROJECT / "tools" / "release_check.py", "v0.0.0"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.startswith("tag: v0.0.0 is not v")
    assert not result.stdout


def test_the_image_of_the_documents_installs_this_minor_version() -> None:
    minor = METADATA["version"].rpartition(".")[0]
    assert f"~={minor}.0" in (PROJECT / "examples" / "deploy" / "Dockerfile").read_text("utf-8")
    assert f"`marketfetch~={minor}.0`" in (PROJECT / "docs" / "upgrading.md").read_text("utf-8")


def test_the_citation_agrees_with_the_package() -> None:
    citation = yaml.safe_load((PROJECT / "CITATION.cff").read_text("utf-8"))
    assert (citation["title"], citation["license"]) == (METADATA["name"], METADATA["license"])
    assert (citation["url"], citation["repository-code"]) == (METADATA["urls"]["Homepage"], HOME)
    assert citation["authors"] == METADATA["authors"]
