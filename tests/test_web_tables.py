"""Which tasks a table of the page has, in which order, and why those that have not begun wait."""

import logging
import re
from html import unescape

import pytest

from labelled_tasks import fetch
from procession import Process, RunCancelledError, TaskLogHandler, current_task, task
from procession.journal import Journal
from procession.web import pages, tables
from web_pages import (
    BEGUN,
    BROKEN,
    HELD,
    HOSTILE,
    _nothing_broken,
    double,
    failing,
    going,
    hold,
    numbers,
    opened,
    path,
    rows_of,
    stubborn,
    work,
)


def chips_of(text):
    """Return the words of the links that choose by state."""
    chips = re.findall(r'<a id="t-[^>]*>(.*?)</a>', text, re.DOTALL)
    return [" ".join(re.sub("<[^>]*>", " ", chip).split()) for chip in chips]


@task(name="fetch {url}")
def fetch_logging(url):
    logging.getLogger("labels").warning("written")
    return url


@task(retries=1)
def stubborn_with(number):
    if current_task().attempt == 1:
        raise ConnectionError("not yet")
    return number


def places_of(text):
    return [int(row.split()[0]) for row in rows_of(text) if row != "None."]


def test_tasks_are_counted_and_chosen_by_how_they_stand(where, opened):
    """Failed, running, waiting, retried, completed: each with its number, and none where there is none."""
    process = Process("mixed", "parallel", 2, on_error="continue")
    BROKEN.add(1)
    bad = process.task(work, 1)
    process.add_task(stubborn)
    process.task(double, process.task(double, bad))
    process.add_task(double, 5)
    failing(process, where, "run")
    page = opened(where)
    text = page.get("/run/1").text
    assert chips_of(text) == ["All 5", "Failed 1", "Not started 2", "Retried 1", "Completed 2"]
    for state, places in {"failed": [0], "waiting": [2, 3], "retried": [1], "completed": [1, 4], "running": []}.items():
        assert places_of(page.get(f"/run/1?state={state}").text) == places, state
    assert places_of(page.get("/run/1?state=waiting&q=double").text) == [2, 3]
    assert places_of(page.get("/run/1?state=waiting&q=work").text) == []


def test_elements_are_counted_by_how_they_ended(where, opened, monkeypatch):
    """As tasks are, of the one map; where there are too many to count at once, the choices have no numbers."""
    process = Process("mapped", "parallel", 2, on_error="return")
    process.map(work, range(7))
    process.map(stubborn_with, range(3))
    BROKEN.add(4)
    process.execute(journal=where, run_id="run")
    page = opened(where)
    assert chips_of(page.get("/run/1/task/0").text) == ["All 7", "Failed 1", "Completed 6"]
    assert chips_of(page.get("/run/1/task/0?state=failed").text) == ["All 7", "Failed 1", "Completed 6"]
    assert chips_of(page.get("/run/1/task/1").text) == ["All 3", "Failed 0", "Retried 3", "Completed 3"]
    monkeypatch.setattr(pages, "COUNTED", 6)
    assert chips_of(page.get("/run/1/task/0").text) == ["All", "Failed", "Retried", "Completed"]
    assert chips_of(page.get("/run/1/task/1").text) == ["All 3", "Failed 0", "Retried 3", "Completed 3"]


def test_tasks_and_elements_are_found_by_their_labels(where, opened):
    """By what their names give for their arguments, in any case; by nothing that stands in their logs."""
    process = Process("labels", "parallel", 2, on_error="return")
    for url in ("One.org/a", "broken", "two.org/100%", "<b>"):
        process.add_task(fetch, url)
    process.map(fetch, ["x.org", "broken", "y.org"])
    process.add_task(fetch_logging, "three")
    process.task(fetch, process.task(fetch, "broken"))
    logger, handler = logging.getLogger("labels"), TaskLogHandler()
    logger.addHandler(handler)
    process.execute(journal=where, run_id="run")
    logger.removeHandler(handler)
    page = opened(where)
    assert "written" in page.get("/run/1/task/5").text

    def found(query, address="/run/1"):
        return places_of(page.get(f"{address}?{query}").text)

    assert found("q=one.ORG") == [0]
    assert found("q=.org/") == [0, 2]
    assert found("q=%25") == [2]
    assert found("q=0_%25") == []
    assert found("q=%3Cb%3E") == [3]
    assert found("q=broken") == [1, 6]
    assert found("q=broken&state=failed") == [1, 6]
    assert found("q=broken&state=completed") == []
    assert found("q=.org&order=slowest") in ([0, 2], [2, 0])
    assert found("q=three") == [5]
    assert found("q=written") == [], "in the log"
    assert found("q=fetch") == list(range(8))
    assert found("q=.org", "/run/1/task/4") == [0, 2]
    assert found("q=broken&state=failed", "/run/1/task/4") == [1]
    assert found("q=.org&order=slowest", "/run/1/task/4") in ([0, 2], [2, 0])
    assert '<input id="q"' in page.get("/run/1/task/4").text
    hostile = page.get("/run/1", params={"q": HOSTILE}).text
    assert "<script>alert" not in hostile


