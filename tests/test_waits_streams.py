"""Elements of a pipeline that wait: the others flow on, and what takes them goes on when the answers are there."""

import tempfile
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from held_runs import PATIENCE_S, held, until
from pipelines import mixed_pipelines
from procession import (
    NotKept,
    Process,
    RunCancelledError,
    RunSuspendedError,
    current_task,
    stream,
    task,
)
from procession.journal import Journal, heartbeat
from procession.testing import crash_everywhere, recorded_calls
from waiting_tasks import hold, sign, sign_later

COUNT = 150
WAITING = {7, 57, 107}
CALLED = deque()


@pytest.fixture(autouse=True)
def fresh():
    CALLED.clear()


@pytest.fixture
def journal(tmp_path):
    with Journal(tmp_path / "runs.db") as opened:
        yield opened


class Engine:
    """What runs a test, by name."""

    def __init__(self, name, pool):
        self.executor = name if name == "processes" else "threads" if pool is None else pool
        self.function = {"loop": sign_later, "placed": task(executor="processes")(sign)}.get(name, sign)
        self.note, self.sink = (note_later, sink_later) if name == "loop" else (note, sink)
        self.notes = name != "processes"
        """Whether calls of `note` are made here."""

    def process(self, **options):
        return Process("live", "parallel", 3, executor=self.executor, **options)


@pytest.fixture(params=["threads", "loop", "processes", "placed", "executor"])
def engine(request):
    with ThreadPoolExecutor(2) if request.param == "executor" else nullcontext() as pool:
        yield Engine(request.param, pool)


def note(row):
    CALLED.append(row[0])
    return row


async def note_later(row):
    return note(row)


def sink(rows):
    taken = []
    for row in rows:
        CALLED.append(row[0])
        taken.append(row)
    return taken


async def sink_later(rows):
    taken = []
    async for row in rows:
        CALLED.append(row[0])
        taken.append(row)
    return taken


def open_waits(journal):
    with journal.reader() as reader:
        return {one.element for one in reader.waits(reader.key("a")) if not one.answered}


def ended(journal, index):
    return {element for _, task, element in recorded_calls(journal) if task == index and element >= 0}


def answer(journal, elements):
    for element in sorted(elements):
        journal.answer("a", "signature", f"by {element}", task=0, element=element)


def signed(numbers):
    return [(number, f"by {number}" if number % 50 == 7 else None) for number in numbers]


def states(run):
    return [outcome.state for outcome in run.outcomes]


def test_the_others_flow_on_while_elements_wait(engine, journal, tmp_path):
    """To the end of the pipeline; and each that is answered follows them, in the same execution."""
    process = engine.process()
    process.map(engine.note, process.map(task(keep=False)(engine.function), range(COUNT)))
    with held(process, journal, tmp_path / "open") as run, Journal(tmp_path / "runs.db") as other:
        until(lambda: ended(other, 1) == set(range(COUNT)) - WAITING, "the end of the others")
        until(lambda: open_waits(other) == WAITING, "the waits")
        answer(other, {57})
        until(lambda: 57 in ended(other, 1), "the end of element 57")
        answer(other, WAITING - {57})
        until(lambda: ended(other, 1) == set(range(COUNT)), "the end of all")
    assert run.result() == [NotKept(COUNT), signed(range(COUNT)), None]
    assert journal.run("a").executions == 1
    assert sorted(CALLED) == list(range(COUNT)) or not engine.notes


def test_a_task_that_iterates_goes_on_in_order(engine, journal, tmp_path):
    """It has had what comes before the element that waits, and gets the rest in the same call."""
    process = engine.process()
    process.add_task(engine.sink, stream(process.map(engine.function, range(COUNT))))
    with held(process, journal, tmp_path / "open") as run, Journal(tmp_path / "runs.db") as other:
        for element in sorted(WAITING):
            until(lambda: element in open_waits(other), f"the wait of element {element}")  # noqa: B023
            until(lambda: len(CALLED) == element, f"element {element - 1} in the sink")  # noqa: B023
            answer(other, {element})
        until(lambda: len(CALLED) == COUNT, "the last element")
    assert run.result() == [signed(range(COUNT)), signed(range(COUNT)), None]
    assert journal.run("a").executions == 1
    assert list(CALLED) == list(range(COUNT))


