"""The pages that mkdocs builds from the package: exchanges and commands; and the list of decisions."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

PROJECT = Path(__file__).parents[2]
sys.path.insert(0, str(PROJECT))  # mkdocs loads this file by its path

from tools.docs import command_reference, exchange_pages  # noqa: E402

_BOOSTS = {
    "howto-": 2,
    "tutorials/": 2,
    **dict.fromkeys(("adapters", "architecture", "benchmarks", "exchanges/", "glossary", "reference/"), 0.5),
}
"""How much the words of a page count in the search, by the beginning of its path."""
_NOT_SEARCHED = ("changelog", "decisions/")
"""Pages about how marketfetch came to be: they would hide the guides, and double the index."""
_CODE_IN_TABLE = re.compile(r"(?<=<code>)[^<]{16,}(?=</code>)")
_JOINT = re.compile(r"::|[_/.](?=\w)")
_PRIVATE_PATH = re.compile(r'<span title="[\w.]*">([^<]*)</span>')


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages into the navigation that `mkdocs.yml` does not list one by one."""
    docs = Path(config.docs_dir)
    sections: dict[str, list[Any]] = {
        "Decisions": [f"decisions/{each.name}" for each in sorted(docs.glob("decisions/0*.md"))],
        "Exchanges": [{name: f"exchanges/{name}.md"} for name in exchange_pages.built_in()],
    }
    _fill(config.nav, sections)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are written from the package."""
    written = {"reference/cli.md": command_reference.reference(), **exchange_pages.pages()}
    for path, text in written.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Put the table of exchanges where a page has its mark, and guides before references in the search."""
    path = page.file.src_uri
    boost = next((boost for start, boost in _BOOSTS.items() if path.startswith(start)), 1)
    page.meta.setdefault("search", {"exclude": True} if path.startswith(_NOT_SEARCHED) else {"boost": boost})
    below = "" if page.file.src_uri.startswith("exchanges/") else "exchanges/"
    return markdown.replace(
        exchange_pages.MARK, exchange_pages.table_of_exchanges(lambda name: f"{below}{name}.md")
    )


def on_post_page(output: str, **_: Any) -> str:
    """Remove the tooltips with the paths of private modules, and let long names break at their joints."""
    return _CODE_IN_TABLE.sub(_with_joints, _PRIVATE_PATH.sub(r"\1", output))


def _with_joints(cell: re.Match[str]) -> str:
    return _JOINT.sub(r"\g<0><wbr>", cell[0])


def _fill(nav: Any, sections: Mapping[str, list[Any]]) -> None:
    """Add pages to the sections of a navigation, by their titles."""
    for title, section in [each for entry in nav if isinstance(entry, dict) for each in entry.items()]:
        if isinstance(section, list):
            section.extend(sections.get(title, ()))
            _fill(section, sections)
