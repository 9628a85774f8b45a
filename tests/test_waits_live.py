"""Answers, and the ends of waits, of elements and of nested runs: taken up while the run goes on, wherever it runs."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from held_runs import held, until
from procession import Limit, Process, RunCancelledError, RunSuspendedError, current_task, task
from procession.journal import Journal, schema
from procession.journal.waits import WaitRecords

DAY_S = 86400.0


@pytest.fixture
def journal(tmp_path):
    with Journal(tmp_path / "runs.db") as opened:
        yield opened


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "made"
    made.mkdir()
    return made


LOOKS = []


@pytest.fixture(autouse=True)
def looks(monkeypatch):
    """Note what is found ready each time that it is looked."""
    LOOKS.clear()
    ready = WaitRecords.ready

    def noted(records):
        LOOKS.append(ready(records))
        return LOOKS[-1]

    monkeypatch.setattr(WaitRecords, "ready", noted)


async def hold_later(path):
    return await asyncio.to_thread(hold, path)


def hold(path):
    """Keep the run going until there is a file."""
    until(Path(path).exists, path)
    return "held"


def count(folder, name):
    with Path(folder, str(name)).open("a") as file:
        file.write("x")


def counted(folder):
    return {path.name: len(path.read_text()) for path in Path(folder).iterdir()}


def approve(number, folder):
    """Make a recorded call, and wait for an approval where the number is odd."""
    me = current_task()
    me.call(count, folder, number)
    return number, me.wait_for("approval", timeout=3600) if number % 2 else None


async def approve_later(number, folder):
    return approve(number, folder)


def sleep(number, folder):
    me = current_task()
    me.call(count, folder, number)
    if number % 2:
        me.sleep(DAY_S)
    return number


async def sleep_later(number, folder):
    return sleep(number, folder)


def in_time(number, folder):
    try:
        return approve(number, folder)
    except TimeoutError:
        return number, "nobody came"


async def in_time_later(number, folder):
    return in_time(number, folder)


ENGINES = ["threads", "loop", "beside", "processes", "placed", "executor"]


class Engine:
    """What runs a test, by name."""

    def __init__(self, name, pool):
        self.executor = name if name == "processes" else "threads" if pool is None else pool
        self._name = name

    def of(self, plain, coroutine):
        """Return the function to call elements with."""
        if self._name == "placed":
            return task(executor="processes")(plain)
        return coroutine if self._name == "loop" else plain

    @property
    def hold(self):
        """What keeps the run going: a coroutine where plain functions are called beside those."""
        return hold_later if self._name in ("loop", "beside") else hold

    def process(self, strategy="parallel", workers=2, **options):
        return Process("live", strategy, workers, executor=self.executor, **options)


@pytest.fixture(params=ENGINES)
def engine(request):
    with ThreadPoolExecutor(2) if request.param == "executor" else nullcontext() as pool:
        yield Engine(request.param, pool)


def open_waits(journal, run_id="a"):
    """Return what a run waits for and has no answer yet, by run, task and element."""
    with journal.reader() as reader:
        return {(one.run, one.task, one.element) for one in reader.waits(reader.key(run_id)) if not one.answered}


def until_waits(journal, places, run_id="a"):
    until(lambda: open_waits(journal, run_id) == set(places), f"{places} that wait")


def until_state(run, index, state):
    until(lambda: run.outcomes[index].state == state, f"{state!r} of task {index}")


def until_woken(*places):
    """Return once these tasks or elements were found ready and called again, if they are to be."""
    until(lambda: [one for one in LOOKS if one and set(places) <= {*one}][1:], f"another look at {places}")


def pass_time(journal):
    with journal.database.writing() as connection:
        connection.execute(schema.waits.update().values(due=1.0))


def test_elements_have_their_answers_while_another_task_goes_on(engine, journal, folder, tmp_path):
    """Each by itself, given through another connection, and nothing that was recorded is done again."""
    process = engine.process()
    process.map(engine.of(approve, approve_later), range(6), [str(folder)] * 6)
    with held(process, journal, tmp_path / "open", engine.hold) as run, Journal(tmp_path / "runs.db") as other:
        until_waits(journal, [("a", 0, 1), ("a", 0, 3), ("a", 0, 5)])
        until_state(run, 0, "suspended")
        other.answer("a", "approval", "three", element=3)
        until(lambda: ended(journal) == {0, 2, 3, 4}, "the end of element 3")
        until_state(run, 0, "suspended")
        for element in 1, 5:
            other.answer("a", "approval", str(element), element=element)
        until_state(run, 0, "completed")
        assert run.status == "running"
    assert run.result() == [[(0, None), (1, "1"), (2, None), (3, "three"), (4, None), (5, "5")], "held"]
    assert journal.run("a").executions == 1
    assert counted(folder) == {str(number): 1 for number in range(6)}


def ended(journal, task=0):
    return {one.element for one in journal.tasks("a", task=task)}


def approve_or_hold(number, path):
    if number == 1:
        return hold(path)
    return current_task().wait_for("approval") if number == 0 else number


async def approve_or_hold_later(number, path):
    if number == 1:
        return await asyncio.to_thread(hold, path)
    return approve_or_hold(number, path)


@pytest.mark.parametrize("strategy", ["sequential", "parallel"])
@pytest.mark.parametrize("source", [range, iter])
def test_an_element_has_its_answer_while_others_of_its_map_go_on(engine, strategy, source, journal, tmp_path):
    """In order, too, and in a map over a generator."""
    path = tmp_path / "open"
    process = engine.process(strategy)
    process.map(
        engine.of(approve_or_hold, approve_or_hold_later),
        range(3) if source is range else (number for number in range(3)),
        [str(path)] * 3,
    )
    process.add_task(max, 1, 2)
    run = process.start(run_id="a", journal=journal)
    try:
        until_waits(journal, [("a", 0, 0)])
        journal.answer("a", "approval", "yes")
        if strategy == "parallel":
            until(lambda: 0 in ended(journal), "the end of element 0")
        else:
            until_woken((0, 0))
        assert run.outcomes[0].state == "running"
    finally:
        path.touch()
    assert run.result() == [["yes", "held", 2], 2]
    assert journal.run("a").executions == 1


@pytest.mark.parametrize("function", ["sleep", "timeout"])
def test_what_elements_wait_for_is_due_while_another_task_goes_on(engine, function, journal, folder, tmp_path):
    process = engine.process()
    functions = (sleep, sleep_later) if function == "sleep" else (in_time, in_time_later)
    process.map(engine.of(*functions), range(4), [str(folder)] * 4)
    with held(process, journal, tmp_path / "open", engine.hold) as run:
        until_waits(journal, [("a", 0, 1), ("a", 0, 3)])
        pass_time(journal)
        until_state(run, 0, "completed")
    done = {"sleep": list(range(4)), "timeout": [(0, None), (1, "nobody came"), (2, None), (3, "nobody came")]}
    assert run.result() == [done[function], "held"]
    assert journal.run("a").executions == 1


@pytest.mark.parametrize("function", ["plain", "coroutine", "recorded call", "element"])
def test_a_nested_run_has_its_answer_while_another_task_goes_on(function, journal, folder, tmp_path):
    """One that was left, as nothing else was to do in it; the answer is given through the run around it."""
    inner = Process("inner", "parallel", 2)
    inner.add_task(approve_later if function == "coroutine" else approve, 1, str(folder))
    inner.add_task(approve, 2, str(folder))
    process = Process("outer", "parallel", 2)
    if function == "recorded call":
        process.add_task(lambda: current_task().call(inner))
    elif function == "element":
        process.map(lambda number: current_task().call(inner) if number == 1 else number, range(3))
    else:
        process.add_task(inner)
    nested = {"recorded call": "a/0#0", "element": "a/0.1#0"}.get(function, "a/0")
    with held(process, journal, tmp_path / "open", hold) as run:
        until_waits(journal, [(nested, 0, None)])
        until_state(run, 0, "suspended")
        assert journal.run(nested).status == "suspended"
        journal.answer("a", "approval", "yes")
        until_state(run, 0, "completed")
        assert run.status == "running"
    value = [(1, "yes"), (2, None)]
    assert run.result() == [[0, value, 2] if function == "element" else value, "held"]
    assert journal.run("a").executions == 1
    assert counted(folder) == {"1": 1, "2": 1}


@pytest.mark.parametrize("kind", ["task", "element", "deeper"])
def test_a_nested_run_has_its_answer_while_it_goes_on_itself(kind, journal, folder, tmp_path):
    """It is executed once, as is the run around it."""
    path = tmp_path / "open"
    inner = Process("inner", "parallel", 2)
    if kind == "element":
        inner.map(approve, [1], [str(folder)])
    else:
        inner.add_task(approve, 1, str(folder))
    inner.add_task(hold, str(path))
    value = [[(1, "yes")] if kind == "element" else (1, "yes"), "held"]
    nested = "a/0"
    if kind == "deeper":
        between = Process("between")
        between.add_task(inner)
        inner, nested, value = between, "a/0/0", [value]
    process = Process("outer", "parallel", 2)
    process.add_task(inner)
    run = process.start(run_id="a", journal=journal)
    try:
        until_waits(journal, [(nested, 0, 0 if kind == "element" else None)])
        journal.answer("a", "approval", "yes")
        of_map = 0 if kind == "element" else None
        until(lambda: journal.tasks(nested, task=of_map), "the end of the nested task")
        assert run.status == "running"
    finally:
        path.touch()
    assert run.result() == [value]
    assert journal.run("a").executions == journal.run(nested).executions == 1


def test_an_element_of_a_nested_run_that_was_left_has_its_answer(journal, folder, tmp_path):
    """And what is due there is taken up, too, however deep the run is nested."""
    inner = Process("inner", "parallel", 2)
    inner.map(in_time, range(4), [str(folder)] * 4)
    between = Process("between")
    between.add_task(inner)
    process = Process("outer", "parallel", 2)
    process.add_task(between)
    with held(process, journal, tmp_path / "open", hold) as run:
        until_waits(journal, [("a/0/0", 0, 1), ("a/0/0", 0, 3)])
        until_state(run, 0, "suspended")
        journal.answer("a", "approval", "yes", element=3)
        until_waits(journal, [("a/0/0", 0, 1)])
        until_state(run, 0, "suspended")
        pass_time(journal)
        until_state(run, 0, "completed")
    assert run.result() == [[[[(0, None), (1, "nobody came"), (2, None), (3, "yes")]]], "held"]
    assert counted(folder) == {str(number): 1 for number in range(4)}


def test_an_element_that_waits_holds_no_worker(engine, journal, folder, tmp_path):
    """Nor does its map: with one worker, others go on, and the element has its answer when that is free."""
    process = engine.process(workers=1)
    process.map(engine.of(approve, approve_later), [1, 3], [str(folder)] * 2)
    with held(process, journal, tmp_path / "open", engine.hold) as run:
        until_state(run, 0, "suspended")
        until_state(run, 1, "running")
        for element in 0, 1:
            journal.answer("a", "approval", element, element=element)
            until_woken((0, element))
        assert run.outcomes[0].state == "running"
    assert run.result() == [[(1, 0), (3, 1)], "held"]
    assert journal.run("a").executions == 1


def twice(number, folder):
    me = current_task()
    first = me.wait_for("first")
    me.call(count, folder, f"{number} {first}")
    if me.attempt == 1:
        raise ConnectionError("once")
    return first, me.wait_for("second")


async def twice_later(number, folder):
    return twice(number, folder)


def test_an_element_waits_several_times_and_is_retried(engine, journal, folder, tmp_path):
    """Waiting uses up no attempt, and each answer is taken while the run goes on."""
    process = engine.process()
    process.map(task(retries=1)(engine.of(twice, twice_later)), [0, 1], [str(folder)] * 2)
    with held(process, journal, tmp_path / "open", engine.hold) as run:
        for name in "first", "second":
            until_waits(journal, [("a", 0, 0), ("a", 0, 1)])
            for element in 0, 1:
                journal.answer("a", name, f"{name} {element}", element=element)
        until_state(run, 0, "completed")
    assert run.result() == [[("first 0", "second 0"), ("first 1", "second 1")], "held"]
    assert counted(folder) == {"0 first 0": 1, "1 first 1": 1}


def change(items):
    items.append("changed")
    return len(items), current_task().wait_for("approval")


async def change_later(items):
    return change(items)


def test_an_element_that_changes_its_arguments_stays_the_one_that_it_was(engine, journal, tmp_path):
    """It is recorded as what it was at first, so that the run can be resumed."""

    def process(last):
        made = engine.process()
        made.map(engine.of(change, change_later), [[], ["two"]])
        made.add_task(*last)
        return made

    first, path = process([engine.hold, str(tmp_path / "open")]), tmp_path / "open"
    run = first.start(run_id="a", journal=journal)
    try:
        until_waits(journal, [("a", 0, 0), ("a", 0, 1)])
        until_state(run, 0, "suspended")
        journal.answer("a", "approval", "yes", element=1)
        until(lambda: ended(journal) == {1}, "the end of element 1")
    finally:
        path.touch()
    with pytest.raises(RunSuspendedError, match="element 0 waits for 'approval'"):
        run.result()
    journal.answer("a", "approval", "no")
    one, two = process([engine.hold, str(path)]).execute(run_id="a", journal=journal)
    assert [answer for _, answer in one] == ["no", "yes"]
    assert two == "held"


def test_a_run_that_is_cancelled_leaves_elements_as_they_wait(engine, journal, folder, tmp_path):
    """Those whose map was left, and those whose answer has come just then."""
    process = engine.process()
    process.map(engine.of(approve, approve_later), range(4), [str(folder)] * 4)
    with held(process, journal, tmp_path / "open", engine.hold) as run:
        until_state(run, 0, "suspended")
        run.cancel()
    with pytest.raises(RunCancelledError):
        run.result()
    assert run.outcomes[0].state == "suspended"
    for element in 1, 3:
        journal.answer("a", "approval", element, element=element)
    assert process.execute(run_id="a", journal=journal) == [[(0, None), (1, 1), (2, None), (3, 3)], "held"]


@pytest.mark.parametrize("on_error", ["stop", "continue", "return"])
def test_an_element_that_fails_after_its_answer_fails_as_others_do(engine, on_error, journal, tmp_path):
    process = engine.process(on_error=on_error)
    process.map(engine.of(refuse, refuse_later), range(3))
    with held(process, journal, tmp_path / "open", engine.hold) as run:
        until_state(run, 0, "suspended")
        journal.answer("a", "approval", "no")
        until_state(run, 0, "failed")
    if on_error == "return":
        [first, error, last], end = run.result()
        assert (first, last, end) == (0, 2, "held")
        assert isinstance(error, ValueError)
    else:
        with pytest.raises((ValueError, ExceptionGroup)):
            run.result()


def refuse(number):
    if number == 1 and current_task().wait_for("approval") == "no":
        raise ValueError("refused")
    return number


async def refuse_later(number):
    return refuse(number)


def same(number):
    return number


async def same_later(number):
    return number


def test_a_map_that_takes_the_elements_of_another_waits_likewise(engine, journal, folder, tmp_path):
    process = engine.process()
    numbers = process.map(engine.of(same, same_later), range(4))
    process.map(engine.of(approve, approve_later), numbers, [str(folder)] * 4)
    process.add_task(engine.hold, str(tmp_path / "open"))
    run = process.start(run_id="a", journal=journal)
    try:
        until_waits(journal, [("a", 1, 1), ("a", 1, 3)])
        for element in 1, 3:
            journal.answer("a", "approval", element, element=element)
        until_state(run, 1, "completed")
    finally:
        (tmp_path / "open").touch()
    assert run.result() == [list(range(4)), [(0, None), (1, 1), (2, None), (3, 3)], "held"]
    assert journal.run("a").executions == 1


def test_a_run_with_nothing_else_to_do_is_suspended_while_elements_wait(engine, journal, folder):
    """Nothing waits in memory: the run ends at once."""
    process = engine.process()
    process.map(engine.of(approve, approve_later), range(4), [str(folder)] * 4)
    with pytest.raises(RunSuspendedError, match=r"element [13] waits for 'approval' until .* \(and 1 more\)"):
        process.execute(run_id="a", journal=journal)
    assert open_waits(journal) == {("a", 0, 1), ("a", 0, 3)}


class Told:
    """An observer that notes what it is told of the first task, but for its elements."""

    immediate = True

    def __init__(self):
        self.names = []

    def on_event(self, event):
        if event.index == 0 and event.name in ("task_started", "task_suspended", "task_completed"):
            self.names.append(event.name)


def test_who_watches_is_told_that_a_map_is_left_and_goes_on(engine, journal, folder, tmp_path):
    told = Told()
    process = engine.process(observers=[told])
    process.map(engine.of(approve, approve_later), [1], [str(folder)])
    with held(process, journal, tmp_path / "open", engine.hold) as run:
        until_state(run, 0, "suspended")
        assert run.progress.ended == 0
        journal.answer("a", "approval", "yes")
        until_state(run, 0, "completed")
    assert told.names == ["task_started", "task_suspended", "task_started", "task_completed"]
    assert run.result() == [[(1, "yes")], "held"]
    assert run.progress.ended == 2


def test_elements_that_wait_take_nothing_of_a_limit(engine, journal, folder, tmp_path):
    """And those that are called again are admitted anew."""
    limited = task(limit=Limit("api", at_once=1))
    process = engine.process()
    process.map(limited(engine.of(approve, approve_later)), range(4), [str(folder)] * 4)
    with held(process, journal, tmp_path / "open", engine.hold) as run:
        until_waits(journal, [("a", 0, 1), ("a", 0, 3)])
        for element in 1, 3:
            journal.answer("a", "approval", element, element=element)
        until_state(run, 0, "completed")
    assert run.result() == [[(0, None), (1, 1), (2, None), (3, 3)], "held"]
