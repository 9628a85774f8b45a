"""Worker processes that outlive a run: started when needed, kept, set up, replaced, shared, and gone in the end."""

import gc
import logging
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
from functools import partial

import psutil
import pytest

import errands
import pool_jobs
from barriers import attend, hall
from errands import called, same
from marks import posix
from pool_fixtures import children, workers
from procession import (
    Process,
    RunCancelledError,
    TaskLogHandler,
    TaskTimeoutError,
    WorkerDiedError,
    WorkerProcesses,
    WorkersUnavailableError,
    task,
)

__all__ = ["workers"]


def mapped(executor, function, *iterables, **options):
    """Execute a process with one map; return its list."""
    process = Process("mapped", "parallel", 2, executor=executor, **options)
    process.map(function, *iterables)
    return process.execute()[0]


def test_no_worker_starts_before_there_is_a_call(workers):
    """Only then, and no more of them than calls."""
    before = children()
    executor = workers(2)
    assert children() <= before
    assert mapped(executor, same, [1]) == [1]
    assert len(children() - before) == 1


def test_a_run_finds_the_workers_of_the_run_before_it(workers):
    """None ends with a run, and none starts for the next."""
    executor = workers(2)
    with hall() as at:
        meeting = at("both", 2)
        first = set(mapped(executor, pool_jobs.pid_together, [[meeting]] * 2))
        second = set(mapped(executor, pool_jobs.pid_together, [[meeting]] * 2))
    assert len(first) == 2
    assert first == second


def test_a_run_uses_no_more_workers_than_its_own_limit(workers):
    """However many the executor has."""
    executor = workers(3)
    process = Process("narrow", "parallel", 1, executor=executor)
    process.map(pool_jobs.pid, range(50))
    assert len(set(process.execute()[0])) == 1


def test_two_runs_at_once_take_turns(workers):
    """Calls of both are in flight at the same time, with a worker for each run."""
    executor = workers(2)
    with hall() as at:
        runs = []
        for name in "ab":
            process = Process(name, "parallel", 2, executor=executor)
            process.add_task(attend, [at("across", 2)])
            process.map(same, range(200))
            runs.append(process.start())
        assert [run.result(30) for run in runs] == [[1, list(range(200))]] * 2


