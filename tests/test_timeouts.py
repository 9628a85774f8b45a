"""Timeouts: how long one attempt may take, and what becomes of one that hangs."""

import itertools
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
import tenacity

from procession import Process, TaskTimeoutError, current_task, task
from single_tasks import STRATEGIES, no_backoff, outcome_of, run_of


@contextmanager
def held_up(seconds, count):
    """Have threads wait for so long; afterwards there is how late they woke, which is the machine's doing."""
    late = []

    def wait():
        begin = time.monotonic()
        threading.Event().wait(seconds)
        late.append(time.monotonic() - begin - seconds)

    threads = [threading.Thread(target=wait) for _ in range(count)]
    for thread in threads:
        thread.start()
    yield late
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_attempt_that_takes_too_long_fails_on_time(strategy):
    """With an error that names the task and the timeout, and is a TimeoutError."""
    release = threading.Event()
    process = Process("late", strategy)
    process.add_task(task(timeout=0.1, name="slow")(release.wait), 50)
    begin = time.monotonic()
    try:
        with pytest.raises(TaskTimeoutError, match=r"slow.*0\.1 s") as caught:
            process.execute()
        assert time.monotonic() - begin < 30  # and not when it would have ended
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.__notes__ == ["in process 'late', task 0 (slow), attempt 1"]
        assert process.status == "failed"
    finally:
        release.set()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_timeout_is_told_within_50_ms(strategy):
    """Measured from the start of the attempt; more than one measurement only where the machine was held up."""
    release = threading.Event()
    timeout, late = 0.2, []
    for _ in range(20):
        with held_up(timeout, 1) as others:
            outcome = outcome_of(task(timeout=timeout)(release.wait), strategy)
        assert isinstance(outcome.error, TaskTimeoutError)
        assert outcome.duration >= timeout
        late.append(outcome.duration - timeout - 4 * max(others))
        if late[-1] <= 0.05:
            break
    release.set()
    assert min(late) <= 0.05, late


def test_hung_tasks_at_once_are_all_told_in_time():
    """One that hangs delays no other, nor the end of the run."""
    release = threading.Event()
    timeout, late = 0.2, []
    for _ in range(20):
        process = Process("hung", "parallel", 8, on_error="return")
        for _ in range(8):
            process.add_task(task(timeout=timeout)(release.wait))
        with held_up(timeout, 8) as others:
            begin = time.monotonic()
            errors = process.execute()
            late.append(time.monotonic() - begin - timeout)
        late[-1] -= 4 * max(others)
        assert [type(error) for error in errors] == [TaskTimeoutError] * 8
        if late[-1] <= 0.05:
            break
    release.set()
    assert min(late) <= 0.05, late


def test_a_clock_that_is_set_back_or_forth_changes_nothing(monkeypatch):
    """Starts, durations, timeouts and sleeps go by a clock that only goes on."""
    clock = itertools.cycle([0.0, 4e9, -4e9])
    monkeypatch.setattr(time, "time", lambda: next(clock))
    for strategy in STRATEGIES:
        process = Process("clock", strategy, 2)
        process.add_task(time.time)
        process.add_task(task(timeout=50)(lambda: current_task().sleep(0.001)))
        process.add_task(task(timeout=50, retries=1)(time.time))
        process.execute()
        run = process.last_run
        assert 0 < run.duration < 20
        for outcome in run.outcomes:
            assert 0 <= outcome.start < 20
            assert 0 <= outcome.duration < 20


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_task_within_its_timeout_is_like_any_other(strategy):
    """Its value, its exception and its context are its own."""
    error = KeyError("no")

    def fail():
        raise error

    process = Process("quick", strategy, on_error="return")
    process.add_task(task(timeout=50)(lambda: 7))
    process.add_task(task(timeout=50)(lambda: current_task().index))
    process.add_task(task(timeout=50)(fail))
    assert process.execute() == [7, 1, error]


