"""Every page in a real browser: for whoever cannot see it, in both themes, on a desk and on a phone, with long names."""

from pathlib import Path

import pytest

import shown_runs
from browsing import NEEDS_A_BROWSER, Pipeline, browser, expect, opening_pages
from procession.journal import Journal
from procession.web import application

pytestmark = NEEDS_A_BROWSER

AXE = Path(__file__).with_name("vendored") / "axe.min.js"

NO_PAGES = {"/run", "/events", "/static/{name}"}
"""What answers with something else than a page."""

ADDRESSES = {
    "/": ["/", "/?status=failed", "/?q=nothing", "/?process=killed", "/nowhere"],
    "/run/{key}": [
        *(f"/run/{{{run}}}" for run in ("good", "bad", "inside", "killed", "suspended", "chain", "live")),
        "/run/{bad}?state=failed",
        "/run/{bad}?order=slowest&from=100",
        "/run/{live}?state=waiting",
    ],
    "/run/{key}/nested": ["/run/{bad}/nested", "/run/{chain}/nested"],
    "/run/{key}/graph": [f"/run/{{{run}}}/graph" for run in ("bad", "inside", "chain", "live")],
    "/run/{key}/time": [f"/run/{{{run}}}/time" for run in ("bad", "killed", "chain", "live")],
    "/run/{key}/compared": ["/run/{bad}/compared", "/run/{good}/compared", "/run/{bad}/compared?with={chain}"],
    "/run/{key}/rerun": ["/run/{bad}/rerun", "/run/{bad}/rerun?task=2", "/run/{bad}/rerun?task=2&element=0"],
    "/run/{key}/task/{task}": [
        *(f"/run/{{bad}}/task/{task}" for task in (0, 1, 2, 3, 4, 5, 7)),
        "/run/{bad}/task/2?q=nothing",
        "/run/{live}/task/1",
        "/run/{suspended}/task/0",
        "/run/{killed}/task/1",
        "/run/{bad}/task/999",
    ],
    "/run/{key}/task/{task}/{element}": ["/run/{bad}/task/2/0", "/run/{bad}/task/2/1", "/run/{bad}/task/2/999"],
}
"""What is opened of each route: the words in braces are runs of `shown_runs`."""

TOO_WIDE_OR_SMALL = """() => {
    const wide = [...document.querySelectorAll(".scroll:not(.graph-figure)")].filter(one => one.scrollWidth > one.clientWidth);
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), small = [];
    for (let text; (text = texts.nextNode()); ) {
        const parent = text.parentElement;
        if (!text.data.trim() || parent.closest("title") || !parent.getClientRects().length) continue;
        const scale = parent.closest("svg") ? parent.getScreenCTM().a : 1;
        if (parseFloat(getComputedStyle(parent).fontSize) * scale < 11.9) small.push(text.data);
    }
    return [...wide.map(one => one.outerHTML.slice(0, 200)), ...small];
}"""

# What the server shortens has an ellipsis in it; what does not fit where it stands has one drawn by the browser.
SHORTENED_AND_NOT_TOLD = """() => {
    const told = (place, said) => {
        for (let one = place; one && one !== document.body; one = one.parentElement) {
            const titles = [...one.children].filter(child => child.matches("svg title")).map(child => child.textContent);
            if ([one.title, ...titles].some(title => title && title.length > said.length)) return true;
        }
    };
    const found = [], texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let text; (text = texts.nextNode()); ) {
        const place = text.parentElement, said = text.data.trim();
        // Sentences on the time abridge names that its table has whole; what lets the pointer through lies on what is told.
        if (!said.includes("…") || place.closest("title, pre, .button, .told, .verdict")) continue;
        if (getComputedStyle(place).pointerEvents === "none") continue;
        if (!told(place, said)) found.push(`${place.outerHTML.slice(0, 80)}: ${said}`);
    }
    for (const one of document.querySelectorAll("body *")) {
        const cut = getComputedStyle(one).textOverflow === "ellipsis" && one.scrollWidth > one.clientWidth;
        if (cut) one.dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
        if (cut && !one.title && !one.querySelector("[title]")) found.push(`cut: ${one.outerHTML.slice(0, 200)}`);
    }
    return found;
}"""


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    made = Pipeline(tmp_path_factory.mktemp("pages"), Path(shown_runs.__file__))
    for which in ("good", "bad", "suspended", "killed", "chain"):
        made.run(which, which)
    made.start("live", "live")
    made.base = made.serve()
    yield made
    made.close()