def test_many_runs_from_many_threads_share_one_worker(workers):
    """Each gets its own results."""
    executor = workers(1)
    results = {}

    def execute(number):
        results[number] = mapped(executor, partial(pow, number), range(20))

    threads = [threading.Thread(target=execute, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == {number: [number**power for power in range(20)] for number in range(6)}


def test_a_run_inside_a_task_of_another_gets_a_turn(workers):
    """Though the outer run has calls enough for all workers."""
    executor = workers(1)
    inner = Process("inner", "parallel", executor=executor)
    inner.map(same, range(5))
    outer = Process("outer", "parallel", 4, executor=executor)
    outer.add_task(inner.execute)
    outer.map(errands.note_slowly, [os.devnull] * 0)
    outer.map(same, range(100))
    assert outer.execute() == [[list(range(5))], [], list(range(100))]


def test_each_worker_is_set_up_once(workers, tmp_path):
    """Before its first call, and not again for another run."""
    executor = workers(2, initializer=pool_jobs.load, initargs=(str(tmp_path), "big"))
    with hall() as at:
        meeting = at("both", 2)
        pids = set(mapped(executor, pool_jobs.pid_together, [[meeting]] * 2))
    for _ in range(3):
        assert mapped(executor, pool_jobs.used, range(4)) == [("big", number) for number in range(4)]
    assert [called(tmp_path, f"load {pid}") for pid in pids] == [1, 1]


def test_a_function_of_the_session_can_set_workers_up(workers):
    """It goes by value."""
    executor = workers(1, initializer=lambda text: os.environ.__setitem__("SET_UP", text), initargs=("so",))
    assert mapped(executor, lambda name: os.environ[name], ["SET_UP"]) == ["so"]


def test_an_initializer_that_fails_fails_the_run_and_says_why(workers, tmp_path):
    """With its name, its error and where that was raised; it is not called for ever."""
    executor = workers(2, initializer=pool_jobs.refuse, initargs=(str(tmp_path),))
    with pytest.raises(
        WorkersUnavailableError, match="the initializer, refuse, raised LookupError: no model"
    ) as raised:
        mapped(executor, same, range(20))
    assert isinstance(raised.value.__cause__, LookupError)
    assert 'raise LookupError("no model here")' in raised.value.__cause__.__notes__[0]
    assert called(tmp_path) <= 2


def test_after_an_initializer_that_failed_the_next_run_tries_again(workers, tmp_path):
    """The executor is not broken for ever."""
    executor = workers(1, initializer=pool_jobs.refuse_once, initargs=(str(tmp_path),))
    with pytest.raises(WorkersUnavailableError):
        mapped(executor, same, [1])
    assert mapped(executor, same, [1]) == [1]


def test_an_initializer_that_hangs_is_ended(workers):
    """The run fails, and says how long it has waited."""
    executor = workers(1, initializer=pool_jobs.hang_for_ever, initializer_timeout=0.2)
    with pytest.raises(WorkersUnavailableError, match=r"hang_for_ever, took longer than its limit of 0\.2 s"):
        mapped(executor, same, [1])


def test_an_initializer_that_exits_is_named(workers):
    """With the exit code."""
    executor = workers(1, initializer=pool_jobs.exit_at_once)
    with pytest.raises(WorkersUnavailableError, match="exit code 7 .*the initializer, exit_at_once, had not ended"):
        mapped(executor, same, [1])


def test_a_worn_out_worker_is_replaced_and_no_call_is_lost(workers, tmp_path):
    """Each call is made once, and the new worker is set up like the old one."""
    executor = workers(2, max_calls=7, initializer=pool_jobs.load, initargs=(str(tmp_path), "big"))
    pids = mapped(executor, partial(pool_jobs.noted_pid, str(tmp_path)), range(50))
    assert [called(tmp_path, str(number)) for number in range(50)] == [1] * 50
    assert max(map(pids.count, pids)) <= 7
    assert [called(tmp_path, f"load {pid}") for pid in set(pids)] == [1] * len(set(pids))


@posix
def test_workers_that_die_or_are_ended_are_replaced_and_set_up(workers, tmp_path):
    """The run goes on, and so does the next."""
    executor = workers(1, initializer=pool_jobs.load, initargs=(str(tmp_path), "big"))
    process = Process("rough", "parallel", 1, executor=executor, on_error="return")
    process.add_task(pool_jobs.kill_self)
    process.add_task(pool_jobs.used, 1)
    process.add_task(task(timeout=0.2)(pool_jobs.hang_for_ever))
    process.add_task(pool_jobs.used, 2)
    died, one, late, two = process.execute()
    assert (type(died), type(late)) == (WorkerDiedError, TaskTimeoutError)
    assert (one, two) == (("big", 1), ("big", 2))
    assert mapped(executor, pool_jobs.used, [3]) == [("big", 3)]


@posix
def test_an_idle_worker_that_was_killed_is_replaced(workers):
    """No call is given to it."""
    executor = workers(1)
    [pid] = mapped(executor, pool_jobs.pid, [0])
    child = psutil.Process(pid)
    child.kill()
    child.wait(20)
    [other] = mapped(executor, pool_jobs.pid, [0])
    assert other != pid


def test_idle_workers_end_after_a_while_and_others_start(workers, comes_true):
    """Nobody has to look after them for that."""
    executor = workers(1, idle_timeout=0.05)
    [pid] = mapped(executor, pool_jobs.pid, [0])
    assert comes_true(lambda: pid not in children())
    [other] = mapped(executor, pool_jobs.pid, [0])
    assert other != pid


def test_calls_come_through_though_workers_end_between_any_two(workers):
    """A worker may go just as a call is sent to it."""
    executor = workers(1, idle_timeout=0.000001)
    for number in range(5):
        assert mapped(executor, same, range(number)) == list(range(number))


def test_nothing_of_a_run_is_left_for_the_next(workers, tmp_path):
    """Neither names, nor that it was cancelled, nor logging, nor context."""
    executor = workers(1)
    clean = seen_by(executor, "first")
    logger, handler = logging.getLogger("watched"), TaskLogHandler()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        with hall() as at:
            process = Process("cancelled", "parallel", 1, executor=executor)
            process.add_task(pool_jobs.change_and_wait, at("there", 2))
            run = process.start(run_id="one", journal=str(tmp_path / "runs.db"))
            attend([at("there", 2)])
            run.cancel()
            with pytest.raises(RunCancelledError):
                run.result(30)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    assert seen_by(executor, "second") == (*("second",), *clean[1:])


def seen_by(executor, name):
    """Return what a task sees there, without the id of its run, which is another one each time."""
    process = Process(name, "parallel", 1, executor=executor)
    process.add_task(pool_jobs.seen)
    [[name, run_id, *rest]] = process.execute()
    assert run_id == process.last_run.id
    return (name, *rest)


# The end


def test_leaving_the_block_lets_runs_end_and_ends_the_workers():
    """No process is left."""
    before = children()
    with hall() as at, WorkerProcesses(1) as executor:
        process = Process("late", "parallel", executor=executor)
        process.add_task(attend, [at("in time", 2)])
        process.map(same, range(50))
        run = process.start()
        attend([at("in time", 2)])
    assert run.result(0) == [1, list(range(50))]
    assert children() <= before


def test_after_the_shutdown_no_run_begins(workers):
    """And that is said."""
    executor = workers(1)
    executor.shutdown()
    with pytest.raises(RuntimeError, match="was shut down, and takes no other calls"):
        mapped(executor, same, [1])


def test_a_shutdown_that_does_not_wait_lets_runs_end(comes_true):
    """The last of them ends the workers."""
    before = children()
    executor = WorkerProcesses(1)
    with hall() as at:
        process = Process("late", "parallel", executor=executor)
        process.add_task(attend, [at("in time", 2)])
        run = process.start()
        executor.shutdown(wait=False)
        attend([at("in time", 2)])
        assert run.result(30) == [1]
    assert comes_true(lambda: children() <= before)


def test_a_shutdown_that_cancels_fails_runs():
    """What runs is ended, and the error says why."""
    before = children()
    executor = WorkerProcesses(1)
    with hall() as at:
        process = Process("late", "parallel", executor=executor)
        process.add_task(pool_jobs.change_and_wait, at("there", 2))
        run = process.start()
        attend([at("there", 2)])
        executor.shutdown(cancel_futures=True)
    with pytest.raises(WorkersUnavailableError, match="shut down with cancel_futures=True"):
        run.result(30)
    assert children() <= before


def test_an_executor_that_nobody_keeps_ends_its_workers_and_says_so(comes_true):
    """As a file does that was not closed."""
    before = children()
    executor = WorkerProcesses(1)
    assert mapped(executor, same, [1]) == [1]
    with pytest.warns(ResourceWarning, match=r"WorkerProcesses\(1\) was not shut down"):
        del executor
        gc.collect()
    assert comes_true(lambda: children() <= before)


def test_an_executor_that_was_never_used_says_nothing():
    """There is nothing to end."""
    executor = WorkerProcesses(1)
    del executor
    gc.collect()


@posix
def test_a_fork_cannot_use_it(workers):
    """It says so, and the workers stay as they are."""
    executor = workers(1)
    [pid] = mapped(executor, pool_jobs.pid, [0])
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()

    def use():
        for call in partial(executor.submit, int), partial(mapped, executor, same, [1]):
            try:
                call()
            except RuntimeError as error:
                answers.put(str(error))

    child = context.Process(target=use)
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert all("this is a fork of it: make another one here" in answers.get() for _ in range(2))
    assert mapped(executor, pool_jobs.pid, [0]) == [pid]


def test_it_cannot_be_pickled(workers):
    """And says what to do."""
    with pytest.raises(RuntimeError, match="WorkerProcesses cannot be pickled.*make another one there"):
        pickle.dumps(workers(1))


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"max_workers": 0}, ValueError, "at least 1; got 0"),
        ({"max_workers": 2.0}, TypeError, "takes an int"),
        ({"max_calls": 0}, ValueError, "max_calls=...\\) takes a number of at least 1"),
        ({"initializer": 3}, TypeError, "takes a callable; got 3"),
        ({"initargs": (3,)}, ValueError, "there is none"),
        ({"idle_timeout": -1}, ValueError, "above 0"),
        ({"initializer_timeout": "1"}, TypeError, "number of seconds, or None"),
    ],
)
def test_arguments_are_checked_at_once(options, error, text):
    """And named."""
    with pytest.raises(error, match=text):
        WorkerProcesses(**options)


def test_what_cannot_be_sent_to_set_workers_up_is_refused_at_once():
    """Before any worker starts."""
    from procession import TransferError

    with pytest.raises(TransferError, match="the initializer of WorkerProcesses"):
        WorkerProcesses(1, initializer=same, initargs=(threading.Lock(),))


def test_an_initializer_of_a_session_is_found(tmp_path):
    """Though the worker cannot import the session."""
    text = (
        "import os; from procession import WorkerProcesses\n"
        "def set_up(): os.environ['SET_UP'] = 'so'\n"
        "with WorkerProcesses(1, initializer=set_up) as workers: print(workers.submit(os.getenv, 'SET_UP').result())"
    )
    command = [sys.executable, "-c", text]
    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout == "so\n"
