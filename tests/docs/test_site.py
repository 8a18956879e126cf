"""The documentation as a site: built without a warning, whole, and in need of nothing from elsewhere."""

import os
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import pytest

from tests.repository import ROOT

LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href", "use": "href"}
DRAWINGS = sorted((ROOT / "docs" / "images").glob("*.svg"))


@dataclass(slots=True)
class PageReader(HTMLParser):
    """What a page links to, what it loads, and where it can be linked to."""

    links: list[str] = field(default_factory=list[str])
    assets: list[str] = field(default_factory=list[str])
    anchors: set[str] = field(default_factory=set[str])

    def __post_init__(self) -> None:
        HTMLParser.__init__(self)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value is not None}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag in LOADED and LOADED[tag] in values:
            self.assets.append(values[LOADED[tag]])


def _read(page: Path) -> PageReader:
    reader = PageReader()
    reader.feed(page.read_text(encoding="utf-8"))
    return reader


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, PageReader]:
    return {page: _read(page) for page in site.rglob("*.html")}


def test_every_page_of_the_sources_is_a_page_of_the_site(site: Path) -> None:
    sources = (ROOT / "docs").rglob("*.md")
    expected = {page.relative_to(ROOT / "docs").with_suffix(".html") for page in sources}
    assert {path for path in expected if not (site / path).is_file()} == set()


def test_nothing_is_loaded_from_elsewhere(pages: dict[Path, PageReader]) -> None:
    assets = {asset for page in pages.values() for asset in page.assets}
    assert {asset for asset in assets if urlsplit(asset).netloc} == set()


def test_style_sheets_load_nothing_from_elsewhere(site: Path) -> None:
    sheets = {sheet.name: sheet.read_text(encoding="utf-8") for sheet in site.rglob("*.css")}
    assert sheets
    outside = re.compile(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//")
    assert [name for name, text in sheets.items() if outside.search(text)] == []


def test_whatever_a_page_loads_is_there(pages: dict[Path, PageReader]) -> None:
    missing = {
        (page.name, asset)
        for page, found in pages.items()
        for asset in found.assets
        if not asset.startswith(("data:", "/")) and not (page.parent / urlsplit(asset).path).is_file()
    }
    assert missing == set()


def test_every_link_within_the_site_leads_somewhere(pages: dict[Path, PageReader]) -> None:
    """In the pages that stand for files outside docs/ too, whose links nobody else checks."""
    broken = {
        (page.name, link)
        for page, found in pages.items()
        for link in found.links
        if not _leads_somewhere(page, link, pages) and page.name != "404.html"
    }
    assert broken == set()


def _leads_somewhere(page: Path, link: str, pages: dict[Path, PageReader]) -> bool:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return True
    target = Path(os.path.normpath(page.parent / unquote(parts.path))) if parts.path else page
    if target.is_dir():
        target /= "index.html"
    if target not in pages:
        return target.is_file()
    return not parts.fragment or unquote(parts.fragment) in pages[target].anchors | {"__skip"}


def test_files_outside_the_pages_can_be_read_on_the_site(site: Path) -> None:
    assert "pip install" in (site / "source" / "CONTRIBUTING.html").read_text(encoding="utf-8")
    assert "SETUSER" in (site / "source" / "cluster" / "journal.py.html").read_text(encoding="utf-8")


def test_the_list_of_decisions_is_whole() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = re.findall(r"\((\d{4}-[a-z-]+\.md)\)", (folder / "index.md").read_text(encoding="utf-8"))
    assert listed == sorted(page.name for page in folder.glob("0*.md"))


@pytest.mark.parametrize("drawing", DRAWINGS, ids=lambda drawing: drawing.stem)
def test_a_drawing_says_what_it_shows_and_is_legible_in_the_dark(drawing: Path) -> None:
    text = drawing.read_text(encoding="utf-8")
    named = {element.tag.split("}")[1]: element.text for element in ElementTree.fromstring(text).iter()}
    assert named["title"]
    assert named["desc"]
    assert "prefers-color-scheme: dark" in text
    assert re.findall(r"https?://(?!www\.w3\.org)", text) == []
