"""Calls that a task makes itself: recorded one by one, and returned from the record in the next execution."""

import asyncio
import threading

import pytest

from calling_tasks import (  # noqa: F401 - fixtures among them
    MADE,
    STATE,
    at_once,
    chain,
    chain_later,
    double,
    double_later,
    fail,
    fresh,
    gone_on_with,
    journal,
    made,
    one,
    recorded,
)
from procession import (
    Limit,
    Process,
    ResultError,
    RetryAfter,
    RunCancelledError,
    TaskTimeoutError,
    current_task,
    task,
)
from procession.journal import Journal


@pytest.mark.parametrize(
    ("function", "calls", "result"),
    [(chain, [1, 2, 4, 8], 16), (chain_later, [1, 2, 10, 5, 6], [2, 4, 20, 10, 12]), (at_once, [1, 2, 3], [2, 4, 6])],
)
@pytest.mark.parametrize("strategy", ["sequential", "parallel"])
def test_a_call_that_is_recorded_is_not_made_again(function, calls, result, strategy, journal):
    """The task is called again from its beginning, and what it has called returns what it returned."""
    first, found, again = gone_on_with(one(function, strategy=strategy, max_workers=3), journal)
    assert sorted(first) == sorted(calls)
    assert (found, again) == (result, [])


@pytest.mark.parametrize("function", [chain, chain_later, at_once])
def test_without_a_journal_calls_are_just_made(function):
    """As often as the task is called."""
    process = one(task(retries=1)(function), strategy="parallel", max_workers=2)
    with pytest.raises(ConnectionError):
        process.execute()
    first = made()
    STATE["fails"] = False
    process.execute()
    assert sorted(first) == sorted(2 * made())


def test_another_attempt_of_a_task_makes_only_calls_that_are_not_recorded(journal):
    """Its retries are what recorded calls are for in a run that nothing interrupts."""

    @task(retries=2)
    def flaky():
        value = current_task().call(double, 1)
        if current_task().attempt < 3:
            raise ConnectionError
        return current_task().call(double, value)

    assert one(flaky).execute(run_id="a", journal=journal) == [4]
    assert made() == [1, 2]


def test_each_element_of_a_map_counts_its_own_calls(journal):
    """Calls belong to the element that makes them, however many run at once."""

    def element(number):
        me = current_task()
        value = me.call(double, me.call(double, number))
        fail()
        return value, me.element

    process = Process("map", "parallel", 2, on_error="continue")
    process.map(element, [1, 10])
    first, found, again = gone_on_with(process, journal)
    assert (sorted(first), found, again) == ([1, 2, 10, 20], [(4, 0), (40, 1)], [])
    assert [row[:3] for row in recorded(journal)] == [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)]


def test_a_process_is_a_call_whose_tasks_are_recorded(journal):
    """A nested run that was cut off goes on, too."""

    def last(number):
        fail()
        return double(number)

    def outer():
        inner = Process("inner")
        inner.task(last, inner.task(double, 3))
        return current_task().call(inner)

    first, found, again = gone_on_with(one(outer), journal)
    assert (first, found, again) == ([3], [6, 12], [6])
    assert [run.id for run in journal.runs(within="a")] == ["a/0#0"]


def test_a_process_that_a_task_executes_by_itself_in_a_recorded_run_is_refused(journal):
    """It would not be recorded, and nobody would know."""

    def outer():
        inner = Process("inner")
        inner.add_task(len, "abc")
        return inner.execute()

    with pytest.raises(RuntimeError, match=r"process 'inner' is executed by task 0 .*current_task\(\).call\(process\)"):
        one(outer).execute(run_id="a", journal=journal)
    assert one(outer).execute() == [[3]]


# Options


