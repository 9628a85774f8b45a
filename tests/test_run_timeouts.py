"""Runs that take longer than they may."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from procession import (
    Process,
    RunCancelledError,
    RunTimeoutError,
    TaskTimeoutError,
    WorkerProcesses,
    current_task,
    stream,
    task,
)
from procession._engine import run_deadline
from procession.journal import Journal

GATE = threading.Event()
"""What functions wait for that look at nothing."""
BEGUN = threading.Event()
CALLED = []
TIMEOUTS = 0.3, 3.0, 15.0
"""How long a run may take: longer where the machine was held up, and what was to happen before that had not."""


@pytest.fixture(autouse=True)
def _gate():
    GATE.clear()
    BEGUN.clear()
    CALLED.clear()
    yield
    GATE.set()  # or its threads would stay


def quick(number):
    CALLED.append(number)
    return number


def hang(number):
    """Wait for what does not come, in a way that nobody can interrupt."""
    BEGUN.set()
    GATE.wait(50)
    return number


def hang_in_process(number):
    threading.Event().wait(50 * number)
    return number


async def wait_for_ever():
    try:
        await asyncio.sleep(50)
    finally:
        await asyncio.sleep(0.3)  # longer than threads would have
        CALLED.append("cleaned up")


def states(process):
    return [outcome.state for outcome in process.last_run.outcomes]


@pytest.mark.parametrize("strategy", ["sequential", "parallel"])
@pytest.mark.parametrize("executor", ["threads", "executor"])
def test_a_run_that_takes_too_long_is_cancelled_and_threads_are_left_behind(executor, strategy):
    """In order, too, where else the caller's thread would make the call; what had ended is kept."""
    with ThreadPoolExecutor(2) as pool:
        where = pool if executor == "executor" else "threads"
        Process("first", executor=where).execute()  # imports what is needed
        for timeout in TIMEOUTS:
            process = Process("slow", strategy, 2, executor=where)
            for function in quick, hang, hang, quick:
                process.add_task(function, 7)
            said = rf"process 'slow' took longer than its timeout of {timeout:g} s, and was canc"
            with pytest.raises(RunTimeoutError, match=said):
                process.execute(timeout=timeout)
            if states(process)[0] == "completed":
                break
        assert process.last_run.status == "cancelled"
        assert process.status == "failed"
        assert states(process) == ["completed", "cancelled", "cancelled", "cancelled"]
        assert process.last_run.outcomes[0].value == 7
        assert not GATE.is_set()
        GATE.set()


def test_worker_processes_are_ended():
    """As with any other cancel."""
    process = Process("slow", "parallel", 2, executor="processes")
    process.add_task(hang_in_process, 1)
    with pytest.raises(RunTimeoutError):
        process.execute(timeout=0.3)
    assert states(process) == ["cancelled"]


@pytest.mark.parametrize("strategy", ["sequential", "parallel"])
def test_coroutines_are_cancelled_and_may_clean_up(strategy):
    """For as long as they like, beside plain functions, which are left behind."""
    for timeout in TIMEOUTS:
        process = Process("slow", strategy, 2)
        process.add_task(wait_for_ever)
        process.add_task(hang, 1)
        with pytest.raises(RunTimeoutError):
            process.execute(timeout=timeout)
        assert states(process) == ["cancelled", "cancelled"]
        if CALLED:
            break
    assert CALLED == ["cleaned up"]


def test_in_the_loop_of_the_caller_it_is_the_same():
    """The loop goes on."""

    async def main():
        process = Process("slow", "parallel", 2)
        process.add_task(wait_for_ever)
        process.add_task(hang, 1)
        with pytest.raises(RunTimeoutError):
            await process.execute_async(timeout=0.3)
        assert states(process) == ["cancelled", "cancelled"]
        async with process.start_async(timeout=0.1) as run:
            with pytest.raises(RunTimeoutError):
                await run

    asyncio.run(main())


def test_a_run_that_was_started_says_so_to_who_waits():
    """And to who iterates, that nothing else comes."""
    process = Process("slow", "parallel", 2)
    process.add_task(hang, 1)
    run = process.start(timeout=0.2)
    assert [outcome.state for outcome in run] == ["cancelled"]
    with pytest.raises(RunTimeoutError):
        run.result()


