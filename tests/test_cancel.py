"""Runs that are cancelled: what ends then, and what tasks can know of it."""

import asyncio
import threading
import time

import pytest

from gates import Gate, same, states, throw
from procession import (
    Process,
    RunCancelledError,
    TaskCancelled,
    ValueUnavailableError,
    current_task,
    task,
)

STRATEGIES = ["sequential", "parallel", "hybrid"]
POLICIES = ["stop", "continue", "return"]


def assert_cancelled(run, process):
    with pytest.raises(RunCancelledError, match=process.name):
        run.result(20)
    assert run.status == "cancelled"
    assert process.status == "failed"


# Cancelling


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_after_cancel_nothing_new_starts_and_what_runs_is_let_end(strategy, policy):
    """Under every policy; the outcomes say what had ended by then."""
    gate, begun = Gate(), []
    process = Process("cut", strategy, 1, on_error=policy)
    process.add_task(same, 1)
    process.add_task(gate, 2)
    for number in range(3, 6):
        process.add_task(begun.append, number)
    run = process.start()
    assert gate.begun.wait(20)
    assert (run.status, process.status) == ("running", "running")
    run.cancel()
    assert run.status == "running"
    gate.release.set()
    assert_cancelled(run, process)
    assert begun == []
    assert states(run) == ["completed", "completed", "cancelled", "cancelled", "cancelled"]
    assert [outcome.value for outcome in run.outcomes[:2]] == [1, 2]
    with pytest.raises(ValueUnavailableError, match=r"task 2 .*cancelled"):
        _ = run.outcomes[2].value


def test_cancel_before_the_second_stage_starts_nothing_of_it():
    """The second half waits for the first, and then never comes."""
    gate, begun = Gate(), []
    process = Process("halves", "hybrid", 4)
    process.add_task(gate)
    process.add_task(begun.append, 1)
    run = process.start()
    assert gate.begun.wait(20)
    run.cancel()
    gate.release.set()
    assert_cancelled(run, process)
    assert begun == []


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_execute_raises_when_its_run_is_cancelled(strategy):
    """From another thread, by way of last_run."""
    gate = Gate()
    process = Process("last", strategy, 1)
    process.add_task(gate)
    process.add_task(same, 1)

    def cancel():
        assert gate.begun.wait(20)
        process.last_run.cancel()
        gate.release.set()

    canceller = threading.Thread(target=cancel)
    canceller.start()
    with pytest.raises(RunCancelledError, match="1 of 2 tasks had ended"):
        process.execute()
    canceller.join(20)
    assert process.status == "failed"
    assert process.last_run.status == "cancelled"


