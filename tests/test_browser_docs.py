"""The pictures of the documentation, as a reader sees them: in either theme, on a desk and on a phone."""

import re
from pathlib import Path

import pytest

from browsing import NEEDS_A_BROWSER, browser
from test_site import site

__all__ = ["browser", "site"]

pytestmark = NEEDS_A_BROWSER

DOCS = Path(__file__).parents[1] / "docs"
PAGES = [page for page in sorted(DOCS.rglob("*.md")) if re.search(r"<img |!\[", page.read_text(encoding="utf-8"))]

SEEN = """() => [...document.querySelectorAll("article img")].filter(one => one.getClientRects().length).map(one => {
    const scale = one.getBoundingClientRect().width / one.naturalWidth, phone = one.currentSrc.includes("-phone-");
    return { name: one.currentSrc.replace(/.*[/]/, "").replace(/#.*/, ""), loaded: one.naturalWidth > 0,
             scale: phone ? 2 * scale : scale };
})"""
"""Each picture that is shown, and how large it is beside what it is a picture of."""


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pictures_are_in_the_readers_theme_and_fit(site, browser, page, scheme, width):
    """One of each pair is shown; no page scrolls sideways, and on a phone the letters are large enough to be read."""
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})
    shown = context.new_page()
    shown.goto((site / page.relative_to(DOCS)).with_suffix(".html").as_uri())
    shown.evaluate("Promise.all([...document.images].map(one => (one.loading = 'eager', one.decode().catch(() => 0))))")
    pictures = shown.evaluate(SEEN)
    assert shown.evaluate("document.scrollingElement.scrollWidth") <= width
    assert pictures
    assert all(one["loaded"] for one in pictures), pictures
    of_the_page = [one for one in pictures if one["name"].endswith(".png")]
    screen = "desk" if width > 600 else "phone"
    assert [one["name"] for one in of_the_page if not one["name"].endswith(f"-{screen}-{scheme}.png")] == []
    if screen == "phone":
        assert [one for one in of_the_page if one["scale"] < 0.85] == []
    context.close()


def test_every_picture_is_there_for_both_themes_and_is_shown_somewhere():
    """Drawings follow the reader's theme by themselves, but for the terminal, which is dark in either."""
    said = "".join(page.read_text(encoding="utf-8") for page in [*PAGES, DOCS.parent / "README.md"])
    for picture in (DOCS / "images").iterdir():
        assert picture.name in said, picture
        if picture.suffix == ".svg" and picture.name != "terminal.svg":
            assert "prefers-color-scheme" in picture.read_text(encoding="utf-8"), picture
        if picture.suffix == ".png":
            assert re.search("-(light|dark)$", picture.stem), picture
            other = {"light": "dark", "dark": "light"}[picture.stem.rpartition("-")[2]]
            assert picture.with_name(f"{picture.stem.rpartition('-')[0]}-{other}.png").exists(), picture
