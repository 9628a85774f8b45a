"""The timeline of a run: the picture, the trace, and the answer to why it is not faster."""

import contextlib
import heapq
import json
import math
import os
import random
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from xml.etree import ElementTree

import pytest
import tenacity
from hypothesis import given, settings
from hypothesis import strategies as st

from procession import Hybrid, Process, task
from procession._model.strategy import Stage
from procession.pictures.schedule import Span
from procession.pictures.timeline import Timeline
from procession.pictures.timeline_svg import LANES, LIMIT


def meet(folder):
    """Return when two worker processes are here, or at once."""
    if folder:
        Path(folder, str(os.getpid())).touch()
        while len(list(Path(folder).glob("[0-9]*"))) < 2:
            time.sleep(0.001)


def fail_once(path):
    """Fail the first time."""
    if not Path(path).exists():
        Path(path).touch()
        raise ValueError("not yet")


def fail_once_at_2(number, path):
    """Return the number; fail the first time that is 2."""
    if number == 2:
        fail_once(path)
    return number


SVG = "{http://www.w3.org/2000/svg}"


def span(index, start, duration, worker="w_0", name="work", state="completed", attempts=1, elements=None):
    return Span(index, name, state, attempts, start, duration, worker, elements)


@lru_cache(maxsize=1)
def picture(timeline):
    return timeline.svg()


@lru_cache(maxsize=1)
def drawn(timeline):
    return ElementTree.fromstring(picture(timeline))


def bars(timeline):
    """Return the state and the hover text of each bar and block."""
    states = {"completed", "failed", "cancelled", "running"}
    return [
        ((states & set(rect.get("class").split())).pop(), rect.find(f"{SVG}title").text)
        for rect in drawn(timeline).iter(f"{SVG}rect")
        if states & set((rect.get("class") or "").split()) and rect.find(f"{SVG}title") is not None
    ]


def texts(timeline):
    return [text.text for text in drawn(timeline).iter(f"{SVG}text")]


# From a run


def test_a_run_shows_each_task_in_the_lane_of_its_worker():
    """Two tasks that meet at a barrier ran on two workers, and the picture has a bar for each in a lane of its own."""
    process = Process("pair", "parallel", 2)
    barrier = threading.Barrier(2)
    for name in "left", "right":
        process.add_task(task(name=name)(barrier.wait), 30)
    process.execute()
    timeline = process.last_run.timeline()
    assert len(timeline.lanes) == 2
    assert [len(lane.spans) for lane in timeline.lanes] == [1, 1]
    told = [title for _, title in bars(timeline)]
    assert sorted(title.split(",")[0] for title in told) == ["left", "right"]
    assert all(lane.worker in texts(timeline) for lane in timeline.lanes)


def test_a_map_shows_who_called_how_many_of_its_elements():
    """Workers that share a map are all seen to be busy with it, and their elements add up."""
    process = Process("map", "parallel", 3)
    barrier = threading.Barrier(3)
    process.map(lambda number: barrier.wait(30) if number < 3 else number, list(range(50)))
    process.execute()
    timeline = process.last_run.timeline()
    parts = [item for item in timeline.spans if item.elements]
    assert len({item.worker for item in parts}) == 3
    assert sum(item.elements for item in parts) == 50
    (path,) = timeline.critical_path
    assert path.elements == 50
    assert math.isclose(path.start, min(item.start for item in parts))


def test_it_counts_the_elements_that_completed_and_each_task_once():
    """Two workers share a map of which two elements fail: two calls have failed, and seven completed."""
    process = Process("map", "parallel", 2, on_error="return")
    barrier = threading.Barrier(2)

    def work(number):
        if number < 2:
            barrier.wait(30)
        return 1 / (number % 7 - 1)

    process.map(work, range(9))
    process.execute()
    timeline = process.last_run.timeline()
    assert "7 of 9 elements completed" in str(timeline)
    assert {"7 completed", "2 failed"} <= set(texts(timeline))
    assert sum("failed" in title.split("elements")[-1] for _, title in bars(timeline)) >= 1


