"""Build the files of a release twice, check them, and run them: `python -m tools.dist FOLDER`.

The sdist is built from the work tree, the wheels from the sdist. Both times the bytes must be the same,
though the folders differ. What this machine cannot run is said.
"""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

import lief
from packaging.tags import sys_tags
from packaging.utils import parse_wheel_filename

from tools.check_wheel import ROWS, complaints
from tools.compiled_answers import RUNNERS, answers, differences
from tools.hatch_build import TARGETS

ROOT = Path(__file__).parents[1]
INPUTS = 200_000
"""How many inputs of the fuzzer each library reads."""
LARGEST_LIBRARY, LARGEST_WHEEL = 150_000, 1_000_000
_FUNCTIONS = {"marketfetch_count", "marketfetch_csv", "marketfetch_rows"}
_OLDEST = {"manylinux": (2, 17), "musllinux": (1, 2)}
_C_LIBRARY = ("libc.so.6", "libc.musl-", "/usr/lib/libSystem.", "KERNEL32.", "api-ms-win-crt-")


def call(*words: str | Path, cwd: Path = ROOT, **environment: str) -> str:
    """Run a program and return what it printed; if it fails, end with that."""
    done = subprocess.run(
        *(words,),
        cwd=cwd,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    check(done.returncode == 0, f"{' '.join(map(str, words))}\n{done.stdout}")
    return done.stdout


def check(holds: object, fault: str) -> None:
    """End with the fault unless something holds."""
    if not holds:
        raise SystemExit(f"make dist: {fault}")


def hatchling(target: str, folder: Path, *, source: Path = ROOT, **environment: str) -> None:
    """Build the sdist or a wheel into a folder, without an environment of its own."""
    words = (sys.executable, "-m", "hatchling", "build", "--directory", folder, "--target", target)
    call(*words, cwd=source, **environment)


def build(folder: Path) -> list[Path]:
    """Build the sdist into a new folder, and from it a wheel for each platform; return the files."""
    hatchling("sdist", folder)
    (sdist,) = folder.iterdir()
    with tempfile.TemporaryDirectory() as name:
        source = unpack(sdist, Path(name))
        for platform in TARGETS:
            # A new cache: the second time nothing is taken from the first.
            hatchling(
                "wheel", folder, source=source, MARKETFETCH_TARGET=platform, ZIG_LOCAL_CACHE_DIR=f"{name}/zig"
            )
    return sorted(folder.iterdir())


def unpack(sdist: Path, folder: Path) -> Path:
    """Unpack an sdist; return the folder in it."""
    with tarfile.open(sdist) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # not before Python 3.11.4
        archive.extractall(folder)  # noqa: S202  # our own
    return folder / sdist.name.removesuffix(".tar.gz")


def check_library(place: str, content: bytes) -> str:
    """Check a compiled decoder; return its size and what it depends on."""
    library = lief.parse(content)
    check(library is not None, f"{place}: neither ELF, PE nor Mach-O")
    names = [each.name for each in library.exported_functions]
    exported = {
        name.removeprefix("_") for name in names if not name.startswith("__")
    }  # those of Mach-O itself
    needed = [str(getattr(each, "name", each)) for each in library.libraries]
    needed = [name for name in needed if name != "_rows.so"]  # Mach-O begins with the library's own name
    check(exported == _FUNCTIONS, f"{place} exports {', '.join(sorted(exported))}")
    check(all(name.startswith(_C_LIBRARY) for name in needed), f"{place} depends on {', '.join(needed)}")
    if isinstance(library, lief.MachO.Binary) and "arm64" in place:
        check(library.has_code_signature, f"{place} is not signed, and macOS on arm64 loads nothing unsigned")
    check(len(content) <= LARGEST_LIBRARY, f"{place} has {len(content):,} bytes")
    for path in (str(ROOT), sys.prefix, tempfile.gettempdir()):
        check(path.encode() not in content, f"{place} contains the path {path}")
    return f"{len(content):,} bytes, needs {', '.join(needed)}"


def check_file(file: Path) -> None:
    """Check one file of the release, and print what it is."""
    print(f"{file.name}: {file.stat().st_size:,} bytes")
    check(file.stat().st_size <= LARGEST_WHEEL or file.suffix != ".whl", f"{file.name} is too large")
    if file.suffix != ".whl":
        return
    faults = complaints(file)
    check(not faults, f"{file.name}: {'; '.join(faults)}")
    print(f"    library of {check_library(file.name, zipfile.ZipFile(file).read(f'{ROWS}.so'))}")
    if "linux" in file.name:
        # The libraries of this machine are not those of the wheel's platform: none is looked at.
        said = call(sys.executable, "-m", "auditwheel", "show", "--ldpaths", "/nowhere", file)
        libc, *version = re.findall(r'platform\s+tag:\s+"(\w+)_(\d+)_(\d+)_', said)[0]
        check(tuple(map(int, version)) <= _OLDEST[libc], f"{file.name}: another tag fits\n{said}")
        print(f"    auditwheel show: {libc}_{'_'.join(version)}")


def without_compiler(sdist: Path, folder: Path) -> Path:
    """Build a wheel from the sdist where no compiler is; it is for every platform."""
    hatchling("wheel", folder, source=unpack(sdist, folder / "source"), PATH=str(folder), CC="no-compiler")
    (wheel,) = folder.glob("*.whl")
    check(wheel.stem.endswith("-py3-none-any"), f"without a compiler {wheel.name} was made")
    check(not complaints(wheel), f"{wheel.name}: {'; '.join(complaints(wheel))}")
    print(f"without a compiler the sdist gives {wheel.name}")
    return wheel


def install(wheels: list[Path], pure: Path, folder: Path) -> None:
    """Install the wheel of this machine into a clean environment, run the demo, then the wheel without C."""
    tags = {*sys_tags()}
    fitting = [wheel for wheel in wheels if tags & parse_wheel_filename(wheel.name)[3]]
    if not fitting:
        print("not installed: no wheel is for this machine")
        return
    call(sys.executable, "-m", "venv", folder)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    for wheel, options, decoder in (
        (fitting[0], (), "C"),
        (pure, ("--force-reinstall", "--no-deps"), "Python"),
    ):
        call(*pip, *options, f"{wheel}[duckdb,progress,testing]")
        said = call(python, "-I", "-m", "marketfetch", "--version", cwd=folder)
        check(said.endswith(f"\ndecoder: {decoder}\n"), f"{wheel.name} says {said}")
        call(python, "-I", "-m", "marketfetch", "demo", "--days", "3", cwd=folder)
        print(f"installed {wheel.name}: decoder {decoder}, and the demo runs")


def compare(wheels: list[Path], folder: Path) -> None:
    """Run each library over the inputs of the fuzzer; all must answer as the first one, that of Linux."""
    records: list[bytes] = []
    for platform in TARGETS:
        runner = RUNNERS.get(platform)
        if runner is None:
            print(f"{platform}: not run; such programs run on their own system alone")
        elif not runner.is_here:
            print(f"{platform}: not run; install {runner.packages} (of Debian for x86-64)")
        else:
            (wheel,) = (each for each in wheels if platform in each.name)
            library = folder / f"{platform}.so"
            library.write_bytes(zipfile.ZipFile(wheel).read(f"{ROWS}.so"))
            records.append(answers(platform, library, inputs=INPUTS, folder=folder))
            found = differences(records[0], records[-1])
            print(f"{platform}: {INPUTS:,} inputs, {len(records[-1]) // 8:,} calls, {found} differences")
            check(found == 0, f"the library for {platform} answers otherwise")


def main(folder: Path) -> None:
    """Build, check and run everything."""
    began = time.monotonic()
    lief.logging.disable()  # it complains of what Mach-O files of Zig lack
    os.environ.setdefault("SOURCE_DATE_EPOCH", call("git", "log", "-1", "--format=%ct").strip())
    os.environ.setdefault("ZIG_GLOBAL_CACHE_DIR", str(Path(sys.prefix, "cache", "zig")))
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as name:
        temporary = Path(name)
        files, again = build(folder.absolute()), build(temporary / "again")
        unequal = [
            one.name
            for one, two in zip(files, again, strict=True)
            if not filecmp.cmp(one, two, shallow=False)
        ]
        check(not unequal, f"built twice, these differ: {', '.join(unequal)}")
        for file in files:
            check_file(file)
        print(f"built twice: {len(files)} files with equal bytes")
        call(sys.executable, "-m", "twine", "check", "--strict", *files)
        print("twine check --strict: passed")
        *wheels, sdist = sorted(files, key=lambda file: file.suffix != ".whl")
        pure = without_compiler(sdist, temporary / "pure")
        install(wheels, pure, temporary / "environment")
        compare(wheels, temporary)
    print(f"{len(files)} files in {folder}, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
