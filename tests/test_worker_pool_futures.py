"""Worker processes as a `concurrent.futures.Executor`: what the standard library says of one holds of them."""

import itertools
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import (
    FIRST_COMPLETED,
    CancelledError,
    Executor,
    as_completed,
    wait,
)
from functools import partial
from textwrap import dedent

import psutil
import pytest

import errands
import pool_jobs
from barriers import attend, hall
from errands import called, same
from marks import linux, posix
from pool_fixtures import children, workers
from procession import Process, TransferError, WorkerDiedError, WorkerProcesses, WorkersUnavailableError
from programs import program, wait_for

__all__ = ["workers"]


def test_it_is_an_executor(workers):
    """So that code which takes one can have it."""
    assert isinstance(workers(1), Executor)


def test_a_call_has_a_future(workers):
    """With what it returned or raised, and where that was raised."""
    executor = workers(2)
    assert executor.submit(pow, 2, exp=5).result(30) == 32
    failed = executor.submit(pool_jobs.fail, "key")
    with pytest.raises(KeyError, match="key") as raised:
        failed.result(30)
    assert "raise KeyError(value)" in raised.value.__notes__[0]


def test_calls_run_at_once_and_in_other_processes(workers):
    """As many as there are workers."""
    executor = workers(3)
    with hall() as at:
        meeting = at("all", 3)
        pids = {future.result(30) for future in [executor.submit(pool_jobs.pid_together, [meeting]) for _ in range(3)]}
    assert len(pids) == 3
    assert os.getpid() not in pids


def test_futures_can_be_waited_for_together(workers):
    """By the functions of the standard library."""
    executor = workers(2)
    futures = [executor.submit(same, number) for number in range(20)]
    assert wait(futures, 30, FIRST_COMPLETED).done
    assert sorted(future.result() for future in as_completed(futures, 30)) == list(range(20))


def test_a_call_that_waits_can_be_cancelled_and_one_that_runs_cannot(workers, tmp_path):
    """The cancelled call is never made."""
    executor = workers(1)
    with hall() as at:
        running = executor.submit(attend, [at("there", 2), at("end", 2)])
        waiting = executor.submit(errands.noted, str(tmp_path))
        attend([at("there", 2)])
        assert running.running()
        assert not running.cancel()
        assert waiting.cancel()
        attend([at("end", 2)])
    assert running.result(30) == 1
    with pytest.raises(CancelledError):
        waiting.result(30)
    assert executor.submit(same, 1).result(30) == 1
    assert called(tmp_path) == 0


def test_done_callbacks_are_called(workers):
    """Once the call has ended."""
    done = threading.Event()
    workers(1).submit(same, 1).add_done_callback(lambda future: done.set())
    assert done.wait(30)


def test_functions_that_cannot_be_imported_go_by_value(workers):
    """A lambda, with what it refers to."""
    add = 3
    assert workers(1).submit(lambda number: number + add, 4).result(30) == 7


def test_what_cannot_be_sent_fails_its_own_call(workers):
    """By name, and the others are made."""
    executor = workers(1)
    bad, good = executor.submit(same, threading.Lock()), executor.submit(same, 1)
    with pytest.raises(TransferError, match="argument 0, a lock, cannot be pickled|argument 0"):
        bad.result(30)
    assert good.result(30) == 1


@posix
def test_a_worker_that_dies_fails_its_own_call_only(workers):
    """The standard library's pool would be broken."""
    executor = workers(2)
    died, good = executor.submit(pool_jobs.kill_self), executor.submit(same, 1)
    assert isinstance(died.exception(30), WorkerDiedError)
    assert good.result(30) == executor.submit(same, 1).result(30) == 1


def test_an_initializer_that_fails_fails_every_future(workers, tmp_path):
    """None waits for ever."""
    executor = workers(1, initializer=pool_jobs.refuse, initargs=(str(tmp_path),))
    for future in [executor.submit(same, number) for number in range(5)]:
        with pytest.raises(WorkersUnavailableError, match="the initializer, refuse, raised LookupError"):
            future.result(30)


# map


def test_map_gives_results_in_order_up_to_the_shortest(workers):
    """Whatever the size of the chunks."""
    executor = workers(2)
    for size in (1, 3, 100):
        results = executor.map(pow, itertools.count(), range(10), chunksize=size)
        assert list(results) == [number**number for number in range(10)]
    assert list(executor.map(same, [])) == []


def test_map_makes_the_calls_at_once_and_hands_on_the_results_one_by_one(workers, tmp_path):
    """Nobody has to ask for a result, and the first is there before the last call has ended."""
    executor = workers(2)
    with hall() as at:
        results = executor.map(partial(attend), [[], [], [at("end", 2)]])
        assert [next(results), next(results)] == [1, 1]
        attend([at("end", 2)])
        assert list(results) == [1]
    executor.map(errands.noted, [str(tmp_path)] * 3)
    executor.shutdown()
    assert called(tmp_path) == 3


