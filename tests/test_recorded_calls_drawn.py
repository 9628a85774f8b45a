"""Recorded calls in the timeline: below the task that made them, in the picture of a run, in its trace, and on the page."""

import asyncio
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from xml.etree import ElementTree

import pytest

from procession import Process, RunSuspendedError, current_task, task
from procession._engine.calls_made import LIMIT as KEPT
from procession._engine.calls_made import CallsMade
from procession._model.made_calls import MadeCalls
from procession._model.record import WHOLE
from procession.journal import Journal
from procession.pictures.call_rows import PITCH
from procession.pictures.schedule import CALL_ROWS, Span
from procession.pictures.timeline import Timeline
from procession.pictures.timeline_svg import LIMIT, PART_LIMIT
from web_pages import BROKEN, HOSTILE, _nothing_broken, opened, path

SVG = "{http://www.w3.org/2000/svg}"


def ask(question):
    return question


def use(tool):
    raise KeyError(tool)


async def ask_later(question):
    await asyncio.sleep(0)
    return question


def agent():
    me = current_task()
    me.call(ask, 1)
    with pytest.raises(KeyError):
        me.call(use, "hammer")
    return me.map(ask, [1, 2])


async def async_agent():
    me = current_task()
    await me.call(ask_later, 1)
    with pytest.raises(KeyError):
        me.call(use, "hammer")
    return await me.map(ask_later, [1, 2])


def element(number):
    return current_task().call(ask, number)


def marks(timeline):
    """Return the kind and the hover text of each recorded call that is drawn."""
    root = ElementTree.fromstring(timeline.svg())
    rects = (rect for rect in root.iter(f"{SVG}rect") if "call" in (rect.get("class") or "").split())
    return [
        (rect.get("class"), rect.find(f"{SVG}title").text) for rect in rects if rect.find(f"{SVG}title") is not None
    ]


def call(start, duration, number=0, worker="w_0", **more):
    return Span(0, "ask", "completed", 1, start, duration, worker, call=number, **more)


def drawn(calls, duration=10.0, spans=None):
    whole = [Span(0, "agent", "completed", 1, 0.0, duration, "w_0")]
    return Timeline("agents", "completed", duration, whole if spans is None else spans, max_workers=1, calls=calls)


# Of a run


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("made_by", [agent, async_agent])
def test_the_calls_of_a_task_stand_below_it(made_by, recorded, path):
    """In the lane of its worker, with their names, places and ends, whether or not they have a journal."""
    process = Process("agents", "parallel", 2)
    process.add_task(made_by)
    process.execute(**({"journal": path, "run_id": "a"} if recorded else {}))
    timeline = process.last_run.timeline()
    [lane] = timeline.lanes
    assert [busy.span.index for busy in lane.spans] == [0]
    [whole] = lane.spans
    inside = [busy for row in lane.calls for busy in row.spans]
    assert all(whole.start <= busy.start <= busy.end <= whole.end + 0.01 for busy in inside)
    later = "ask" if made_by is agent else "ask_later"
    found = sorted((busy.span.call, busy.span.name, busy.span.state, busy.span.attempts) for busy in inside)
    assert found == [
        (0, later, "completed", 1),
        (1, "use", "failed", 1),
        (2, later, "completed", 1),
        (3, later, "completed", 1),
    ]
    assert "4 recorded calls, 1 failed" in timeline.svg()
    assert "Tasks made 4 recorded calls, of " in str(timeline)


BEGUN, GATE = threading.Event(), threading.Event()


def ask_long(question):
    BEGUN.set()
    assert GATE.wait(20)
    return question


async def ask_long_later(question):
    return await asyncio.to_thread(ask_long, question)


def patient():
    me = current_task()
    return me.call(ask, 1), me.call(ask_long, 2)


async def async_patient():
    me = current_task()
    return await me.call(ask_later, 1), await me.call(ask_long_later, 2)


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("made_by", [patient, async_patient])
def test_a_call_that_goes_on_is_drawn_as_going_on(made_by, recorded, path):
    """With an open end, in the picture, the trace and the words; and as ended once it has."""
    BEGUN.clear()
    GATE.clear()
    process = Process("agents", "parallel", 2)
    process.add_task(made_by)
    run = process.start(**({"journal": path, "run_id": "a"} if recorded else {}))
    try:
        assert BEGUN.wait(20)
        timeline = run.timeline()
    finally:
        GATE.set()
    assert run.wait(20)
    calls = [(busy.span.call, busy.span.state, busy.span.duration is None) for busy in timeline.calls]
    assert calls == [(0, "completed", False), (1, "running", True)]
    [(kind, said)] = [(kind, said) for kind, said in marks(timeline) if "ask_long" in said]
    assert kind == "call running"
    assert "recorded call 1 of task 0\nrunning for " in said
    assert "1 of them going on" in timeline.svg()
    assert "Tasks made 2 recorded calls, 1 of which goes on, of " in str(timeline)
    assert any(
        event["name"].endswith("(running)") and "call" in event["args"] for event in timeline.trace()["traceEvents"]
    )
    assert [busy.span.state for busy in run.timeline().calls] == ["completed", "completed"]
    assert "going on" not in run.timeline().svg()


