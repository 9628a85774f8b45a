"""What the page shows of runs and their tasks, as a browser asks for it."""

import logging
import os
import random
import re

import pytest

from procession import Process, RunCancelledError, TaskLogHandler
from procession.cli.recorded import print_run
from procession.journal import Journal, lease
from web_pages import (
    BEGUN,
    BROKEN,
    HELD,
    HOSTILE,
    _nothing_broken,
    double,
    failing,
    hold,
    nodes_of,
    numbers,
    opened,
    path,
    rows_of,
    stubborn,
    work,
)

LAST = [None]
"""The process that was made last, for its own tasks."""
LOGGER = logging.getLogger("tests.page")


def test_the_list_shows_runs_newest_first_with_state_progress_and_error(where, opened):
    """Whoever opens the page sees at once what ran, how it went and what went wrong."""
    numbers(3).execute(journal=where, run_id="first")
    BROKEN.add(1)
    failing(numbers(3, on_error="continue"), where, "second")
    failing(numbers(2), where, "third")
    rows = rows_of(opened(where).get("/").text)
    assert [row.split()[:2] for row in rows] == [["failed", "third"], ["failed", "second"], ["completed", "first"]]
    assert "ValueError: number 1 is odd" in rows[0]
    assert "numbers 3 1" in rows[1]
    assert "ValueError: number 1 is odd" in rows[1]


def test_a_few_failures_among_many_are_seen_in_the_list(path, opened):
    """Their part of the bar is never narrower than some pixels, and what is cut off is there to be hovered over."""
    BROKEN.add(7)
    process = Process("thumbnails of " + 90 * "x", "parallel", 2, on_error="return")
    process.map(work, range(1000))
    process.execute(journal=path, run_id=f"run-{80 * '7'}")
    text = opened(path).get("/").text
    assert re.search(r'<rect class="failed" width="4(\.00)?"', text)
    assert f'title="run-{80 * "7"}"' in text
    assert f'title="thumbnails of {90 * "x"}"' in text


def test_runs_are_found_by_status_process_and_words(where, opened):
    """Filters and search go together, and what is found stays found when one pages."""
    for number in range(3):
        numbers(1, "cats").execute(journal=where, run_id=f"cat-{number}")
    BROKEN.add(0)
    failing(numbers(1, "dogs"), where, "dog-100%")
    page = opened(where)

    def found(query):
        return [row.split()[1] for row in rows_of(page.get(f"/?{query}").text)]

    assert found("status=failed") == ["dog-100%"]
    assert found("status=completed&q=CAT-1") == ["cat-1"]
    assert found("process=cats") == ["cat-2", "cat-1", "cat-0"]
    assert found("q=is odd") == ["dog-100%"]
    assert found("q=%25") == ["dog-100%"], "what databases take for a wildcard is only a character"
    assert found("q=nothing") == []
    assert "No run is like that" in page.get("/?q=nothing").text


def test_a_long_list_is_paged_both_ways_without_gap_or_repeat(path, opened):
    """Older, older, newer: every run is on exactly one page."""
    with Journal(path) as journal:
        for number in range(120):
            numbers(1).execute(journal=journal, run_id=f"run-{number:03}")
    page = opened(path)

    def step(address, link):
        match = re.search(rf'rel="{link}" href="([^"]*)"', page.get(address).text)
        return match and match[1].replace("&amp;", "&")

    def ids(address):
        return [row.split()[1] for row in rows_of(page.get(address).text)]

    first, addresses = ids("/"), ["/"]
    while (address := step(addresses[-1], "next")) is not None:
        addresses.append(address)
    everything = [one for address in addresses for one in ids(address)]
    assert everything == [f"run-{number:03}" for number in reversed(range(120))]
    back = step(addresses[-1], "prev")
    assert ids(back) == ids(addresses[-2])
    assert ids(step(back, "prev")) == first
    assert step("/", "prev") is None


def test_a_run_shows_each_task_whether_or_not_it_has_begun(where, opened):
    """A table of all tasks, in their places, with what failed and what never began."""
    BROKEN.add(2)
    process = Process("steps")
    for number in range(4):
        process.add_task(work, number)
    failing(process, where, "run")
    rows = rows_of(opened(where).get("/run/1").text)
    assert [row.split()[1:3] for row in rows] == [
        ["work", "completed"],
        ["work", "completed"],
        ["work", "failed"],
        ["work", "not"],
    ]
    assert "ValueError: number 2 is odd" in rows[2]


