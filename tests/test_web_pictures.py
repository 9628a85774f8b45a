"""The page's pictures: where the time went, and which task waits for which."""

import re
import sqlite3

from procession import Process
from procession.journal import Journal, Mark
from procession.pictures.timeline_svg import PART_LIMIT as LIMIT
from procession.web.timeline import timeline_of as drawn
from web_pages import BROKEN, HOSTILE, _nothing_broken, double, going, nodes_of, numbers, opened, path, rows_of, work


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
    assert picture.count('class="failed"') == 1
    assert "<script" not in picture
    assert len(picture) < 90_000


def test_what_runs_now_is_in_the_picture_though_nothing_has_ended(path, opened, going, comes_true):
    """From the first moment on one sees who is busy with what."""
    with Journal(path) as journal:
        assert comes_true(lambda: journal.run("run").running)  # it says so within a second
    text = opened(path).get("/run/1/time").text
    assert 'class="bar running"' in text
    assert "hold, task 0: running for" in text


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
