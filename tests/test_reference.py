"""The reference on the site: every public name once, every command, every built-in exchange."""

from __future__ import annotations

import importlib
import inspect
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path

import griffe
import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

import marketfetch as mf
from marketfetch.api.plugins import exchange_from
from marketfetch.cli.commands.registry import COMMANDS
from marketfetch.cli.parsing.command_line import parse, parsers_of
from marketfetch.testing import GeneratedMarket, SimulatedExchange
from tests.support.loopback import exchanges_on_loopback
from tools.docs import command_reference, exchange_pages
from tools.docs.griffe_extension import PUBLIC_MODULES, PublicApi, import_paths

PROJECT = Path(__file__).parents[1]
PAGES = sorted((PROJECT / "docs" / "reference").glob("*.md"))
DIRECTIVE = re.compile(r"^::: (?P<path>[\w.]+)$", re.MULTILINE)
IMPORTED = re.compile(r"(?:from|import) (?P<module>marketfetch[\w.]*)")


def shown() -> list[str]:
    """Return the path of every name that a page of the reference shows."""
    return [found["path"] for page in PAGES for found in DIRECTIVE.finditer(page.read_text("utf-8"))]


def docstrings() -> Iterator[tuple[str, str]]:
    """Yield every docstring that the reference shows, with its place."""
    for path in shown():
        module, _, name = path.rpartition(".")
        value = getattr(importlib.import_module(module), name)
        if inspect.isclass(value) or inspect.isfunction(value):
            yield path, value.__doc__ or ""
        members = vars(value).items() if inspect.isclass(value) else ()
        for each, member in members:
            if not each.startswith("_") and member.__doc__:
                yield f"{path}.{each}", member.__doc__


def types_of(value: griffe.Object | griffe.Alias) -> Iterator[str]:
    """Yield every type that the reference shows of a name and its members."""
    if isinstance(value, griffe.Function):
        yield from (f"{value.path}: {each.annotation}" for each in value.parameters)
        yield f"{value.path}: {value.returns}"
    elif isinstance(value, griffe.Attribute):
        yield f"{value.path}: {value.annotation}"
    elif isinstance(value, griffe.Class):
        for name, member in value.members.items():
            if name == "__init__" or not name.startswith("_"):
                yield from types_of(member)


def test_every_public_name_is_on_one_page() -> None:
    by_path = {path: home for home, paths in import_paths().items() for path in paths}
    assert len(by_path) > 200
    assert not [path for path in shown() if path not in by_path], "not public"
    times = Counter(by_path[path] for path in shown())
    assert not [paths[0] for home, paths in import_paths().items() if not times[home]], "on no page"
    assert not [home for home, count in times.items() if count > 1], "on several pages"


def test_a_name_of_the_root_is_shown_as_such() -> None:
    at_root = {path.removeprefix("marketfetch.") for path in shown() if path.count(".") == 1}
    assert {name for name in dir(mf) if not inspect.ismodule(getattr(mf, name))} == at_root


def test_private_aliases_are_written_out_wherever_they_are() -> None:
    code = """
_Names = list[str]
_Kind = TypeVar("_Kind", bound=enum.StrEnum)
_T = TypeVar("_T")
def f(a: _Names, b: int | _Names, c: dict[str, _Names]) -> _Names: ...
class Log:
    last: _Kind | None = None
    @property
    def kinds(self) -> list[_Kind]: ...
    def change(self, edit: Callable[[], tuple[str, _T]]) -> _T: ...
"""
    extensions = griffe.load_extensions(PublicApi())
    module = griffe.visit("marketfetch.values", Path("values.py"), code, extensions=extensions)
    function = module["f"]
    assert [str(each.annotation) for each in function.parameters] == [
        "list[str]",
        "int | list[str]",
        "dict[str, list[str]]",
    ]
    assert str(function.returns) == "list[str]"
    assert str(module["Log.last"].annotation) == "enum.StrEnum | None"
    assert str(module["Log.kinds"].annotation) == "list[enum.StrEnum]"
    assert str(module["Log.change"].parameters["edit"].annotation) == "Callable[[], tuple[str, T]]"
    assert str(module["Log.change"].returns) == "T"


