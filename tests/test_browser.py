"""The page in a real browser: what changes, what is clicked, what is typed. Skipped, and said so, where one is missing."""

import re
import signal
import time

import pytest

from browsing import HOSTILE, NEEDS_A_BROWSER, browser, expect, open_page, pipeline

pytestmark = NEEDS_A_BROWSER


def test_a_live_run_fills_up_while_another_process_executes_it(pipeline, open_page):
    """The list gets the run, and the run its tasks, without anybody loading the page again."""
    pipeline.run("good", "before")
    page = open_page(pipeline.serve())
    page.evaluate("window.same = true")
    expect(page.locator("#link")).to_have_text("live")
    child = pipeline.start("live", "today")
    expect(page.locator("tbody tr").first).to_contain_text("today")
    assert page.evaluate("window.same")
    page.get_by_role("link", name="today").click()
    page.evaluate("window.same = true")
    for number in range(3):
        expect(page.locator(f"#row{number}")).to_contain_text("running")
        expect(page.locator(f"#row{number + 1}")).to_contain_text("waiting")
        child.stdin.write("go\n")
        child.stdin.flush()
        expect(page.locator(f"#row{number}")).to_contain_text("completed")
    expect(page.locator("#status")).to_have_text("running")
    expect(page.locator("#time figure svg")).to_be_visible()
    child.stdin.write("go\n")
    child.stdin.flush()
    expect(page.locator("#status")).to_have_text("completed")
    expect(page).to_have_title(re.compile("completed"))
    expect(page.get_by_role("img", name="4 of 4 tasks ended, 0 failed")).to_be_visible()
    assert page.evaluate("window.same")


def test_news_reaches_an_open_page_quickly(pipeline, open_page):
    """From the end of a task to the page it takes a fraction of a second; the limit here is for loaded machines."""
    child = pipeline.start("live", "today")
    page = open_page(pipeline.serve() + "/run?id=today")
    expect(page.locator("#link")).to_have_text("live")
    took = []
    for number in range(3):
        expect(page.locator(f"#row{number}")).to_contain_text("running")
        began = time.monotonic()
        child.stdin.write("go\n")
        child.stdin.flush()
        page.evaluate(
            """number => new Promise(done => {
                const row = document.getElementById(`row${number}`);
                const look = () => row.textContent.includes("completed") ? done() : requestAnimationFrame(look);
                look();
            })""",
            number,
        )
        took.append(time.monotonic() - began)
    print(took)
    assert min(took) < 5.0


def test_a_failing_task_is_found_and_opened_with_the_keyboard_alone(pipeline, open_page):
    """From the list to the traceback with Tab and Enter; and what has the focus keeps it while the page changes."""
    assert pipeline.run("bad", "last-night") == 1
    page = open_page(pipeline.serve(), permissions=["clipboard-read", "clipboard-write"])

    def tab_to(text):
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.textContent.trim()") == text:
                return
        raise AssertionError(f"{text} cannot be reached")

    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    tab_to("last-night")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("nightly")
    tab_to("Show what failed")
    tab_to("Copy")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Copied")).to_be_focused()
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#command").text_content()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.get_by_role("link", name="Show what failed").focus()
    page.keyboard.press("Enter")
    expect(page.locator("table.tasks tbody tr")).to_have_count(4)
    tab_to("bad")
    page.keyboard.press("Enter")
    expect(page.locator(".traceback")).to_contain_text("Traceback (most recent call last):")
    expect(page.locator(".problem")).to_have_text("LookupError: nothing at 1")
    page.get_by_role("link", name="nightly").click()
    expect(page.locator("#time figure svg")).to_be_visible()
    width = "one => one.getBoundingClientRect().width"
    assert page.locator(".progress svg.bar .left").evaluate(width) == page.locator(".progress").evaluate(width)
    assert page.locator("#time rect.bar").first.evaluate("one => one.getBBox().height") == 18
    expect(page.locator("#row1")).to_contain_text("LookupError: nothing at 1")