def test_calls_from_worker_processes_and_of_elements_are_drawn(path):
    """Those from worker processes in a recorded run: the program that runs it knows them by their records."""
    process = Process("agents", "parallel", 1, executor="processes")
    process.map(element, range(3))
    process.add_task(agent)
    process.execute(journal=path, run_id="a")
    timeline = process.last_run.timeline()
    [lane] = timeline.lanes
    inside = [busy.span for row in lane.calls for busy in row.spans]
    found = sorted((one.index, -1 if one.element is None else one.element, one.call, one.name) for one in inside)
    assert found == [
        *((0, number, 0, "ask") for number in range(3)),
        (1, -1, 0, "ask"),
        (1, -1, 1, "use"),
        (1, -1, 2, "ask"),
        (1, -1, 3, "ask"),
    ]


def test_calls_that_are_not_made_again_are_not_drawn(path):
    """As tasks that a resumed run has from its journal."""

    def fails_once():
        current_task().call(ask, 1)
        if BROKEN:
            raise ValueError("not yet")
        current_task().call(ask, 2)

    process = Process("again", "parallel", 1)
    process.add_task(fails_once)
    BROKEN.add(1)
    with pytest.raises(ValueError, match="not yet"):
        process.execute(journal=path, run_id="a")
    BROKEN.clear()
    process.execute(journal=path, run_id="a")
    assert [busy.span.call for busy in process.last_run.timeline().calls] == [1]


def test_the_calls_of_a_task_that_was_left_as_it_waits_are_drawn(path):
    """Its worker has a lane, and was busy, though the task has not ended."""

    def approved():
        me = current_task()
        me.call(ask, 1)
        return me.wait_for("approval")

    process = Process("orders", "parallel", 1)
    process.add_task(approved)
    with pytest.raises(RunSuspendedError):
        process.execute(journal=path, run_id="a")
    timeline = process.last_run.timeline()
    [lane] = timeline.lanes
    assert lane.spans == []
    assert len(lane.calls) == 1
    assert timeline.idle[lane.worker] < timeline.duration
    assert [title.split("\n")[0] for _, title in marks(timeline)] == ["ask, recorded call 0 of task 0"]
    assert "No task has run. Tasks made 1 recorded call, of " in str(timeline)


def test_a_failed_attempt_counts_with_the_call_that_it_belongs_to():
    """A call that was tried again is one call of two attempts."""
    tries = []

    @task(retries=1)
    def stubborn():
        tries.append(1)
        if len(tries) == 1:
            raise ConnectionError("not yet")

    def patient():
        current_task().call(stubborn)

    process = Process("patient", "parallel", 1)
    process.add_task(patient)
    process.execute()
    [(kind, title)] = marks(process.last_run.timeline())
    assert kind == "call"
    assert ", 2 attempts\n" in title


def test_a_call_says_what_it_is_and_how_it_ended():
    """Its name stands on it where there is room, and the failed one is red."""
    timeline = drawn([call(0.0, 4.0), Span(0, "use", "failed", 2, 4.0, 4.0, "w_0", call=1, element=3)])
    assert marks(timeline) == [
        ("call", "ask, recorded call 0 of task 0\ncompleted, 4 s\nfrom 0 s"),
        ("call failed", "use, recorded call 1 of task 0, element 3\nfailed, 4 s, 2 attempts\nfrom 4 s"),
    ]
    assert ">ask</text>" in timeline.svg()
    assert "2 recorded calls, 1 failed" in timeline.svg()
    assert [span.name for span in timeline.critical_path] == ["agent"]
    assert timeline.work == 10.0, "the time of the task has theirs in it"


# Of many calls


