"""In threads, a pause between two attempts holds no worker, and a timeout costs no thread while it is kept."""

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tenacity import Retrying, stop_after_attempt, wait_fixed

from procession._engine.pauses import Pauses
from procession._engine.watcher import Deadline
from procession import Process, RunCancelledError, TaskTimeoutError, current_task, task

LONG = Retrying(stop=stop_after_attempt(2), wait=wait_fixed(60))
SHORT = Retrying(stop=stop_after_attempt(3), wait=wait_fixed(0.01))


class Observer:
    immediate = True

    def on_event(self, event):
        pass


class Made:
    """What the tasks have done: no part of them, as it would be if they held it."""

    numbers = []
    all = threading.Event()
    refused = threading.Semaphore(0)


def go_on(number):
    Made.numbers.append(number)
    if len(Made.numbers) == 4:
        Made.all.set()


def refuse(number):
    Made.refused.release()
    raise ConnectionError(number)


def third_time(number):
    if current_task().attempt < 3:
        raise ConnectionError(number)
    return number, current_task().attempt


async def later():
    pass


def options_of(kind, tmp_path):
    return {
        "plain": {},
        "recorded": {"journal": tmp_path / "runs.db", "run_id": "a"},
        "observed": {"observers": [Observer()]},
        "beside a coroutine": {},
    }[kind]


KINDS = ["plain", "recorded", "observed", "beside a coroutine"]


@pytest.mark.parametrize("retries", [LONG, 1], ids=["rules", "number"])
@pytest.mark.parametrize("maps", [False, True], ids=["tasks", "elements"])
@pytest.mark.parametrize("kind", KINDS)
def test_while_calls_pause_others_have_their_workers(kind, maps, retries, tmp_path, monkeypatch):
    """With two workers and two calls that pause for a minute, four others are made meanwhile."""
    monkeypatch.setattr("tenacity.wait_exponential.__call__", lambda *_: 60.0)
    Made.numbers, Made.all, Made.refused = [], threading.Event(), threading.Semaphore(0)
    pausing = task(retries=retries)(refuse)
    process = Process("pausing", "parallel", 2)
    if maps:
        process.map(pausing, [0, 1])
    else:
        process.add_task(pausing, 0)
        process.add_task(pausing, 1)
    for number in range(4):
        process.add_task(go_on, number)
    if kind == "beside a coroutine":
        process.add_task(later)
    run = process.start(**options_of(kind, tmp_path))
    assert Made.all.wait(20)
    for _ in range(2):
        assert Made.refused.acquire(timeout=20)  # others may have been quicker
    run.cancel()
    with pytest.raises(RunCancelledError):
        run.result(20)
    refused = [outcome for outcome in run.outcomes if outcome.name.endswith("refuse")]
    assert {(outcome.state, outcome.attempts) for outcome in refused} == {("failed", 1)}


@pytest.mark.parametrize("maps", [False, True], ids=["tasks", "elements"])
@pytest.mark.parametrize("kind", KINDS)
def test_after_its_pause_a_call_is_made_again(kind, maps, tmp_path):
    """With the number of the attempt, and its value at its place."""
    trying = task(retries=SHORT)(third_time)
    process = Process("again", "parallel", 2)
    expected = [(number, 3) for number in range(5)]
    if maps:
        process.map(trying, range(5))
        expected = [expected]
    else:
        for number in range(5):
            process.add_task(trying, number)
    if kind == "beside a coroutine":
        process.add_task(later)
        expected.append(None)
    assert process.execute(**options_of(kind, tmp_path)) == expected
    assert {outcome.attempts for outcome in process.last_run.outcomes if outcome.name.endswith("third_time")} == {3}


@pytest.mark.parametrize("source", [list, iter], ids=["list", "iterator"])
def test_a_service_that_fails_does_not_make_a_map_draw_its_whole_source(source):
    """At most 64 elements have been drawn and have not ended; then what else is ready goes on."""
    calls, gone_on = threading.Semaphore(0), threading.Event()
    begun = []

    @task(retries=LONG)
    def refuse(number):
        begun.append(number)
        calls.release()
        raise ConnectionError(number)

    process = Process("refusing", "parallel", 2)
    process.map(refuse, source(range(1000)))
    process.add_task(gone_on.set)
    run = process.start()
    for _ in range(64):
        assert calls.acquire(timeout=20)
    assert gone_on.wait(20)
    run.cancel()
    with pytest.raises(RunCancelledError):
        run.result(20)
    assert len(begun) == 64


