"""The package as a whole: its names, the sizes of its parts, its import graph and the cost of its import."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from graphlib import TopologicalSorter
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path
from types import ModuleType

import pytest

import marketfetch
from marketfetch.values.datasets import datasets

PROJECT = Path(__file__).parents[1]
PACKAGE = Path(marketfetch.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
PUBLIC = [source for source in SOURCES if source.name == "__init__.py" or not source.name.startswith("_")]
LINES, MODULES = 400, 14
SAME_NAME_ON_PURPOSE = {
    # Endpoints, one for each exchange, named after their dataset:
    *("Ohlcv", "PremiumIndex", "MarkPrice", "IndexPrice"),
    *("FundingRate", "OpenInterest", "LongShortRatio", "TakerVolume"),
}
HEAVY = {
    *("curl_cffi", "duckdb", "opentelemetry", "pandas", "polars", "prometheus_client", "psycopg"),
    *("pyarrow", "rich"),
}


def _name(source: Path) -> str:
    parts = source.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _defined(tree: ast.Module) -> set[str]:
    """Return the public names that a module defines, assigns, or imports as `X as X`."""
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


def _run_time_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes below a node but the blocks of `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                yield from (inner for branch in child.orelse for inner in (branch, *_run_time_nodes(branch)))
            case _:
                yield child
                yield from _run_time_nodes(child)


def _imported(code: str, modules: Collection[str]) -> set[str]:
    """Return those of the modules that code imports at run time, inside functions too."""
    found: set[str] = set()
    for node in _run_time_nodes(ast.parse(code)):
        match node:
            case ast.Import(names=names):
                found |= {name.name for name in names}
            case ast.ImportFrom(module=str(module), names=names):
                parts = {f"{module}.{name.name}" for name in names}
                found |= parts if parts <= {*modules} else {module, *parts}
    return found & {*modules}


def _public_classes() -> dict[str, list[str]]:
    """Return the modules that define each public class, by the name of the class; without `testing`."""
    found = defaultdict[str, list[str]](list)
    for source in PUBLIC:
        if PACKAGE / "testing" not in source.parents:
            tree = ast.parse(source.read_text("utf-8"))
            for name in sorted({node.name for node in tree.body if isinstance(node, ast.ClassDef)}):
                if not name.startswith("_"):
                    found[name].append(_name(source))
    return found


def test_every_module_is_short_enough_for_one_idea() -> None:
    lengths = {_name(source): len(source.read_text("utf-8").splitlines()) for source in SOURCES}
    assert not {name: length for name, length in lengths.items() if length > LINES}


def test_package_has_few_enough_modules_to_overlook() -> None:
    sizes = Counter(source.parent for source in SOURCES if source.name != "__init__.py")
    assert not {str(folder.relative_to(PACKAGE)): size for folder, size in sizes.items() if size > MODULES}


def test_no_module_imports_itself_by_way_of_others() -> None:
    modules = {_name(source): source.read_text("utf-8") for source in SOURCES}
    graph = {name: _imported(code, modules) for name, code in modules.items()}
    assert sum(map(len, graph.values())) > len(modules), "hardly any import was found"
    TopologicalSorter(graph).prepare()  # CycleError names the modules of a circle


def test_import_graph_has_the_imports_at_run_time_alone() -> None:
    code = """
from a import b, C
from d import e
if TYPE_CHECKING:
    import f
else:
    import g
def work():
    import h
"""
    assert _imported(code, {"a", "a.b", "d", "d.e", "f", "g", "h"}) == {"a", "a.b", "d.e", "g", "h"}


def test_no_two_public_classes_have_the_same_name() -> None:
    twice = {name: modules for name, modules in _public_classes().items() if len(modules) > 1}
    assert not twice.keys() - SAME_NAME_ON_PURPOSE
    assert not SAME_NAME_ON_PURPOSE - twice.keys(), "no longer an exception"


def test_every_public_class_and_dataset_is_in_the_glossary() -> None:
    words = set(re.findall(r"\w+", (PROJECT / "docs" / "glossary.md").read_text("utf-8")))
    missing = sorted({*_public_classes(), *datasets()} - words)
    assert not missing, f"docs/glossary.md does not explain {', '.join(missing)}"


# That __all__ is sorted is checked by the linter (RUF022).
def test_all_is_what_each_module_defines_and_offers() -> None:
    faults: list[str] = []
    for source in PUBLIC:
        module, defined = (
            importlib.import_module(_name(source)),
            _defined(ast.parse(source.read_text("utf-8"))),
        )
        listed: list[str] = getattr(module, "__all__", [])
        faults += [f"{_name(source)}.{name} is public, but not in __all__" for name in defined - set(listed)]
        faults += [
            f"{_name(source)}.{name} is in __all__, but not there"
            for name in listed
            if not hasattr(module, name)
        ]
        faults += [
            f"{_name(source)}.{name} is in __all__ twice"
            for name, times in Counter(listed).items()
            if times > 1
        ]
    assert not faults


def test_root_has_few_names_and_all_can_be_loaded() -> None:
    names = [name for name in dir(marketfetch) if not isinstance(getattr(marketfetch, name), ModuleType)]
    assert len(names) <= 47
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
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(result.stdout.split())
