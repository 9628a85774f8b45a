"""The page's pictures: where the time went, and which task waits for which."""

import re
import sqlite3

import pytest

from labelled_tasks import fetch
from procession import Process, task
from procession.journal import Journal, Mark
from procession.pictures.fold import APART, CROWD
from procession.pictures.timeline_svg import PART_LIMIT as LIMIT
from procession.pictures.timeline_svg import TIMELINE_SHEET
from procession.web.timeline import timeline_of as drawn
from web_pages import (
    BEGUN,
    BROKEN,
    HELD,
    HOSTILE,
    _nothing_broken,
    double,
    going,
    hold,
    nodes_of,
    numbers,
    opened,
    path,
    rows_of,
    stubborn,
    work,
)


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
    picture, narrow, told = drawn(marks, 0.0, 1001.0, 1)
    assert picture.count("<rect") < LIMIT + 8 + 10
    assert picture.count('class="failed"') == 2, "once in the legend"
    assert narrow.count('class="failed"') == 2
    assert len(narrow) < 0.6 * len(picture)
    assert told == []
    assert "<script" not in picture
    assert len(picture) < 90_000


def test_the_picture_says_what_held_the_run_up_and_leads_to_the_tasks(where, opened):
    """The verdict of `run.timeline()`, the critical path, a legend; each mark is a link. A phone has its own picture."""
    process = Process("chain", "parallel", 2, on_error="return")
    BROKEN.add(2)
    process.task(double, process.task(work, 1))
    process.add_task(stubborn)
    process.map(work, range(3))
    process.execute(journal=where, run_id="run")
    with Journal(where) as journal, journal.database.writing() as connection:
        for task, begin, duration in (0, 0, 4), (1, 4, 3), (2, 0, 1), (3, 1, 3):
            connection.exec_driver_sql(
                f"UPDATE procession_records SET started_at = 1000000000.0 + {begin}, duration = {duration}, "
                f"worker = 'w_{task}' WHERE task = {task}"
            )
        connection.exec_driver_sql("UPDATE procession_runs SET started_at = 1000000000.0")
    text = opened(where).get("/run/1/time").text
    assert "no run is shorter than its critical path; a shorter work would" in text
    assert "The critical path takes 7 s, 100% of the run: work (4 s) → double (3 s)." in text
    for picture in re.findall("<svg class=.procession-timeline.*?</svg>", text, re.DOTALL):
        assert {"1 failed", "5 completed", "1 tried again", "critical path, 7 s", "0 s"} <= {*texts_of(picture)}
        assert picture.count("on the critical path") == 2
        for address in "/run/1/task/0", "/run/1/task/3/2":
            assert f'<a tabindex="-1" href="{address}">' in picture
        assert {float(size) for size in re.findall(r"font-size:([\d.]+)px", TIMELINE_SHEET)} <= {12, 16}
    assert text.count('class="procession-timeline"') == 2


def test_the_critical_path_is_underlined_with_few_lines(path, opened):
    """However many tasks it goes through, with a pause before each."""
    process = Process("chain", "parallel", 1)
    value = process.task(work, 0)
    for _ in range(249):
        value = process.task(work, value)
    process.execute(journal=path, run_id="run")
    with Journal(path) as journal, journal.database.writing() as connection:
        connection.exec_driver_sql("UPDATE procession_records SET started_at = 1000000000.0 + task, duration = 0.2")
        connection.exec_driver_sql("UPDATE procession_runs SET started_at = 1000000000.0, ended_at = 1000000250.0")
    wide, narrow = re.findall(
        "<svg class=.procession-timeline.*?</svg>", opened(path).get("/run/1/time").text, re.DOTALL
    )
    assert 1 < wide.count("on the critical path") <= LIMIT
    assert 1 < narrow.count("on the critical path") <= LIMIT


def texts_of(picture):
    return re.findall(r"<text[^>]*>(.*?)</text>", picture)


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
        ("work #5: not started", "/run/1/task/5"),
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


def test_the_graph_shows_labels(where, opened):
    """A task whose name is a template has its label in the graph, cut as names are, and whole where one points at it."""
    process = Process("labels", "parallel", 2, on_error="return")
    page = process.task(fetch, "a")
    process.task(fetch, HOSTILE)
    process.task(fetch, "x" * 300)
    process.map(fetch, ["m"])
    process.task(fetch, process.task(fetch, "broken"))
    process.task(double, page)
    process.execute(journal=where, run_id="run")
    text = opened(where).get("/run/1/graph").text
    said = [name for name, _ in nodes_of(text)]
    assert said[0] == "fetch a #0: completed"
    assert said[1].startswith("fetch <script>a")
    assert said[2].startswith("fetch xxxxx")
    assert len(said[2]) < 60
    assert said[3:] == [
        "map of fetch {url} #3: completed",
        "fetch broken #4: failed",
        "fetch {url} #5: not started",
        "double #6: completed",
    ]
    assert f"<title>fetch {'x' * 94}…{'x' * 99}\n1 task: 2</title>" in text
    assert "<title>double takes the value of fetch a</title>" in text
    assert "fetch a" in texts_of(text)
    assert "<script" not in text.partition("</head>")[2].replace("<script src=", "")
    assert "\u202e" not in text
    assert "\x1b" not in text


