"""Run the Python code in README and docs."""

from __future__ import annotations

from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

from tests.support.loopback import exchanges_on_loopback

PROJECT = Path(__file__).parents[1]
DOCUMENTS = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md")])


@pytest.fixture(autouse=True)
def unblocked_loop() -> None:
    """Disabled: example code may import modules inside its event loop, which blocks it."""


# One test per document, not per block: a block may use names of earlier ones, and tests run in random order.
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_code_of_document_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(PROJECT / "examples" / "tidebit")  # "your adapter"
    document = Sybil(parsers=[PythonCodeBlockParser(), SkipParser()]).parse(path)
    with exchanges_on_loopback(monkeypatch):
        for example in document.examples():
            example.evaluate()