def test_many_tasks_are_found_by_their_labels(path, opened):
    """Where more are sought than are named one by one, too."""
    process = Process("labels", "parallel", 2)
    for number in range(tables.SOUGHT + 10):
        process.add_task(fetch, f"page-{number}")
    process.execute(journal=path, run_id="run")
    page = opened(path)
    assert places_of(page.get("/run/1?q=PAGE-&state=completed&from=400").text) == list(range(400, 410))
    assert places_of(page.get("/run/1?q=page-40&state=completed").text) == [40, *range(400, 410)]


def test_a_task_that_runs_is_found_by_its_label(path, opened, comes_true):
    """It has no record yet."""
    process = Process("labels", "parallel", 1)
    process.add_task(work, 1)
    process.add_task(task(name="hold {what}")(lambda what: hold()), "Something")
    run = process.start(journal=path, run_id="run")
    assert BEGUN.acquire(timeout=30)
    try:
        with Journal(path) as journal:
            assert comes_true(lambda: journal.run("run").running)  # it says so within a second
        page = opened(path)
        assert places_of(page.get("/run/1?q=something").text) == [1]
        assert places_of(page.get("/run/1?q=something&state=running").text) == [1]
    finally:
        HELD.release()
        run.wait(30)


def test_what_runs_and_what_waits_is_chosen_while_a_run_goes_on(path, opened, going, comes_true):
    """And the number of those that run is right a second after they began, at most."""
    with Journal(path) as journal:
        assert comes_true(lambda: journal.run("run").running)
    page = opened(path)
    assert chips_of(page.get("/run/1").text) == ["All 2", "Failed 0", "Running 1", "Waiting 1", "Completed 0"]
    assert places_of(page.get("/run/1?state=running").text) == [0]
    assert places_of(page.get("/run/1?state=waiting").text) == [1]


def test_the_slowest_come_first_where_that_is_wanted(where, opened):
    """Tasks and elements of maps are sorted by the heads of their columns, and paged in that order."""
    process = numbers(130, on_error="return")
    process.map(work, range(3))
    BROKEN.add(7)
    process.execute(journal=where, run_id="run")
    with Journal(where) as journal, journal.database.writing() as connection:
        connection.exec_driver_sql("UPDATE procession_records SET duration = task + element * 0.5")
    page = opened(where)
    first = page.get("/run/1?order=slowest").text
    assert places_of(first) == list(range(130, 30, -1))
    assert 'aria-sort="descending"' in first
    assert places_of(page.get("/run/1?order=slowest&from=100").text) == list(range(30, -1, -1))
    assert places_of(page.get("/run/1?order=slowest&state=failed").text) == [7]
    assert places_of(page.get("/run/1/task/130?order=slowest").text) == [2, 1, 0]
    assert places_of(page.get("/run/1").text) == list(range(100))
    assert page.get("/run/1?order=oddest").status_code == 400


def test_what_failed_comes_first_where_that_is_wanted(where, opened):
    """Before all others, those that have not begun too; elements of maps likewise, and paged in that order."""
    process = numbers(130, on_error="continue")
    process.map(work, range(120))
    process.task(double, process.task(double, 110))
    process.add_task(stubborn)
    BROKEN.update({7, 110})
    failing(process, where, "run")
    page = opened(where)
    others = [place for place in range(134) if place not in (7, 110, 130, 131)]
    first = page.get("/run/1?order=failed").text
    assert places_of(first) == [7, 110, 130, 131, *others[:96]]
    assert re.search(r'aria-sort="descending"><a href="[^"]*order=failed#tasks"[^>]*>State</a>', first)
    assert first.count("aria-sort") == 1
    later = re.search(r'rel="next" href="([^"]*)#tasks"', first)[1].replace("&amp;", "&")
    assert places_of(page.get(f"/run/1{later}").text) == others[96:]
    assert places_of(page.get("/run/1?order=failed&q=double").text) == [131, 132]
    assert places_of(page.get("/run/1?order=failed&q=work&from=100").text) == others[97:128]
    assert places_of(page.get("/run/1?order=failed&state=failed").text) == [7, 110, 130, 131]
    assert places_of(page.get("/run/1?order=failed&state=retried").text) == [133]
    assert places_of(page.get("/run/1?order=failed&state=waiting").text) == [132]
    elements = page.get("/run/1/task/130?order=failed").text
    assert places_of(elements)[:4] == [7, 110, 0, 1]
    assert places_of(page.get("/run/1/task/130?order=failed&from=100").text) == [*range(99, 110), *range(111, 120)]
    assert 'order=failed#elements"' in elements