def test_retries_and_timeouts_hold_for_calls(journal):
    """Each call has its own attempts, and `current_task()` tells which one it is at."""
    released = STATE["released"] = threading.Event()

    @task(retries=2)
    def flaky():
        MADE.append(current_task().attempt)
        if len(MADE) < 3:
            raise ConnectionError
        return len(MADE)

    @task(timeout=0.05, name="slow one")
    def slow():
        STATE["released"].wait(20)

    def calls():
        with pytest.raises(TaskTimeoutError, match=r"call 1 \(slow one\) of process 'one', task 0 .*0.05 s"):
            current_task().call(slow)
        return current_task().attempt

    def both():
        return current_task().call(flaky), calls()

    assert one(both).execute(run_id="a", journal=journal) == [(3, 1)]
    released.set()
    assert made() == [1, 2, 3]


def test_retries_and_timeouts_hold_for_coroutines(journal):
    """Which are cancelled when they take too long."""

    @task(retries=1)
    async def flaky():
        MADE.append(current_task().attempt)
        if len(MADE) < 2:
            raise ConnectionError
        return len(MADE)

    @task(timeout=0.05)
    async def slow():
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            MADE.append("cancelled")
            raise

    async def both():
        found = await current_task().call(flaky)
        with pytest.raises(TaskTimeoutError, match=r"call 1 \(.*slow\) of process 'one', task 0 "):
            await current_task().call(slow)
        return found

    assert one(both).execute(run_id="a", journal=journal) == [2]
    assert made() == [1, 2, "cancelled"]


