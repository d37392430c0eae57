"""The page about adapters says what signatures and docstrings say, and its code fits into its column."""

from __future__ import annotations

import re
from pathlib import Path

from tools.adapter_reference import reference

PAGE = (Path(__file__).parents[1] / "docs" / "adapters.md").read_text("utf-8")


def test_the_page_ends_with_the_reference() -> None:
    stored = PAGE.rpartition("## Reference\n")[2].strip()
    assert stored == reference().strip(), (
        "write the output of tools/adapter_reference.py into docs/adapters.md"
    )


def test_no_line_of_code_is_cut_on_the_page() -> None:
    blocks = re.findall(r"^```\w*\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) > 20
    assert not [line for block in blocks for line in block.splitlines() if len(line) > 80]
