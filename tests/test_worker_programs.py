"""Whole programs that run a process on workers: where their code comes from, Ctrl-C, and being killed."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from errands import called
from marks import posix
from programs import PROGRAM, program, wait_for


def test_functions_of_the_main_module_travel(tmp_path):
    """As they do with the standard library, with the main module guarded."""
    with program(
        tmp_path,
        PROGRAM
        + """
        process.add_task(work, 1)
        process.map(work, [2, 3])
        print(process.execute())
    """,
    ) as child:
        out, complaints = child.communicate(timeout=50)
    assert (out, complaints) == ("[2, [3, 4]]\n", "")


def test_code_that_is_not_in_a_file_travels_by_value():
    """As in an interactive session, whose functions no worker can import."""
    code = """
from procession import Process
class Pair:
    def __init__(self, one): self.one = one
def work(number): return Pair(number)
process = Process("typed in", "parallel", 2, executor="processes")
process.map(work, range(3))
(pairs,) = process.execute()
print([pair.one for pair in pairs], all(type(pair) is Pair for pair in pairs))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert (done.stdout, done.stderr) == ("[0, 1, 2] True\n", "")


def test_what_comes_back_by_value_changes_no_class_that_is_here():
    """Neither what a task assigned to a class in the worker, nor what was redefined here since, counts there or here."""
    code = """
from enum import Enum
from procession import Process
class Price:
    limit = 1
    def __init__(self, number): self.number = number * FACTOR
class Color(Enum):
    RED = 1
class Refused(Exception):
    limit = 1
FACTOR = 10
def work(number):
    Price.limit = Color.limit = Refused.limit = 99
    class Special(Price):
        def twice(self): return 2 * self.number
    return Price(number), Color.RED, Special(number), Refused(number)
def fail(number):
    Refused.limit = 99
    raise Refused(number)
process = Process("typed in", "parallel", 1, executor="processes", on_error="return")
process.add_task(work, 1)
process.add_task(fail, 2)
(price, color, special, refused), raised = process.execute()
FACTOR = 20
print(type(price) is Price, color is Color.RED, special.twice(), isinstance(special, Price), type(raised) is Refused)
print(Price(3).number, Price.limit, hasattr(Color, "limit"), Refused.limit, refused.args, raised.args)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert done.stdout == "True True 20 True True\n60 1 False 1 (1,) (2,)\n", done.stderr


@pytest.mark.parametrize("arguments", [["-"], ["-c", "import sys; exec(sys.stdin.read())"]])
def test_a_program_that_is_in_no_file_works_or_is_told_what_it_has_to_be(arguments):
    """From standard input there is nothing that a worker could import; nobody is told of a guard that is there."""
    code = """
from procession import Process, WorkersUnavailableError
def square(number): return number * number
if __name__ == "__main__":
    process = Process("typed in", "parallel", 2, executor="processes")
    process.map(square, range(3))
    try: print(process.execute())
    except WorkersUnavailableError as error: print(error)
"""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, input=code, capture_output=True, text=True, timeout=50)
    if arguments == ["-"]:
        assert "'<stdin>' is no file that it could read: save the program to a file" in done.stdout
        assert "put that under" not in done.stdout
    else:
        assert done.stdout == "[[0, 1, 4]]\n"


def test_a_main_module_without_a_guard_is_told_plainly(tmp_path):
    """Every worker would start the process again when it imports it."""
    with program(
        tmp_path,
        """
        from procession import Process, WorkersUnavailableError
        process = Process("unguarded", "parallel", 2, executor="processes")
        process.add_task(int, "1")
        try:
            process.execute()
        except WorkersUnavailableError as error:
            print("told:", error)
            raise SystemExit(1)
    """,
    ) as child:
        out, _ = child.communicate(timeout=50)
    assert "before it could take a task" in out
    assert out.count('put that under if __name__ == "__main__":') == 2  # here, and in a worker
    assert "\\n" not in out


@posix
def test_ctrl_c_lets_what_runs_in_workers_end_and_starts_nothing_new(tmp_path):
    """It reaches the whole group, as in a terminal; workers say nothing of it."""
    with program(
        tmp_path,
        PROGRAM
        + """
        process.add_task(errands.listen, "listens")
        process.add_task(errands.listen, "listens too")
        for _ in range(1000):
            process.add_task(errands.noted, ".", "after")
        try:
            process.execute()
        except KeyboardInterrupt:
            print("interrupted", process.status, process.last_run.status)
            print({outcome.state for outcome in process.last_run.outcomes})
    """,
    ) as child:
        wait_for(tmp_path / "listens")
        wait_for(tmp_path / "listens too")
        os.killpg(child.pid, signal.SIGINT)
        out, complaints = child.communicate(timeout=50)
    assert (out, complaints) == ("interrupted failed cancelled\n{'cancelled'}\n", "")
    assert called(tmp_path, "told") == 2
    assert called(tmp_path, "after") == 0


@posix
def test_a_second_ctrl_c_leaves_at_once_and_takes_the_workers_along(tmp_path):
    """A task that does not listen keeps nobody."""
    with program(
        tmp_path,
        PROGRAM
        + """
        process.add_task(errands.say_pid_and_sleep, "deaf")
        process.add_task(errands.listen, "listens")
        try:
            process.execute()
        except KeyboardInterrupt:
            print("interrupted", process.status)
            print(Process("another", executor="processes").execute())
    """,
    ) as child:
        wait_for(tmp_path / "deaf")
        wait_for(tmp_path / "listens")
        os.killpg(child.pid, signal.SIGINT)
        wait_for(tmp_path / "callstold")
        os.killpg(child.pid, signal.SIGINT)
        out, complaints = child.communicate(timeout=50)
    assert (out, complaints) == ("interrupted failed\n[]\n", "")
    assert not psutil.pid_exists(int((tmp_path / "deaf").read_text()))


@posix
def test_no_worker_outlives_a_parent_that_is_killed(tmp_path):
    """They are gone within seconds, whatever they do."""
    with program(
        tmp_path,
        PROGRAM
        + """
        process.add_task(errands.say_pid_and_sleep, "one")
        process.add_task(errands.listen, "two")
        process.execute()
    """,
    ) as child:
        workers = []
        for name in "one", "two":
            wait_for(tmp_path / name)
            workers.append(psutil.Process(int((tmp_path / name).read_text())))
        child.kill()
        child.communicate(timeout=50)
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert alive == []