@pytest.mark.parametrize("later", [False, True])
def test_a_limit_holds_for_calls_of_all_tasks(later):
    """Though no task of the run is under it itself; a pause that its service asks for is not a failure."""
    limit = Limit(f"calls {later}", at_once=2)
    most, now, lock = 0, 0, threading.Lock()

    def enter(number):
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
            MADE.append(number)
            if MADE.count(3) == 1 and number == 3:
                now -= 1
                raise RetryAfter(0.01)

    def leave():
        nonlocal now
        with lock:
            now -= 1

    @task(limit=limit)
    def limited(number):
        enter(number)
        leave()
        return number

    @task(limit=limit)
    async def limited_later(number):
        enter(number)
        await asyncio.sleep(0.001)
        leave()
        return number

    def calls(first):
        return current_task().map(limited, range(first, first + 4))

    async def calls_later(first):
        return await current_task().map(limited_later, range(first, first + 4))

    process = Process("limited", "parallel", 4)
    process.map(calls_later if later else calls, [0, 4, 8])
    assert process.execute() == [[[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]]
    assert 1 <= most <= 2
    assert MADE.count(3) == 2


def test_a_limit_that_the_task_itself_is_under_is_refused():
    """The call would wait until its own task has ended."""
    limit = Limit("both", at_once=1)
    inner = task(limit=limit)(double)

    @task(limit=limit)
    def outer():
        return current_task().call(inner, 1)

    with pytest.raises(ValueError, match=r"call 0 \(double\) of .* is under Limit\('both'.*so is its task"):
        one(outer).execute()


# Who may call


def test_calls_from_another_thread_are_refused(journal):
    """Their places would depend on which comes first."""
    caught = []

    def calls():
        me = current_task()

        def elsewhere():
            try:
                me.call(double, 1)
            except RuntimeError as error:
                caught.append(str(error))

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()

    one(calls).execute(run_id="a", journal=journal)
    assert "from another thread or coroutine than its own" in caught[0]
    assert "current_task().map" in caught[0]


def test_calls_from_another_coroutine_are_refused(journal):
    """Even if it was begun by the task."""

    async def elsewhere():
        return await current_task().call(double_later, 1)

    async def calls():
        await asyncio.create_task(elsewhere())

    with pytest.raises(RuntimeError, match="from another thread or coroutine than its own"):
        one(calls).execute(run_id="a", journal=journal)
    assert made() == []


def test_a_call_that_makes_a_recorded_call_is_refused():
    """It would be counted only as long as the call around it is not recorded."""

    def inner():
        return current_task().call(double, 1)

    def outer():
        return current_task().call(inner)

    with pytest.raises(
        RuntimeError, match=r"call 0 \(.*inner\) of process 'one', task 0 .* makes a recorded call itself"
    ):
        one(outer).execute()


def test_what_is_no_function_is_refused():
    """At the call."""
    with pytest.raises(TypeError, match=r"call\(function, ...\) takes a callable; got 'double'"):
        one(lambda: current_task().call("double")).execute()


def test_a_cancelled_task_makes_no_other_call():
    """It is stopped at the next one, as in `sleep`."""

    def calls():
        me = current_task()
        while True:
            me.call(double, 1)
            process.last_run.cancel()

    process = one(calls)
    with pytest.raises(RunCancelledError):
        process.execute()
    assert made() == [1]


# Keys


def test_a_key_is_the_same_in_every_execution_and_unlike_any_other(journal):
    """For tasks, elements and calls: what a service needs to tell a repeated request."""

    def ask():
        return current_task().key

    def element(_):
        me = current_task()
        found = [me.key, me.call(ask), *me.map(lambda _: current_task().key, [1, 2])]
        MADE.append(found)
        fail()
        return found

    process = Process("keys", "parallel", 2, on_error="continue")
    process.map(element, [1, 2])
    with pytest.raises(ExceptionGroup):
        process.execute(run_id="a", journal=journal)
    before = sorted(made())
    STATE["fails"] = False
    [found] = process.execute(run_id="a", journal=journal)
    assert sorted(found) == before
    flat = [key for each in found for key in each]
    assert len(set(flat)) == 8
    assert {len(key) for key in flat} == {32}
    [other] = process.execute(run_id="b", journal=journal)
    assert not set(flat) & {key for each in other for key in each}


def test_every_database_keeps_calls_and_forgets_them(where):
    """Those that failed are replaced; with other arguments, all from there on are forgotten, and the nested runs."""

    def odd(number):
        MADE.append(number)
        fail()
        return number

    def calls():
        me = current_task()
        found = me.map(double, list(range(STATE.get("from", 0), 120)))
        inner = Process("inner")
        inner.add_task(double, 200)
        return len(found), me.call(inner), me.call(odd, 300)

    process = one(calls)
    with Journal(where) as opened:
        first, found, again = gone_on_with(process, opened)
        assert (sorted(first), found, again) == ([*range(120), 200, 300], (120, [400], 300), [300])
        assert len(recorded(opened)) == 122
        assert len(opened.runs(within="a")) == 1
        STATE["fails"] = True
        with pytest.raises(ConnectionError):
            process.execute(run_id="b", journal=opened)
        made()
        STATE.update({"from": 1, "fails": False})
        assert process.execute(run_id="b", journal=opened, allow_changes=True) == [(119, [400], 300)]
        assert sorted(made()) == [*range(1, 120), 200, 300]
        assert len(recorded(opened, "b")) == 121


def test_a_journal_of_its_own_codec_keeps_calls(tmp_path):
    """A failure that the codec does not take is refused if the task had gone on: it might not fail again."""

    def odd():
        if STATE["fails"]:
            raise KeyError("odd")
        return "even"

    def both():
        me = current_task()
        try:
            found = me.call(odd)
        except KeyError:
            found = "none"
        me.call(double, 1)
        fail()
        return found

    process = one(both)
    with Journal(tmp_path / "runs.db", codec="json") as journal:
        with pytest.raises(ResultError, match="KeyError: 'odd'"):
            gone_on_with(process, journal)
        assert made() == []
        assert [row[2:4] for row in recorded(journal)] == [(0, "failed"), (1, "completed")]
        assert process.execute(run_id="a", journal=journal, allow_changes=True) == ["even"]
        assert made() == [1]
        assert [row[2:4] for row in recorded(journal)] == [(0, "completed"), (1, "completed")]
