"""Check that a wheel contains the typing marker, the licence, every module of src, and nothing else."""

import shutil
import sys
import zipfile
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"


def complaints(wheel: Path) -> list[str]:
    """Return the faults of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if ".dist-info/" not in name}
        licensed = any(name.endswith("/licenses/LICENSE") for name in archive.namelist())
    # Modules, and the stubs from which `lazy_loader` reads the public names.
    wanted = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py*") if path.suffix != ".pyc"}
    wanted |= {"marketfetch/py.typed"}
    # The compiled library exists only if there was a compiler; see tools/hatch_build.py.
    wanted |= {"marketfetch/decoding/_rows.c"} | shipped & {"marketfetch/decoding/_rows.so"}
    found = [f"missing: {name}" for name in sorted(wanted - shipped)]
    if shutil.which("cc") and "marketfetch/decoding/_rows.so" not in shipped:
        found.append("missing: the compiled decoder, though there is a compiler")
    found += [f"not a part of the package: {name}" for name in sorted(shipped - wanted)]
    return found if licensed else [*found, "missing: LICENSE"]


if __name__ == "__main__":
    found = complaints(Path(sys.argv[1]))
    print("\n".join(found) or f"{Path(sys.argv[1]).name}: complete")
    sys.exit(bool(found))
