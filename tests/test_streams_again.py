"""A task that is called again has all elements again from the first, where they are not kept, too: see `kinds`."""

import asyncio
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import tenacity

from procession import (
    Limit,
    NotKept,
    Process,
    RetryAfter,
    RunSuspendedError,
    ValueUnavailableError,
    current_task,
    stream,
    task,
    unrecorded,
)
from procession.journal import Journal
from single_tasks import no_backoff

WAIT_S = 20
WINDOW = 64
CALLS: list[int] = []
ATTEMPTS: list[list[int]] = []


def twice(number):
    CALLS.append(number)
    return 2 * number


async def twice_async(number):
    await asyncio.sleep(0)
    return twice(number)


def twice_but_3(number):
    if number == 3:
        raise KeyError(number)
    return twice(number)


def reading(kind, step):
    """Return a function that collects what it takes, and makes a call with that after each element."""

    def sink(rows):
        ATTEMPTS.append(taken := [])
        for row in rows:
            taken.append(row)
            step(taken)
        return taken

    async def async_sink(rows):
        ATTEMPTS.append(taken := [])
        async for row in rows:
            taken.append(row)
            step(taken)
        return taken

    return async_sink if kind is twice_async else sink


def failing(taken, *, times=2):
    """Fail in the first attempts, each time somewhat later."""
    if len(ATTEMPTS) <= times and len(taken) == 70 * len(ATTEMPTS):
        raise ConnectionError


KINDS = {
    "threads": (twice, twice),
    "coroutines": (twice_async, twice_async),
    "coroutines first": (twice_async, twice),
    "coroutines last": (twice, twice_async),
    "on an executor": (twice, twice),
    "on an executor, a coroutine last": (twice, twice_async),
}


@pytest.fixture(params=KINDS)
def kinds(request, monkeypatch):
    """The function of a map, and of what kind the function is that takes its elements."""
    CALLS.clear()
    ATTEMPTS.clear()
    with ThreadPoolExecutor(4) as executor:
        if "on an executor" in request.param:
            monkeypatch.setitem(globals(), "Process", partial(Process, executor=executor))
        yield KINDS[request.param]


@pytest.fixture
def recorded(tmp_path):
    return {"journal": tmp_path / "runs.db", "run_id": "a"}


def test_a_retried_task_reads_back_what_is_not_kept(kinds, recorded):
    """From the journal: no element is called again, and what the task had not taken comes after that."""
    function, last = kinds
    process = Process("again", "parallel", 2)
    rows = process.map(task(keep=False)(function), range(500))
    process.task(task(retries=no_backoff(3))(reading(last, failing)), stream(rows))
    kept, taken = process.execute(**recorded)
    assert (kept, taken) == (NotKept(500), [2 * n for n in range(500)])
    assert ATTEMPTS == [taken[:70], taken[:140], taken]
    assert sorted(CALLS) == list(range(500))
    assert process.last_run.outcomes[1].attempts == 3


def test_failed_elements_are_left_out_in_each_attempt(recorded):
    """They are in no record that could be read back."""
    CALLS.clear()
    ATTEMPTS.clear()
    process = Process("again", "parallel", 2, on_error="return")
    rows = process.map(task(keep=False)(twice_but_3), range(200))
    process.task(task(retries=no_backoff(3))(reading(twice, failing)), stream(rows))
    good = [2 * n for n in range(200) if n != 3]
    assert process.execute(**recorded)[1] == good
    assert ATTEMPTS == [good[:70], good[:140], good]


def test_a_resumed_run_reads_back_what_an_earlier_execution_has_recorded(kinds, recorded):
    """When its map had ended, and the task had failed for good."""
    function, last = kinds
    for retries in 1, 3, 3:
        process = Process("again", "parallel", 2)
        rows = process.map(task(keep=False)(function), range(300))
        sink = reading(last, partial(failing, times=3))
        process.task(task(retries=no_backoff(retries), name="sink")(sink), stream(rows))
        if retries == 1:
            with pytest.raises(ConnectionError):
                process.execute(**recorded)
        else:
            assert process.execute(**recorded) == [NotKept(300), [2 * n for n in range(300)]]
    assert [len(taken) for taken in ATTEMPTS] == [70, 140, 210, 300]
    assert sorted(CALLS) == list(range(300))