def test_in_order_nothing_else_starts_while_a_task_pauses():
    """The next task starts when the one before has succeeded."""
    seen = []

    @task(retries=SHORT)
    def third_time():
        seen.append(current_task().attempt)
        if current_task().attempt < 3:
            raise ConnectionError

    process = Process("in order")
    process.add_task(third_time)
    process.add_task(seen.append, "next")
    process.execute()
    assert seen == [1, 2, 3, "next"]


@pytest.mark.parametrize("maps", [False, True], ids=["tasks", "elements"])
def test_calls_within_their_timeout_share_the_threads_of_the_run(maps):
    """No call has a thread of its own: as many threads make all calls as there are workers."""
    threads = set()

    @task(timeout=50)
    def note(number):
        threads.add(threading.current_thread())
        return number

    process = Process("kept", "parallel", 3)
    if maps:
        process.map(note, range(300))
    else:
        for number in range(300):
            process.add_task(note, number)
    process.execute()
    assert 1 <= len(threads) <= 3


@pytest.mark.parametrize("maps", [False, True], ids=["tasks", "elements"])
def test_a_thread_that_is_left_behind_takes_no_other_call(maps):
    """However many calls are late, others have their places, and each thread ends with its call."""
    release, late, threads = threading.Event(), [], set()

    def hang_or_note(number):
        if number % 2:
            late.append(threading.current_thread())
            release.wait(90)
        else:
            threads.add(threading.current_thread())
        return number

    for timeout in 0.05, 1.0, 5.0:  # a longer one only where the machine was held up
        late.clear()
        function = task(timeout=timeout)(hang_or_note)
        process = Process("late", "parallel", 2, on_error="return")
        if maps:
            process.map(function, range(20))
            (results,) = process.execute()
        else:
            for number in range(20):
                process.add_task(function, number)
            results = process.execute()
        kinds = [type(result) for result in (results.exceptions if isinstance(results, BaseException) else results)]
        if kinds.count(TaskTimeoutError) == len(late) == 10:
            break
    assert kinds.count(TaskTimeoutError) == len(late) == len(set(late)) == 10
    assert all(thread.is_alive() for thread in late)
    release.set()
    for thread in [*late, *threads]:
        thread.join(20)
        assert not thread.is_alive()


def test_of_timeouts_of_any_length_each_is_kept():
    """A short one that begins while a long one is watched is told in its own time."""
    release = threading.Event()
    process = Process("lengths", "parallel", 3, on_error="return")
    process.add_task(task(timeout=50)(release.wait))
    process.add_task(task(timeout=0.05)(release.wait))
    process.add_task(task(timeout=0.1)(release.wait))
    run = process.start()
    assert isinstance(run.outcomes[0].error, type(None))
    while not all(run.outcomes[index].error for index in (1, 2)):
        assert not run.wait(0.01)
    assert run.outcomes[0].state == "running"
    release.set()
    first, *others = run.result(20)
    assert first is True
    assert [type(error) for error in others] == [TaskTimeoutError] * 2


def test_a_value_that_rules_do_not_like_is_asked_for_again():
    """By rules that look at what an attempt returned, for tasks and elements."""
    from tenacity import retry_if_result

    rules = Retrying(stop=stop_after_attempt(4), retry=retry_if_result(lambda value: value < 3))
    process = Process("liked", "parallel", 2)
    process.add_task(task(retries=rules)(lambda: current_task().attempt))
    process.map(task(retries=rules)(lambda _: current_task().attempt), [1, 2])
    start = time.monotonic()
    assert process.execute() == [3, [3, 3]]
    assert time.monotonic() - start < 20


def test_a_thread_whose_late_call_has_ended_is_a_worker_like_any_other():
    """It makes other calls under its own name, and none is left when the run has ended."""
    ended = threading.Event()
    failures = [ValueError("no")] * 5
    before = set(threading.enumerate())

    def fail_at_first():
        ended.set()
        if failures:
            raise failures.pop()
        return threading.current_thread().name

    process = Process("late", "parallel", max_workers=1, on_error="return")
    process.add_task(task(timeout=0.02)(ended.wait))
    rules = Retrying(stop=stop_after_attempt(9), wait=wait_fixed(0.01))
    process.add_task(task(retries=rules)(fail_at_first))
    name = process.execute()[1]
    assert set(threading.enumerate()) <= before
    assert "abandoned" not in name


