"""Children that are forked while a journal is in use: what a pool of processes does while a run goes on."""

import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import pytest

from procession import Process
from procession.journal import forks

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


def test_a_child_forked_while_a_run_is_recorded_can_use_sqlite(tmp_path):
    """Its first use of any database does not wait for a lock that a thread of its parent had when it was forked."""
    script = """
        import os, signal, sqlite3, sys, threading
        from procession import Process

        over, hung = threading.Event(), 0
        process = Process("recorded")
        for _ in range(20):
            process.add_task(int)

        def record():
            while not over.is_set():
                process.execute(journal=sys.argv[1], run_id=os.urandom(8).hex())

        recording = threading.Thread(target=record)
        recording.start()
        try:
            for _ in range(400):  # without care, one in forty hangs
                child = os.fork()
                if child == 0:
                    signal.alarm(10)
                    sqlite3.connect(":memory:").execute("CREATE TABLE own (number)")
                    os._exit(0)
                hung += os.waitpid(child, 0)[1] != 0
                if hung:
                    break
        finally:
            over.set()
            recording.join()
        print(hung)
    """
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script), str(tmp_path / "runs.db")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "0\n"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_does_not_wait_for_a_journal_that_waits(tmp_path, comes_true):
    """Another program keeps the journal locked: a fork goes ahead, long before it is free."""
    path = str(tmp_path / "runs.db")
    process = Process("waits")
    process.add_task(int)
    process.execute(journal=path, run_id="first")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(1) as pool:
        try:
            second = pool.submit(process.execute, journal=path, run_id="second")
            assert comes_true(lambda: forks._inside)
            began = time.monotonic()
            child = os.fork()
            if child == 0:
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            assert time.monotonic() - began < 10
            assert not second.done()
        finally:
            other.execute("COMMIT")
            other.close()
        assert second.result() == [0]


_at_work = threading.Lock()


class Working:
    """Has a lock from the start of a run to its end, as one that writes to a log has that of its stream now and then."""

    immediate = True

    def on_event(self, event):
        if event.name == "run_started":
            _at_work.acquire()
        elif event.name == "run_completed":
            _at_work.release()


def is_anybody_at_work():
    return _at_work.locked()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("begin", [Process.execute, lambda process: process.start().result()], ids=["execute", "start"])
def test_a_pool_forks_its_workers_before_a_run_has_anybody_else_at_work(begin):
    """No child inherits what an observer, or progress, holds: a task that needed it there would wait for ever."""
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as executor:
        process = Process("forked", "parallel", executor=executor, observers=[Working()])
        process.add_task(is_anybody_at_work)
        assert begin(process) == [False]
