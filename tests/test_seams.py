"""Where the next features are to be joined: each of these places is one place for all engines, and can be relied on."""

import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from procession import Process, RunCancelledError, current_task
from procession._execution import Execution
from procession.journal import Journal

WAIT_S = 20
LAST = 11


class Told:
    """An observer that leaves a file for each element that has ended, so that worker processes see it, too."""

    immediate = True

    def __init__(self, folder):
        self.folder = folder

    def on_event(self, event):
        if event.name == "element_completed":
            (self.folder / str(event.element)).touch()


def last_when_told_of_the_first(folder, number):
    deadline = time.monotonic() + WAIT_S
    while number == LAST and not (folder / "0").exists():
        if time.monotonic() > deadline:
            raise TimeoutError("nobody was told that the first element has ended")
        time.sleep(0.002)
    return number


async def awaited(folder, number):
    return last_when_told_of_the_first(folder, number)


@pytest.mark.parametrize("recorded", [False, True], ids=["", "recorded"])
@pytest.mark.parametrize("executor", ["threads", "processes", "executor"])
@pytest.mark.parametrize("strategy", ["sequential", "parallel"])
def test_the_end_of_an_element_is_told_while_its_map_goes_on(strategy, executor, recorded, tmp_path):
    """A taker can go on from each element: `ElementEnds.returned` is passed by all that somebody waits for."""
    with ThreadPoolExecutor(2) as pool:
        process = Process("told", strategy, 2, executor=pool if executor == "executor" else executor)
        process.map(last_when_told_of_the_first, [tmp_path] * (LAST + 1), range(LAST + 1))
        options = {"journal": tmp_path / "runs.db", "run_id": "a"} if recorded else {}
        assert process.execute(observers=[Told(tmp_path)], **options) == [list(range(LAST + 1))]


@pytest.mark.parametrize("strategy", ["sequential", "parallel"])
def test_the_end_of_a_coroutine_for_an_element_is_told_while_its_map_goes_on(strategy, tmp_path):
    """Likewise on an event loop."""
    process = Process("told", strategy, 2)
    process.map(awaited, [tmp_path] * (LAST + 1), range(LAST + 1))
    assert process.execute(observers=[Told(tmp_path)]) == [list(range(LAST + 1))]


def inner_of(function):
    inner = Process("inner")
    inner.add_task(function)
    return inner


def test_two_backends_make_calls_of_one_stage_at_the_same_time():
    """A process as a task stays here, and what is beside it goes to the executor: they meet."""
    meeting = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        process = Process("two", "parallel", 2, executor=pool)
        process.add_task(inner_of(lambda: meeting.wait(WAIT_S) >= 0))
        process.add_task(lambda: meeting.wait(WAIT_S) >= 0)
        assert process.execute() == [[True], True]


def test_one_bound_holds_over_two_backends():
    """However the calls are divided, `max_workers` is never exceeded."""
    lock, here, most = threading.Lock(), [], []

    def count():
        with lock:
            here.append(1)
            most.append(len(here))
        time.sleep(0.001)
        with lock:
            here.pop()

    with ThreadPoolExecutor(4) as pool:
        process = Process("bounded", "parallel", 2, executor=pool)
        for _ in range(10):
            process.add_task(inner_of(count))
            process.add_task(count)
        process.execute()
    assert max(most) == 2


def test_what_one_backend_has_no_room_for_keeps_nothing_from_the_other():
    """The executor has a single worker, which is busy: a call that waits for it is passed by the process behind it."""
    passed = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        process = Process("passed by", "parallel", 4, executor=pool)
        process.add_task(lambda: passed.wait(WAIT_S))
        process.add_task(int)
        process.add_task(inner_of(passed.set))
        assert process.execute() == [True, 0, [None]]


def test_a_cancelled_run_reaches_the_calls_of_both_backends():
    """Both are asked to stop, and the run ends when both have."""
    meeting = threading.Barrier(3)

    def until_cancelled():
        meeting.wait(WAIT_S)
        current_task().sleep(WAIT_S)

    with ThreadPoolExecutor(2) as pool:
        process = Process("cancelled", "parallel", 2, executor=pool)
        inner = inner_of(until_cancelled)
        process.add_task(inner)
        process.add_task(until_cancelled)
        run = process.start()
        meeting.wait(WAIT_S)
        run.cancel()
        with pytest.raises(RunCancelledError):
            run.result(WAIT_S)
    assert (inner.last_run.status, run.outcomes[1].state) == ("cancelled", "cancelled")


class Asked:
    """What the tasks have done and know: no part of them, as a run records what its functions hold."""

    calls = []
    asked = threading.Event()
    answered = threading.Event()


def before():
    Asked.calls.append("before")
    return "before"


def ask(_):
    Asked.calls.append("ask")
    Asked.asked.set()
    if not Asked.answered.is_set():
        current_task().sleep(WAIT_S)
    return "answer"


@pytest.mark.parametrize("executor", ["threads", "executor"])
def test_a_run_that_ends_in_a_way_of_its_own_lets_go_and_is_gone_on_with(executor, tmp_path, monkeypatch):
    """How a run ended is said in one place; whatever it is called, the lease is let go and what has ended is kept."""
    decided = Execution.status.fget
    monkeypatch.setattr(
        Execution,
        "status",
        property(lambda self: "suspended" if decided(self) == "cancelled" else decided(self)),
    )
    Asked.calls, Asked.asked, Asked.answered = [], threading.Event(), threading.Event()
    with ThreadPoolExecutor(2) as pool:
        process = Process("suspended", executor=pool if executor == "executor" else executor)
        process.task(ask, process.task(before))
        run = process.start(run_id="a", journal=tmp_path / "runs.db")
        assert Asked.asked.wait(WAIT_S)
        run.cancel()
        assert run.wait(WAIT_S)
        assert (run.status, process.status) == ("suspended", "failed")
        with sqlite3.connect(tmp_path / "runs.db") as connection:
            (row,) = connection.execute("select status, token, error from procession_runs").fetchall()
        connection.close()
        assert row == ("suspended", None, None)
        Asked.answered.set()
        with Journal(tmp_path / "runs.db") as journal:
            assert process.execute(run_id="a", journal=journal) == ["before", "answer"]
    assert Asked.calls == ["before", "ask", "ask"]