def test_a_task_with_10_000_calls_is_a_small_picture_in_which_no_failure_is_lost():
    """None is left out of the count, whatever was summed up."""

    def busy():
        me = current_task()
        for number in range(10_000):
            if number == 7_777:
                with pytest.raises(KeyError):
                    me.call(use, number)
            else:
                me.call(ask, number)

    process = Process("busy", "parallel", 1)
    process.add_task(busy)
    process.execute()
    timeline = process.last_run.timeline()
    assert len(timeline.calls) <= KEPT
    assert sum(busy.span.calls for busy in timeline.calls) == 10_000
    picture = timeline.svg()
    assert picture.count('<rect class="call') < LIMIT // 2 + 10
    assert len(picture) < 200_000
    assert "10,000 recorded calls, 1 failed" in picture
    assert [kind for kind, _ in marks(timeline) if "failed" in kind] == ["call failed"]


def test_calls_that_are_made_at_once_stand_side_by_side_and_the_rest_together():
    """In few rows, however many there are."""
    few = drawn([call(number * 0.1, 5.0, number) for number in range(CALL_ROWS)])
    assert [len(row.spans) for row in few.lanes[0].calls] == [1] * CALL_ROWS
    many = drawn([call(number * 0.001, 5.0, number) for number in range(500)])
    rows = many.lanes[0].calls
    assert [len(row.spans) for row in rows] == [1] * CALL_ROWS
    assert rows[-1].spans[0].span.calls == 500 - CALL_ROWS + 1
    assert [title.split("\n")[0] for _, title in marks(many)][-1] == f"{500 - CALL_ROWS + 1} recorded calls"
    heights = [int(re.search(r'height="(\d+)"', one.svg()).group(1)) for one in (few, many)]
    assert heights[0] == heights[1]
    assert int(re.search(r'height="(\d+)"', drawn([]).svg()).group(1)) < heights[0] - CALL_ROWS * PITCH


def test_calls_stand_in_the_lane_of_their_task_where_a_worker_has_several():
    """An event loop that does several things at once has a lane for each of them."""
    spans = [Span(place, "f", "completed", 1, place * 0.5, 4.0, "loop") for place in range(3)]
    calls = [Span(place, "ask", "completed", 1, 2.0, 0.5, "loop", call=0) for place in range(3)]
    timeline = drawn(calls, spans=spans)
    assert [
        [busy.span.index for some in (lane.spans, *(row.spans for row in lane.calls)) for busy in some]
        for lane in timeline.lanes
    ] == [[0, 0], [1, 1], [2, 2]]


def test_a_trace_has_the_calls_on_tracks_below_that_of_their_worker():
    """Those that overlap on a track each, since viewers do not show them on one."""
    events = drawn([call(1.0, 2.0, 0), call(2.0, 2.0, 1)]).trace()["traceEvents"]
    tracks = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert list(tracks.values()) == ["w_0", "w_0: calls", "w_0: calls (2)"]
    found = [
        (tracks[event["tid"]], event["name"], event["args"].get("call"), event["ts"], event["dur"])
        for event in events
        if event["ph"] == "X"
    ]
    assert found == [
        ("w_0", "agent", None, 0.0, 1e7),
        ("w_0: calls", "ask", 0, 1e6, 2e6),
        ("w_0: calls (2)", "ask", 1, 2e6, 2e6),
    ]


def test_hostile_names_of_calls_are_only_text():
    """Whatever they hold."""
    hostile = Span(0, HOSTILE, "completed", 1, 1.0, 5.0, HOSTILE, call=0)
    picture = drawn([hostile]).svg()
    ElementTree.fromstring(picture)
    assert "<script" not in picture
    assert "\x1b" not in picture


def test_no_call_is_lost_when_threads_make_many_at_once():
    """While they are summed up, too."""
    made, barrier = CallsMade(), threading.Barrier(4)

    def make(worker):
        barrier.wait(30)
        for number in range(5_000):
            start = float(number)
            made.add(MadeCalls(0, WHOLE, number, "ask", 1, start, start + 0.5, f"w_{worker}", 0, 1, 0.5))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(make, range(4)))
    found = made.read()
    assert sum(one.calls for one in found) == 20_000
    assert sum(one.busy for one in found) == pytest.approx(10_000)
    assert len(found) <= KEPT


