"""Compile the decoder of rows when the package is built or installed, if the machine has a compiler."""

from __future__ import annotations

import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_SOURCE = Path("src/marketfetch/decoding/_rows.c")


class RowsHook(BuildHookInterface[Any]):
    """Puts `_rows.so` beside `_rows.c`: a plain library, the same for every Python on a system."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the library; a failure is a warning, since the package works without it."""
        source = Path(self.root, _SOURCE)
        target = source.with_suffix(".so")
        target.unlink(missing_ok=True)
        problem = _compiled(source, target)
        if problem is not None:
            self.app.display_warning(f"{_SOURCE} is not compiled, decoding will be slower: {problem}")
        elif version != "editable":
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data.update(pure_python=False, tag=f"py3-none-{platform}")


def _compiled(source: Path, target: Path) -> str | None:
    """Compile and link; return the error, or None."""
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
        with tempfile.TemporaryDirectory() as folder:
            objects = compiler.compile([str(source)], output_dir=folder, extra_preargs=optimise)
            compiler.link_shared_object(objects, str(target))
    except (CCompilerError, DistutilsError, OSError) as error:
        return str(error)
    return None