def test_a_map_of_which_a_few_elements_failed_is_not_red_as_a_whole():
    """A mark at the end of a worker's share says that some of it failed; a share without failures has none."""
    process = Process("map", "parallel", 1, on_error="return")
    process.map(lambda number: 1 / (number - 17), range(1000))
    process.map(lambda number: 1 / 0, range(3))
    process.execute()
    assert [state for state, _ in bars(process.last_run.timeline())] == ["completed", "failed", "failed"]
    assert {"999 completed", "4 failed"} <= set(texts(process.last_run.timeline()))


def test_elements_that_were_recorded_before_are_not_counted_as_called(tmp_path):
    """A map that is gone on with has done only what was left to do."""

    def build():
        process = Process("map", "parallel", 1)
        process.map(fail_once_at_2, [0, 1, 2, 3], [str(tmp_path / "tried")] * 4)
        return process

    with pytest.raises(ValueError, match="not yet"):
        build().execute(run_id="a", journal=tmp_path / "runs.db")
    process = build()
    assert process.execute(run_id="a", journal=tmp_path / "runs.db") == [[0, 1, 2, 3]]
    assert "2 of 2 elements completed" in str(process.last_run.timeline())


def test_worker_processes_show_who_called_how_many_elements_and_when_nobody_was_at_a_task(tmp_path):
    """Each worker process has its share of a map; between two attempts nobody is busy with a task."""
    process = Process("map", "parallel", 2, executor="processes")
    process.map(meet, [str(tmp_path)] * 2 + [""] * 10)
    rules = tenacity.Retrying(stop=tenacity.stop_after_attempt(2), wait=tenacity.wait_fixed(0.05))
    process.add_task(task(retries=rules)(fail_once), str(tmp_path / "tried"))
    process.execute()
    timeline = process.last_run.timeline()
    parts = [item for item in timeline.spans if item.elements]
    assert sum(item.elements for item in parts) == 12
    assert len({item.worker for item in parts}) == 2
    assert "12 of 12 elements completed" in str(timeline)
    first, second = (item for item in timeline.spans if item.index == 1)
    assert second.start - (first.start + first.duration) >= 0.05


def test_failed_and_tried_again_and_never_begun():
    """Each state has its own look, and what is not in the picture is counted in words."""
    process = Process("mixed", "sequential", on_error="return")
    tries = iter([ConnectionError, None])

    @task(retries=1, retry_on=ConnectionError)
    def flaky():
        if error := next(tries):
            raise error

    process.add_task(flaky)
    process.add_task(task(name="bad")(int), "x")
    process.add_task(int)
    process.execute()
    timeline = process.last_run.timeline()
    (first_state, first), (state, title), (bad_state, bad) = bars(timeline)
    assert (first_state, state, bad_state) == ("failed", "completed", "failed")
    assert first.startswith("attempt 1 of 2: ConnectionError, ")
    assert "2 attempts" in title
    assert bad.startswith("bad, task 1\nfailed, ")
    said = texts(timeline)
    assert "1 failed" in said
    assert "1 tried again" in said
    assert "not shown: 1 skipped" in said
    assert "url(#procession-failed)" in timeline.svg()


def test_a_run_that_goes_on_has_a_timeline_so_far():
    """What runs is drawn up to now, and said to be running."""
    process = Process("now", "parallel", 1)
    begun, go_on = threading.Event(), threading.Event()
    process.add_task(lambda: (begun.set(), go_on.wait(30)))
    run = process.start()
    begun.wait(30)
    timeline = run.timeline()
    go_on.set()
    run.wait()
    assert timeline.status == "running"
    ((state, title),) = bars(timeline)
    assert state == "running"
    assert "so far" in title
    assert run.timeline().status == "completed"