def test_who_looks_whether_it_is_cancelled_has_a_moment_to_end(monkeypatch):
    """Its thread is not left behind, and ends before the run does."""
    monkeypatch.setattr(run_deadline, "GRACE_S", 20.0)
    seen = []

    def polite():
        try:
            current_task().sleep(50)
        finally:
            seen.append(current_task().cancelled)

    process = Process("slow", "parallel", 2)
    process.add_task(polite)
    for timeout in TIMEOUTS:
        with pytest.raises(RunTimeoutError):
            process.execute(timeout=timeout)
        if seen:
            break
    assert seen == [True]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("procession-slow")]


@pytest.mark.parametrize("strategy", ["sequential", "parallel"])
def test_elements_streams_and_pauses_end_with_the_run(strategy):
    """Whatever they wait for."""

    @task(retries=5, retry_on=ValueError)
    def fails():
        raise ValueError("again")

    for timeout in TIMEOUTS:
        CALLED.clear()
        process = Process("slow", strategy, 4, on_error="continue")
        numbers = process.map(lambda number: quick(number) if number < 3 else hang(number), range(6))
        process.task(sum, stream(numbers))
        process.add_task(task(retries=2)(hang), 1)
        process.add_task(fails)
        with pytest.raises(RunTimeoutError):
            process.execute(timeout=timeout)
        if len(CALLED) == 3:
            break
    assert set(states(process)[:3]) <= {"cancelled", "skipped"}
    assert sorted(CALLED) == [0, 1, 2]


def test_a_recorded_run_is_gone_on_with(where):
    """Nothing that ended is called again, and the threads that were left behind record nothing."""

    def build():
        process = Process("slow", "parallel", 1)
        process.add_task(quick, 1)
        process.map(hang_or_quick, range(4))
        return process

    for timeout in TIMEOUTS:
        with pytest.raises(RunTimeoutError):
            build().execute(run_id="a", journal=where, timeout=timeout)
        if len(CALLED) == 3:
            break
    assert CALLED == [1, 0, 1]
    with Journal(where) as journal:
        assert journal.run("a").status == "cancelled"
        assert [one.element for one in journal.tasks("a", task=1)] == [0, 1]
    GATE.set()
    assert build().execute(run_id="a", journal=where, timeout=50) == [1, [0, 1, 2, 3]]
    assert CALLED == [1, 0, 1, 2, 3]


def hang_or_quick(number):
    if number == 2 and not GATE.is_set():
        GATE.wait(50)
        return number
    return quick(number)


def test_a_run_inside_another_ends_with_it():
    """It is cancelled with the run around it."""
    inner = Process("inner", "parallel", 1)
    inner.add_task(lambda: current_task().sleep(50))
    outer = Process("outer", "parallel", 1)
    outer.add_task(inner)
    for timeout in TIMEOUTS:
        with pytest.raises(RunTimeoutError, match="process 'outer'"):
            outer.execute(timeout=timeout)
        if inner.last_run is not None:
            break
    assert inner.last_run.status == "cancelled"


def test_a_run_in_time_is_as_ever():
    """It keeps no thread, and a task's own timeout counts where it comes first."""
    process = Process("quick", "parallel", 2, on_error="return")
    process.add_task(quick, 1)
    process.add_task(task(timeout=0.1)(hang), 1)
    first, second = process.execute(timeout=50)
    assert (first, type(second)) == (1, TaskTimeoutError)
    assert not [thread for thread in threading.enumerate() if thread.name.endswith("-deadline")]


def test_who_cancels_first_is_told_of_that():
    """The deadline then changes nothing."""
    process = Process("slow", "parallel", 1)
    process.add_task(hang, 1)
    run = process.start(timeout=50)
    assert BEGUN.wait(20)
    run.cancel()
    GATE.set()
    with pytest.raises(RunCancelledError):
        run.result()