def test_with_nothing_else_left_all_that_takes_the_elements_is_suspended(engine, journal):
    """The elements that could go on are recorded down to the end of the pipeline, and are not called again."""
    process = engine.process()
    rows = process.map(engine.note, process.map(task(keep=False)(engine.function), range(COUNT)))
    process.map(engine.note, rows)
    with pytest.raises(RunSuspendedError, match=r"element 7 waits for 'signature'.*takes elements of which some"):
        process.execute(run_id="a", journal=journal)
    assert states(process.last_run) == ["suspended"] * 3
    assert ended(journal, 2) == set(range(COUNT)) - WAITING
    answer(journal, {7, 107})
    with pytest.raises(RunSuspendedError, match="element 57 waits"):
        process.execute(run_id="a", journal=journal)
    answer(journal, {57})
    assert process.execute(run_id="a", journal=journal) == [NotKept(COUNT), *[signed(range(COUNT))] * 2]
    assert sorted(CALLED) == sorted([*range(COUNT)] * 2) or not engine.notes


@pytest.mark.parametrize("kept", [True, False])
def test_a_task_that_iterates_is_suspended_and_called_anew(kept, engine, journal):
    process = engine.process()
    rows = process.map(task(keep=kept)(engine.function), range(COUNT))
    process.add_task(engine.sink, stream(process.map(task(keep=kept)(engine.note), rows)))
    values = None
    while values is None:
        CALLED.clear()
        try:
            values = process.execute(run_id="a", journal=journal)
        except RunSuspendedError:
            assert states(process.last_run)[0] == states(process.last_run)[2] == "suspended"
            answer(journal, open_waits(journal))
    assert values[2] == signed(range(COUNT))
    assert journal.run("a").executions > 1


# An answer in the last moment of a run


@pytest.mark.parametrize("kind", ["task", "map", "pipeline", "sink"])
def test_an_answer_that_comes_as_all_else_ends_is_taken(kind, engine, journal, tmp_path, monkeypatch):
    """Nobody looks for answers meanwhile, but the run itself before it ends as suspended."""
    monkeypatch.setattr(heartbeat.Heartbeat, "_beat", lambda _: None)
    process = engine.process()
    if kind == "task":
        process.add_task(engine.function, 7)
    else:
        rows = process.map(engine.function, range(20))
        if kind == "pipeline":
            process.map(engine.note, rows)
        elif kind == "sink":
            process.add_task(engine.sink, stream(rows))
    with held(process, journal, tmp_path / "open") as run, Journal(tmp_path / "runs.db") as other:
        until(lambda: open_waits(other), "the wait")
        other.answer("a", "signature", "by 7")
    value = signed(range(20)) if kind != "task" else (7, "by 7")
    values = [value] if kind in ("task", "map") else [value, value]
    assert run.result() == [*values, None]
    assert journal.run("a").executions == 1


# The caller as the one who takes the elements


@pytest.mark.parametrize("kept", [True, False])
def test_the_caller_gets_what_comes_before_an_element_that_waits(kept, engine, journal):
    process = engine.process()
    rows = process.map(task(keep=kept)(engine.note), process.map(engine.function, range(COUNT)))
    with process.start(run_id="a", journal=journal, streams=[rows]) as run:
        taken = []
        with pytest.raises(RunSuspendedError):
            taken.extend(iter_into(taken, run.stream(rows)))
        assert taken == signed(range(7))


@pytest.mark.parametrize("kept", [True, False])
def test_the_caller_gets_the_rest_when_it_is_answered(kept, engine, journal, tmp_path):
    process = engine.process()
    rows = process.map(task(keep=kept)(engine.note), process.map(engine.function, range(COUNT)))
    process.add_task(hold, str(tmp_path / "open"))
    run = process.start(run_id="a", journal=journal, streams=[rows])
    taken = []
    with Journal(tmp_path / "runs.db") as other:
        try:
            for row in run.stream(rows):
                taken.append(row)
                if len(taken) in WAITING:
                    until(lambda: open_waits(other), "the wait")
                    answer(other, {len(taken)})
        finally:
            (tmp_path / "open").touch()
            run.wait(PATIENCE_S)
    assert taken == signed(range(COUNT))
    assert run.result()[2] is None


def iter_into(taken, rows):
    for row in rows:
        taken.append(row)
    return ()


# Failures


def fail_at_nine(row):
    if row[0] == 9:
        raise OSError("nine")
    return row


@pytest.mark.parametrize("on_error", ["stop", "continue", "return"])
def test_a_failure_downstream_outranks_the_wait(on_error, journal):
    process = Process("failing", "parallel", 2, on_error=on_error)
    process.map(note, process.map(fail_at_nine, process.map(sign, range(20))))
    if on_error == "return":
        with pytest.raises(RunSuspendedError):
            process.execute(run_id="a", journal=journal)
        assert states(process.last_run) == ["suspended"] * 3
    else:
        with pytest.raises(OSError if on_error == "stop" else ExceptionGroup, match=r"nine|1 of 1 task|failed"):
            process.execute(run_id="a", journal=journal)
        assert states(process.last_run)[1] == "failed"


# Generated


ELEMENTS = [6, 130]
ASKING = set()
"""The calls that wait: a stage, and the place of an element."""


