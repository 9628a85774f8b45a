"""The page, as a browser asks for it: what it shows, and what it refuses."""

import asyncio
import contextlib
import functools
import logging
import os
import pickle
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from html import unescape
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest
import uvicorn
from starlette.testclient import TestClient
from uvicorn.server import ServerState

from procession import JournalError, Process, RunCancelledError, TaskLogHandler, current_task, task
from procession.cli.recorded import print_run
from procession.journal import Journal, Mark, Reader, lease
from procession.web import application, connection
from procession.web.connection import STRANGERS, Connection
from procession.web.live import STREAMS, Live
from procession.web.strip import LIMIT, drawn

HOSTILE = "<script>alert('x')</script>\"'>\u202e\x1b[31m\n"
BASE = "http://127.0.0.1:8765"
KEY = "the-key-that-the-terminal-shows"
COOKIE = {"procession-8765": KEY}
BROKEN = set()
LAST = [None]
"""The process that was made last, for its own tasks."""
LOGGER = logging.getLogger("tests.page")
HELD, BEGUN = threading.Semaphore(0), threading.Semaphore(0)


def hold():
    """Goes on until the test lets it, or somebody cancels the run."""
    BEGUN.release()
    while not HELD.acquire(timeout=0.02) and not current_task().cancelled:
        pass


@pytest.fixture(autouse=True)
def _nothing_broken():
    BROKEN.clear()


def work(number):
    if number in BROKEN:
        raise ValueError(f"number {number} is odd\nand so is this line")
    return number


def double(number):
    return 2 * work(number)


@task(retries=2)
def stubborn():
    attempt = current_task().attempt
    if attempt < 3:
        raise ConnectionError("not yet")
    return attempt


def numbers(count, name="numbers", **options):
    process = Process(name, "parallel", 2, **options)
    for number in range(count):
        process.add_task(work, number)
    return process


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "runs.db")


@pytest.fixture
def opened():
    """Opens the page of a journal, with its key unless `cookies` says what else to bring."""
    closing = []

    def open_page(where, cookies=COOKIE, **options):
        journal = Journal(where)
        app = application(journal, KEY, **options)
        client = TestClient(app, base_url=BASE, headers={"origin": BASE}, cookies=cookies)
        closing.append(journal)
        return client

    yield open_page
    for journal in closing:
        journal.close()


def rows_of(page):
    """Return the words of each row of a page's tables."""
    body = "".join(re.findall(r"<tbody.*?</tbody>", page, re.DOTALL))
    return [" ".join(re.sub(r"<[^>]*>", " ", row).split()) for row in re.findall(r"<tr.*?</tr>", body, re.DOTALL)]


def failing(process, where, run_id):
    with pytest.raises((ValueError, ExceptionGroup)):
        process.execute(journal=where, run_id=run_id)


# What it shows


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
        ["work", "never"],
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
    assert "test_web:work" in failed
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
    """Folded away beside its traceback, on the page of that task or element alone."""
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
        assert '<details id="logged"><summary>' in text
        assert not re.search("<script>|\x1b|\u202e", text)
    for address in "/run/1/task/1", "/run/1/task/2", "/run/1", "/run/1?state=failed":
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
    nested = page.get("/run/2").text
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
    with_first = page.get("/run/4/compared?with=1").text
    assert "test_web:work is now test_web:double (task 2)" in with_first
    assert "other arguments" not in with_first
    assert 'href="/run/4/compared"' in page.get("/run/4").text
    assert 'compared"' not in page.get("/run/1").text
    assert "No run of this process completed before" in page.get("/run/1/compared").text


def test_one_is_not_said_as_several(where, opened):
    """One task, one call, one worker."""
    numbers(1).execute(journal=where, run_id="one")
    numbers(2, on_error="continue").execute(journal=where, run_id="two")
    page = opened(where)
    assert 'aria-label="1 of 1 task ended, 0 failed"' in page.get("/run/1").text
    assert 'aria-label="Timeline: 1 call, 0 failed, by 1 worker in' in page.get("/run/1/time").text
    assert "the run has 1 task, and none at place 7" in page.get("/run/1/task/7").text
    assert "There was 1 task; now there are 2." in page.get("/run/2/compared").text


def test_the_time_goes_to_calls_and_not_twice_to_maps(where, opened):
    """Each call counts once, by name, and has its place in the picture."""
    process = Process("both", "parallel", 2)
    process.map(work, range(20))
    process.add_task(double, 3)
    process.execute(journal=where, run_id="run")
    text = opened(where).get("/run/1/time").text
    assert {re.match(r"(.*?) (\d+) ", row).groups() for row in rows_of(text)} == {
        ("double", "1"),
        ("map of work", "20"),
    }
    assert 'aria-label="Timeline: 21 calls, 0 failed' in text


