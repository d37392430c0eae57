"""The tutorials: mkdocs executes the notebooks of `docs/tutorials`, and makes a page of each.

What a page shows is therefore what this version of the code does. The pages are Markdown, so that the theme,
the search and the check of links treat them as all others, and no script or style of Jupyter is loaded.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbclient import NotebookClient
from nbconvert import MarkdownExporter
from nbformat import NotebookNode

_TIMEOUT = 120
"""Seconds for one cell, on a busy machine."""
_CELL_FILE = re.compile(r"\S*ipykernel_\d+\S*\.py:(\d+)")
"""Where a warning says that it comes from: a file that only the kernel knows."""
_LINK = re.compile(r"(\]\([\w./-]+)\.ipynb\)")
_FRAME_STYLE = re.compile(r"<style scoped>.*?</style>\n", re.DOTALL)
"""What pandas writes before each frame; without it a frame looks like the other tables of the site."""


async def executed(path: Path) -> NotebookNode:
    """Return a notebook with its outputs; raises CellExecutionError for a cell that fails.

    It runs in an empty folder, in a process of its own.
    """
    notebook: NotebookNode = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    with TemporaryDirectory() as folder:
        await NotebookClient(
            notebook,
            timeout=_TIMEOUT,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            extra_arguments=["--IPKernelApp.log_level=ERROR"],  # else it warns of loopback without encryption
        ).async_execute()
    return notebook


def page_of(notebook: NotebookNode, name: str) -> tuple[str, dict[str, bytes]]:
    """Return the page of an executed notebook as Markdown, and its pictures by their file names."""
    exporter: Any = MarkdownExporter()  # type: ignore[no-untyped-call]
    text, resources = exporter.from_notebook_node(notebook, {"unique_key": name, "output_files_dir": "."})
    text = _FRAME_STYLE.sub("", _CELL_FILE.sub(r"line \1", text))
    for written, wanted in (('<table border="1" class="dataframe">', "<table>"), ("![png](./", "![figure](")):
        text = text.replace(written, wanted)
    return _to_pages(text), {Path(file).name: content for file, content in resources["outputs"].items()}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each notebook, which stays as a file to download."""
    found = [file for file in files if file.src_uri.endswith(".ipynb")]

    async def all_executed() -> list[Any]:
        return await asyncio.gather(*(executed(Path(str(file.abs_src_path))) for file in found))

    for file, notebook in zip(found, asyncio.run(all_executed()), strict=True):
        place = Path(file.src_uri)
        text, pictures = page_of(notebook, place.stem)
        text += f"\n\n[Download this notebook]({place.name})\n"
        files.append(File.generated(config, place.with_suffix(".md").as_posix(), content=text))
        for name, content in pictures.items():
            files.append(File.generated(config, (place.parent / name).as_posix(), content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Let links to notebooks lead to their pages; on a page of a notebook the last one is a download."""
    return markdown if page.file.src_uri.startswith("tutorials/") else _to_pages(markdown)


def _to_pages(markdown: str) -> str:
    return _LINK.sub(r"\1.md)", markdown)