def test_tasks_are_paged_filtered_and_found_by_name_and_number(where, opened):
    """Whatever one looks for among many tasks is a few keys away."""
    BROKEN.update({5, 250})
    process = numbers(260, on_error="return")
    process.add_task(double, 1)
    process.execute(journal=where, run_id="run")
    page = opened(where)

    def places(query):
        return [int(row.split()[0]) for row in rows_of(page.get(f"/run/1?{query}").text)]

    assert places("") == list(range(100))
    assert places("from=200") == list(range(200, 261))
    assert places("state=failed") == [5, 250]
    assert places("state=failed&from=6") == [250]
    assert places("state=completed&from=100")[:2] == [100, 101]
    assert places("q=DOUBLE") == [260]
    assert places("q=double&state=completed") == [260]
    assert places("q=work&state=failed") == [5, 250]
    assert places("q=%23200")[0] == 200
    assert places("q=99999") == [260]
    text = page.get("/run/1?state=completed&from=201").text
    assert 'href="?state=completed&amp;from=101#tasks"' in text, "the page before begins 100 completed tasks earlier"


def test_a_failed_task_shows_its_traceback_and_a_retried_one_its_attempts(where, opened):
    """What went wrong, where, and how often it was tried."""
    BROKEN.add(0)
    process = Process("steps", "parallel", 1, on_error="return")
    process.add_task(work, 0)
    process.add_task(stubborn)
    process.execute(journal=where, run_id="run")
    page = opened(where)
    failed, stubborn_one = page.get("/run/1/task/0").text, page.get("/run/1/task/1").text
    assert "Traceback (most recent call last):" in failed
    assert re.search(r"ValueError: number 0 is odd\s+and so is this line", failed)
    assert "web_pages:work" in failed
    assert '<span class="again">3</span>' in stubborn_one


@pytest.fixture
def logging_kept():
    """Keeps what tasks log."""
    handler = TaskLogHandler()
    LOGGER.addHandler(handler)
    yield
    LOGGER.removeHandler(handler)


def grumble(number):
    LOGGER.warning("number %d: %s", number, HOSTILE)
    return work(number)


def test_a_task_shows_what_it_logged_harmless(where, opened, logging_kept):
    """Beside its traceback on the page of that task or element, and of what failed the last lines on the run's."""
    BROKEN.add(0)
    process = Process("steps", "parallel", 1, on_error="return")
    process.add_task(grumble, 0)
    process.map(grumble, [1])
    process.add_task(work, 2)
    process.execute(journal=where, run_id="run")
    page = opened(where)
    for address, number in ("/run/1/task/0", 0), ("/run/1/task/1/0", 1):
        text = page.get(address).text
        assert f"WARNING tests.page: number {number}: &lt;script&gt;" in text
        assert '<details id="logged"' in text
        assert ('<details id="logged" open>' in text) == (number == 0), "open where something failed"
        assert '<b class="warning">2' in text
        assert not re.search("<script>|\x1b|\u202e", text)
    text = page.get("/run/1").text
    assert "WARNING tests.page: number 0: &lt;script&gt;" in text
    assert "number 1:" not in text
    assert not re.search("<script>|\x1b|\u202e", text)
    for address in "/run/1/task/1", "/run/1/task/2":
        text = page.get(address).text
        assert "tests.page" not in text
        assert 'id="logged"' not in text


def test_elements_of_a_map_and_runs_inside_a_run_are_shown(where, opened):
    """One can follow a run down to each call."""
    BROKEN.add(3)
    inner = Process("inner")
    inner.add_task(work, 1)
    outer = Process("outer", "parallel", 2, on_error="return")
    outer.map(work, range(6))
    outer.add_task(inner)
    outer.execute(journal=where, run_id="run")
    page = opened(where)
    elements = rows_of(page.get("/run/1/task/0").text)
    assert [row.split()[0] for row in elements] == list("012345")
    assert [row.split()[0] for row in rows_of(page.get("/run/1/task/0?state=failed").text)] == ["3"]
    assert "ValueError: number 3 is odd" in page.get("/run/1/task/0/3").text
    assert 'href="/run/2"' in page.get("/run/1/task/1").text
    assert 'aria-label="1 of 1 task ended, 0 failed"' in page.get("/run/1").text, "a run inside has a bar, too"
    nested = page.get("/run/2").text
    assert 'aria-label="1 of 1 task ended, 0 failed"' in nested
    assert "run/1" in nested
    assert ">outer<" in nested
    assert rows_of(page.get("/run/1/nested").text)[0].startswith("completed run/1 inner")
    assert page.get("/run/1/task/0/77").status_code == 404