def begin(stage, place):
    CALLED.append((stage, place, "before"))


def step(*values, stage):
    place = values[0][0]
    if (stage, place) in ASKING:
        me = current_task()
        me.call(begin, stage, place)
        assert me.wait_for("go") == "on"
    CALLED.append((stage, place))
    return place, sum(value for _, value in values) + 1


async def step_async(*values, stage):
    return step(*values, stage=stage)


def gathered(rows):
    return list(rows)


async def gathered_async(rows):
    return [row async for row in rows]


def made(plan, count, policy, executor, path):
    process = Process("pipeline", "parallel", 2, on_error=policy, executor=executor)
    handles = []
    for stage, (taken, is_map, is_coroutine, kept) in enumerate(plan):
        if is_map:
            function = task(keep=kept)(step_async if is_coroutine else step)
            sources = [handles[place] for place in taken] or [[(place, 0) for place in range(count)]]
            handles.append(process.map(function, *sources, constants={"stage": stage}))
        else:
            handles.append(process.task(gathered_async if is_coroutine else gathered, stream(handles[taken[0]])))
    process.add_task(hold, str(path))
    return process


def right(plan, count):
    """Return what a plain loop would give."""
    results = []
    for taken, is_map, _, _ in plan:
        if is_map:
            sources = [results[place] for place in taken] or [[(place, 0) for place in range(count)]]
            results.append([(place, sum(row[place][1] for row in sources) + 1) for place in range(count)])
        else:
            results.append(results[taken[0]])
    values = [
        NotKept(count) if is_map and not kept else value
        for (_, is_map, _, kept), value in zip(plan, results, strict=True)
    ]
    return [*values, None]


def answer_some(journal, most=1000):
    with journal.reader() as reader:
        waits = [one for one in reader.waits(reader.key("a")) if not one.answered]
    for one in waits[:most]:
        with suppress(ValueError):
            journal.answer("a", one.name, "on", task=one.task, element=one.element)
    return len(waits)


@pytest.fixture(scope="module")
def pool():
    with ThreadPoolExecutor(2) as pool:
        yield pool


@settings(deadline=None, max_examples=40)
@given(
    plan=mixed_pipelines(),
    count=st.sampled_from(ELEMENTS),
    policy=st.sampled_from(["stop", "continue", "return"]),
    elsewhere=st.booleans(),
    lives=st.lists(st.sampled_from(["answered", "left", "cancelled"]), max_size=3),
    data=st.data(),
)
def test_a_pipeline_in_which_elements_wait_ends_as_a_loop_would(plan, count, policy, elsewhere, lives, data, pool):
    """However often it is left, cancelled, answered meanwhile or between two executions: each call is made once."""
    maps = [stage for stage, (_, is_map, _, _) in enumerate(plan) if is_map]
    ASKING.clear()
    ASKING.update(
        data.draw(st.sets(st.tuples(st.sampled_from(maps), st.integers(0, count - 1)), min_size=1, max_size=4))
    )
    CALLED.clear()
    executor = pool if elsewhere else "threads"
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "runs.db") as journal:
        path = Path(folder) / "open"
        for life in [*lives, "answered"]:
            run = made(plan, count, policy, executor, path).start(run_id="a", journal=journal)
            with suppress(RunSuspendedError, RunCancelledError):
                if life == "cancelled":
                    until(lambda: answer_some(journal, 1) or run.wait(0), "a wait")  # noqa: B023
                    run.cancel()
                elif life == "answered":
                    until(lambda: answer_some(journal) or run.wait(0), "a wait")  # noqa: B023
                path.touch()
                assert run.wait(PATIENCE_S)
                run.result()
            path.unlink()
            if run.status == "completed":
                break
            answer_some(journal, 1)
        executions = 0
        while run.status != "completed":
            executions += 1
            assert executions < 20
            answer_some(journal)
            path.touch()
            run = made(plan, count, policy, executor, path).start(run_id="a", journal=journal)
            assert run.wait(PATIENCE_S)
        assert run.result() == right(plan, count)
    assert len(CALLED) == len(set(CALLED)) == len(maps) * count + len(ASKING)


def crashing():
    process = Process("crashing", "parallel", 2)
    rows = process.map(sign_two, range(4))
    process.task(sink_all, stream(process.map(twice, rows)))
    return process


def sign_two(number):
    return number, current_task().wait_for("signature") if number in (1, 2) else None


def twice(row):
    return row * 2


def sink_all(rows):
    return list(rows)


def test_a_pipeline_in_which_elements_wait_survives_crashes():
    report = crash_everywhere(crashing, answers={"signature": "yes"})
    assert report.results[1] == [(n, a, n, a) for n, a in [(0, None), (1, "yes"), (2, "yes"), (3, None)]]
