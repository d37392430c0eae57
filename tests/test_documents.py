"""The Python in README and docs is run, and every name of marketfetch in them exists and is public."""

from __future__ import annotations

import re
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

from marketfetch.listeners.metrics import METRICS
from tests.support.loopback import exchanges_on_loopback

PROJECT = Path(__file__).parents[1]
DOCUMENTS = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md")])
EXAMPLES = sorted(PROJECT.glob("examples/**/*.py"))
WITH_CODE = [path for path in DOCUMENTS if "python" in path.read_text("utf-8")]
# The changelog also has old names.
PRESENT = [path for path in (*DOCUMENTS, *EXAMPLES) if path.name != "CHANGELOG.md"]

DOTTED = re.compile(r"\b(?:mf|marketfetch)\.(?P<name>[A-Za-z_][\w.]*\w)")
IMPORT = re.compile(
    r"^ *(?:from marketfetch\.(?P<source>[\w.]+) import|import marketfetch\.(?P<whole>[\w.]+))", re.MULTILINE
)
MODULE = re.compile(r"`(?:src/marketfetch/)?(?P<path>[a-z_]+(?:/\w+)+\.(?:py|c))\b")
PUBLIC = {
    *(
        "adapter",
        "dask",
        "errors",
        "events",
        "listeners",
        "plans",
        "protocols",
        "reports",
        "sinks",
        "testing",
    ),
    "distributed",
}
# Entry points, tables and metrics are named like attributes.
METRIC_NAMES = {metric.name for metric in METRICS}
ELSEWHERE = {"boards", "coverage", "exchanges", "fish", "readthedocs.io", "series", "toml", *METRIC_NAMES}


@pytest.fixture(autouse=True)
def unblocked_loop() -> None:
    """Readers' code loads modules where it first uses them, and that may be inside its event loop."""


# One test per document, not per block: blocks build on those before them, and tests run in random order.
@pytest.mark.parametrize("path", WITH_CODE, ids=lambda path: str(path.relative_to(PROJECT)))
def test_code_of_document_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for example in ("tidebit", "lunaris"):
        monkeypatch.syspath_prepend(PROJECT / "examples" / example)  # "your adapter"
    document = Sybil(parsers=[PythonCodeBlockParser(), SkipParser()]).parse(path)
    with exchanges_on_loopback(monkeypatch):
        for block in document.examples():
            block.evaluate()


def exists(name: str) -> bool:
    """Tell whether a dotted name below `marketfetch` is an attribute or a module."""
    found, path = import_module("marketfetch"), "marketfetch"
    for part in name.split("."):
        path = f"{path}.{part}"
        try:
            found = getattr(found, part) if hasattr(found, part) else import_module(path)
        except ImportError:
            return False
    return True


def test_names_in_documents_exist() -> None:
    unknown: dict[str, set[str]] = {}
    roots = (PROJECT, PROJECT / "src" / "marketfetch")
    for path in PRESENT:
        text = path.read_text("utf-8")
        # An adapter writes `import marketfetch.adapter as mf`.
        below = "adapter." if "import marketfetch.adapter as mf" in text else ""
        names = {found["name"] for found in DOTTED.finditer(text)} - ELSEWHERE
        modules = {found["path"] for found in MODULE.finditer(text)}
        unknown[str(path)] = {name for name in names if not exists(name) and not exists(below + name)}
        unknown[str(path)] |= {each for each in modules if not any((root / each).is_file() for root in roots)}
    assert not {path: names for path, names in unknown.items() if names}


def test_documents_import_public_modules() -> None:
    hidden: dict[str, set[str]] = {}
    for path in PRESENT:
        sources = {found["source"] or found["whole"] for found in IMPORT.finditer(path.read_text("utf-8"))}
        hidden[str(path)] = {source for source in sources if source.partition(".")[0] not in PUBLIC}
    assert not {path: sources for path, sources in hidden.items() if sources}


def test_layers_of_the_architecture_are_those_that_are_checked() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))
    contracts = {each["id"]: each for each in project["tool"]["importlinter"]["contracts"]}
    text = (PROJECT / "docs/architecture.md").read_text("utf-8").partition("## The layers")[2]
    rows = re.findall(r"^\| (`[^|]+) \|", text.partition("Inside `sinks`")[0], re.MULTILINE)
    shown = [{*re.findall(r"`(\w+)`", row)} for row in rows]
    assert shown == [{*re.findall(r"\w+", layer)} for layer in contracts["layers"]["layers"]]
