"""Where the code of running tasks stands, as a run that goes on says."""

import asyncio
import threading
import time
from functools import partial

import pytest
from tenacity import Retrying, stop_after_attempt, wait_fixed

from procession import Process, TaskStack, current_task, task

GATE = threading.Event()
INNER = []


@pytest.fixture(autouse=True)
def _gate():
    GATE.clear()
    INNER.clear()
    yield
    GATE.set()


def wait_here():
    GATE.wait(50)


def hang(number):
    wait_here()
    return number


async def sleep_here():
    while not GATE.is_set():
        await asyncio.sleep(0.01)


async def hang_async(number):
    await sleep_here()
    return number


def stacks(run, wanted):
    """Return the stacks of a run, by task and element, once those that are wanted stand where they are to be."""
    until = time.monotonic() + 20
    while True:
        found = {(one.index, one.element): one for one in run.stacks()}
        if wanted(found) or time.monotonic() > until:
            return found
        time.sleep(0.01)


def where(one):
    """Return the task's own functions that a stack goes through."""
    return [frame.name for frame in one.frames if frame.filename == __file__]


def stand_in(*functions, count):
    return lambda found: len(found) == count and all(where(one) == [*functions] for one in found.values())


@pytest.mark.parametrize("options", [{}, {"timeout": 60}, {"retries": 2}])
@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("strategy", ["sequential", "parallel"])
def test_a_task_in_a_thread(strategy, recorded, options, tmp_path):
    """From its function on, and without what called that; in a recorded run, and with options, too."""
    function = task(**options)(hang) if options else hang
    process = Process("stuck", "hybrid" if strategy == "sequential" else strategy, 2)
    for number in 7, 8:
        process.add_task(function, number)
    run = process.start(journal=tmp_path / "runs.db" if recorded else None)
    count = 2 if strategy == "parallel" else 1
    found = stacks(run, stand_in("hang", "wait_here", count=count))
    assert [*found] == [(0, None), (1, None)][:count]
    for one in found.values():
        assert isinstance(one, TaskStack)
        assert (one.name, one.where, where(one)) == ("hang", "in a thread", ["hang", "wait_here"])
        assert one.frames[0].name == "hang"
    text = str(run.stacks())
    assert text.startswith("task 0 (hang), in a thread, procession-stuck")
    assert "    GATE.wait(50)\n" in text
    GATE.set()
    run.wait()
    assert (run.stacks(), str(run.stacks())) == ((), "no task runs\n")


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("function", [hang, hang_async])
def test_elements_of_a_map(function, recorded, tmp_path):
    """Each by its place, in threads and in coroutines."""
    process = Process("stuck", "parallel", 2)
    process.map(function, range(3))
    run = process.start(journal=tmp_path / "runs.db" if recorded else None)
    found = stacks(run, lambda found: {*found} >= {(0, 0), (0, 1)} and all(map(where, found.values())))
    assert {*found} == {(0, 0), (0, 1)}
    assert {one.name for one in found.values()} == {f"map of {function.__name__}"}
    assert where(found[0, 1])[0] == function.__name__
    assert "element 1, in a " in str(found[0, 1])


def test_a_coroutine_down_to_what_it_awaits():
    """Beside a plain function, which is in a thread."""
    process = Process("stuck", "parallel", 2)
    process.add_task(hang_async, 1)
    process.add_task(hang, 2)
    run = process.start()
    found = stacks(run, lambda found: len(found) == 2 and all(map(where, found.values())))
    assert (found[0, None].where, where(found[0, None])) == ("in a coroutine", ["hang_async", "sleep_here"])
    assert (found[1, None].where, where(found[1, None])) == ("in a thread", ["hang", "wait_here"])


def test_a_coroutine_that_holds_up_its_loop():
    """It does not wait, and stands where the loop's thread does."""

    async def blocks():
        wait_here()

    process = Process("stuck", "parallel", 2)
    process.add_task(blocks)
    run = process.start()
    found = stacks(run, stand_in("blocks", "wait_here", count=1))
    assert where(found[0, None]) == ["blocks", "wait_here"]


def hang_in_process(number):
    current_task().sleep(50)


def test_a_worker_process_is_named_by_its_number():
    """What it is at in there is not known here."""
    process = Process("stuck", "parallel", 1, executor="processes")
    process.add_task(hang_in_process, 1)
    with process.start() as run:
        found = stacks(run, lambda found: any(one.worker for one in found.values()))
        (one,) = found.values()
        assert (one.where, [*one.frames]) == ("in another process", [])
        assert str(one).startswith("task 0 (hang_in_process), in another process, procession-stuck-1 (")


def test_a_task_that_pauses_before_its_next_attempt():
    """No worker is at it."""

    @task(retries=Retrying(wait=wait_fixed(50), stop=stop_after_attempt(2)))
    def fails():
        raise ValueError("no")

    process = Process("stuck", "parallel", 1)
    process.add_task(fails)
    with process.start() as run:
        found = stacks(run, lambda found: any(one.where == "between two attempts" for one in found.values()))
        assert (found[0, None].where, [*found[0, None].frames]) == ("between two attempts", [])


def test_a_task_can_ask_itself():
    """From inside of the run; the innermost frames are those of the question."""
    process = Process("curious")
    process.add_task(lambda: INNER.extend(process.last_run.stacks()))
    process.execute()
    assert where(INNER[0])[-1] == "<lambda>"


def test_workers_that_make_no_call_are_left_out():
    """As those that have joined a map and find nothing to do: only what runs is shown."""
    process = Process("stuck", "parallel", 8)
    process.map(hang, [1])
    run = process.start()
    found = stacks(run, stand_in("hang", "wait_here", count=1))
    assert {*found} == {(0, 0)}
    for _ in range(50):
        assert {(one.index, one.element) for one in run.stacks()} == {(0, 0)}


class Hanging:
    def __call__(self, _number):
        wait_here()

    def method(self):
        wait_here()


@pytest.mark.parametrize(
    ("function", "name"),
    [(partial(hang, 1), "hang"), (Hanging().method, "method"), (partial(Hanging(), 1), "__call__")],
)
def test_whatever_the_callable_is(function, name):
    """A partial, a method, an object that can be called."""
    process = Process("stuck", "parallel", 2)
    process.add_task(function)
    run = process.start()
    found = stacks(run, stand_in(name, "wait_here", count=1))
    assert found[0, None].frames[0].name == name


def test_a_run_inside_another_says_where_its_own_tasks_stand():
    """Though both are in one thread."""
    inner = Process("inner")
    inner.add_task(hang, 1)
    outer = Process("outer")
    outer.add_task(inner)
    thread = threading.Thread(target=outer.execute)
    thread.start()
    until = time.monotonic() + 20
    while (inner.last_run is None or not inner.last_run.stacks()) and time.monotonic() < until:
        time.sleep(0.01)
    assert where(inner.last_run.stacks()[0])[0] == "hang"
    GATE.set()
    thread.join(20)