def test_no_more_than_a_window_is_drawn_ahead_of_a_task_that_starts_over(kinds, recorded):
    """So what is not kept stays in bounds while the task pauses, and while it reads back; then the map goes on."""
    function, last = kinds
    ahead = []

    def step(taken):
        ahead.append(len(CALLS) - max(map(len, ATTEMPTS)))
        failing(taken, times=1)

    process = Process("window", "parallel", 2)
    rows = process.map(task(keep=False)(function), range(1000))
    process.task(task(retries=no_backoff(2))(reading(last, step)), stream(rows))
    assert process.execute(**recorded)[1] == [2 * n for n in range(1000)]
    assert max(ahead) <= 2 * WINDOW  # those that were drawn, and those that the task has taken and not read yet


def test_a_task_that_returns_early_at_last_cancels_what_feeds_only_it(kinds, recorded):
    """Of a source without an end; so does one that fails at last."""
    function, last = kinds

    def fails_later(taken):
        if len(taken) == 80:
            raise OSError

    class Enough(Exception):
        """Ends the task."""

    def step(taken):
        failing(taken, times=1)
        if len(taken) == 100:
            raise Enough

    def two(rows):
        try:
            return sink(rows)
        except Enough:
            return ATTEMPTS[-1]

    async def two_async(rows):
        try:
            return await sink(rows)
        except Enough:
            return ATTEMPTS[-1]

    sink = reading(last, step)
    process = Process("early", "parallel", 2)
    rows = process.map(task(keep=False)(function), itertools.count())
    process.task(task(retries=no_backoff(2))(two if last is twice else two_async), stream(rows))
    assert process.execute(**recorded)[1] == [2 * n for n in range(100)]
    assert [outcome.state for outcome in process.last_run.outcomes] == ["cancelled", "completed"]

    process = Process("early", "parallel", 2, on_error="return")
    rows = process.map(task(keep=False)(function), itertools.count())
    process.task(task(retries=no_backoff(2))(reading(last, fails_later)), stream(rows))
    assert isinstance(process.execute(**{**recorded, "run_id": "b"})[1], OSError)
    assert [outcome.state for outcome in process.last_run.outcomes] == ["cancelled", "failed"]


def test_each_stream_of_a_task_starts_over(kinds, recorded):
    """One of values that are kept, and two of the same map that are not."""
    function, last = kinds
    process = Process("several", "parallel", 3)
    first = process.map(task(keep=False)(function), range(200))
    second = process.map(function, first)

    def take(*streams):
        rows = list(zip(*streams, strict=True))
        ATTEMPTS.append(rows)
        if len(ATTEMPTS) == 1:
            raise ConnectionError
        return rows

    async def take_async(*streams):
        rows = []
        while True:
            try:
                rows.append(tuple([await anext(each) for each in streams]))
            except StopAsyncIteration:
                return take(*map(list, zip(*rows, strict=True)))

    taker = task(retries=no_backoff(2))(take if last is twice else take_async)
    process.task(taker, stream(first), stream(second), stream(first))
    assert process.execute(**recorded)[2] == [(2 * n, 4 * n, 2 * n) for n in range(200)]


def test_a_task_that_took_too_long_reads_back_what_it_had_taken(kinds, recorded):
    """Once the thread that was left behind with it is done."""
    function, last = kinds
    process = Process("late", "parallel", 2)
    rows = process.map(task(keep=False)(function), range(300))

    def take(rows):
        ATTEMPTS.append(taken := [])
        for row in rows:
            taken.append(row)
            if len(taken) == 100 and len(ATTEMPTS) == 1:
                threading.Event().wait(0.3)
        return taken

    async def take_async(rows):
        ATTEMPTS.append(taken := [])
        async for row in rows:
            taken.append(row)
            if len(taken) == 100 and len(ATTEMPTS) == 1:
                await asyncio.sleep(WAIT_S)
        return taken

    rules = tenacity.Retrying(stop=tenacity.stop_after_attempt(2), wait=tenacity.wait_fixed(0.5))
    taker = task(retries=rules, timeout=0.2)(take if last is twice else take_async)
    process.task(taker, stream(rows))
    assert process.execute(**recorded)[1] == [2 * n for n in range(300)]


# Without a journal


@pytest.mark.parametrize("strategy", ["parallel", "sequential"])
def test_retries_are_refused_where_elements_would_be_gone(kinds, strategy):
    """Before anything is called. In order, the whole list is there until the task has ended."""
    function, last = kinds
    process = Process("gone", strategy, 2 if strategy == "parallel" else None)
    rows = process.map(task(keep=False)(function), range(300))
    process.task(task(retries=no_backoff(3))(reading(last, failing)), stream(rows))
    if strategy == "sequential":
        assert process.execute() == [NotKept(300), [2 * n for n in range(300)]]
        return
    with pytest.raises(ValueError, match=r"task 1 \(.*sink\) may be retried, .* task 0 \(map of twice.*\).* a journal"):
        process.execute()
    assert not CALLS
    assert process.status == "failed"


