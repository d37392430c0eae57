"""What a wheel contains, with a compiler and without; `make dist` builds and runs those of a release."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tools.check_wheel import ROWS, complaints

PROJECT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a wheel is built from: the build writes the library beside its source."""
    folder = tmp_path_factory.mktemp("tree")
    for name in ("src", "tools"):
        shutil.copytree(
            PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "_rows.s*")
        )
    for name in ("LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(PROJECT / name, folder)
    return folder


def build(tree: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Build a wheel in the folder `dist` of the tree."""
    shutil.rmtree(tree / "dist", ignore_errors=True)
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    return subprocess.run(
        command, cwd=tree, env=os.environ | environment, capture_output=True, text=True, check=False
    )


def built(tree: Path, **environment: str) -> Path:
    done = build(tree, **environment)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tree / "dist").iterdir()
    return wheel


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that this machine builds for itself."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    return Path(shutil.copy(built(tree), tmp_path_factory.mktemp("wheel")))


def test_a_wheel_has_the_compiled_decoder_and_names_the_platform(wheel: Path) -> None:
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    assert wheel.stem.endswith(f"-py3-none-{platform}")
    assert complaints(wheel) == []
    assert f"{ROWS}.so" in zipfile.ZipFile(wheel).namelist()


def test_without_a_compiler_the_wheel_is_for_every_platform(tree: Path) -> None:
    without = {"PATH": str(tree / "no-programs"), "CC": "no-compiler"}
    wheel = built(tree, **without)
    assert wheel.stem.endswith("-py3-none-any")
    assert complaints(wheel) == []
    assert f"{ROWS}.so" not in zipfile.ZipFile(wheel).namelist()
    result = build(tree, **without)
    assert "_rows.c is not compiled, decoding will be slower" in result.stdout + result.stderr


def test_an_unknown_platform_is_refused(tree: Path) -> None:
    done = build(tree, MARKETFETCH_TARGET="amiga")
    assert done.returncode != 0
    assert "MARKETFETCH_TARGET: 'amiga' is unknown; write one of manylinux2014_x86_64, " in done.stderr


@pytest.mark.parametrize(
    ("changed", "content", "complaint"),
    [
        (f"{ROWS}.so", b"another", "the checksums are not those of the library and its source"),
        (f"{ROWS}.sha256", b"", "the checksums are not those of the library and its source"),
        (f"{ROWS}.sha256", None, f"missing: {ROWS}.sha256"),
        (f"{ROWS}.so", None, f"not a part of the package: {ROWS}.sha256"),
        ("marketfetch/py.typed", None, "missing: marketfetch/py.typed"),
        ("tests/test_x.py", b"", "not a part of the package: tests/test_x.py"),
        ("marketfetch-0.1.0.dist-info/licenses/LICENSE", None, "missing: LICENSE"),
    ],
)
def test_a_wrong_wheel_is_noticed(
    wheel: Path, tmp_path: Path, changed: str, content: bytes | None, complaint: str
) -> None:
    wrong = tmp_path / wheel.name
    with zipfile.ZipFile(wheel) as right, zipfile.ZipFile(wrong, "w") as archive:
        for name in right.namelist():
            if name != changed:
                archive.writestr(name, right.read(name))
        if content is not None:
            archive.writestr(changed, content)
    assert complaint in complaints(wrong)


def test_a_tag_that_contradicts_the_content_is_noticed(wheel: Path, tmp_path: Path) -> None:
    wrong = shutil.copy(wheel, tmp_path / "marketfetch-0.1.0-py3-none-any.whl")
    assert complaints(Path(wrong)) == ["a wheel with the compiled decoder has another tag"]