def test_the_picture_is_bounded_however_many_calls_there_are():
    """A long run is drawn with few marks, and what failed in it still shows."""
    marks = [
        Mark(f"worker-{place % 8}", 3, int(place == 777), 1, place / 8, place / 8 + 0.9, 0.8, place, None, HOSTILE)
        for place in range(8000)
    ]
    picture = drawn(marks, 0.0, 1001.0)
    assert picture.count("<rect") < LIMIT + 8 + 10
    assert picture.count('class="bad"') == 1
    assert "<script" not in picture
    assert len(picture) < 90_000


def test_what_runs_now_is_in_the_picture_though_nothing_has_ended(path, opened, going, comes_true):
    """From the first moment on one sees who is busy with what."""
    with Journal(path) as journal:
        assert comes_true(lambda: journal.run("run").running)  # it says so within a second
    text = opened(path).get("/run/1/time").text
    assert 'class="going"' in text
    assert "hold, task 0: running for" in text


def nodes_of(page):
    """Return what each node of a page's graph says of itself, and where it leads."""
    nodes = re.findall(r'<a class="node [a-z]+" href="([^"]*)" aria-label="([^"]*)"', page)
    return [(unescape(said), unescape(address)) for address, said in nodes]


def test_the_graph_shows_what_waits_for_what_and_how_each_stands(where, opened):
    """Each task leads to its page; a map and a process in it count as one."""
    process = Process("graph", "parallel", 2, on_error="return")
    first = process.task(work, 1)
    second = process.task(double, first)
    process.map(work, [first, 2, second])
    process.add_task(numbers(2, "inner"))
    process.task(work, process.task(int, "x"))
    process.execute(journal=where, run_id="run")
    page = opened(where)
    assert 'data-source="/run/1/graph"' in page.get("/run/1").text
    text = page.get("/run/1/graph").text
    assert nodes_of(text) == [
        ("work #0: completed", "/run/1/task/0"),
        ("double #1: completed", "/run/1/task/1"),
        ("map of work #2: completed", "/run/1/task/2"),
        ("inner #3: completed", "/run/1/task/3"),
        ("int #4: failed", "/run/1/task/4"),
        ("work #5: never begun", "/run/1/task/5"),
    ]
    assert re.findall(r"<title>(.* takes the value of .*)</title>", text) == [
        "double takes the value of work",
        "map of work takes the value of work",
        "map of work takes the value of double",
        "work takes the value of int",
    ]
    assert nodes_of(page.get("/run/2/graph").text) == [
        ("work #0: completed", "/run/2/task/0"),
        ("work #1: completed", "/run/2/task/1"),
    ]


def test_the_graph_of_many_is_folded_and_says_how_many_failed(path, opened):
    """Tasks that look alike share a node, which leads to the first of them in the table."""
    process = Process("many", "parallel", 2, on_error="return")
    BROKEN.update({3, 5})
    loaded = [process.task(work, number) for number in range(200)]
    process.task(len, [process.task(double, value) for value in loaded])
    process.execute(journal=path, run_id="run")
    text = opened(path).get("/run/1/graph").text
    assert nodes_of(text) == [
        ("work \N{MULTIPLICATION SIGN} 200: 198 completed, 2 failed", "/run/1?from=0#tasks"),
        ("double \N{MULTIPLICATION SIGN} 200: 198 completed, 2 never begun", "/run/1?from=200#tasks"),
        ("len #400: never begun", "/run/1/task/400"),
    ]


def test_the_graph_shows_what_runs_now(path, opened, going, comes_true):
    """And what has yet to begin."""
    with Journal(path) as journal:
        assert comes_true(lambda: journal.run("run").running)  # it says so within a second
    text = opened(path).get("/run/1/graph").text
    assert [said for said, _ in nodes_of(text)] == ["hold #0: running", "work #1: waiting"]


def test_a_run_whose_journal_keeps_no_graph_has_none(path, opened):
    """As those of version 1 were; everything else is shown."""
    numbers(2).execute(journal=path, run_id="run")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE procession_definitions SET shape = NULL")
    connection.close()
    page = opened(path)
    assert "/run/1/graph" not in page.get("/run/1").text
    assert "The journal does not know" in page.get("/run/1/graph").text


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
    words = "(completed|failed|interrupted|never begun)"
    shown = re.findall(rf"^(\d) .*? {words}", capsys.readouterr().out, re.MULTILINE)
    page = opened(where)
    rows = rows_of(page.get("/run/1").text)[-4:]
    nodes = nodes_of(page.get("/run/1/graph").text)
    assert [re.match(rf"(\d) .*? {words}", row).groups() for row in rows] == shown
    assert [re.search(r"#(\d): (.*)", said).groups() for said, _ in nodes] == shown
    assert [word for _, word in shown] == ["completed", "interrupted", "never begun", "never begun"]
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
    page = opened(path)
    for address in ("/run/1", "/run/1?state=failed", "/"):
        text = page.get(address).text
        needed = re.findall(r'(?:href|src|data-source)="(/static/[^"]*|/run/1/time|/run/1/graph)"', text)
        weight = len(text.encode()) + sum(len(page.get(one).content) for one in set(needed))
        assert weight < 150_000, (address, weight)