@pytest.mark.parametrize("strategy", ["parallel", "sequential"])
@pytest.mark.parametrize("after", [1, 70])
@pytest.mark.parametrize("how", ["kept", "recorded", "neither"])
def test_a_task_that_a_service_puts_off_has_all_elements_again(kinds, how, after, strategy, recorded):
    """Where they are gone, it fails, and says so. In order, the whole list is there until it has ended."""
    function, last = kinds

    def step(taken):
        if len(ATTEMPTS) == 1 and len(taken) == after:
            raise RetryAfter(0.01)

    process = Process("put off", strategy, 2 if strategy == "parallel" else None)
    rows = process.map(task(keep=how == "kept")(function), range(200))
    process.task(task(limit=Limit("service", at_once=1))(reading(last, step)), stream(rows))
    if how == "neither" and strategy == "parallel":
        with pytest.raises(ValueUnavailableError, match=r"task 1 \(.*sink\) .* of task 0 \(map of twice.*\) are gone"):
            process.execute()
    else:
        assert process.execute(**recorded if how == "recorded" else {})[1] == [2 * n for n in range(200)]


def test_a_task_that_is_put_off_before_it_has_taken_anything_needs_no_journal(kinds):
    """All elements are still to come."""
    function, last = kinds

    def take(rows):
        ATTEMPTS.append([])
        if len(ATTEMPTS) == 1:
            raise RetryAfter(0.01)
        return list(rows)

    async def take_async(rows):
        ATTEMPTS.append([])
        if len(ATTEMPTS) == 1:
            raise RetryAfter(0.01)
        return [row async for row in rows]

    process = Process("put off", "parallel", 2)
    rows = process.map(task(keep=False)(function), range(200))
    process.task(task(limit=Limit("service", at_once=1))(take if last is twice else take_async), stream(rows))
    assert process.execute()[1] == [2 * n for n in range(200)]


# Tasks that wait


def ask(taken):
    if len(taken) == 70:
        current_task().wait_for("go on")


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("stages", [1, 2])
def test_a_run_ends_whose_task_waits_in_the_middle_of_a_stream(kinds, stages, keep, recorded):
    """Maps that are not kept stop there. The next execution calls the task with all elements, and each element once."""
    function, last = kinds

    def built():
        process = Process("waits", "parallel", 2)
        rows = process.map(task(keep=keep)(function), range(300))
        if stages == 2:
            rows = process.map(task(keep=keep)(function), rows)
        process.task(reading(last, ask), stream(rows))
        return process

    process = built()
    with pytest.raises(RunSuspendedError, match="'go on'"):
        process.execute(**recorded)
    states = [outcome.state for outcome in process.last_run.outcomes]
    assert states == ["completed" if keep else "cancelled"] * stages + ["suspended"]
    with Journal(recorded["journal"]) as journal:
        journal.answer("a", "go on", True)
    assert built().execute(**recorded)[-1] == [2**stages * n for n in range(300)]
    assert len(CALLS) == 300 * stages


@pytest.mark.parametrize("keep", [True, False])
def test_a_task_never_goes_on_with_a_part_of_the_elements(kinds, keep, tmp_path):
    """Another task keeps the run going. What is kept is all there in the same run; else the next execution has it."""
    function, last = kinds
    over = threading.Event()

    def wait(event):
        assert event.wait(WAIT_S)

    def built():
        process = Process("waits", "parallel", 3, journal=journal)
        taken = process.task(reading(last, ask), stream(process.map(task(keep=keep)(function), range(300))))
        process.add_task(lambda event, _: event.set(), unrecorded(over), taken)
        process.add_task(wait, unrecorded(over))
        return process

    with Journal(tmp_path / "runs.db") as journal:
        run = built().start(run_id="a")
        while not any("suspended" == outcome.state for outcome in run.outcomes):
            assert not over.wait(0.001)
        journal.answer("a", "go on", True)
        if keep:
            assert run.result()[1] == [2 * n for n in range(300)]
        else:
            assert not over.wait(0.5)  # when the journal is looked into, some times
            over.set()
            with pytest.raises(RunSuspendedError):
                run.result()
            assert built().execute(run_id="a")[1] == [2 * n for n in range(300)]
    assert sorted(CALLS) == list(range(300))
