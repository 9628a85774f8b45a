"""What limits hold back is seen: by observers, in the log, the progress, the timeline, on the page, and measured."""

import asyncio
import logging
import threading
import time
from itertools import count

import pytest

from procession import Limit, Process, task
from procession._model.held_back import HeldBack
from procession.journal import Journal
from procession.observe.meter import Meter, told
from procession.pictures.schedule import Span
from procession.pictures.timeline import Timeline
from test_otel import Traced
from web_pages import opened, rows_of

NAMES = map("seen {}".format, count())


class Collected:
    def __init__(self, *, immediate):
        self.immediate = immediate
        self.events = []

    def on_event(self, event):
        self.events.append(event)

    def held_back(self):
        return sorted(
            (event.index, event.element, event.limit) for event in self.events if event.name == "task_held_back"
        )


class Held:
    """A run of three calls of one task and two elements, of which one is made and four are held back."""

    def __init__(self, strategy="parallel", **options):
        self.begun, self.go = threading.Event(), threading.Event()
        self.limit = Limit(next(NAMES), at_once=1)
        self.process = Process("held", strategy, 4, **options)
        function = task(limit=self.limit, name="call")(self.call)
        for number in range(3):
            self.process.add_task(function, number)
        self.process.map(function, [3, 4])

    def call(self, number):
        self.begun.set()
        assert self.go.wait(20)
        return number

    def start(self, **options):
        """Return the run, once four calls are held back."""
        run = self.process.start(**options)
        assert self.begun.wait(20)
        until = time.monotonic() + 20
        while sum(one.waiting for one in run._run_state.admission.held_back) < 4:
            assert time.monotonic() < until
            time.sleep(0.002)
        return run


@pytest.mark.parametrize("immediate", [False, True])
def test_observers_are_told_which_limit_held_a_call_back_and_for_how_long(immediate):
    """Of each call that was, once it may begin; and of no other."""
    observer = Collected(immediate=immediate)
    held = Held(observers=[observer])
    run = held.start()
    held.go.set()
    run.result(20)
    name = held.limit.name
    told = observer.held_back()
    assert len(told) == 4
    assert {limit for _, _, limit in told} == {name}
    assert {(3, 0, name), (3, 1, name)} & set(told)
    events = [event for event in observer.events if event.name == "task_held_back"]
    assert all(0 < event.duration < 20 and event.task_name for event in events)


def test_coroutines_and_workers_elsewhere_tell_it_too():
    """By the same event."""
    observer = Collected(immediate=False)

    async def call(number):
        await asyncio.sleep(0.01)
        return number

    process = Process("held", "parallel", 4, observers=[observer])
    process.map(task(limit=Limit("coroutines", at_once=1))(call), range(3))
    elsewhere = Process("held", "parallel", 2, observers=[observer], executor="processes")
    elsewhere.map(task(limit=Limit("elsewhere", at_once=1))(abs), range(3))
    process.execute()
    elsewhere.execute()
    limits = [limit for _, _, limit in observer.held_back()]
    assert limits.count("coroutines") == 2
    assert limits.count("elsewhere") <= 2


def test_the_log_says_it_at_the_level_debug(caplog):
    """With the limit and the seconds as fields."""
    held = Held()
    with caplog.at_level(logging.DEBUG, "procession"):
        run = held.start()
        held.go.set()
        run.result(20)
    records = [record for record in caplog.records if record.message == "task_held_back"]
    assert len(records) == 4
    assert {record.limit for record in records} == {held.limit.name}
    assert all(record.duration_s > 0 and record.levelno == logging.DEBUG for record in records)


def test_the_progress_says_how_many_calls_wait_for_which_limit():
    """In the line of the part that goes on, and no longer when they do not."""
    held = Held()
    run = held.start()
    meter = Meter(run._run_state)
    lines = [told(reading) for reading in meter.read(0.0)]
    assert sum(f"4 held back by {held.limit.name}" in line for line in lines) == 1
    held.go.set()
    run.result(20)
    assert not any("held back" in told(reading) for reading in meter.read(1.0))


def test_the_progress_says_it_at_the_map_that_the_limit_is_for(comes_true):
    """Not at the one that follows from it, whose line stands below."""
    parsed, go = threading.Event(), threading.Event()
    limit = Limit(next(NAMES), at_once=1)
    process = Process("pipeline", "parallel", 4)
    answers = process.map(task(limit=limit, name="ask")(lambda number: number == 0 or go.wait(20)), range(3))
    process.map(task(name="parse")(lambda _: parsed.set()), answers)
    run = process.start()
    assert parsed.wait(20)
    meter = Meter(run._run_state)

    def lines():
        return [told(reading) for reading in meter.read(0.0)]

    # An element is counted just after it has been handed on, and the next one held back just after that.
    assert comes_true(lambda: lines()[1] == f"0: map of ask: 1 of 3 · 1 held back by {limit.name}"), lines()
    stage, _, parse = lines()
    assert "held back" not in stage + parse
    go.set()
    run.result(20)


def test_the_timeline_says_how_long_limits_held_calls_back():
    """In words and in its picture."""
    held = Held()
    run = held.start()
    held.go.set()
    run.result(20)
    timeline = run.timeline()
    assert f"The limit {held.limit.name} held 4 calls back, for " in str(timeline)
    assert f"held back by {held.limit.name}: " in timeline.svg()