# What it refuses


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "localhost.evil.example:8765", "", "[::2]:1"],
)
def test_a_name_that_is_not_ours_is_refused(path, opened, host):
    """A site whose DNS leads to this machine reads nothing (DNS rebinding)."""
    numbers(1).execute(journal=path, run_id="secret-run")
    for address in "/", "/events", "/static/page.js":
        answer = opened(path).get(address, headers={"host": host})
        assert answer.status_code == 421
        assert "secret-run" not in answer.text


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost:1", "LOCALHOST", "[::1]:8765"])
def test_our_own_names_are_not(path, opened, host):
    """Through any port, for a tunnel may lead here."""
    numbers(1).execute(journal=path, run_id="run")
    page = opened(path, cookies={f"procession-{port}": KEY for port in (8765, 80, 1)})
    assert page.get("/", headers={"host": host, "origin": f"http://{host}"}).status_code == 200


def test_on_every_address_any_number_will_do_but_no_name(path, opened):
    """No DNS can make up a number."""
    numbers(1).execute(journal=path, run_id="run")
    page = opened(path, any_address=True, cookies=COOKIE | {"procession-80": KEY})
    for host, status in ("192.168.1.2:8765", 200), ("[fe80::1]", 200), ("evil.example", 421):
        assert page.get("/", headers={"host": host, "origin": f"http://{host}"}).status_code == status


# The key


@pytest.mark.parametrize("address", ["/", "/run/1", "/run/1/task/0", "/events", "/static/page.js", "/nothing"])
@pytest.mark.parametrize(
    ("query", "cookies"),
    [
        ("", {}),
        ("?key=", {}),
        (f"?key={KEY[:-1]}", {}),
        (f"?key={KEY}x", {}),
        ("?key=%ff%00", {}),
        ("", {"procession-8765": ""}),
        ("", {"procession-8765": KEY[:-1]}),
        ("", {"procession-8766": KEY}),
        ("", {"procession": KEY, "key": KEY}),
    ],
)
def test_without_the_key_nothing_is_shown(path, opened, address, query, cookies):
    """Another user of this machine learns nothing but where the right address stands."""
    numbers(1).execute(journal=path, run_id="secret-run")
    answer = opened(path, cookies=cookies).get(address + query)
    assert answer.status_code == 403
    assert answer.headers["content-type"].startswith("text/plain")
    assert "`procession ui` has printed in its terminal" in answer.text
    assert not re.search("secret-run|function|set-cookie", answer.text + str(answer.headers))


