"""Forbidden in the whole library: running data as code, unpickling, and unverified TLS."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "marketfetch"
FILES = sorted(SOURCE.rglob("*.py"))

RUNS_DATA = {"eval", "exec", "compile", "__import__"}
READS_OBJECTS = {"pickle", "cPickle", "dill", "joblib", "marshal", "shelve", "yaml", "jsonpickle"}
WEAKENS_TLS = {
    "SSL_VERIFYPEER",
    "SSL_VERIFYHOST",
    "PROXY_SSL_VERIFYPEER",
    "PROXY_SSL_VERIFYHOST",
    "CERT_NONE",
}
WEAKENS_TLS |= {"_create_unverified_context", "check_hostname", "FOLLOWLOCATION"}


def _names(tree: ast.AST) -> Iterator[str]:
    """Yield the names of imported modules, called functions, attributes and named arguments."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (name.name.partition(".")[0] for name in names)
            case ast.ImportFrom(module=str(module)):
                yield module.partition(".")[0]
            case ast.Call(func=ast.Name(id=name)):
                yield name
            case ast.Attribute(attr=name):
                yield name
            case ast.keyword(arg=str(name), value=ast.Constant(value=bool(value))):
                yield f"{name}={value}"


def test_no_data_is_run_no_object_is_unpickled_and_no_certificate_goes_unchecked() -> None:
    forbidden = RUNS_DATA | READS_OBJECTS | WEAKENS_TLS | {"verify=False", "allow_pickle=True"}
    found: dict[str, set[str]] = {}
    for file in FILES:
        names = set(_names(ast.parse(file.read_text("utf-8"))))
        names -= {"compile"} if "re" in names else set()  # of regular expressions
        found[str(file.relative_to(SOURCE))] = names & forbidden
    assert len(found) > 100
    assert not {file: names for file, names in found.items() if names}


def test_what_is_forbidden_would_be_found() -> None:
    code = "import pickle.x\nfrom yaml import load\neval('1')\nx.SSL_VERIFYPEER\nget(verify=False)"
    assert {"pickle", "yaml", "eval", "SSL_VERIFYPEER", "verify=False"} <= set(_names(ast.parse(code)))