def test_no_signature_has_a_private_name() -> None:
    package = griffe.load("marketfetch", extensions=griffe.load_extensions(PublicApi()))
    homes = [home for home in import_paths() if home.startswith("marketfetch.")]
    members = [package[home.removeprefix("marketfetch.")] for home in homes]
    assert len(members) > 200
    private = re.compile(r"(?<![\w.])_[A-Za-z]")
    assert not [text for member in members for text in types_of(member) if private.search(text)]


def test_examples_of_the_reference_import_public_modules() -> None:
    found = {(place, each["module"]) for place, text in docstrings() for each in IMPORTED.finditer(text)}
    assert len(found) > 10
    assert not {(place, module) for place, module in found if module not in PUBLIC_MODULES}


def test_every_command_and_option_is_in_the_reference() -> None:
    text = command_reference.reference()
    parsers = parsers_of(COMMANDS)
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert sections.keys() == parsers.keys()
    for name, parser in parsers.items():
        spelt = set(re.findall(r"`(--?[a-z][\w-]*)`", sections[name]))
        assert parser.actions_by_option.keys() - {"-h", "--help"} <= spelt, name


@pytest.mark.parametrize(
    "example", [example for command in COMMANDS for example in command.examples if "--job" not in example]
)
def test_every_example_of_the_help_is_a_right_call(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(example.replace("\\\n", ""))
    assert parse(words, {command.name: command for command in COMMANDS}).command == words[0]


@pytest.mark.parametrize("name", exchange_pages.built_in())
def test_page_of_an_exchange_has_what_its_adapter_says(name: str) -> None:
    exchange, text = exchange_from(name), exchange_pages.page(exchange_from(name))
    for dataset in mf.datasets(name):
        endpoint = exchange.endpoint(dataset)
        assert all(f"`{column}`" in text for column in endpoint.dataset_type.names)
        assert all(f"`{interval}`" in text for interval in mf.intervals(name, dataset))
        archive = exchange.archive(endpoint.dataset_type)
        assert archive is None or archive.files_url in text
    assert all(cleandoc(vars(kind).get("quirks", "")) in text for kind in type(exchange).__mro__)
    assert len(type(exchange).quirks) > 100


@pytest.mark.parametrize("name", exchange_pages.built_in())
def test_examples_of_symbols_are_those_of_the_listing(name: str) -> None:
    examples = exchange_from(name).symbol_examples
    # The simulated market has its own contracts; OKX's names are made from those of Binance.
    market = GeneratedMarket(["BTCUSDT", "ETHBTC", "BTCUSDT_260925", "BTCUSD_PERP", "BTCUSD_260626"])
    with SimulatedExchange(market) as simulated:
        listed = mf.instruments(name, active=None, base_url=simulated.base_url)
    unified = {each.symbol: each.unified for each in listed}
    assert examples
    for spelling, symbol in examples.items():
        assert unified[symbol] == re.sub(r"-\d{6}$", "", spelling)  # a query adds the last day


@pytest.mark.parametrize("name", exchange_pages.built_in())
def test_code_on_the_page_of_an_exchange_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"{name}.md"
    path.write_text(exchange_pages.page(exchange_from(name)), "utf-8")
    document = Sybil(parsers=[PythonCodeBlockParser()]).parse(path)
    with exchanges_on_loopback(monkeypatch):
        (example,) = document.examples()
        example.evaluate()
    assert len(document.namespace["table"]) > 100


def test_page_of_somebody_elses_exchange_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(PROJECT / "examples" / "tidebit")
    text = exchange_pages.page(importlib.import_module("tidebit").Tidebit())
    assert text.startswith("# tidebit\n")
    assert "## Limits" in text


def test_page_has_both_limits_of_an_exchange_with_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(PROJECT / "examples" / "lunaris")
    text = exchange_pages.page(importlib.import_module("lunaris").Lunaris())
    assert "| requests | 200 | in any minute | none |\n| requests | 20 | in any second | none |" in text


@pytest.mark.parametrize("path", ["README.md", "docs/index.md"])
def test_front_page_has_the_table_of_exchanges(path: str) -> None:
    text = (PROJECT / path).read_text("utf-8")
    is_filled_in = exchange_pages.MARK in text and path.startswith("docs/")
    assert is_filled_in or all(line in text for line in exchange_pages.table_of_exchanges().splitlines())