def test_the_address_with_the_key_leads_in_and_the_key_is_gone_from_it(path, opened):
    """One opens what the terminal says, at any page; what the browser keeps in its history has no key."""
    numbers(1).execute(journal=path, run_id="run")
    page = opened(path, cookies={})
    answer = page.get(f"/run/1?state=failed&key={KEY}&q=a%26b", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/run/1?state=failed&q=a%26b")
    assert KEY not in answer.text
    name, _, rest = answer.headers["set-cookie"].partition("=")
    assert name == "procession-8765"
    assert {part.strip().lower() for part in rest.split(";")[1:]} == {"httponly", "samesite=strict", "path=/"}
    assert page.get("/run/1").status_code == 200, "the cookie is enough from then on"
    assert page.get(f"/?key={KEY}", follow_redirects=False).headers["location"] == "/"
    assert page.get("/run/1?key=of-another-day").status_code == 200


@pytest.mark.parametrize("path_", ["//evil.example", "///evil.example/x", "/%5Cevil.example", "/%2F/evil.example"])
def test_the_address_with_the_key_leads_to_no_other_site(path, opened, path_):
    """Whatever stands before the key, one stays here."""
    page = opened(path, cookies={})
    location = page.get(f"{BASE}{path_}?key={KEY}", follow_redirects=False).headers["location"]
    assert re.match(r"/[^/\\]", location), location


def test_pages_on_two_ports_each_keep_their_own_key(path, opened):
    """A browser sends every cookie of a machine to all of its ports."""
    numbers(1).execute(journal=path, run_id="run")
    page = opened(path, cookies=COOKIE | {"procession-9999": "the-key-of-another-page"})
    assert page.get("/").status_code == 200
    moved = {"host": "localhost:9999", "origin": "http://localhost:9999"}
    answer = page.get(f"/?key={KEY}", headers=moved, follow_redirects=False)
    assert answer.headers["set-cookie"].startswith("procession-9999=")


def test_nobody_without_the_key_cancels_a_run(path, opened, going):
    """Not even with the token, and not with the key in the address of a form."""
    page = opened(path, cookies={})
    for address, status in ("/run/1/cancel", 403), (f"/run/1/cancel?key={KEY}", 403):
        answer = page.post(address, data={"token": page.app.app.state.token}, follow_redirects=False)
        assert answer.status_code == status
    with Journal(path) as journal:
        assert not journal.run("run").cancelling


def test_odd_hosts_are_answered_and_break_nothing(path, opened):
    """What calls itself a port and is none is not worth a traceback."""
    for host in "127.0.0.1:99999999", "[::1:8765", "127.0.0.1:", "::1":
        answer = opened(path, cookies={}).get("/", headers={"host": host, "origin": f"http://{host}"})
        assert answer.status_code in (403, 421), host


def token_of(page, address="/run/1"):
    return re.search(r'name="token" value="([^"]+)"', page.get(address).text)[1]


@pytest.fixture
def going(path):
    """A run that goes on."""
    process = Process("going", "parallel", 1)
    process.add_task(hold)
    process.add_task(work, 1)
    run = process.start(journal=path, run_id="run")
    BEGUN.acquire(timeout=30)
    yield run
    run.cancel()
    with pytest.raises(RunCancelledError):
        run.result()


def test_a_run_is_cancelled_by_a_post_with_the_token(path, opened, going):
    """The button works, and says that it has."""
    page = opened(path)
    answer = page.post("/run/1/cancel", data={"token": token_of(page)}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/run/1")
    with pytest.raises(RunCancelledError):
        going.result()
    assert rows_of(page.get("/").text)[0].startswith("cancelled run")
    again = page.post("/run/1/cancel", data={"token": page.app.app.state.token}, follow_redirects=False)
    assert again.status_code == 409


@pytest.mark.parametrize(
    ("status", "change"),
    [
        (403, {"origin": "http://evil.example"}),
        (403, {"origin": "null"}),
        (403, {"origin": "http://127.0.0.1:9999"}),
        (403, {"origin": "http://127.0.0.1:8765.evil.example"}),
        (403, {"origin": None}),
        (403, {"token": ""}),
        (403, {"token": "x" * 32}),
        (403, {"token": None}),
        (413, {"token": "x" * 5000}),
        (405, {"method": "GET"}),
        (405, {"method": "PUT"}),
    ],
)
def test_nothing_else_cancels_it(path, opened, going, status, change):
    """No other site, no link and no picture can change anything."""
    page = opened(path)
    token = change.get("token", token_of(page))
    origin = change.get("origin", BASE)
    headers = {} if origin is None else {"origin": origin}
    client = TestClient(page.app, base_url=BASE, cookies=COOKIE)
    data = {} if token is None else {"token": token}
    answer = client.request(change.get("method", "POST"), "/run/1/cancel", data=data, headers=headers)
    assert answer.status_code == status
    with Journal(path) as journal:
        assert not journal.run("run").cancelling


def test_a_request_of_another_site_reads_nothing(path, opened):
    """Neither does it with GET."""
    numbers(1).execute(journal=path, run_id="secret-run")
    answer = opened(path).get("/", headers={"origin": "http://evil.example"})
    assert answer.status_code == 403
    assert "secret-run" not in answer.text


def test_hostile_names_are_shown_harmless(where, opened):
    """Whatever a process, a task, a run or an error is called, it is text."""

    @task(name=HOSTILE)
    def named():
        raise ValueError(HOSTILE)

    process = Process(HOSTILE, "parallel", 1, on_error="return")
    process.add_task(named)
    process.map(named, [])
    process.execute(journal=where, run_id=HOSTILE)
    Process(HOSTILE).execute(journal=where, run_id="other")
    page = opened(where)
    for address in (
        "/",
        f"/?q={quote(HOSTILE)}",
        f"/?process={quote(HOSTILE)}",
        "/?status=<script>",
        "/run/1",
        f"/run/1?q={quote(HOSTILE)}",
        "/run/1?state=failed",
        "/run/1/graph",
        "/run/1/time",
        "/run/1/compared",
        "/run/1/task/0",
        f"/run?id={quote(HOSTILE)}",
        "/<script>",
        "/run/<script>",
    ):
        text = page.get(address).text
        assert "<script>" not in text, address
        text = re.sub(r'<option value="[^"]*"', "", text)  # which nobody sees
        assert "\u202e" not in text, address
        assert "\x1b" not in text, address
        assert not re.search(r"\son\w+=", text), address


@pytest.mark.parametrize("name", ["map of " * 2000, "n" * 100_000 + "'", "\n", " (a:b '" * 1000], ids=len)
def test_a_task_may_have_any_name(path, opened, name):
    """Its run is shown, with its graph and its time, and no page of it is large."""
    process = Process("any", "parallel")
    process.add_task(task(name=name)(work), 1)
    process.map(task(name=name)(work), [1])
    process.execute(journal=path, run_id="run")
    page = opened(path)
    answers = [page.get(f"/run/1{part}") for part in ("", "/graph", "/time", "/task/0", "/task/1", "/compared")]
    assert [answer.status_code for answer in answers] == [200] * 6
    assert max(len(answer.text) for answer in answers) < 30_000
    assert "</html>" in answers[1].text


def test_every_answer_has_the_headers_that_browsers_obey(path, opened):
    """Only our files run, nobody frames the page, and nothing of it is kept."""
    numbers(1).execute(journal=path, run_id="run")
    page = opened(path)
    for address, host in [("/", None), ("/run/1", None), ("/nothing", None), ("/static/page.js", None), ("/", "evil")]:
        answer = page.get(address, headers={"host": host} if host else {})
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
        assert "set-cookie" not in answer.headers


def test_nothing_is_loaded_from_elsewhere_and_nothing_stands_in_the_page_itself(path, opened):
    """No address of another site, no inline script and no inline style."""
    BROKEN.add(0)
    failing(numbers(2), path, "run")
    page = opened(path)
    for address in "/", "/run/1", "/run/1/graph", "/run/1/time", "/run/1/compared", "/run/1/task/0", "/nothing":
        text = page.get(address).text
        assert not re.search(r"https?://|[\"'(]//|url\(|@import", text), address
        assert not re.search(r"<style|\sstyle=|<script(?![^>]*src=)|<iframe|<object", text), address
    for name in "style.css", "graph.css", "page.js", "icon.svg":
        text = page.get(f"/static/{name}").text.replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|[\"'(]//\w|url\(|@import|eval\(|innerHTML", text), name


class Trap:
    def __reduce__(self):
        return (BROKEN.add, ("unpickled",))


def test_no_value_is_ever_unpickled(path, opened, monkeypatch):
    """A recorded value may run code when it is read; the page never reads one."""
    numbers(3).execute(journal=path, run_id="run")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE procession_records SET value = ?", (pickle.dumps(Trap()),))
    connection.close()

    def refuse(*_):
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(pickle, "load", refuse)
    page = opened(path)
    for address in "/", "/run/1", "/run/1/time", "/run/1/compared", "/run/1/task/0", "/run/1?state=completed":
        assert page.get(address).status_code == 200
    assert "unpickled" not in BROKEN


MEANINGLESS = [
    ("/static/../app.py", 404),
    ("/static/..%2fapp.py", 404),
    ("/static/%2e%2e%2f%2e%2e%2fpyproject.toml", 404),
    ("/static//etc/passwd", 404),
    ("/../../etc/passwd", 404),
    ("/static/style.css%00", 404),
    ("/run/0", 404),
    ("/run/77", 404),
    ("/run/-1", 400),
    ("/run/1e3", 400),
    ("/run/١", 400),
    ("/run/" + "9" * 18, 404),
    ("/run/" + "9" * 30, 400),
    ("/run/1/task/999999999999", 404),
    ("/run/1/task/x", 400),
    ("/run/1/task/0/" + "9" * 18, 404),
    ("/run/1?from=-5", 400),
    ("/run/1?from=1' OR '1'='1", 400),
    ("/run/1?from=" + "9" * 18, 200),
    ("/run/1?state=lost", 400),
    ("/?before=abc", 400),
    ("/?before=" + "9" * 18, 200),
    ("/?status=lost", 400),
    ("/?q=%00", 400),
    ("/?q=%ff%fe", 200),
    ("/?q=" + "x" * 201, 400),
    ("/run?id=%00", 400),
    ("/run?id=nothing", 404),
    ("/run?id=", 404),
    ("/run?id=" + "x" * 5000, 400),
    ("/run?id=a/a/a", 404),
    ("/run?id=" + "1/" * 1900, 404),
    ("/?q=" + "x" * 9000, 414),
    ("/" + "x" * 9000, 414),
    ("/run/1/compared?with=99", 404),
    ("/events?run=x", 400),
    ("/run/1/cancel", 405),
]


def test_addresses_that_mean_nothing_are_refused_plainly(where, opened):
    """Traversal, numbers that are none, and texts without end get an answer that says so, and no traceback."""
    numbers(2).execute(journal=where, run_id="run")
    page = opened(where)
    answers = {address: page.get(address) for address, _ in MEANINGLESS}
    assert {address: answer.status_code for address, answer in answers.items()} == dict(MEANINGLESS)
    assert not any("Traceback" in answer.text or len(answer.text) > 20_000 for answer in answers.values())


# Beside a run that writes


def test_pages_are_read_while_the_journal_is_being_written(where, opened, request):
    """A writer that holds the database's lock keeps no page waiting, and no page keeps a writer waiting."""
    numbers(5).execute(journal=where, run_id="run")
    page = opened(where)
    with Journal(where) as journal, journal.database.writing() as connection:
        connection.exec_driver_sql("UPDATE procession_runs SET process = 'changed'")
        began = time.monotonic()
        for address in "/", "/run/1", "/run/1/time", "/run/1/task/0":
            text = page.get(address).text
            assert "numbers" in text
            assert "changed" not in text
        assert time.monotonic() - began < 5, "nobody waited for a lock"
    assert "changed" in page.get("/").text


def test_reading_needs_no_right_to_write(postgres, opened):
    """On a server, a user who may only read sees all pages."""
    import psycopg

    url = postgres.new_database()
    numbers(3).execute(journal=url, run_id="run")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS looker")
        connection.execute("CREATE ROLE looker LOGIN")
        schema = connection.execute("SELECT current_schema()").fetchone()[0]
        connection.execute(f"GRANT USAGE ON SCHEMA {schema} TO looker")
        connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO looker")
    page = opened(url.replace("procession@", "looker@"))
    for address in "/", "/run/1", "/run/1/time", "/run/1/compared", "/run/1/task/0":
        assert page.get(address).status_code == 200


# Events


def asyncio_test(function):
    @functools.wraps(function)
    def run(*arguments, **named):
        asyncio.run(asyncio.wait_for(function(*arguments, **named), 30))

    return run


class Stamps:
    """What a poller sees: another stamp each time it looks, as long as it changes."""

    def __init__(self):
        self.looks = 0
        self.changing = True

    def __call__(self, topic):
        self.looks += self.changing
        return f"{topic}-{self.looks}"


@asyncio_test
async def test_a_page_that_does_not_read_is_owed_one_event_and_no_more():
    """However much has changed meanwhile, it is told once, of the last state."""
    stamps = Stamps()
    live = Live(stamps, pause=0.0)
    stream = live.stream(None, "")
    await anext(stream)
    before = stamps.looks
    while stamps.looks < before + 200:
        await asyncio.sleep(0)
    stamps.changing = False
    last = stamps.looks
    assert int((await anext(stream)).rpartition("-")[2]) >= last - 1
    waiting = asyncio.ensure_future(anext(stream))
    while not waiting.done():
        await asyncio.sleep(0)
        if int(live._stamps[None].rpartition("-")[2]) == last:
            break
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


@asyncio_test
async def test_there_is_one_poller_for_all_pages_and_none_without_a_page():
    """A hundred open pages ask the journal as often as one does."""
    looks = []

    def stamp(topic):
        looks.append(threading.get_ident())
        return str(len(looks))

    live = Live(stamp, pause=0.001)
    streams = [live.stream(7, "") for _ in range(100)]
    firsts = await asyncio.gather(*(anext(stream) for stream in streams))
    assert live.streams == 100
    assert len(set(firsts)) <= len(looks) < 100
    for stream in streams:
        await stream.aclose()
    assert live.streams == 0
    while live._poller is not None:
        await asyncio.sleep(0.001)
    seen = len(looks)
    await asyncio.sleep(0.02)
    assert len(looks) == seen


@asyncio_test
async def test_a_server_that_ends_ends_its_streams():
    """Ctrl-C does not wait for browsers."""
    live = Live(lambda topic: "same")
    stream = live.stream(None, "same")
    waiting = asyncio.ensure_future(anext(stream, "ended"))
    await asyncio.sleep(0.01)
    live.close()
    assert await waiting == "ended"


@asyncio_test
async def test_pages_without_end_are_refused(path, opened):
    """A hundred streams are enough, also where they are all asked for at once."""
    page = opened(path).app
    headers = [(b"host", b"127.0.0.1:8765"), (b"cookie", f"procession-8765={KEY}".encode())]
    scope = {"type": "http", "method": "GET", "path": "/events", "query_string": b"", "headers": headers}
    answered, all_answered = [], asyncio.Event()

    async def receive():
        await asyncio.Event().wait()

    async def send(message):
        if message["type"] == "http.response.start":
            answered.append(message["status"])
            if len(answered) == STREAMS + 5:
                all_answered.set()

    asking = [asyncio.create_task(page(dict(scope), receive, send)) for _ in range(STREAMS + 5)]
    await all_answered.wait()
    for one in asking:
        one.cancel()
    await asyncio.wait(asking)
    assert sorted(answered) == [200] * STREAMS + [503] * 5


@asyncio_test
async def test_a_stream_that_never_begins_takes_nobodys_place():
    """A browser may be gone before its stream could begin."""
    live = Live(lambda topic: "same")
    stream = live.stream(None, "same")
    assert live.streams == 1
    del stream
    assert live.streams == 0


# Connections


@contextlib.asynccontextmanager
async def served(app):
    """Yields what connects to a server of a page and says something: what is answered can be read from it."""
    config = uvicorn.Config(app, lifespan="off", log_config=None)
    config.load()
    state, loop, writers = ServerState(), asyncio.get_running_loop(), []
    server = await loop.create_server(lambda: Connection(config, state, {}), "127.0.0.1", 0)

    async def connect(said):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
        writers.append(writer)
        writer.write(said)
        await writer.drain()
        return reader

    yield connect
    server.close()
    for writer in writers:
        writer.transport.abort()
    while state.connections or state.tasks:
        await asyncio.sleep(0)


async def ended(reader):
    """Return whether nothing more comes, of what may have been cut off."""
    with contextlib.suppress(ConnectionError):
        return await reader.read() == b""
    return True


def whole(path="/static/page.js", cookie=KEY, more=""):
    return f"GET {path} HTTP/1.1\r\nHost: localhost:8765\r\nCookie: procession-8765={cookie}\r\n{more}\r\n".encode()


@asyncio_test
async def test_strangers_who_hold_connections_do_not_keep_the_page_from_its_user(path, opened):
    """There is a number of them, and the oldest goes for the newest; who has shown the key stays."""
    async with served(opened(path).app) as connect:
        open_page = await connect(whole("/events"))
        assert await open_page.readline() == b"HTTP/1.1 200 OK\r\n"
        kinds = b"", b"GET / HT", whole(cookie="no")
        strangers = [await connect(held) for held in kinds * (STRANGERS // len(kinds) + 5)]
        assert await (await connect(whole())).readline() == b"HTTP/1.1 200 OK\r\n"
        assert await ended(strangers[0])
        assert not strangers[-2].at_eof()
        assert not open_page.at_eof()


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HTTP/1.1\r\nA: ", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n"]
)
@asyncio_test
async def test_a_request_has_to_arrive_within_a_time(path, opened, monkeypatch, sent):
    """Whoever sends a part of one, or nothing, does not hold a connection for ever."""
    monkeypatch.setattr(connection, "PATIENCE_S", 0.02)
    async with served(opened(path).app) as connect:
        assert await ended(await connect(sent))


@pytest.mark.parametrize(
    "sent",
    [
        b"\0\r\n\r\n",
        whole(cookie="no", more="Connection: close\r\n") + b"\0\r\n\r\n",
        whole(cookie="no", more="Transfer-Encoding: chunked\r\n") + b"5\r\nabcdeXX0\r\n\r\n",
        whole(cookie="no", more="Connection: upgrade\r\nUpgrade: websocket\r\n"),
    ],
    ids=["nothing", "after the last", "in the middle", "upgrade"],
)
@asyncio_test
async def test_what_strangers_send_that_is_no_request_fills_no_terminal(path, opened, caplog, sent):
    """Nothing is said of it, whether it comes first or after something that was one."""
    async with served(opened(path).app) as connect:
        reader = await connect(sent)
        assert (await reader.readline())[9:12] in (b"400", b"403")
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_a_stamp_changes_with_what_a_page_shows(where):
    """A new run, a task that ends, an end, a request to cancel: each is news, and nothing else is."""
    process = Process("steps", "parallel", 1)
    for _ in range(3):
        process.add_task(hold)
    with Journal(where) as journal:

        def stamps():
            with journal.reader() as reader:
                return reader.stamp(None), reader.stamp(1)

        run = process.start(journal=where, run_id="run")
        BEGUN.acquire(timeout=30)
        numbers(1).execute(journal=where, run_id="other")
        before = stamps()
        HELD.release()
        BEGUN.acquire(timeout=30)
        assert before[1] != stamps()[1]
        before = stamps()
        journal.cancel("run")
        with pytest.raises(RunCancelledError):
            run.result()
        over = stamps()
        assert before[0] != over[0]
        assert before[1] != over[1]
        assert stamps() == over
        numbers(1).execute(journal=where, run_id="third")
        assert stamps()[0] != over[0]
        assert stamps()[1] == over[1]


def test_a_mistake_of_ours_is_said_without_its_traceback(path, opened, monkeypatch):
    """Whoever runs the server sees the traceback, which the server is given to log; whoever asked does not."""
    numbers(1).execute(journal=path, run_id="run")
    page = opened(path)
    monkeypatch.setattr(Reader, "run", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        page.get("/run/1")
    page = TestClient(page.app, base_url=BASE, cookies=COOKIE, raise_server_exceptions=False)
    answer = page.get("/run/1")
    assert answer.status_code == 500
    assert "ZeroDivisionError" not in answer.text
    assert "content-security-policy" in answer.headers


def test_a_journal_that_fails_half_way_through_a_page_is_said_on_it(path, opened, monkeypatch):
    """What has been sent cannot be taken back, but the rest says why it is missing."""
    numbers(1).execute(journal=path, run_id="run")

    def fail(*_, **__):
        raise JournalError("the disk is gone")

    monkeypatch.setattr(Reader, "shares", fail)
    answer = opened(path).get("/run/1/time")
    assert answer.status_code == 200
    assert "the disk is gone" in answer.text
    assert answer.text.rstrip().endswith("</html>")


# The command


class Served:
    """`procession ui` in a process of its own."""

    def __init__(self, *arguments):
        command = [sys.executable, "-m", "procession", "ui", "--port", "0", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.said, self.port = "", None
        for line in self.process.stdout:
            self.said += line
            if found := re.search(r":(\d+)/\?key=(\S+) ", line):
                self.port, self.key = int(found[1]), found[2]
                break

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def get(self, path):
        request = Request(f"http://127.0.0.1:{self.port}{path}", headers={"cookie": self.cookie})
        with urlopen(request, timeout=30) as answer:
            return answer.read().decode()

    @property
    def cookie(self):
        return f"procession-{self.port}={self.key}"

    def stream(self, path):
        stream = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        host = f"localhost:{self.port}"
        stream.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nCookie: {self.cookie}\r\n\r\n".encode())
        return stream


def test_the_command_serves_tells_news_and_ends_with_streams_open(path):
    """From an empty place to the first run, over real sockets; Ctrl-C ends it at once."""
    with Served("--journal", path) as served:
        assert "There is nothing at" in served.said
        assert "http://127.0.0.1:" in served.said
        idle = [served.stream("/events?since=x") for _ in range(20)]  # nobody ever reads from these
        with served.stream("/events?since=x") as stream, stream.makefile("rb") as lines:
            while not lines.readline().startswith(b"data: JournalError"):
                pass
            numbers(1).execute(journal=path, run_id="the-first")
            while not (line := lines.readline()).startswith(b"data:") or b"Error" in line:
                pass
        assert "the-first" in served.get("/")
        began = time.monotonic()
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(30) == 0
        assert time.monotonic() - began < 4
        assert served.process.stderr.read() == ""
        for stream in idle:
            stream.close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--journal", "{folder}/other"], "is not a database"),
        (["--journal", "{folder}/runs.db", "--host", "203.0.113.9"], "cannot listen on 203.0.113.9"),
        (["--journal", "{folder}/runs.db", "--port", "99999"], "cannot listen on 127.0.0.1, port 99999"),
    ],
)
def test_the_command_says_plainly_what_it_cannot_do(tmp_path, arguments, said):
    """A foreign file, an address that is not here, a port that cannot be: exit status 1, and no traceback."""
    (tmp_path / "other").write_text("no database at all, but more than sixteen bytes")
    (tmp_path / "other").chmod(0o600)
    with Served(*(argument.format(folder=tmp_path) for argument in arguments)) as served:
        assert served.process.wait(30) == 1
        error = served.process.stderr.read()
    assert said in error
    assert "Traceback" not in error


def test_whoever_opens_the_page_to_others_is_told_so(path):
    """Beyond this machine the key can be overheard, and the command says what that means."""
    with Served("--journal", path, "--host", "0.0.0.0") as served:
        assert "Whoever has this address sees the runs, and can cancel them; and it travels" in served.said


def test_each_start_has_a_key_of_its_own_that_nobody_can_guess(path):
    """What one has seen in a terminal last week opens nothing today."""
    keys = set()
    for _ in range(2):
        with Served("--journal", path) as served:
            keys.add(served.key)
    assert len(keys) == 2
    assert all(len(key) >= 43 for key in keys)