def test_where_limits_held_calls_back_most_of_the_time_more_workers_are_of_no_use():
    """And that is said of the limit."""
    spans = [Span(place, "call", "completed", 1, float(place), 1.0, "w_0") for place in range(4)]
    timeline = Timeline("held", "completed", 4.0, spans, max_workers=4, held_back=[HeldBack("api", 0, 3, 3.0)])
    assert timeline.verdict.startswith("The limit api held calls back for ")
    assert "more workers would not make it faster" in timeline.verdict


def test_a_timeline_without_work_says_nothing_of_limits():
    """As there was nothing to be faster."""
    span = Span(0, "call", "cancelled", 0, None, None, None)
    timeline = Timeline("none", "cancelled", 1.0, [span], max_workers=2, held_back=[HeldBack("api", 0, 1, 1.0)])
    assert timeline.verdict == "No task has run."


def test_the_journal_and_the_page_say_it(tmp_path, comes_true, opened):
    """While the run goes on how many wait, and then for how long that was."""
    path = tmp_path / "runs.db"
    go, begun = threading.Event(), threading.Event()
    process = Process("held", "parallel", 4)
    name = next(NAMES)
    calls = Calls(begun, go)
    process.map(task(limit=Limit(name, at_once=1), name="call")(calls), range(3))
    run = process.start(run_id="a", journal=path)
    assert begun.wait(20)
    with Journal(path) as journal:
        assert comes_true(lambda: [one.waiting for one in journal.runs()[0].held_back] == [2])
        page = opened(path).get("/run/1").text
        assert f'<dt>Held back</dt><dd>2<span class="faint"> by <bdi>{name}</bdi>' in page
        (row,) = rows_of(page[page.index('id="all"') :])
        assert row.endswith(f"some calls held back by {name}")
        assert f"Some of its calls are held back by <bdi>{name}</bdi>." in opened(path).get("/run/1/task/0").text
        go.set()
        run.result(20)
        (one,) = journal.runs()[0].held_back
        assert (one.limit, one.waiting, one.calls) == (name, 0, 2)
        assert one.seconds > 0


def test_the_page_says_which_tasks_a_limit_holds_back(opened, tmp_path, comes_true):
    """In the rows and on the pages of those that wait, and no longer afterwards."""
    path = tmp_path / "runs.db"
    go, begun = threading.Event(), threading.Event()
    process = Process("held", "parallel", 6)
    name = next(NAMES)
    call = task(limit=Limit(name, at_once=1), name="call")(Calls(begun, go))
    process.add_task(call, 0)
    process.add_task(abs, -1)
    process.add_task(call, 2)
    process.add_task(call, 3)
    process.add_task(call, 4)
    run = process.start(run_id="a", journal=path)
    assert begun.wait(20)
    with Journal(path) as journal:
        assert comes_true(lambda: [one.waiting for one in journal.runs()[0].held_back] == [3])
        (one,) = journal.runs()[0].held_back
        waiting = {place for places in one.tasks for place in places}
        assert len(waiting) == 3 and waiting < {0, 2, 3, 4}
        page = opened(path)
        rows = rows_of(page.get("/run/1").text)
        assert {place for place, row in enumerate(rows) if f"held back by {name}" in row} == waiting
        assert f"It is held back by <bdi>{name}</bdi>." in page.get(f"/run/1/task/{max(waiting)}").text
        assert "held back by" not in page.get("/run/1/task/1").text
        go.set()
        run.result(20)
        assert journal.runs()[0].held_back[0].tasks == ()
        assert not any("held back" in row for row in rows_of(page.get("/run/1").text))


def test_very_many_tasks_that_are_held_back_are_few_ranges(tmp_path, comes_true):
    """A heartbeat stays small, whatever waits; tasks that lie side by side are one range."""
    path = tmp_path / "runs.db"
    go, begun = threading.Event(), threading.Event()
    process = Process("held", "parallel", 2)
    call = task(limit=Limit(next(NAMES), at_once=1), name="call")(Calls(begun, go))
    for _ in range(3000):
        process.add_task(call, 0)
    for _ in range(500):
        process.add_task(call, 0)
        process.add_task(abs, -1)
    run = process.start(run_id="a", journal=path)
    assert begun.wait(20)
    with Journal(path) as journal:
        assert comes_true(lambda: [one.waiting for one in journal.runs()[0].held_back] == [3499])
        (one,) = journal.runs()[0].held_back
        assert one.tasks[0] in (range(1, 3001), range(3000))
        assert len(one.tasks) == 100
        with journal.database.reading() as connection:
            (said,) = connection.exec_driver_sql("SELECT progress FROM procession_runs").one()
        assert len(said) < 5_000
        go.set()
        run.result(50)


class Calls:
    """Of which a journal is to know nothing."""

    def __init__(self, begun, go):
        self.begun, self.go = begun, go

    def __call__(self, number):
        self.begun.set()
        assert self.go.wait(20)

    def __getstate__(self):
        return None


def test_opentelemetry_measures_it():
    """By limit; and the span of the task has the sum."""
    traced = Traced()
    held = Held(observers=[traced.observer])
    run = held.start()
    held.go.set()
    run.result(20)
    ((labels, point),) = traced.metrics()["procession.limit.wait"]
    assert labels == {"procession.process.name": "held", "procession.limit.name": held.limit.name}
    assert point.count == 4
    spans = [span.attributes.get("procession.task.held_back") for span in traced.spans if span.name != "held"]
    assert sum(seconds for seconds in spans if seconds is not None) == pytest.approx(point.sum)