def test_the_graph_follows_the_run_and_leads_to_its_tasks(pipeline, open_page):
    """What ends is seen to, whoever has the focus on a node keeps it, and a node opens its task."""
    child = pipeline.start("live", "today")
    page = open_page(pipeline.serve() + "/run?id=today")
    nodes = page.locator("#graph a.node")
    expect(nodes).to_have_count(4)
    expect(nodes.nth(0)).to_have_accessible_name("step #0: running")
    nodes.nth(1).focus()
    page.evaluate("document.activeElement.same = true")
    child.stdin.write("on\nfail\n")
    child.stdin.flush()
    expect(page.locator("#status")).to_have_text("failed")
    expect(nodes.nth(0)).to_have_accessible_name("step #0: completed")
    expect(nodes.nth(1)).to_have_accessible_name("step #1: failed")
    expect(nodes.nth(2)).to_have_accessible_name("step #2: not started")
    assert page.evaluate("document.activeElement.same"), "what changes is changed, and not replaced"
    page.keyboard.press("Enter")
    expect(page.locator(".problem")).to_have_text("ValueError: step 1 was told to fail")


def test_what_has_the_focus_and_what_is_open_stay_so_while_the_page_changes(pipeline, open_page):
    """Who reads or types is not disturbed by news."""
    child = pipeline.start("live", "today")
    page = open_page(pipeline.serve() + "/run?id=today")
    expect(page.locator("#row0")).to_contain_text("running")
    page.locator("#origin summary").click()
    page.locator("#q").fill("half a wo")
    page.evaluate("document.getElementById('row0').same = true")
    child.stdin.write("fail\n")
    child.stdin.flush()
    expect(page.locator("#status")).to_have_text("failed")
    expect(page.locator("#row0")).to_contain_text("was told to fail")
    assert page.evaluate("document.getElementById('row0').same"), "what changes is changed, and not replaced"
    assert page.evaluate("document.getElementById('origin').open")
    expect(page.locator("#q")).to_be_focused()
    expect(page.locator("#q")).to_have_value("half a wo")


@pytest.mark.parametrize("script", [True, False])
def test_a_run_is_cancelled_by_the_button(pipeline, open_page, script):
    """Two clicks, with or without script, and the process that executes the run ends it."""
    child = pipeline.start("endless", "today")
    page = open_page(pipeline.serve() + "/run?id=today", java_script_enabled=script)
    expect(page.locator("#status")).to_have_text("running")
    expect(page.get_by_role("button", name="Cancel this run")).to_be_hidden()
    page.get_by_text("Cancel…").click()
    page.get_by_role("button", name="Cancel this run").click()
    assert child.wait(30) == 1
    assert child.stderr.read().strip() == "RunCancelledError"
    if not script:
        page.reload()
    expect(page.locator("#status")).to_have_text("cancelled")


@pytest.mark.parametrize("script", [True, False])
def test_what_failed_is_called_again_by_the_button(pipeline, open_page, script):
    """With or without script: the page says what that is, has it forgotten, and shows what goes on with the run."""
    assert pipeline.run("bad", "today")
    page = open_page(pipeline.serve() + "/run?id=today", java_script_enabled=script)
    page.locator("#rerun-failed").click()
    expect(page.locator("tbody tr")).to_have_count(4)
    page.get_by_role("button", name="Forget them").click()
    expect(page.locator("#status")).to_have_text("interrupted")
    expect(page.locator("#command")).to_contain_text("run_id='today'")
    expect(page.locator("#why")).to_have_count(0)
    assert pipeline.run("bad", "today")
    if not script:
        page.reload()
    expect(page.locator("#status")).to_have_text("failed")


def test_hostile_names_stay_text(pipeline, open_page):
    """Nothing that a process, a task, a run or an error is called becomes markup or runs."""
    pipeline.run("evil", HOSTILE)
    page = open_page(base := pipeline.serve())
    for address in (
        "/",
        "/run/1",
        "/run/1/time",
        "/run/1/task/0",
        "/run/1/compared",
        "/?q=%3Cimg+src%3Dx+onerror%3D1%3E",
    ):
        page.goto(base + address)
        page.wait_for_load_state("load")
        assert page.evaluate("window.hacked") is None
        assert page.locator("img").count() == page.locator("[onerror], [onload]").count() == 0
    page.goto(base + "/run/1")
    expect(page.get_by_role("heading", level=1)).to_contain_text("<img src=x onerror='window.hacked=1'>")
    expect(page.locator("#time .shares")).to_contain_text("onload='window.hacked=")
    page.goto(base + "/run/1/task/0")
    expect(page.locator("#logged pre")).to_contain_text("<img src=x onerror='window.hacked=1'>")
    assert page.evaluate("window.hacked") is None