def test_the_command_line_saves_the_timeline_of_a_run(tmp_path):
    """`run --timeline` writes a picture or a trace, and says why the run was not faster."""
    (tmp_path / "pipeline.py").write_text(
        "from procession import Process\np = Process('sum')\np.add_task(print, 'hello')\n"
    )

    def run(*more):
        command = [sys.executable, "-m", "procession", "run", "pipeline:p", *more]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=50)

    done = run("--timeline", "run.svg")
    assert (done.returncode, done.stdout) == (0, "hello\n")
    assert "The critical path takes" in done.stderr
    assert ElementTree.parse(tmp_path / "run.svg").getroot().tag == f"{SVG}svg"
    assert run("--timeline", "run.json").returncode == 0
    assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["traceEvents"]
    for wrong in "run.png", "nowhere/run.svg":
        refused = run("--timeline", wrong)
        assert (refused.returncode, refused.stdout) == (2, "")  # before anything ran


# Where the time went


def test_the_critical_path_is_the_longest_chain_of_waits():
    """load (1 s) ─▶ slow (5 s) ─▶ save (1 s); quick (2 s) and lone (6 s) are not on it."""
    rows = [
        span(0, 0.0, 1.0, name="load"),
        span(1, 1.0, 5.0, name="slow"),
        span(2, 1.0, 2.0, "w_1", name="quick"),
        span(3, 6.0, 1.0, name="save"),
        span(4, 0.0, 6.0, "w_2", name="lone"),
    ]
    stages = (Stage(0, 5, at_once=True),)
    timeline = Timeline("p", "completed", 7.0, rows, max_workers=3, stages=stages, needs={1: (0,), 2: (0,), 3: (1, 2)})
    assert [item.name for item in timeline.critical_path] == ["load", "slow", "save"]
    assert timeline.critical == 7.0
    assert timeline.work == 15.0
    assert timeline.speed_up == (15 / 7, 15 / 7)
    assert timeline.idle == {"w_0": 0.0, "w_1": 5.0, "w_2": 1.0}
    assert "load (1 s) → slow (5 s) → save (1 s)" in str(timeline)
    assert "a shorter slow would" in str(timeline)


def test_a_stage_in_order_is_on_the_critical_path_as_a_whole():
    """What runs at once waits for all of what ran in order."""
    rows = [span(0, 0.0, 1.0, name="a"), span(1, 1.0, 1.0, name="b"), span(2, 2.0, 3.0, "x"), span(3, 2.0, 1.0, "y")]
    stages = (Stage(0, 2, at_once=False), Stage(2, 4, at_once=True))
    timeline = Timeline("p", "completed", 5.0, rows, max_workers=2, stages=stages)
    assert [item.index for item in timeline.critical_path] == [0, 1, 2]
    assert "20% while tasks ran in order" in str(timeline)
    assert "20% at the end, with nothing left to start" in str(timeline)


