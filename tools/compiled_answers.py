"""Run the compiled decoder of a wheel over the inputs of the fuzzer, and keep its answers.

The harness of `make chaos` makes the inputs. It is compiled for the platform of the wheel, loads the library
as any program there does, and runs here: under Wine for Windows, under QEMU for another processor.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import attrs

from chaos.fuzz.sanitized import INPUTS
from tools.hatch_build import TARGETS

__all__ = ["RUNNERS", "Runner", "answers", "differences"]

_FUZZ = Path(__file__).parents[1] / "chaos" / "fuzz"
_WORD = 8
"""Bytes of a record for each call of a function."""


@attrs.frozen
class Runner:
    """What runs the programs of a platform on x86-64 Linux: Debian's packages, a file of them, a command."""

    packages: str
    file: str
    command: tuple[str, ...] = ()

    @property
    def is_here(self) -> bool:
        """Whether this machine can run such programs."""
        return Path(self.file).exists() and all(shutil.which(program) for program in self.command[:1])


_WINE = "/usr/lib/wine/wine64"
_QEMU = ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu")
RUNNERS = {
    "manylinux2014_x86_64": Runner("libc6", "/lib64/ld-linux-x86-64.so.2"),
    "manylinux2014_aarch64": Runner("qemu-user libc6-arm64-cross", f"{_QEMU[-1]}/lib/libc.so.6", _QEMU),
    "musllinux_1_2_x86_64": Runner("musl", "/lib/ld-musl-x86_64.so.1"),
    # After: dpkg --add-architecture arm64
    "musllinux_1_2_aarch64": Runner("qemu-user musl:arm64", "/lib/ld-musl-aarch64.so.1", _QEMU[:1]),
    "win_amd64": Runner("wine64", _WINE, (_WINE,)),
}
"""The programs of other platforms run on their own systems alone."""


def answers(platform: str, library: Path, *, inputs: int, folder: Path) -> bytes:
    """Return the record of so many inputs, with a program that is compiled in the folder.

    Raises CalledProcessError if it cannot be compiled or fails.
    """
    program, record = folder / f"{platform}.exe", folder / f"{platform}.answers"
    linked = ["-ldl"] if "linux" in platform else []
    linked += ["-dynamic"] if "musl" in platform else []
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", TARGETS[platform], "-O3", "-s", *linked]
    subprocess.run([*zig, _FUZZ / "harness.c", _FUZZ / "loaded.c", "-o", program], check=True)
    files = sorted(file for pattern in INPUTS for file in _FUZZ.glob(f"corpus/{pattern}"))
    windows = Path(sys.prefix, "cache", "wine")  # made once: that takes a minute
    windows.mkdir(parents=True, exist_ok=True)
    told = {"MARKETFETCH_LIBRARY": str(library), "MARKETFETCH_ANSWERS": str(record)}
    told |= {"WINEPREFIX": str(windows), "WINEDEBUG": "-all", "WINEDLLOVERRIDES": "mscoree,mshtml="}
    command: list[str | Path] = [*RUNNERS[platform].command, program, str(inputs), "1", *files]
    subprocess.run(command, env=os.environ | told, stdout=subprocess.DEVNULL, check=True)
    return record.read_bytes()


def differences(one: bytes, other: bytes) -> int:
    """Count the calls that were answered otherwise, or in one record alone.

    >>> differences(b"12345678abcdefgh", b"12345678abcdefgx12345678")
    2
    """
    calls = range(0, max(len(one), len(other)), _WORD)
    return sum(one[at : at + _WORD] != other[at : at + _WORD] for at in calls)
