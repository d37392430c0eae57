"""Every page of the site loads from the site alone, fits its window and links to what exists."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urldefrag

import attrs
import pytest

from tests.site.conftest import Site, served

if TYPE_CHECKING:  # a machine without the group `docs` has none
    from playwright.sync_api import ConsoleMessage, Request

pytestmark = pytest.mark.timeout(900)  # the first test visits all pages: a minute on two idle cores

WIDTHS = (400, 800, 1300)
SCHEMES: dict[Literal["light", "dark"], str] = {"light": "default", "dark": "slate"}

# What sticks out of the window or is cut, but for what a scroll bar of its own can show.
MISFITS = """(scheme) => {
    document.body.dataset.mdColorScheme = scheme;
    const width = document.documentElement.clientWidth, found = [];
    const name = (element) => `${element.tagName.toLowerCase()}: ${element.textContent.trim().slice(0, 60)}`;
    const scrolls = (element) => ["auto", "scroll"].includes(getComputedStyle(element).overflowX);
    const inScroller = (element) => {
        const above = element.parentElement;
        return above !== null && (scrolls(above) || inScroller(above));
    };
    if (document.documentElement.scrollWidth > width) found.push("the page");
    for (const element of document.querySelectorAll(".md-content *, .md-header *, .md-tabs *")) {
        const box = element.getBoundingClientRect();
        if (!box.width || !box.height || getComputedStyle(element).visibility === "hidden") continue;
        if (element.closest("svg, .md-search, .headerlink, .md-header__title")) continue;
        const cut = element.scrollWidth > element.clientWidth + 1 && element.clientWidth > 0
            && ["hidden", "clip"].includes(getComputedStyle(element).overflowX);
        if (cut || (box.right > width + 1 && !inScroller(element))) found.push(name(element));
    }
    for (const button of document.querySelectorAll("pre .md-code__nav, pre .md-clipboard")) {
        const box = button.getBoundingClientRect(), code = button.closest("pre").querySelector("code");
        if (!box.width) continue;
        const frame = code.getBoundingClientRect(), range = document.createRange();
        range.selectNodeContents(code);
        for (const line of range.getClientRects()) {
            const right = Math.min(line.right, frame.right);
            if (right > box.left + 1 && line.top < box.bottom && line.bottom > box.top) {
                found.push(`a button over ${name(code)}`);
                break;
            }
        }
    }
    return found;
}"""
LINKS = "() => [...document.querySelectorAll('a[href]')].map((link) => link.href)"
ANCHORS = "() => [...document.querySelectorAll('[id]')].map((element) => element.id)"


@attrs.frozen
class Visit:
    """What was seen of a page."""

    errors: list[str] = attrs.field(factory=list)
    elsewhere: list[str] = attrs.field(factory=list)
    misfits: dict[str, list[str]] = attrs.field(factory=dict)
    links: list[str] = attrs.field(factory=list)
    anchors: set[str] = attrs.field(factory=set)


@pytest.fixture(scope="module")
def quick_site(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The site without the words of its search, of which each page that is opened makes an index."""
    folder = tmp_path_factory.mktemp("quick") / "site"
    shutil.copytree(site.folder, folder)
    index = folder / "search" / "search_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "docs": []}))
    with served(folder) as url:
        yield attrs.evolve(site, folder=folder, url=url)


@pytest.fixture(scope="module")
def visits(quick_site: Site) -> dict[str, Visit]:
    """Every page, visited once, at each width and in each scheme."""
    site = quick_site
    page, seen = site.browser.new_page(), dict[str, Visit]()
    now = Visit()

    def note(request: Request) -> None:
        if not request.url.startswith(site.url):
            now.elsewhere.append(request.url)

    def note_error(message: ConsoleMessage) -> None:
        if message.type == "error":
            now.errors.append(message.text)

    page.on("request", note)
    page.on("console", note_error)
    page.on("pageerror", lambda error: now.errors.append(str(error)))
    page.on("requestfailed", lambda request: now.errors.append(f"{request.url}: {request.failure}"))
    for path in site.paths:
        now = Visit()
        answer = page.goto(site.url + path, wait_until="load")
        assert answer is not None
        assert answer.ok, path
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            for scheme in SCHEMES.values():
                if found := page.evaluate(MISFITS, scheme):
                    now.misfits[f"{width} px, {scheme}"] = found
        now.links.extend(page.evaluate(LINKS))
        now.anchors.update(page.evaluate(ANCHORS))
        seen[path] = now
    return seen


def test_pages_load_without_an_error(visits: dict[str, Visit]) -> None:
    assert len(visits) > 50
    assert not {path: visit.errors for path, visit in visits.items() if visit.errors}


def test_pages_request_nothing_from_other_hosts(visits: dict[str, Visit]) -> None:
    assert not {path: visit.elsewhere for path, visit in visits.items() if visit.elsewhere}


def test_nothing_sticks_out_or_is_cut(visits: dict[str, Visit]) -> None:
    assert not {path: visit.misfits for path, visit in visits.items() if visit.misfits}


@pytest.mark.parametrize("wanted", SCHEMES)
def test_site_has_the_scheme_that_the_system_has(site: Site, wanted: Literal["light", "dark"]) -> None:
    page = site.browser.new_page(color_scheme=wanted)
    page.goto(site.url)
    assert page.evaluate("document.body.dataset.mdColorScheme") == SCHEMES[wanted]
    page.context.close()


def test_links_inside_the_site_lead_somewhere(quick_site: Site, visits: dict[str, Visit]) -> None:
    site, broken, followed = quick_site, [], 0
    for path, visit in visits.items():
        for link in visit.links:
            if not link.startswith(site.url):
                continue
            followed += 1
            address, anchor = map(unquote, urldefrag(link.removeprefix(site.url)))
            target = visits.get(address or "./")
            is_file = target is None and (site.folder / address).is_file()
            is_place = target is not None and (not anchor or anchor in target.anchors)
            if not is_file and not is_place:
                broken.append((path, link))
    assert followed > 1000
    assert not broken


@pytest.mark.parametrize(
    ("words", "pages"),
    [
        ("jupyter", {"notebook/"}),
        ("cron", {"howto-cron/"}),
        ("metrics", {"metrics/"}),
        ("logging", {"howto-logging/", "howto-service/"}),
        ("export", {"howto-export/", "cli/"}),
        ("rate limit", {"howto-rate-limits/", "proxies/"}),
        ("timezone", {"howto-timezones/", "queries/"}),
        ("delisted", {"howto-delisted/", "queries/"}),
        ("gaps", {"howto-gaps/", "howto-cron/"}),
        ("resume", {"howto-resume/", "architecture/"}),
    ],
)
def test_search_finds_a_guide(site: Site, words: str, pages: set[str]) -> None:
    with site.browser.new_context(viewport={"width": 1300, "height": 900}) as context:
        page = context.new_page()
        page.set_default_timeout(240_000)  # the page makes an index of all words first
        page.goto(site.url)
        page.click(".md-search__input")
        page.locator(".md-search__input").press_sequentially(words)  # it listens for keys
        page.wait_for_selector(".md-search-result__link")
        found = page.eval_on_selector_all(
            ".md-search-result__link", "links => links.map((link) => link.href)"
        )
    paths = (urldefrag(link)[0].partition("?")[0].removeprefix(site.url) for link in found)
    first = [*dict.fromkeys(paths)][:5]
    assert pages & {*first}, first
