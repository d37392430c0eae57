"""What holds for the package as a whole: its names, its size, its entry points, the price of importing it."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path
from types import ModuleType

import pytest

import marketfetch

PACKAGE = Path(marketfetch.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
PUBLIC = [source for source in SOURCES if source.name == "__init__.py" or not source.name.startswith("_")]
LINES = 400
HEAVY = {"curl_cffi", "duckdb", "pandas", "polars", "psycopg", "pyarrow", "rich"}


def _name(source: Path) -> str:
    parts = source.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _defined(tree: ast.Module) -> set[str]:
    """Names that a module gives a meaning: what it defines, assigns, or imports as `X as X`."""
    names: set[str] = set()
    for node in tree.body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.Assign(targets=targets):
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case ast.ImportFrom(names=aliases):
                names |= {alias.name for alias in aliases if alias.name == alias.asname}
            case _:
                pass
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize("source", SOURCES, ids=_name)
def test_module_is_short_enough_for_one_idea(source: Path) -> None:
    assert len(source.read_text().splitlines()) <= LINES


# That __all__ is sorted is checked by the linter (RUF022).
@pytest.mark.parametrize("source", PUBLIC, ids=_name)
def test_all_is_what_the_module_defines_and_offers(source: Path) -> None:
    module = importlib.import_module(_name(source))
    listed = getattr(module, "__all__", [])
    assert len(listed) == len(set(listed))
    assert not _defined(ast.parse(source.read_text())) - set(listed), "public, but not in __all__"
    assert not [name for name in listed if not hasattr(module, name)], "in __all__, but not there"


def test_root_has_about_thirty_names_and_all_can_be_loaded() -> None:
    names = [name for name in dir(marketfetch) if not isinstance(getattr(marketfetch, name), ModuleType)]
    assert len(names) <= 36
    assert {"Fetcher", "ProxyPool", "Paginator", "Sink"} <= set(names)


def test_version_is_that_of_the_distribution() -> None:
    assert marketfetch.__version__ == version("marketfetch")


def test_package_is_marked_as_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()


@pytest.mark.parametrize(
    "entry",
    [each for kind in ("boards", "exchanges", "sinks") for each in entry_points(group=f"marketfetch.{kind}")],
    ids=lambda entry: f"{entry.group}:{entry.name}",
)
def test_plug_in_can_be_loaded(entry: EntryPoint) -> None:
    assert isinstance(entry.load(), type)


def test_command_can_be_loaded() -> None:
    (command,) = entry_points(group="console_scripts", name="marketfetch")
    assert callable(command.load())


def test_import_is_cheap() -> None:
    code = "import sys; import marketfetch; print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(said.stdout.split())
