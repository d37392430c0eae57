"""The built site in a browser: `make docs` runs these tests, with the folder of the site."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import attrs
import pytest

from tests.conftest import absent

if TYPE_CHECKING:  # a machine without the group `docs` has none
    from playwright.sync_api import Browser

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--site", type=Path, help="the folder with the built site: test it in a browser")


@attrs.frozen
class Site:
    """The site, served on loopback, and a browser."""

    folder: Path
    url: str
    browser: Browser

    @property
    def paths(self) -> list[str]:
        """The address of every page below the site's own."""
        found = self.folder.rglob("index.html")
        return sorted(each.parent.relative_to(self.folder).as_posix() + "/" for each in found)


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on loopback until the block is left."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(folder))) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """The site, and one browser in which all tests open their pages."""
    folder: Path | None = request.config.getoption("--site", default=None)
    if folder is None:
        pytest.skip("make docs builds the site and tests it")
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        absent("No Chromium: install the package chromium of your distribution to test the site")
    from playwright.sync_api import sync_playwright

    with served(folder.resolve()) as url, sync_playwright() as playwright:
        # Root cannot have the sandbox, and the pages are our own.
        browser = playwright.chromium.launch(executable_path=program, chromium_sandbox=False)
        yield Site(folder, url, browser)
        browser.close()