def test_long_calls_are_never_summed_up():
    """However many short ones there are beside them."""
    made = CallsMade()
    for number in range(10_000):
        start = number * 0.001
        made.add(MadeCalls(0, WHOLE, number, "ask", 1, start, start + 0.0005, "w_0", 0, 1, 0.0005))
    for number in range(5):
        made.add(MadeCalls(1, WHOLE, number, "think", 1, 2.0 * number, 2.0 * number + 1.9, "w_1", 0, 1, 1.9))
    for number in range(10_000):
        start = 10 + number * 0.001
        made.add(MadeCalls(0, WHOLE, number, "ask", 1, start, start + 0.0005, "w_0", 0, 1, 0.0005))
    assert [one.call for one in made.read() if one.name == "think"] == [0, 1, 2, 3, 4]


# On the page


def pictures(text):
    return re.findall("<svg class=.procession-timeline.*?</svg>", text, re.DOTALL)


def test_the_page_draws_the_calls_below_their_task(where, opened):
    """Each leads to the page of its task, or element, which has them in a table."""
    process = Process("agents", "parallel", 2)
    process.add_task(agent)
    process.map(element, range(3))
    process.execute(journal=where, run_id="a")
    text = opened(where).get("/run/1/time").text
    assert 'aria-label="Timeline: 4 calls, 0 failed, 7 recorded calls, by ' in text
    for picture in pictures(text):
        assert "7 recorded calls, 1 failed" in picture
    with Journal(where) as journal, journal.database.writing() as connection:
        for table in "records", "calls":
            connection.exec_driver_sql(f"UPDATE procession_{table} SET started_at = 1000000000.0, duration = 8.0")
        for number in range(4):
            connection.exec_driver_sql(
                f"UPDATE procession_calls SET started_at = {1000000000.0 + 2 * number}, duration = 1.9 "
                f"WHERE task = 0 AND call = {number}"
            )
        connection.exec_driver_sql("UPDATE procession_runs SET started_at = 1000000000.0, ended_at = 1000000008.0")
    wide, narrow = pictures(opened(where).get("/run/1/time").text)
    for picture in wide, narrow:
        assert "<title>use, recorded call 1 of task 0\nfailed, 1.9 s\nfrom 2 s</title>" in picture
        assert '<a tabindex="-1" href="/run/1/task/1/2"><title>ask, recorded call 0 of task 1, element 2\n' in picture
        assert picture.count('class="call failed"') == 1


def test_the_page_draws_few_marks_however_many_calls_a_task_has_made(where, opened):
    """The database sums them up, and what failed among them still shows."""

    def busy():
        me = current_task()
        me.map(ask, range(6_000))
        with pytest.raises(KeyError):
            me.call(use, 1)

    process = Process("busy", "parallel", 2)
    process.add_task(busy)
    process.execute(journal=where, run_id="a")
    with Journal(where) as journal, journal.reader() as reader:
        count, begin, end = reader.calls_span(1, 0.0)
        assert count == 6_001
        marks = reader.call_marks(1, begin=begin, cell=(end - begin) / 240)
        assert len(marks) <= 240 + 20
        assert sum(mark.calls for mark in marks) == 6_001
        assert sum(mark.failed for mark in marks) == 1
    text = opened(where).get("/run/1/time").text
    assert "6,001 recorded calls" in text
    for picture in pictures(text):
        assert "6,001 recorded calls, 1 failed" in picture
        assert picture.count('<rect class="call') < PART_LIMIT // 2 + 20
        assert len(picture) < 60_000


def test_the_page_draws_the_calls_of_a_run_of_which_no_task_has_ended(path, opened):
    """It was cut off, and they are all that is known of where its time went."""

    class Killed(BaseException):
        pass

    def cut_off():
        current_task().call(ask, 1)
        raise Killed

    process = Process("cut", "parallel", 1)
    process.add_task(cut_off)
    with pytest.raises(Killed):
        process.execute(journal=path, run_id="a")
    with Journal(path) as journal, journal.database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM procession_records")
    text = opened(path).get("/run/1/time").text
    assert "1 recorded call" in text
    assert "ask, recorded call 0 of task 0" in text


@pytest.mark.parametrize("column", ["started_at", "worker", "attempts", "call"])
def test_a_damaged_call_is_named_in_place_of_the_picture(column, path, opened):
    """By what of it is wrong; the page itself goes on."""
    process = Process("agents", "parallel", 1)
    process.add_task(agent)
    process.execute(journal=path, run_id="a")
    with Journal(path) as journal, journal.database.writing() as connection:
        connection.exec_driver_sql(f"UPDATE procession_calls SET {column} = x'ff' WHERE call = 0")
    answer = opened(path).get("/run/1/time")
    assert answer.status_code == 200
    assert re.search('<p class="problem">[^<]*damaged', answer.text)