def test_the_graph_shows_the_label_of_what_runs(path, opened, comes_true):
    """Where it has begun and not ended, too."""
    process = Process("labels", "parallel", 1)
    process.add_task(task(name="hold {what}")(lambda what: hold()), "on")
    run = process.start(journal=path, run_id="run")
    assert BEGUN.acquire(timeout=30)
    try:
        with Journal(path) as journal:
            assert comes_true(lambda: journal.run("run").running)  # it says so within a second
        assert nodes_of(opened(path).get("/run/1/graph").text) == [("hold on #0: running", "/run/1/task/0")]
    finally:
        HELD.release()
        run.wait(30)


def test_a_graph_full_of_labels_is_light(path, opened):
    """As many nodes as there can be, each with as long a label as there can be: less than the limit of a page."""
    process = Process("labels", "parallel", 2)
    for number in range(CROWD):
        process.add_task(task(name=f"fetch {number} {{url}}")(_upper), "&" * 300)
    process.execute(journal=path, run_id="run")
    text = opened(path).get("/run/1/graph").text
    assert len(nodes_of(text)) == CROWD
    assert len(text.encode()) < 150_000


def _upper(url):
    return url.upper()


def test_a_map_in_the_graph_is_as_red_as_its_elements_are(where, opened):
    """Of ten elements two have failed: so much of its bar is red, and its card says so."""
    process = Process("graph", "parallel", 2, on_error="return")
    BROKEN.update({3, 5})
    process.map(work, range(10))
    process.execute(journal=where, run_id="run")
    text = opened(where).get("/run/1/graph").text
    assert nodes_of(text) == [("map of work #0: 2 of 10 failed", "/run/1/task/0")]
    ended, bad = (float(re.search(rf'class="{kind}"[^>]* width="([\d.]+)"', text)[1]) for kind in ("ended", "bad"))
    assert abs(ended / bad - 4) < 0.1


def test_the_graph_of_many_is_folded_and_says_how_many_failed(path, opened):
    """Tasks that look alike share a node, which leads to the first of them; a few that failed have their own."""
    process = Process("many", "parallel", 2, on_error="return")
    BROKEN.update({3, 5})
    loaded = [process.task(work, number) for number in range(200)]
    process.task(len, [process.task(double, value) for value in loaded])
    process.execute(journal=path, run_id="run")
    text = opened(path).get("/run/1/graph").text
    assert nodes_of(text) == [
        ("work \N{MULTIPLICATION SIGN} 198: 198 completed", "/run/1?from=0#tasks"),
        ("work #3: failed", "/run/1/task/3"),
        ("work #5: failed", "/run/1/task/5"),
        ("double \N{MULTIPLICATION SIGN} 198: 198 completed", "/run/1?from=200#tasks"),
        ("double #203: not started", "/run/1/task/203"),
        ("double #205: not started", "/run/1/task/205"),
        ("len #400: not started", "/run/1/task/400"),
    ]


def test_the_graph_never_folds_what_failed_into_what_did_not(path, opened):
    """The first failed tasks have a card each, the others share one, and a sentence says how many, with a link to them."""
    BROKEN.update(range(0, 200, 2))
    numbers(200, on_error="return").execute(journal=path, run_id="run")
    page = opened(path)
    text = page.get("/run/1/graph").text
    alone = [(f"work #{place}: failed", f"/run/1/task/{place}") for place in range(0, 2 * APART, 2)]
    times = "\N{MULTIPLICATION SIGN}"
    assert sorted(nodes_of(text)) == sorted(
        [
            *alone,
            (f"work {times} 100: 100 completed", "/run/1?from=1#tasks"),
            (f"work {times} 88: 88 failed", "/run/1?state=failed&from=24#tasks"),
        ]
    )
    assert "88 more tasks failed than have cards of their own" in text
    assert [row.split()[0] for row in rows_of(page.get("/run/1?state=failed&from=24").text)] == [
        str(place) for place in range(24, 200, 2)
    ]


@pytest.mark.parametrize("names", [2, CROWD, 2 * CROWD])
def test_failed_tasks_keep_their_cards_however_many_names_and_tasks_there_are(path, opened, names):
    """Where there is no room for all of their surroundings, fewer have a card of their own, and none is hidden."""
    process = Process("many", "parallel", 2, on_error="return")
    BROKEN.update(range(40))
    for number in range(300):
        value = process.task(task(name=f"load {number % names}")(work), number)
        process.add_task(double, process.task(task(name=f"parse {number % names}")(double), value))
    process.execute(journal=path, run_id="run")
    text = opened(path).get("/run/1/graph").text
    said = [name for name, _ in nodes_of(text)]
    assert len(said) <= CROWD + APART
    failed = [name for name in said if "failed" in name]
    assert not any("completed" in name for name in failed)
    counts = [
        int(re.search(r"(\d+) failed", name)[1]) if " failed" in name and "#" not in name else 1 for name in failed
    ]
    assert sum(counts) == 40


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