def test_the_place_of_a_hung_task_is_filled():
    """Even the only one; and the one that hangs is told to stop."""
    release, stopped = threading.Event(), threading.Event()

    @task(timeout=0.05)
    def hung():
        me = current_task()
        release.wait(50)
        if me.cancelled:
            stopped.set()

    process = Process("goes on", "parallel", 1, on_error="return")
    process.add_task(hung)
    process.add_task(lambda: "next")
    results = process.execute()
    assert isinstance(results[0], TaskTimeoutError)
    assert results[1] == "next"
    release.set()
    assert stopped.wait(20)


def test_in_order_only_the_task_with_a_timeout_leaves_the_callers_thread():
    """And the next one still starts after it has ended."""
    seen = []

    def note():
        seen.append(threading.current_thread())

    process = Process("threads")
    process.add_task(note)
    process.add_task(task(timeout=50)(note))
    process.add_task(note)
    process.execute()
    assert seen[0] is seen[2] is threading.current_thread()
    assert seen[1] is not seen[0]


def test_a_hung_attempt_is_not_tried_again_beside_itself():
    """Attempts of one task never overlap."""
    release = threading.Event()
    lock, running, most, calls = threading.Lock(), 0, 0, 0

    def hung():
        nonlocal running, most, calls
        with lock:
            calls += 1
            running += 1
            most = max(most, running)
        release.wait(50)
        with lock:
            running -= 1

    try:
        outcome = outcome_of(task(timeout=0.05, retries=no_backoff(5))(hung))
        assert isinstance(outcome.error, TaskTimeoutError)
        assert (outcome.attempts, calls, most) == (1, 1, 1)
    finally:
        release.set()


def test_a_timed_out_attempt_that_has_ended_is_tried_again():
    """Once the thread that was left behind has gone, there is nothing to overlap with."""
    ended, before = threading.Event(), threading.enumerate()

    def wait_until_gone(_):
        assert ended.wait(20)
        for thread in threading.enumerate():
            if thread.name.endswith(("-attempt", "-abandoned")) and thread not in before:
                thread.join(20)

    @task(timeout=0.05, retries=tenacity.Retrying(stop=tenacity.stop_after_attempt(3), before_sleep=wait_until_gone))
    def slow_once():
        me = current_task()
        if me.attempt == 1:
            while not me.cancelled:
                ended.wait(0.01)
            ended.set()
        return me.attempt

    outcome = outcome_of(slow_once)
    assert (outcome.value, outcome.attempts) == (2, 2)


@pytest.mark.parametrize("late", ["value", "error"])
def test_what_a_hung_task_ends_with_later_is_ignored(late):
    """The results and the outcome stay what they were."""
    release, ended = threading.Event(), threading.Event()

    @task(timeout=0.05)
    def hung():
        release.wait(50)
        ended.set()
        if late == "error":
            raise KeyError("late")
        return "late"

    run = run_of(hung)
    (error,) = run.result(20)
    release.set()
    assert ended.wait(20)
    assert isinstance(error, TaskTimeoutError)
    assert run.outcomes[0].error is error
    assert run.result()[0] is error


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_interpreter_does_not_wait_for_a_hung_task(strategy):
    """Neither does execute()."""
    script = f"""
import threading
from procession import Process, task
process = Process("hung", {strategy!r}, on_error="return")
process.add_task(task(timeout=0.1)(threading.Event().wait))
process.add_task(task(timeout=0.1)(threading.Event().wait))
print([type(error).__name__ for error in process.execute()], flush=True)
"""
    # That the thread is another is warned of in order.
    command = [sys.executable, "-W", "ignore::RuntimeWarning", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0
    assert done.stderr == ""
    if strategy == "sequential":
        assert done.stdout == "['TaskTimeoutError', 'TaskSkippedError']\n"
    else:
        assert done.stdout.startswith("['TaskTimeoutError', ")


def test_a_timeout_holds_for_each_element_of_a_map():
    """The hung element fails, the others have their values."""
    release = threading.Event()

    @task(timeout=0.05)
    def each(number):
        if number == 1:
            release.wait(50)
        return number

    process = Process("map", "parallel", 2, on_error="return")
    process.map(each, [0, 1, 2])
    try:
        ((first, second, third),) = process.execute()
        assert (first, third) == (0, 2)
        assert isinstance(second, TaskTimeoutError)
    finally:
        release.set()
