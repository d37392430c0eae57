"""Check that a wheel contains the typing marker, the licence, every module of src, and nothing else.

If it contains the compiled decoder, the checksums must be those of the library and its source, and the tag
must name a platform; without the decoder the wheel is for every platform.
"""

from __future__ import annotations

import shutil
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"
ROWS = "marketfetch/decoding/_rows"


def complaints(wheel: Path) -> list[str]:
    """Return the faults of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if ".dist-info/" not in name}
        licensed = any(name.endswith("/licenses/LICENSE") for name in archive.namelist())
        rows = {
            f"_rows.{kind}": archive.read(f"{ROWS}.{kind}")
            for kind in ("c", "so")
            if f"{ROWS}.{kind}" in shipped
        }
        checksums = archive.read(f"{ROWS}.sha256").decode() if f"{ROWS}.sha256" in shipped else ""
    # Modules, and the stubs from which `lazy_loader` reads the public names.
    wanted = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py*") if path.suffix != ".pyc"}
    wanted |= {"marketfetch/py.typed", f"{ROWS}.c"}
    # The compiled library exists only if there was a compiler; see tools/hatch_build.py.
    compiled = f"{ROWS}.so" in shipped
    if compiled:
        wanted |= {f"{ROWS}.so", f"{ROWS}.sha256"}
    found = [f"missing: {name}" for name in sorted(wanted - shipped)]
    found += [f"not a part of the package: {name}" for name in sorted(shipped - wanted)]
    found += [] if licensed else ["missing: LICENSE"]
    if compiled and checksums != "".join(
        f"{sha256(rows[name]).hexdigest()}  {name}\n" for name in sorted(rows)
    ):
        found.append("the checksums are not those of the library and its source")
    if compiled == wheel.stem.endswith("-any"):
        found.append(f"a wheel {'with' if compiled else 'without'} the compiled decoder has another tag")
    return found


if __name__ == "__main__":
    found = complaints(Path(sys.argv[1]))
    if shutil.which("cc") and sys.argv[1].endswith("-any.whl"):
        found.append("missing: the compiled decoder, though there is a compiler")
    print("\n".join(found) or f"{Path(sys.argv[1]).name}: complete")
    sys.exit(bool(found))