def test_a_run_gets_over_a_moment_without_threads_while_tasks_pause(monkeypatch):
    """What could not be resumed then is resumed with the next task whose pause is over."""
    submitted = []
    submit = ThreadPoolExecutor.submit

    def submit_but_once(*args):
        submitted.append(args)
        if len(submitted) == 2:
            raise RuntimeError("can't start new thread")
        return submit(*args)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", submit_but_once)

    def fail_once():
        if current_task().attempt == 1:
            raise ValueError("no")
        return current_task().attempt

    process = Process("moment", "parallel", max_workers=1)
    for seconds in (0.01, 0.05):
        rules = Retrying(stop=stop_after_attempt(3), wait=wait_fixed(seconds))
        process.add_task(task(retries=rules)(fail_once))
    assert process.execute() == [2, 2]


def test_what_a_run_keeps_does_not_grow_with_its_pauses():
    """Whoever makes an attempt after a pause leaves nothing behind that is watched until the end of the run."""
    kept = []

    def watched():
        gc.collect()
        return sum(isinstance(thing, Deadline) for thing in gc.get_objects())

    def fail_often():
        if current_task().attempt < 30:
            raise ValueError("no")
        kept.append(watched() - before)

    before = watched()  # threads that other tests have left behind may still have theirs

    process = Process("slots", "parallel", max_workers=1)
    rules = Retrying(stop=stop_after_attempt(30), wait=wait_fixed(0.001))
    process.add_task(task(retries=rules, timeout=30.0)(fail_often))
    process.execute()
    assert kept[0] < 5


@pytest.mark.parametrize("maps", [False, True], ids=["tasks", "elements"])
@pytest.mark.parametrize("kind", ["threads", "loop", "executor"])
def test_a_task_that_pauses_is_shown_as_waiting(kind, maps):
    """And a map as running, though no worker has it: with a single one, another task has run since."""
    gone_on = threading.Event()

    @task(retries=LONG)
    def refuse(_):
        raise ConnectionError

    @task(retries=LONG)
    async def refuse_awaited(_):
        raise ConnectionError

    refusing = refuse_awaited if kind == "loop" else refuse
    with ThreadPoolExecutor(1) as pool:
        process = Process("pausing", "parallel", 1, executor=pool if kind == "executor" else "threads")
        if maps:
            process.map(refusing, [0])
        else:
            process.add_task(refusing, 0)
        process.add_task(gone_on.set)
        run = process.start()
        assert gone_on.wait(20)
        snapshot = run._run_state.snapshot()
        assert 0 in [index for index, *_ in (snapshot.running if maps else snapshot.pausing)]
        run.cancel()
        assert run.wait(20)
    snapshot = run._run_state.snapshot()
    assert (snapshot.running, snapshot.pausing) == ([], [])


@pytest.mark.parametrize("used", [False, True])
def test_who_comes_when_all_is_over_is_not_waited_for(used):
    """As the caller of a run that leaves its elements just as it ends."""
    called = []
    pauses = Pauses(threading.Lock(), "late", called.append, fail, fail)
    if used:
        assert pauses.watcher is not None
    pauses.close()
    pauses.pause(0.0, fail)
    assert (called, pauses.count) == ([], 0)


def fail(*_):
    raise AssertionError


@pytest.mark.parametrize("daemon", [True, False])
def test_a_call_that_another_run_admits_once_its_stage_is_over_is_not_made_ready(daemon):
    """A limit that several runs share admits it from a thread of theirs, at any instant: that harms nobody."""
    failures, made = [], []
    pauses = Pauses(threading.Lock(), "late", lambda resume: resume(), lambda: None, failures.append)
    wake = pauses.hold(lambda: made.append("ready"))
    pauses.close()
    before = set(threading.enumerate())

    def admit():
        try:
            wake()
        except BaseException as error:
            failures.append(error)

    other = threading.Thread(target=admit, daemon=daemon)
    other.start()
    other.join(20)
    assert (failures, made, set(threading.enumerate()) - before) == ([], [], set())