def test_a_resumed_run_shows_its_executions_and_only_this_ones_time(where, opened):
    """What an earlier execution did is told apart."""
    BROKEN.add(1)
    failing(numbers(3, on_error="continue"), where, "run")
    BROKEN.clear()
    with Journal(where) as journal, journal.database.writing() as connection:
        connection.exec_driver_sql("UPDATE procession_records SET started_at = started_at - 1000")
    numbers(3, on_error="continue").execute(journal=where, run_id="run")
    page = opened(where)
    text = page.get("/run/1").text
    assert "Executions" in text
    assert [row.split()[4] for row in rows_of(text)] == [
        "earlier",
        [row for row in rows_of(text)][1].split()[4],
        "earlier",
    ]
    assert rows_of(page.get("/run/1/time").text)[0].startswith("work 1")


def test_a_failed_run_is_compared_with_the_last_good_one_of_its_process(where, opened):
    """What was different: the definition, the tasks that fail now, the figures."""
    numbers(3).execute(journal=where, run_id="good")
    numbers(2).execute(journal=where, run_id="later but of two tasks")
    numbers(4, "other").execute(journal=where, run_id="of another process")
    BROKEN.add(1)
    process = numbers(2, on_error="continue")
    process.add_task(double, 7)
    process.add_task(double, 8)
    failing(process, where, "bad")
    page = opened(where)
    text = page.get("/run/4/compared").text
    assert "later but of two tasks" in text
    assert "There were 2 tasks; now there are 4." in text
    assert [row for row in rows_of(text) if row.startswith("1 work completed")]
    assert not re.search("<th[^>]*></th>", text)
    with_first = page.get("/run/4/compared?with=1").text
    assert "web_pages:work is now web_pages:double (task 2)" in with_first
    assert "other arguments" not in with_first
    assert 'href="/run/4/compared"' in page.get("/run/4").text
    assert 'compared"' not in page.get("/run/1").text
    assert "No run of this process completed before" in page.get("/run/1/compared").text


def test_one_is_said_in_the_singular(where, opened):
    """One task, one call, one worker."""
    numbers(1).execute(journal=where, run_id="one")
    numbers(2, on_error="continue").execute(journal=where, run_id="two")
    page = opened(where)
    assert 'aria-label="1 of 1 task ended, 0 failed"' in page.get("/run/1").text
    assert 'aria-label="Timeline: 1 call, 0 failed, by 1 worker in' in page.get("/run/1/time").text
    assert "the run has 1 task, and none at place 7" in page.get("/run/1/task/7").text
    assert "There was 1 task; now there are 2." in page.get("/run/2/compared").text


def cut_short(number):
    """Cancel the run around it, at the second call."""
    if number:
        LAST[0].last_run.cancel()


def test_page_graph_and_command_line_say_the_same_of_what_has_not_ended(where, opened, capsys):
    """Of a map whose elements are recorded, and not the whole, that it was interrupted."""
    process = LAST[0] = Process("half")
    process.add_task(work, 1)
    process.map(cut_short, range(3))
    process.map(work, [1])
    process.add_task(numbers(2))
    with pytest.raises(RunCancelledError):
        process.execute(journal=where, run_id="run")
    print_run(where, "run", 50, failed=False)
    words = "(completed|failed|interrupted|not started)"
    shown = re.findall(rf"^(\d) .*? {words}", capsys.readouterr().out, re.MULTILINE)
    page = opened(where)
    rows = rows_of(page.get("/run/1").text)[-4:]
    nodes = nodes_of(page.get("/run/1/graph").text)
    assert [re.match(rf"(\d) .*? {words}", row).groups() for row in rows] == shown
    assert [re.search(r"#(\d): (.*)", said).groups() for said, _ in nodes] == shown
    assert [word for _, word in shown] == ["completed", "interrupted", "not started", "not started"]
    assert "interrupted" in page.get("/run/1/task/1").text