def test_a_task_that_has_not_begun_says_what_it_waits_for(where, opened):
    """First what failed, then what has not ended; in order, the task before."""
    BROKEN.add(1)
    process = Process("waits", "parallel", 2, on_error="continue")
    good, bad = process.task(work, 0), process.task(work, 1)
    last = process.task(max, good, bad)
    process.task(double, last)
    failing(process, where, "at once")
    steps = Process("steps")
    for number in range(3):
        steps.add_task(work, number)
    failing(steps, where, "in order")
    page = opened(where)
    rows = rows_of(page.get("/run/1").text)
    assert rows[2].endswith("waits for #1 , which failed")
    assert rows[3].endswith("waits for #2 , which was not started")
    assert 'It waits for <a href="/run/1/task/1">#1</a>, which failed.' in page.get("/run/1/task/2").text
    assert rows_of(page.get("/run/2").text)[2].endswith("waits for #1 , which failed")


def test_the_elements_of_a_map_count_before_it_begins(path, opened, comes_true):
    """Where it is known how many there are: else a run would fall back when the map begins."""
    process = Process("holding", "parallel", 1)
    process.add_task(hold)
    process.map(work, range(10))
    process.map(work, iter(range(10)))
    run = process.start(journal=path, run_id="run")
    BEGUN.acquire(timeout=30)
    try:
        with Journal(path) as journal:
            assert comes_true(lambda: journal.run("run").progress is not None)
        assert 'aria-label="0 of 12 tasks ended, 0 failed"' in opened(path).get("/run/1").text
    finally:
        HELD.release()
        run.result()
    assert 'aria-label="21 of 21 tasks ended, 0 failed"' in opened(path).get("/run/1").text


def test_a_result_is_shown_where_it_is_recorded_as_json(where, opened):
    """Harmless and bounded; a pickle is never shown."""
    process = Process("results", "parallel", 1)
    process.add_task(dict, page="<script>\u202e", words=[1, 2])
    process.add_task(list, [7] * 9000)
    process.map(work, [5])
    with Journal(where, codec="json") as journal:
        process.execute(journal=journal, run_id="json")
    with Journal(where) as journal:
        process.execute(journal=journal, run_id="pickle")
    page = opened(where)

    def result(address):
        found = re.search(r'aria-label="Result">(.*?)</pre>', page.get(address).text, re.DOTALL)
        return found and unescape(found[1])

    assert result("/run/1/task/0") == '{\n  "page": "<script>\\u202e",\n  "words": [\n    1,\n    2\n  ]\n}'
    assert "<script>" not in page.get("/run/1/task/0").text.partition("</head>")[2]
    assert result("/run/1/task/1").startswith("[7,7,")
    assert len(result("/run/1/task/1")) < 5_100
    assert result("/run/1/task/2/0") == "5"
    assert result("/run/1/task/2") is None
    assert result("/run/2/task/0") is result("/run/2/task/2/0") is None


def test_a_task_waits_for_what_runs(path, opened, comes_true):
    """While a run goes on, too."""
    process = Process("waits", "parallel", 2)
    process.task(work, process.task(hold))
    run = process.start(journal=path, run_id="run")
    BEGUN.acquire(timeout=30)
    with Journal(path) as journal:
        assert comes_true(lambda: journal.run("run").running)
    try:
        text = opened(path).get("/run/1").text
        assert rows_of(text)[1].endswith("waits for #0 , which is running")
    finally:
        run.cancel()
        HELD.release()
        with pytest.raises(RunCancelledError):
            run.result()


def test_tasks_that_wait_are_paged_both_ways(path, opened, monkeypatch):
    """However far apart they are, every one is on exactly one page."""
    monkeypatch.setattr(tables, "TASKS", 3)
    monkeypatch.setattr(tables, "_STEP", 5)
    process = Process("waits", "parallel", 1, on_error="continue")
    BROKEN.add(1)
    bad = process.task(work, 1)
    for number in range(30):
        process.task(work, bad if number % 4 == 0 else 0)
    failing(process, path, "run")
    page, address, found, parts = opened(path), "/run/1?state=waiting", [], []
    while address:
        text = page.get(address).text
        parts.append(places_of(text))
        found += parts[-1]
        later = re.search(r'rel="next" href="([^"]*)"', text)
        address = later and "/run/1" + later[1].replace("&amp;", "&").partition("#")[0]
    assert found == [1 + number for number in range(30) if number % 4 == 0]
    assert len(parts) == 3
    back = re.search(r'rel="prev" href="([^"]*)"', text)[1].replace("&amp;", "&").partition("#")[0]
    assert places_of(page.get(f"/run/1{back}").text) == parts[-2]