def test_map_raises_what_a_call_raised_at_its_place(workers):
    """After the results before it."""
    results = workers(1).map(partial(int, base=10), ["1", "2", "x", "4"])
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(ValueError, match="invalid literal"):
        next(results)


def test_map_raises_timeout_error(workers):
    """When the results are not there in time."""
    executor = workers(1)
    with hall() as at:
        results = executor.map(attend, [[at("there", 2), at("end", 2)]], timeout=0.05)
        attend([at("there", 2)])
        with pytest.raises(TimeoutError):
            next(results)
        attend([at("end", 2)])


def test_map_refuses_chunks_of_nothing(workers):
    """As the standard library does."""
    with pytest.raises(ValueError, match="at least 1"):
        workers(1).map(same, [1], chunksize=0)


# shutdown


def test_shutdown_waits_for_calls_and_refuses_others(workers):
    """All of them are made."""
    executor = workers(1)
    futures = [executor.submit(same, number) for number in range(20)]
    executor.shutdown()
    assert [future.result(0) for future in futures] == list(range(20))
    with pytest.raises(RuntimeError, match="was shut down, and takes no other calls"):
        executor.submit(same, 1)


def test_shutdown_need_not_wait(workers):
    """The calls are made all the same."""
    executor = workers(1)
    with hall() as at:
        future = executor.submit(attend, [at("end", 2)])
        executor.shutdown(wait=False)
        assert not future.done()
        attend([at("end", 2)])
        assert future.result(30) == 1


def test_shutdown_can_cancel_what_does_not_run(workers):
    """What waits is cancelled; what runs is ended."""
    executor = workers(1)
    with hall() as at:
        running = executor.submit(attend, [at("there", 2), at("never", 2)])
        waiting = [executor.submit(same, number) for number in range(5)]
        attend([at("there", 2)])
        executor.shutdown(cancel_futures=True)
    assert all(future.cancelled() for future in waiting)
    assert isinstance(running.exception(0), WorkersUnavailableError)


def test_calls_and_runs_share_the_workers(workers):
    """And each other's turns."""
    executor = workers(1)
    process = Process("beside", "parallel", executor=executor)
    process.map(same, range(200))
    run = process.start()
    futures = [executor.submit(same, number) for number in range(50)]
    assert [future.result(30) for future in futures] == list(range(50))
    assert run.result(30) == [list(range(200))]


def test_a_call_may_submit_another_from_its_callback(workers):
    """Callbacks are called where that waits for nobody."""
    executor, second = workers(1), []
    done = threading.Event()

    def go_on(future):
        second.append(executor.submit(same, future.result() + 1))
        done.set()

    executor.submit(same, 1).add_done_callback(go_on)
    assert done.wait(30)
    assert second[0].result(30) == 2


# The end of the program


def ended(child):
    out, err = child.communicate(timeout=60)
    return child.returncode, out, err


def test_a_program_that_does_not_shut_down_ends_and_leaves_nothing(tmp_path):
    """What was submitted is done first."""
    child = program(
        tmp_path,
        """
        import errands, os
        from procession import WorkerProcesses

        if __name__ == "__main__":
            workers = WorkerProcesses(2)
            print(workers.submit(os.getpid).result())
            for _ in range(20):
                workers.submit(errands.note_slowly, ".")
        """,
    )
    code, out, err = ended(child)
    assert (code, err) == (0, "")
    assert called(tmp_path) == 20
    assert not psutil.pid_exists(int(out))


def test_a_program_that_fails_in_the_block_ends(tmp_path):
    """With its own error."""
    child = program(
        tmp_path,
        """
        from procession import WorkerProcesses

        if __name__ == "__main__":
            with WorkerProcesses(2) as workers:
                workers.submit(int).result()
                raise LookupError("its own")
        """,
    )
    code, _, err = ended(child)
    assert code == 1
    assert err.rstrip().endswith("LookupError: its own")


@linux
def test_workers_of_a_program_that_is_killed_end(tmp_path, comes_true):
    """Those that are idle, and those that are in a call."""
    child = program(
        tmp_path,
        """
        import errands, os, sys, time
        from pathlib import Path
        from procession import WorkerProcesses

        def wait(name):
            Path(name).touch()
            time.sleep(60)

        if __name__ == "__main__":
            with WorkerProcesses(2) as workers:
                workers.submit(wait, "one")
                errands_done = workers.submit(int).result()
                Path("up").touch()
                time.sleep(60)
        """,
    )
    wait_for(tmp_path / "one")
    wait_for(tmp_path / "up")
    left = psutil.Process(child.pid).children(recursive=True)
    assert len(left) >= 2
    child.kill()
    child.communicate()
    assert comes_true(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in left))