@pytest.fixture
def open_page(browser, pipeline):
    yield from opening_pages(browser, pipeline)


@pytest.fixture(scope="module")
def keys(pipeline):
    """The keys of the runs."""
    with Journal(pipeline.where) as journal, journal.reader() as reader:
        keys = {found.run.id: found.key for found in reader.runs(limit=20)}
        return {**keys, "inside": reader.runs(parent=keys["bad"], limit=1)[0].key}


@pytest.fixture(params=ADDRESSES)
def addresses(request, keys):
    """The addresses that are opened of one route."""
    return [address.format_map(keys) for address in ADDRESSES[request.param]]


def test_every_page_is_among_those_that_are_looked_at(tmp_path):
    """A page that is added is opened by the tests below, or this one fails."""
    with Journal(tmp_path / "runs.db") as journal:
        routes = application(journal, "key").app.routes
    assert {route.path for route in routes if "GET" in route.methods} - NO_PAGES == set(ADDRESSES)


def opened(page, address):
    """Open a page, wait for the parts of it that come late, and open what is folded up."""
    page.goto(address)
    for late in page.locator(".late").all():
        expect(late.locator("> *").first).to_be_attached()
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(pipeline, open_page, addresses, scheme, width):
    """Names, roles and contrasts are right on every page, in the light and in the dark, on a desk and on a phone."""
    options = {"color_scheme": scheme, "viewport": {"width": width, "height": 800}}
    page = open_page(pipeline.base, bypass_csp=True, reduced_motion="reduce", **options)
    # Themes differ in colours alone, and the rest takes a while.
    rules = {
        "resultTypes": ["violations"],
        **({} if scheme == "light" else {"runOnly": ["color-contrast", "link-in-text-block"]}),
    }
    found = []
    for address in addresses:
        opened(page, pipeline.base + address)
        page.add_script_tag(path=AXE)
        for problem in page.evaluate("rules => axe.run(rules)", rules)["violations"]:
            found.append((address, problem["id"], [node["html"][:200] for node in problem["nodes"][:3]]))
    open_page.wrong[:] = [message for message in open_page.wrong if "404" not in message]
    assert found == []


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_the_page_that_asks_for_the_key(pipeline, browser, scheme, width):
    """Which is all that is shown without it."""
    context = browser.new_context(
        bypass_csp=True, reduced_motion="reduce", color_scheme=scheme, viewport={"width": width, "height": 800}
    )
    page = context.new_page()
    assert page.goto(pipeline.base).status == 403
    page.add_script_tag(path=AXE)
    problems = page.evaluate("axe.run({ resultTypes: ['violations'] })")["violations"]
    assert [(problem["id"], [node["html"][:200] for node in problem["nodes"][:3]]) for problem in problems] == []
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    assert page.evaluate(TOO_WIDE_OR_SMALL) == []
    context.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_what_is_shortened_is_told_whole(pipeline, open_page, addresses, width):
    """Whoever points at a name, an error or a label that does not fit is told all of it."""
    page = open_page(pipeline.base, viewport={"width": width, "height": 800})
    found = {}
    for address in addresses:
        opened(page, pipeline.base + address)
        found[address] = page.evaluate(SHORTENED_AND_NOT_TOLD)
    open_page.wrong[:] = [message for message in open_page.wrong if "404" not in message]
    assert {address: places for address, places in found.items() if places} == {}


def test_every_page_fits_a_phone(pipeline, open_page, addresses):
    """On a narrow screen nothing is wider than it but the graph, and no letter is smaller than 12 pixels."""
    page = open_page(pipeline.base, viewport={"width": 390, "height": 800})
    found = {}
    for address in addresses:
        opened(page, pipeline.base + address)
        wide = page.evaluate("document.scrollingElement.scrollWidth")
        found[address] = [*([f"{wide} pixels wide"] if wide > 390 else []), *page.evaluate(TOO_WIDE_OR_SMALL)]
    open_page.wrong[:] = [message for message in open_page.wrong if "404" not in message]
    assert {address: problems for address, problems in found.items() if problems} == {}