def test_a_failed_task_shows_what_it_logged(pipeline, open_page):
    """Below its traceback; a key closes it."""
    pipeline.run("bad", "bad")
    page = open_page(pipeline.serve() + "/run/1/task/1")
    expect(page.locator("pre.traceback").first).to_contain_text("LookupError: nothing at 1")
    log = page.locator("#logged pre")
    expect(log).to_be_visible()
    expect(log).to_contain_text("WARNING root: asks for 1")
    page.locator("#logged summary").press("Enter")
    expect(log).to_be_hidden()


def test_the_graph_is_made_larger_and_moved(pipeline, open_page):
    """By buttons and by dragging; a node that was dragged is not opened, and news does not undo it."""
    child = pipeline.start("live", "today")
    page = open_page(pipeline.serve() + "/run?id=today")
    figure, picture = page.locator("#graph figure"), page.locator("#graph svg")
    expect(picture).to_be_visible()
    size = int(picture.get_attribute("height"))
    for _ in range(6):
        page.get_by_role("button", name="Larger").click()
    larger = picture.get_attribute("height")
    assert int(larger) > 3 * size
    box = figure.bounding_box()
    figure.evaluate("one => one.scrollTo(0, 0)")
    page.mouse.move(box["x"] + 40, box["y"] + 250)
    page.mouse.down()
    page.mouse.move(box["x"] + 40, box["y"] + 100, steps=3)
    page.mouse.up()
    assert figure.evaluate("one => one.scrollTop") > 100
    child.stdin.write("fail\n")
    child.stdin.flush()
    expect(page.locator("#graph a.node").first).to_have_accessible_name("step #0: failed")
    assert picture.get_attribute("height") == larger
    assert page.url.endswith("/run/1")
    page.get_by_role("button", name="Fit").click()
    assert int(picture.get_attribute("height")) <= size


def test_markup_that_got_through_could_not_run(pipeline, open_page):
    """The content security policy is a second wall: a script put into the page does nothing."""
    pipeline.run("good", "today")
    page = open_page(pipeline.serve())
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=/x onerror=\"window.hacked=1\">')")
    page.evaluate("s = document.createElement('script'); s.textContent = 'window.hacked=1'; document.body.append(s)")
    page.wait_for_timeout(300)
    assert page.evaluate("window.hacked") is None
    assert any("Content Security Policy" in message for message in open_page.wrong)
    open_page.wrong.clear()


def test_the_key_leaves_the_address_and_others_are_shown_where_it_stands(pipeline, open_page, browser):
    """One opens what the terminal says and can bookmark what one sees; a browser without the key is told what to do."""
    pipeline.run("good", "first")
    page = open_page(base := pipeline.serve())
    page.goto(pipeline.entrance)
    assert page.url == f"{base}/"
    assert page.evaluate("document.cookie") == "", "no script can read it"
    page.get_by_role("link", name="first").click()
    expect(page.locator("#status")).to_have_text("completed")
    stranger = browser.new_page()
    stranger.goto(f"{base}/run/1")
    expect(stranger.locator("body")).to_contain_text("printed in its terminal")
    stranger.close()


def test_a_page_says_when_the_server_is_gone_and_goes_on_when_it_is_back(pipeline, open_page):
    """A stopped server ends at once though pages are open. Once the new one's address is open, so are the old pages."""
    pipeline.run("good", "first")
    page = open_page(base := pipeline.serve())
    expect(page.locator("#link")).to_have_text("live")
    pipeline.server.send_signal(signal.SIGINT)
    assert pipeline.server.wait(30) == 0
    expect(page.locator("#link")).to_have_text("not connected")
    pipeline.run("bad", "second")
    pipeline.serve(base.rpartition(":")[2])
    page.context.new_page().goto(pipeline.entrance)
    expect(page.locator("tbody tr").first).to_contain_text("second")
    expect(page.locator("#link")).to_have_text("live")
    open_page.wrong.clear()
