"""The pages that mkdocs builds from the package: exchanges and commands; and the list of decisions."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

PROJECT = Path(__file__).parents[2]
sys.path.insert(0, str(PROJECT))  # mkdocs loads this file by its path

from tools.docs import command_reference, exchange_pages  # noqa: E402

_EXCHANGES = "<!-- the table of exchanges -->"
_PRIVATE_PATH = re.compile(r'<span title="[\w.]*">([^<]*)</span>')


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put all decision records into the navigation, and the pages of exchanges."""
    records = sorted(Path(config.docs_dir, "decisions").glob("0*.md"))
    _fill(config.nav, "decisions/index.md", [f"decisions/{each.name}" for each in records])
    pages = [{name: f"exchanges/{name}.md"} for name in exchange_pages.built_in()]
    _fill(config.nav, "exchanges/index.md", pages)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are written from the package."""
    written = {"reference/cli.md": command_reference.reference(), **exchange_pages.pages()}
    for path, text in written.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Put the table of exchanges where a page has its mark."""
    below = "" if page.file.src_uri.startswith("exchanges/") else "exchanges/"
    return markdown.replace(_EXCHANGES, exchange_pages.table_of_exchanges(lambda name: f"{below}{name}.md"))


def on_post_page(output: str, **_: Any) -> str:
    """Remove the tooltips with the paths of private modules, which are no import paths."""
    return _PRIVATE_PATH.sub(r"\1", output)


def _fill(nav: Any, index: str, pages: list[Any]) -> None:
    """Add pages to the section of the navigation that has an index."""
    for entry in nav:
        if isinstance(entry, dict):
            for section in entry.values():
                if isinstance(section, list):
                    if index in section:
                        section.extend(pages)
                    _fill(section, index, pages)
