"""The documentation as a site: it builds without a warning, has every page, and fetches nothing from elsewhere."""

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
OURS = re.compile(r"(?!(\w+:)?//)(?!data:text)")  # a path, or what stands in the page itself


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built from a copy."""
    folder = tmp_path_factory.mktemp("site")
    for name in "docs", "src", "tools":
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in "mkdocs.yml", "README.md":
        shutil.copy(ROOT / name, folder)
    done = subprocess.run(
        [Path(sys.executable).with_name("zensical"), "build", "--strict"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert done.returncode == 0, done.stdout
    return folder / "site"


class Fetched(HTMLParser):
    """The addresses that a browser fetches by itself to show a page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "link" and given.get("rel") in ("next", "prev", "canonical"):
            return
        names = {"link": ["href"], "object": ["data"], "use": ["href"]}.get(tag, ["src", "srcset", "poster"])
        self.addresses += [value for name in names if (value := given.get(name))]
        self.addresses += re.findall(r"url\(['\"]?([^'\")]+)", given.get("style") or "")

    def handle_data(self, data: str) -> None:
        if self.lasttag == "style":
            self.addresses += re.findall(r"(?:url\(|@import )['\"]?([^'\")]+)", data)


def test_every_page_is_there_with_its_title(site: Path) -> None:
    """Each page that was written can be read on the site."""
    for page in DOCS.rglob("*.md"):
        title = re.search("^# (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)[1]
        built = (site / page.relative_to(DOCS)).with_suffix(".html").read_text(encoding="utf-8")
        assert re.search(rf"<h1[^>]*>{re.escape(title)}<", built), page


def test_every_page_is_in_the_navigation() -> None:
    """A reader finds each page; pages that the benchmarks write may be still to come."""

    def pages(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        return [page for part in (entry.values() if isinstance(entry, dict) else entry) for page in pages(part)]

    listed = set(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    written = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    assert written <= listed
    assert all(page.startswith("benchmarks") for page in listed - written)


def test_public_names_are_in_the_reference(site: Path) -> None:
    """Every public name is explained."""
    from test_public_names import NAMES

    built = "".join(page.read_text(encoding="utf-8") for page in (site / "reference").glob("*.html"))
    assert not [name for name in NAMES if not re.search(rf'id="procession\.(\w+\.)*{name}"', built)]


@pytest.mark.parametrize(
    ("page", "name", "sections"),
    [
        ("task", "procession.task", ["Parameters:", "Returns:", "Raises:"]),
        ("observe", "procession.Event", ["Attributes:"]),
        ("run", "procession.Outcome", ["Attributes:"]),
        ("process", "procession.Hybrid", ["Parameters:", "Raises:", "Attributes:"]),
    ],
)
def test_the_reference_shows_sections_as_tables(site: Path, page: str, name: str, sections: list[str]) -> None:
    """A reader finds an argument, an attribute or an error in a table, and not in running text."""
    text = (site / "reference" / f"{page}.html").read_text(encoding="utf-8")
    start = text.index(f'id="{name}"')
    described = text[start : text.index('<div class="doc doc-object', start)]
    tables = re.findall(r"<(?:p|span)[^>]*>(?:<[^>]*>)*(\w+:)(?:<[^>]*>)*</(?:p|span)>(?:\s|</?p>)*<table>", described)
    assert tables == sections


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    """A reader without a network, or who wants to be known to nobody, can read the site."""
    pages = list(site.rglob("*.html"))
    assert len(pages) > 10
    fetched = {address: page for page in pages for address in Fetched(page).addresses}
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        fetched |= dict.fromkeys(re.findall(r"(?:url\(|@import )['\"]?([^'\")]+)", text), sheet)
    assert fetched
    assert not {address: page for address, page in fetched.items() if not OURS.match(address)}


def test_nothing_on_a_page_makes_the_script_fetch_from_elsewhere(site: Path) -> None:
    """The theme's script would fetch diagrams, enlarged pictures and repositories from elsewhere: no page has any."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.search(r'class="(mermaid|glightbox|pyodide)"|data-md-component="source"', text), page