@pytest.mark.parametrize(
    ("rows", "workers", "said"),
    [
        ([span(n, n // 4 * 1.0, 1.0, f"w_{n % 4}") for n in range(40)], 4, "more of them would make it faster"),
        (
            [span(n, n // 4 * 1.0, 1.0, f"w_{n % 4}") for n in range(40)] + [span(40, 10.0, 15.0, name="big")],
            4,
            "Task 40 (big) was the last to end, long after others",
        ),
        ([span(n, n * 1e-5, 1e-6, f"w_{n % 4}") for n in range(400)], 4, "The tasks are short (1 µs on average)"),
        ([span(0, 0.0, 7.0, "a"), span(1, 0.0, 7.0, "b"), span(2, 3.0, 7.0, "b")], 16, "too few tasks to go round"),
        ([span(0, 0.001, 0.001, "a"), span(1, 0.001, 0.001, "b")], 2, "such as starting workers, is most of it"),
        ([], 4, "No task has run."),
    ],
)
def test_it_says_why_it_is_not_faster(rows, workers, said):
    """Each reason has its own sentence."""
    duration = max((item.start + item.duration for item in rows), default=0.0)
    if duration < 0.003 and len(rows) == 2:
        duration = 0.02
    assert said in str(Timeline("p", "completed", duration, rows, max_workers=workers))


def test_it_says_when_tasks_run_in_order():
    """A sequential process cannot be faster than its tasks together."""
    stages = (Stage(0, 3, at_once=False),)
    rows = [span(n, float(n), 1.0) for n in range(3)]
    timeline = Timeline("p", "completed", 3.0, rows, max_workers=8, stages=stages)
    assert timeline.speed_up == (1.0, 1.0)
    assert "All tasks run in order." in str(timeline)
    assert "work × 3 (3 s)" in str(timeline)


def test_it_says_when_threads_took_turns():
    """Side by side, but never more than one core used: the speed-up is not real."""
    rows = [span(n, 0.0, 4.0, f"w_{n}") for n in range(4)]
    assert "take turns" in str(Timeline("p", "completed", 4.0, rows, max_workers=4, cpu=4.0))
    assert "take turns" not in str(Timeline("p", "completed", 4.0, rows, max_workers=4, cpu=0.1))
    assert "take turns" not in str(Timeline("p", "completed", 4.0, rows, max_workers=4, cpu=15.0))


def simulated(plan, stages, workers):
    """Run a plan on paper: whenever a worker is free, the first call that is ready starts. Return the spans.

    A plan has, for each task, how long each of its calls takes, and the tasks whose values it takes.
    """
    spans, now = [], 0.0
    for stage in stages:
        ready = [
            index
            for index in range(stage.start, stage.stop)
            if not (set(plan[index][1]) & set(range(stage.start, index)))
        ]
        left = {index: list(plan[index][0]) for index in range(stage.start, stage.stop)}
        out, ended = dict.fromkeys(left, 0), set()
        free, busy = list(range(workers if stage.at_once else 1)), []
        while ready or busy:
            while ready and free:
                index, worker = ready[0], heapq.heappop(free)
                took = left[index].pop(0)
                spans.append((index, worker, now, took))
                heapq.heappush(busy, (now + took, index, worker))
                out[index] += 1
                if not left[index]:
                    ready.pop(0)
            now, index, worker = heapq.heappop(busy)
            heapq.heappush(free, worker)
            out[index] -= 1
            if not left[index] and not out[index]:
                ended.add(index)
                ready += [
                    after
                    for after in range(index + 1, stage.stop)
                    if index in plan[after][1] and {need for need in plan[after][1] if need >= stage.start} <= ended
                ]
    return now, [shared for index in range(len(plan)) for shared in shares(index, spans, len(plan[index][0]) > 1)]


def shares(index, spans, is_map):
    """Return the spans of a task as a run has them: one for each worker that had a share in it."""
    by_worker = {}
    for at, worker, start, took in spans:
        if at == index:
            by_worker.setdefault(worker, []).append((start, took))
    for worker, calls in by_worker.items():
        start, (last, took) = calls[0][0], calls[-1]
        yield Span(
            index,
            f"task {index}",
            "completed",
            1,
            start,
            last + took - start,
            f"w_{worker}",
            elements=len(calls) if is_map else None,
            busy=sum(took for _, took in calls),
            longest=max(calls, key=lambda call: call[1]),
        )


def check_advice(plan, stages, workers):
    """Compare what is said of more workers with what twice as many would bring. Return what is said."""
    duration, spans = simulated(plan, stages, workers)
    needs = {index: needed for index, (_, needed) in enumerate(plan) if needed}
    timeline = Timeline("p", "completed", duration, spans, max_workers=workers, stages=stages, needs=needs)
    twice, _ = simulated(plan, stages, 2 * workers)
    if "would make it faster" in timeline.verdict:
        assert twice < 0.95 * duration
        assert re.search(rf"with {2 * workers}, about ", timeline.verdict)
    if "would not make it faster" in timeline.verdict:
        assert twice > 0.85 * duration
    return timeline.verdict


MAP = [0.03] * 300
CHAIN = [([1.0], ()), ([1.0], (0,)), ([1.0], (1,)), ([1.0], (2,))]


@pytest.mark.parametrize(
    ("plan", "first", "workers", "said"),
    [
        ([(MAP, ())], 0, 6, "would make it faster, if the machine has room: with 12, about 750 ms"),
        ([(MAP[:6], ())], 0, 6, "would not make it faster"),
        ([(MAP[:6], ())], 0, 3, "with 6, about 30 ms"),
        ([([*MAP, 20.0], ())], 0, 6, "a shorter longest element of task 0 would"),
        ([([20.0, *MAP], ())], 0, 2, "a shorter longest element of task 0 would"),
        ([([0.1] * 11 + [1.0], ())], 0, 2, "begin with those that take longest"),
        ([(MAP, ()), ([1.0], ()), ([1.0], ())], 0, 2, "with 4, about 3.25 s"),
        ([(MAP, ()), ([8.0], ())], 0, 6, "start it earlier, or split it"),
        ([([8.0], ()), (MAP, ())], 0, 6, "a shorter task 0 would"),
        ([([0.1], ()), (MAP, (0,)), ([0.1], (1,))], 0, 6, "with 12, about 950 ms"),
        ([([5.0], ()), (MAP, (0,)), ([0.1], (1,))], 0, 6, "with 12, about 5.85 s"),
        ([*[([1.0], ())] * 4, ([1.0], (0, 1, 2, 3))], 0, 2, "with 4, about 2 s"),
        ([*[([1.0], ())] * 4, ([9.0], (0, 1, 2, 3))], 0, 4, "a shorter task 4 would"),
        (CHAIN, 0, 4, "would not make it faster"),
        (
            [
                ([2.0], ()),
                ([0.1], (0,)),
                ([2.0], (0, 1)),
                ([0.01], (0,)),
                ([0.1, 0.01, 0.1, 0.1, 2.0, 0.1, 0.3, 2.0, 2.0, 2.0, 0.1, 2.0], (3,)),
                ([2.0], (4,)),
                ([2.0], (1, 2, 5)),
            ],
            1,
            4,
            "The critical path is 79% of the run: shorten task 0 first",
        ),
        (
            [([1.0], tuple(need for need in (index - 4,) if need >= 0)) for index in range(16)],
            0,
            2,
            "with 4, about 4 s",
        ),
        ([*[([1.0], ())] * 4, *[([1.0], ())] * 4], 4, 4, "move what need not wait out of there"),
        ([([0.5], ()), *[(MAP, ())] * 3], 1, 2, "with 4, about 7.25 s"),
    ],
)
def test_what_it_says_of_more_workers_is_what_they_do(plan, first, workers, said):
    """Maps, maps beside tasks, fan-ins, chains and hybrids, each as the calls would go on twice as many workers."""
    stages = [Stage(0, first, at_once=False)] if first else []
    assert said in check_advice(plan, (*stages, Stage(first, len(plan), at_once=True)), workers)


@st.composite
def plans(draw):
    """Return a plan, how many of its tasks run in order, and the number of workers."""
    times = st.sampled_from([0.01, 0.1, 0.1, 0.3, 2.0])
    count = draw(st.integers(1, 12))
    plan = []
    for index in range(count):
        calls = draw(st.one_of(st.lists(times, min_size=1, max_size=1), st.lists(times, min_size=1, max_size=30)))
        needs = draw(st.sets(st.integers(0, index - 1), max_size=3)) if index else set()
        plan.append((calls, tuple(sorted(needs))))
    return plan, draw(st.integers(0, count - 1)), draw(st.integers(1, 6))


@given(plans())
@settings(deadline=None)
def test_it_never_says_of_more_workers_what_they_do_not_do(drawn):
    """Whatever the tasks are and whatever they wait for."""
    plan, first, workers = drawn
    stages = [Stage(0, first, at_once=False)] if first else []
    check_advice(plan, (*stages, Stage(first, len(plan), at_once=True)), workers)


def test_pauses_between_attempts_that_hold_no_worker_need_no_workers():
    """Eight tasks that are tried again after a second end together on two workers, as they would on four."""
    rows = []
    for index in range(8):
        for start in index // 2 * 0.01, 1.0 + index // 2 * 0.01:
            rows.append(span(index, start, 0.01, f"w_{index % 2}", attempts=2))
    said = str(Timeline("p", "completed", 1.04, rows, max_workers=2))
    assert "would not make it faster" in said
    assert "Its tasks took 160 ms together" in said


@pytest.mark.parametrize("executor", ["threads", ThreadPoolExecutor])
def test_workers_do_not_help_a_map_whose_elements_are_slow_to_come(executor):
    """Each element takes as long to come as to be called: a second worker helps, and a fourth would not."""

    def slow():
        for number in range(10):
            time.sleep(0.02)
            yield number

    with contextlib.ExitStack() as stack:
        where = executor if executor == "threads" else stack.enter_context(executor(2))
        process = Process("map", "parallel", 2, executor=where)
        process.map(lambda _: time.sleep(0.02), slow())
        process.execute()
    timeline = process.last_run.timeline()
    (path,) = timeline.critical_path
    assert path.duration >= 0.2
    assert "would make it faster" not in timeline.verdict


def test_no_more_workers_are_asked_for_where_every_core_is_busy():
    """Four workers of a map keep two cores busy: eight would have the same two."""
    rows = [span(0, 0.0, 10.0, f"w_{n}", elements=100) for n in range(4)]

    def verdict(busy, cores):
        return Timeline("p", "completed", 10.0, rows, max_workers=4, cpu=0.5, cores=(busy, cores)).verdict

    assert (
        verdict(1.9, 2)
        == "The calls kept 1.9 of 2 cores busy: more workers would not make it faster, more cores would."
    )
    assert "with 8, about 5 s" in verdict(1.9, 16)
    assert "with 8, about 5 s" in verdict(0.1, 2)


@st.composite
def runs(draw):
    """Return the workers and spans of a run whose tasks do not wait for each other."""
    workers = draw(st.integers(1, 5))
    clock, rows = [0.0] * workers, []
    for index in range(draw(st.integers(1, 40))):
        worker = draw(st.integers(0, workers - 1))
        start = clock[worker] + draw(st.sampled_from([0.0, 0.001, 1.0]))
        duration = draw(st.sampled_from([0.0, 1e-6, 0.5, 3.0]))
        clock[worker] = start + duration
        rows.append(span(index, start, duration, f"w_{worker}"))
    return workers, max(clock), rows


@given(runs())
@settings(deadline=None)
def test_the_figures_fit_together(run):
    """Busy and idle time add up to the run, no speed-up is above the ideal, and every reason for idling is counted."""
    workers, duration, rows = run
    timeline = Timeline("p", "completed", duration, rows, max_workers=workers)
    seen = len(timeline.lanes)
    assert math.isclose(sum(timeline.idle.values()) + timeline.work, seen * duration, abs_tol=1e-6)
    reached, ideal = timeline.speed_up
    assert reached <= ideal + 1e-9
    assert timeline.critical <= duration + 1e-9
    assert math.isclose(sum(timeline._waste.values()) + timeline.work, workers * duration, rel_tol=1e-6, abs_tol=1e-6)
    ElementTree.fromstring(timeline.svg())
    assert str(timeline)


# The picture


def test_a_worker_that_does_several_things_at_once_has_a_lane_for_each():
    """On an event loop tasks overlap; no bar hides another."""
    rows = [span(n, n * 1.0, 2.5, "loop") for n in range(6)]
    timeline = Timeline("p", "completed", 7.5, rows, max_workers=8)
    assert len(timeline.lanes) == 3
    for lane in timeline.lanes:
        ends = [0.0, *(busy.end for busy in lane.spans)]
        assert all(busy.start >= end for busy, end in zip(lane.spans, ends, strict=False))
    assert texts(timeline).count("loop") == 1


def test_workers_are_sorted_as_people_count():
    """Worker 10 comes after worker 2."""
    rows = [span(n, 0.0, 1.0, f"w_{n}") for n in (10, 2, 1)]
    assert [lane.worker for lane in Timeline("p", "completed", 1.0, rows, max_workers=3).lanes] == [
        "w_1",
        "w_2",
        "w_10",
    ]


@pytest.mark.parametrize("workers", [8, 300])
def test_100_000_tasks_are_a_small_picture_in_which_no_failure_is_lost(workers):
    """A browser opens it: under 300 kB, about as many marks as it has room for, and every task counted once."""
    random.seed(workers)
    clock, rows = [0.0] * workers, []
    for index in range(100_000):
        worker = index % workers
        duration = random.expovariate(20)
        state = "failed" if index == 77_777 else "completed"
        rows.append(span(index, clock[worker], duration, f"w_{worker}", state=state))
        clock[worker] += duration + random.random() * 0.02
    timeline = Timeline("large", "failed", max(clock), rows, max_workers=workers)
    assert len(picture(timeline)) < 300_000
    found = bars(timeline)
    assert len(found) < 2 * LIMIT
    assert "1 failed" in texts(timeline)
    if workers <= LANES:
        counted = 0
        for rect in drawn(timeline).iter(f"{SVG}rect"):
            kind = (rect.get("class") or "").split()
            if kind and kind[0] == "block":
                counted += int(rect.find(f"{SVG}title").text.split(" ")[0].replace(",", ""))
            elif rect.find(f"{SVG}title") is not None and kind[-1] != "critical":
                counted += " tasks" not in rect.find(f"{SVG}title").text
        assert counted == 100_000
        assert any(state == "failed" for state, _ in found)
        tree = drawn(timeline)
        for rect in tree.iter(f"{SVG}rect"):
            x, y, width, height = (float(rect.get(key) or 0) for key in ("x", "y", "width", "height"))
            assert 0 <= x <= x + width <= float(tree.get("width"))
            assert 0 <= y <= y + height <= float(tree.get("height"))
    else:
        assert f"{workers - LANES:,} more" in texts(timeline)


def test_hostile_names_are_only_text():
    """Names of processes, tasks and workers are text, in the picture and in the trace."""
    name = "<script>alert(1)</script>]]>\x00\x1b[2J\u202e\ud800 & \"'"
    rows = [
        span(0, 0.0, 5.0, worker=name, name=name, state="failed"),
        *(span(n, 9.0, 1e-9, name=name) for n in range(9)),
    ]
    timeline = Timeline(name, "failed", 10.0, rows, max_workers=2)
    svg = timeline.svg()
    tags = {element.tag.removeprefix(SVG) for element in ElementTree.fromstring(svg).iter()}
    assert tags <= {*("svg", "title", "desc", "style", "defs", "pattern", "rect", "text", "g", "path")}
    for said in svg, json.dumps(timeline.trace()), str(timeline):
        said.encode()
        assert "\x1b" not in said
        assert "\u202e" not in said
        assert '\\ud800"' not in said
    assert "<script" not in svg


def test_nothing_in_a_picture_comes_from_elsewhere():
    """No script, no link and no address but the name of the SVG language; colours for dark and light."""
    rows = [span(0, 0.0, 1.0, state="failed"), span(1, 1.0, 1.0, state="cancelled")]
    svg = Timeline("p", "failed", 2.0, rows, max_workers=1).svg()
    assert "href" not in svg
    assert svg.count("http") == 1
    assert svg.count("url(") == svg.count("url(#procession-") > 0
    assert "prefers-color-scheme:dark" in svg


def test_a_notebook_shows_it():
    """The last expression of a cell is enough."""
    timeline = Timeline("p", "completed", 1.0, [span(0, 0.0, 1.0)], max_workers=1)
    assert timeline._repr_svg_() == timeline._repr_html_() == timeline.svg()
    assert timeline._repr_mimebundle_()["text/plain"] == str(timeline)
    assert repr(timeline) == "<Timeline of 'p': completed in 1 s>"


# The trace


def check_trace(trace):
    """Check what the trace-event format asks of a JSON object, and what a viewer needs to nest events of a thread."""
    assert set(trace) == {"traceEvents", "displayTimeUnit", "otherData"}
    assert trace["displayTimeUnit"] in {"ms", "ns"}
    named, open_until = set(), {}
    for event in trace["traceEvents"]:
        assert isinstance(event["name"], str)
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert isinstance(event["args"], dict)
        thread = event["pid"], event["tid"]
        if event["ph"] == "M":
            assert event["name"] in {"process_name", "thread_name", "thread_sort_index"}
            value = event["args"]["sort_index" if event["name"] == "thread_sort_index" else "name"]
            assert isinstance(value, int if event["name"] == "thread_sort_index" else str)
            if event["name"] == "thread_name":
                named.add(thread)
        else:
            assert event["ph"] == "X"
            assert isinstance(event["cat"], str)
            assert event["ts"] >= 0
            assert event["dur"] >= 0
            assert thread in named
            assert event["ts"] >= open_until.get(thread, 0) - 0.01
            open_until[thread] = event["ts"] + event["dur"]


def test_a_trace_is_what_perfetto_opens(tmp_path):
    """Complete events in microseconds, on named threads, saved as JSON."""
    rows = [
        span(0, 0.5, 1.25, "a", name="load"),
        span(1, 1.0, 2.0, "b", state="failed", attempts=3),
        span(2, 2.0, 1.0, "a"),
    ]
    timeline = Timeline("p", "failed", 3.0, rows, max_workers=2)
    timeline.save(tmp_path / "run.json")
    trace = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    check_trace(trace)
    events = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert len(events) == 3
    load = next(event for event in events if event["name"] == "load")
    assert (load["ts"], load["dur"]) == (500_000, 1_250_000)
    bad = next(event for event in events if event["cat"] == "failed")
    assert bad["args"] == {"index": 1, "state": "failed", "attempts": 3}
    threads = {e["tid"]: e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "thread_name"}
    assert threads == {2: "a", 3: "b"}, "none is called the main thread"
    Timeline("größe", "completed", 3.0, rows, max_workers=2).save(tmp_path / "other.json")
    assert '"procession: größe"' in (tmp_path / "other.json").read_text(encoding="utf-8"), "as viewers want it"
    timeline.save(tmp_path / "run.svg")
    assert (tmp_path / "run.svg").read_text(encoding="utf-8") == timeline.svg()
    with pytest.raises(ValueError, match="svg"):
        timeline.save(tmp_path / "run.png")


def test_a_trace_of_a_real_run_is_valid_too():
    """Also with a map, a failure, two stages and an event loop's overlapping tasks."""
    process = Process("real", Hybrid(first=1), 4, on_error="return")
    numbers = process.task(list, range(100))
    process.map(str, numbers)
    process.add_task(int, "x")
    process.execute()
    check_trace(process.last_run.timeline().trace())
    check_trace(Timeline("p", "completed", 9.0, [span(n, n * 0.1, 3.0) for n in range(50)], max_workers=9).trace())
