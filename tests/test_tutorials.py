"""The tutorials: every notebook of the documents runs without the network, and makes a page of the site."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from tools.docs.notebook_pages import executed, page_of

PROJECT = Path(__file__).parents[1]
NOTEBOOKS = sorted(PROJECT.glob("docs/tutorials/*.ipynb"))
CALL = re.compile(r"\bmf\.(?:fetch|update|plan|follow)\(")


@pytest.fixture(autouse=True)
def unblocked_loop() -> None:
    """The code of a notebook runs in a process of its own; here Jupyter's client is on the loop."""


def read(path: Path) -> NotebookNode:
    found: NotebookNode = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    return found


def code_of(notebook: NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
async def test_notebook_runs_and_makes_a_page(path: Path) -> None:
    notebook = await executed(path)
    page, pictures = page_of(notebook, path.stem)
    assert page.startswith("# ")
    assert '<div class="marketfetch">' in page
    assert "<script" not in page
    assert ".ipynb" not in page
    assert "ipykernel" not in page
    assert all(
        content.startswith(b"\x89PNG") and f"![figure]({name})" in page for name, content in pictures.items()
    )
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in shown if output.output_type == "error"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_kept_without_outputs(path: Path) -> None:
    notebook = read(path)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_one_cell_switches_to_the_real_exchange(path: Path) -> None:
    first, *others = code_of(read(path))
    assert 'where = {"base_url": simulated.base_url}' in first
    calls = [code for code in others if CALL.search(code)]
    assert calls
    assert all(code.count("**where") == len(CALL.findall(code)) for code in calls)
    assert not [code for code in others if "simulated" in code]