def test_cancel_twice_is_cancel_once():
    """From several threads at the same time, too."""
    gate = Gate()
    process = Process("twice", "parallel", 1)
    process.add_task(gate)
    process.add_task(same, 1)
    run = process.start()
    assert gate.begun.wait(20)
    threads = [threading.Thread(target=run.cancel) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    gate.release.set()
    assert_cancelled(run, process)
    run.cancel()
    assert run.status == "cancelled"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_cancel_after_the_end_changes_nothing(strategy):
    """Neither of a run that succeeded nor of one that failed."""
    process = Process("late", strategy)
    process.add_task(same, 1)
    run = process.start()
    assert run.result(20) == [1]
    run.cancel()
    assert (run.status, process.status, run.result()) == ("completed", "completed", [1])
    process.add_task(throw, KeyError("no"))
    run = process.start()
    assert run.wait(20)
    run.cancel()
    assert (run.status, process.status) == ("failed", "failed")
    with pytest.raises(KeyError):
        run.result()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_task_can_cancel_its_own_run(strategy):
    """It is let end, as any other that runs."""
    process = Process("own", strategy, 1)

    def cancel():
        process.last_run.cancel()
        return "ended"

    process.add_task(cancel)
    process.add_task(same, 1)
    with pytest.raises(RunCancelledError):
        process.execute()
    assert states(process.last_run) == ["completed", "cancelled"]
    assert process.last_run.outcomes[0].value == "ended"


def test_cancelling_when_all_tasks_have_begun_still_cancels():
    """The run was asked to stop before it ended, and says so; every value is there."""
    gate = Gate()
    process = Process("all", "parallel")
    process.add_task(gate, 7)
    run = process.start()
    assert gate.begun.wait(20)
    run.cancel()
    gate.release.set()
    assert_cancelled(run, process)
    assert run.outcomes[0].value == 7


def test_cancelling_a_run_whose_tasks_have_all_ended_changes_nothing():
    """As after the last outcome, or the last element of a stream, when the `with` block is left."""
    for _ in range(20):
        process = Process("ended", "parallel")
        lengths = process.map(len, ["one", "three"])
        with process.start(streams=[lengths]) as run:
            assert list(run.stream(lengths)) == [3, 5]
        assert (run.status, run.result()) == ("completed", [[3, 5]])
        run = process.start()
        for _ in run:
            run.cancel()
        assert run.result() == [[3, 5]]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_cancelled_process_can_be_executed_again(strategy):
    """It starts afresh."""
    gate = Gate()
    process = Process("again", strategy, 1)
    process.add_task(gate, 1)
    process.add_task(same, 2)
    run = process.start()
    assert gate.begun.wait(20)
    run.cancel()
    gate.release.set()
    assert run.wait(20)
    assert process.execute() == [1, 2]
    assert process.status == "completed"
    assert run.status == "cancelled"


def test_a_failure_before_the_cancel_is_what_ended_the_run():
    """The run is failed, and the failure is raised."""
    gate, together = Gate(), threading.Barrier(2)

    def fail():
        together.wait(20)
        raise KeyError("first")

    def last():
        together.wait(20)
        gate()

    process = Process("both", "parallel", 2)
    process.add_task(fail)
    process.add_task(last)
    run = process.start()
    assert next(iter(run)).state == "failed"
    run.cancel()
    gate.release.set()
    with pytest.raises(KeyError):
        run.result(20)
    assert run.status == "failed"


def test_a_task_that_fails_after_the_cancel_does_not_hide_it():
    """The run is cancelled; the outcome has the error."""
    gate = Gate()

    def fail():
        gate()
        raise KeyError("late")

    process = Process("late", "parallel", 1)
    process.add_task(fail)
    process.add_task(same, 1)
    run = process.start()
    assert gate.begun.wait(20)
    run.cancel()
    gate.release.set()
    assert_cancelled(run, process)
    assert states(run) == ["failed", "cancelled"]
    assert isinstance(run.outcomes[0].error, KeyError)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_cancelled_map_begins_no_further_elements(workers):
    """Those it has begun are let end."""
    together, release, begun = threading.Barrier(workers + 1), threading.Event(), []

    def each(number):
        begun.append(number)
        together.wait(20)
        assert release.wait(20)

    process = Process("map", "parallel", workers)
    mapped = process.map(each, range(1000))
    process.add_task(begun.append, mapped)
    run = process.start()
    together.wait(20)
    run.cancel()
    release.set()
    assert_cancelled(run, process)
    assert sorted(begun) == list(range(workers))
    assert run.outcomes[0].state == "cancelled"
    with pytest.raises(RunCancelledError):
        _ = run[mapped]


@pytest.mark.parametrize("executor", ["threads", "loop", "processes", "batches"])
def test_elements_that_were_cancelled_have_not_failed(executor):
    """As tasks that were: they have not ended, and no count of failures has them."""

    def plain(number):
        if number > 1:
            current_task().sleep(40)
        return number

    async def coroutine(number):
        await asyncio.sleep(40 if number > 1 else 0)
        return number

    def together(numbers):
        return [plain(number) for number in numbers]

    process = Process("count", "parallel", 4, executor="processes" if executor == "processes" else "threads")
    function = coroutine if executor == "loop" else together if executor == "batches" else plain
    process.map(function, range(5), batch=2 if executor == "batches" else None)
    run = process.start()
    until = time.monotonic() + 40
    while run.progress.ended < 2 and time.monotonic() < until:
        time.sleep(0.01)
    run.cancel()
    run.wait(20)
    assert run.progress == (2, 0, 5)
    assert states(run) == ["cancelled"]


# What a task can know


@pytest.mark.parametrize("options", [{}, {"timeout": 40}, {"retries": 1}], ids=["plain", "timeout", "retries"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_running_task_can_see_that_it_is_asked_to_stop(strategy, options):
    """current_task().cancelled turns true while it runs; what it returns is its value."""
    begun, done = threading.Event(), threading.Event()

    def work():
        before = current_task().cancelled
        begun.set()
        assert done.wait(20)
        return before, current_task().cancelled

    process = Process("asks", strategy)
    process.add_task(task(**options)(work))
    run = process.start()
    assert begun.wait(20)
    run.cancel()
    done.set()
    assert_cancelled(run, process)
    assert run.outcomes[0].value == (False, True)


@pytest.mark.parametrize("options", [{}, {"timeout": 40}, {"retries": 3}], ids=["plain", "timeout", "retries"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_sleep_ends_when_the_run_is_cancelled(strategy, options):
    """With a signal that `except Exception` does not swallow and that is not retried."""
    begun, seen = threading.Event(), []

    def work():
        begun.set()
        try:
            current_task().sleep(3600)
        except Exception:
            seen.append("swallowed")
        except TaskCancelled as signal:
            seen.append(str(signal))
            raise
        seen.append("went on")

    process = Process("sleeper", strategy)
    process.add_task(task(name="nap", **options)(work))
    run = process.start()
    assert begun.wait(20)
    run.cancel()
    assert_cancelled(run, process)
    assert seen == ["task 0 (nap) of process 'sleeper' was cancelled"]
    assert states(run) == ["cancelled"]
    assert run.outcomes[0].error is None


def test_sleep_in_a_cancelled_run_raises_at_once():
    """However short it would have been."""
    begun, done, seen = threading.Event(), threading.Event(), []

    def work():
        begun.set()
        assert done.wait(20)
        for seconds in 0, -1, 3600:
            try:
                current_task().sleep(seconds)
            except TaskCancelled:
                seen.append(seconds)

    process = Process("at once")
    process.add_task(work)
    run = process.start()
    assert begun.wait(20)
    run.cancel()
    done.set()
    assert run.wait(20)
    assert seen == [0, -1, 3600]


def test_sleep_sleeps_when_nothing_is_cancelled():
    """At least as long as it was asked to."""

    def work():
        begin = time.monotonic()
        current_task().sleep(0.05)
        return time.monotonic() - begin

    process = Process("naps")
    process.add_task(work)
    assert process.execute()[0] >= 0.05


def test_a_task_knows_its_name_and_place():
    """Its process, its run and its attempt, too; outside of a task there is nothing to know."""

    def about():
        me = current_task()
        return me.process_name, me.run_id, me.index, me.name, me.attempt, me.cancelled

    for strategy in STRATEGIES:
        process = Process("who", strategy)
        process.add_task(task(name="first")(about))
        process.add_task(task(name="second")(about))
        results = process.execute()
        run_id = process.last_run.id
        assert results == [("who", run_id, 0, "first", 1, False), ("who", run_id, 1, "second", 1, False)]
    with pytest.raises(RuntimeError, match="outside of a task"):
        current_task()


def test_a_task_that_raises_the_signal_unasked_has_failed():
    """In a run that nobody cancelled it is an exception like any other that is none."""
    process = Process("unasked")
    process.add_task(throw, TaskCancelled("not really"))
    with pytest.raises(TaskCancelled):
        process.execute()
    assert (process.status, process.last_run.status) == ("failed", "failed")
    assert states(process.last_run) == ["failed"]


# Nested runs


@pytest.mark.parametrize("inner_strategy", STRATEGIES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_nested_run_is_cancelled_with_the_outer_one(strategy, inner_strategy):
    """At any depth: its tasks are told, and nothing new starts there."""
    begun, after = threading.Event(), []

    def work():
        begun.set()
        current_task().sleep(3600)

    inner = Process("inner", inner_strategy, 1)
    inner.add_task(work)
    inner.add_task(after.append, "inner")
    middle = Process("middle", "parallel", 1)
    middle.add_task(inner)
    outer = Process("outer", strategy, 1)
    outer.add_task(middle)
    outer.add_task(after.append, "outer")
    run = outer.start()
    assert begun.wait(20)
    run.cancel()
    assert_cancelled(run, outer)
    assert after == []
    for process in inner, middle:
        assert process.last_run.status == "cancelled"
        assert process.status == "failed"


def test_a_run_begun_in_a_task_that_was_told_to_stop_is_cancelled():
    """It starts none of its tasks."""
    begun, done, seen = threading.Event(), threading.Event(), []
    inner = Process("inner", "parallel")
    inner.add_task(seen.append, 1)

    def work():
        begun.set()
        assert done.wait(20)
        inner.execute()

    outer = Process("outer")
    outer.add_task(work)
    run = outer.start()
    assert begun.wait(20)
    run.cancel()
    done.set()
    assert_cancelled(run, outer)
    assert seen == []
    assert inner.last_run.status == "cancelled"


def test_cancelling_a_nested_run_fails_the_task_that_it_is():
    """The outer run goes on as its policy says."""
    gate = Gate()
    inner = Process("inner")
    inner.add_task(gate)
    inner.add_task(same, 1)
    outer = Process("outer", "parallel", 2, on_error="return")
    outer.add_task(inner)
    outer.add_task(same, 2)
    run = outer.start()
    assert gate.begun.wait(20)
    inner.last_run.cancel()
    gate.release.set()
    error, two = run.result(20)
    assert isinstance(error, RunCancelledError)
    assert (two, run.status) == (2, "completed")
