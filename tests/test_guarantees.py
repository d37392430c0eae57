"""Every guarantee of docs/guarantees.md names its tests, and these tests exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

PROJECT = Path(__file__).parents[1]
PAGE = PROJECT / "docs" / "guarantees.md"
REFERENCE = re.compile(r"`(?P<file>(?:tests|src)/[\w/]+\.py)(?:::(?P<name>\w+))?`")


def rows() -> list[list[str]]:
    """Return the cells of every row of the page's tables, without their headers."""
    lines = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[0] != "promise" and not set(row[0]) <= set("-: ")]


def test_every_promise_names_a_test() -> None:
    assert len(rows()) > 20
    unproven = [promise for promise, *_, tried in rows() if not REFERENCE.search(tried)]
    assert not unproven


def test_every_test_that_is_named_exists() -> None:
    absent = []
    for found in REFERENCE.finditer(PAGE.read_text("utf-8")):
        path = PROJECT / found["file"]
        names = functions(path) if path.is_file() else set()
        if not names or (found["name"] and found["name"] not in names):
            absent.append(found[0])
    assert not absent


def functions(path: Path) -> set[str]:
    """Return the names of all functions, methods and classes in a file."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, kinds)}