@pytest.mark.parametrize("way", ["execute", "start", "execute_async"])
@pytest.mark.parametrize(
    ("timeout", "error", "words"),
    [
        (0, ValueError, "process 'p': timeout is a finite number of seconds above 0; got 0"),
        (-1.5, ValueError, "above 0; got -1.5"),
        (float("nan"), ValueError, "finite number of seconds above 0; got nan"),
        (float("inf"), ValueError, "finite number of seconds above 0; got inf"),
        ("1", TypeError, "timeout is a number of seconds, or None; got "),
        (True, TypeError, "timeout is a number of seconds, or None; got True"),
    ],
)
def test_what_is_no_time_is_refused(way, timeout, error, words):
    """Before anything is called."""
    process = Process("p")
    process.add_task(quick, 1)
    begin = partial(getattr(process, way), timeout=timeout)
    with pytest.raises(error, match=words):
        asyncio.run(begin()) if way == "execute_async" else begin()
    assert CALLED == []
    assert process.execute() == [1]


def never_more():
    """Give what there is, and wait for what does not come."""
    yield from range(3)
    hang(3)


def more():
    yield from range(5)


def together(numbers):
    return [quick(number) for number in numbers]


async def quick_async(number):
    return quick(number)


@pytest.fixture(scope="module")
def workers():
    """A worker process that is there already."""
    with WorkerProcesses(1) as workers:
        workers.submit(abs, 1).result(60)
        yield workers


@pytest.mark.parametrize("strategy", ["sequential", "parallel"])
@pytest.mark.parametrize("kind", ["threads", "batches", "coroutines", "processes", "processes for one", "stream"])
def test_a_source_that_gives_nothing_is_left_behind(kind, strategy, workers):
    """Wherever the elements are called, and whoever takes them. So a run may draw from a queue."""
    kinds = {"batches": together, "coroutines": quick_async, "processes for one": task(executor=workers)(quick)}
    for timeout in TIMEOUTS:
        where = workers if kind == "processes" else "threads"
        process = Process("slow", strategy, 2, executor=where, on_error="return")
        numbers = process.map(kinds.get(kind, quick), never_more(), batch=2 if kind == "batches" else None)
        if kind == "stream":
            process.task(sum, stream(numbers))
        with pytest.raises(RunTimeoutError):
            process.execute(timeout=timeout)
        if BEGUN.is_set():
            break
    assert BEGUN.is_set()
    assert not GATE.is_set()
    assert set(states(process)) == {"cancelled"}
    assert process.last_run.progress.failed == 0


def test_a_source_that_was_left_behind_is_gone_on_with(where):
    """By the next execution, which calls none of the recorded elements again."""
    for timeout in TIMEOUTS:
        CALLED.clear()
        process = Process("slow", "parallel", 2)
        process.map(quick, never_more())
        with Journal(where) as journal:
            with pytest.raises(RunTimeoutError):
                process.execute(run_id=f"{timeout}", journal=journal, timeout=timeout)
            if sorted(CALLED) != [0, 1, 2]:
                continue
            process = Process("slow", "parallel", 2)
            process.map(quick, more())
            GATE.set()
            assert process.execute(run_id=f"{timeout}", journal=journal, timeout=60) == [[0, 1, 2, 3, 4]]
        break
    assert sorted(CALLED) == [0, 1, 2, 3, 4]


def test_a_source_in_time_is_drawn_from_as_ever():
    """It sees the task that draws, its errors come out as they are, and its thread ends with the run."""

    def seen():
        for number in range(200):
            yield number, current_task().name, threading.current_thread().name

    def broken():
        yield 1
        raise LookupError("no more")

    process = Process("bounded", "parallel", 2)
    rows = process.map(tuple, seen())
    process.map(tuple, iter([]))
    results = process.execute(timeout=60)
    assert process.last_run[rows] == [(number, "map of tuple", "procession-bounded-source") for number in range(200)]
    assert results[1] == []
    process = Process("bounded", "parallel", 2)
    process.map(str, broken())
    with pytest.raises(LookupError, match="no more"):
        process.execute(timeout=60)
    process = Process("bounded", "parallel", 2)
    process.map(pow, iter(range(3)), iter(range(2)))
    with pytest.raises(ValueError, match="after 2 elements, argument 2 is shorter than argument 1"):
        process.execute(timeout=60)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("procession-bounded")]