def test_a_run_that_nobody_executes_any_more_is_interrupted(where, opened, comes_true):
    """A run whose process died without a word is not shown as running for ever."""
    process = Process("hung")
    process.add_task(hold)
    run = process.start(journal=where, run_id="run")
    BEGUN.acquire(timeout=30)
    with Journal(where) as journal:
        assert comes_true(lambda: journal.run("run").running)  # it says so within a second
    page = opened(where)
    assert rows_of(page.get("/?status=running").text)[0].startswith("running run hung")
    assert rows_of(page.get("/?status=interrupted").text) == []
    held = set(lease._held)
    for token in held:
        lease.drop(token)
    try:
        assert rows_of(page.get("/?status=interrupted").text)[0].startswith("interrupted run hung")
        assert rows_of(page.get("/?status=running").text) == []
        text = page.get("/run/1").text
        assert "Cancel this run" not in text
        assert "Running now" not in text
        assert rows_of(text)[0].startswith("0 hold interrupted")
        assert "It ran when the run was last heard of" in page.get("/run/1/task/0").text
        assert nodes_of(page.get("/run/1/graph").text) == [("hold #0: interrupted", "/run/1/task/0")]
    finally:
        lease._held.update(held)
        HELD.release()
        run.result()


def hold_at_one(number):
    if work(number):
        hold()


def test_an_element_that_has_ended_is_shown_so_while_its_map_goes_on(path, opened, comes_true):
    """Also where that was in an earlier execution: the map was begun again, and the element was not."""
    process = Process("map", "parallel", 1)
    process.map(hold_at_one, [0, 1])
    BROKEN.add(1)
    failing(process, path, "run")
    BROKEN.clear()
    run = process.start(journal=path, run_id="run")
    try:
        assert BEGUN.acquire(timeout=30)
        with Journal(path) as journal:
            assert comes_true(lambda: journal.run("run").running)  # it says so within a second
        page = opened(path)
        assert "<title>running: map of hold_at_one" in page.get("/run/1/task/0").text
        assert "<title>completed: map of hold_at_one" in page.get("/run/1/task/0/0").text
    finally:
        HELD.release()
        run.result()


def test_an_id_leads_to_its_run(where, opened):
    """Any id that a run can have can be asked for, and is shown."""
    odd = "a/b?c=d&e #%2F..\\ ../x 😀\"'<b>"
    numbers(1).execute(journal=where, run_id=odd)
    page = opened(where)
    answer = page.get("/run", params={"id": odd}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/run/1")
    assert "a/b?c=d&amp;e #%2F..\\ ../x 😀&#34;&#39;&lt;b&gt;" in page.get("/run/1").text


def test_before_anything_is_recorded_the_page_waits_for_it(path, opened):
    """The page can be opened first, and what is wrong with a journal is said plainly."""
    page = opened(path)
    answer = page.get("/")
    assert answer.status_code == 503
    assert "there is no journal" in answer.text
    numbers(1).execute(journal=path, run_id="run")
    assert rows_of(page.get("/").text)
    with open(path + "2", "w") as other:
        other.write("no database at all, but more than sixteen bytes")
    os.chmod(path + "2", 0o600)
    assert "is not a database" in opened(path + "2").get("/").text


def test_the_first_load_is_light(path, opened):
    """A page, its style, its script and its picture are less than 150 kB, for a run of thousands of failed tasks."""
    BROKEN.update(range(3000))
    numbers(3000, on_error="return").execute(journal=path, run_id="run")
    rng, begin = random.Random(1), 1_000_000_000.0
    with Journal(path) as journal, journal.database.writing() as connection:  # about as heavy a picture as there is
        for place in range(3000):
            worker, lasts = f"procession-numbers_{rng.randrange(40)}", 1e-5 * rng.paretovariate(1.5)
            connection.exec_driver_sql(
                "UPDATE procession_records SET worker = ?, started_at = ?, duration = ? WHERE task = ?",
                (worker, begin, lasts, place),
            )
            begin += lasts / 2 + 1e-4 * rng.paretovariate(1.5)
        connection.exec_driver_sql("UPDATE procession_runs SET started_at = 1000000000.0, ended_at = ?", (begin,))
    page = opened(path)
    for address in ("/run/1", "/run/1?state=failed", "/"):
        text = page.get(address).text
        needed = re.findall(r'(?:href|src|data-source)="(/static/[^"]*|/run/1/time|/run/1/graph)"', text)
        weight = len(text.encode()) + sum(len(page.get(one).content) for one in set(needed))
        assert weight < 150_000, (address, weight)
