"""Real crashes, at every point where one could matter and at random ones."""

import random
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from procession import Process, task
from procession.testing import crash_everywhere

ROOT = Path(__file__).parents[1]


def double(number):
    return number * 2


def chance():
    return random.random()


def small():
    """A process of everything there is: in order, at once, handles, a map, a nested process, retries."""
    inner = Process("inner", "parallel", 2)
    inner.add_task(double, 1)
    inner.add_task(double, 2)
    process = Process("small", "hybrid", 2)
    numbers = process.task(list, range(3))
    process.add_task(task(retries=1)(double), 4)
    doubled = process.map(double, numbers)
    process.add_task(sum, doubled)
    process.add_task(inner)
    return process


@pytest.mark.timeout(170)
def test_a_crash_after_any_write_loses_nothing_and_repeats_nothing_recorded():
    """Resumed, the process has the results of an undisturbed run."""
    report = crash_everywhere(small)
    assert report.results == [[0, 1, 2], 8, [0, 2, 4], 6, [2, 4]]
    assert report.crashes >= 5


def test_what_differs_from_run_to_run_is_found():
    """A process whose results hang on chance, or on what it left behind, is no process to be resumed."""

    def build():
        process = Process("chance")
        process.add_task(chance)
        process.add_task(double, 1)
        return process

    with pytest.raises(AssertionError, match="after crash 1 a resumed run gave"):
        crash_everywhere(build)


def test_a_process_that_fails_is_told_with_its_traceback():
    """Not taken for a crash."""

    def build():
        process = Process("fails")
        process.add_task(int, "x")
        return process

    with pytest.raises(AssertionError, match="invalid literal for int"):
        crash_everywhere(build)


class Lookalike:
    def execute(self, **_):
        return [1]


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        (Process("built"), TypeError, "takes a function that builds .*; got an object of type Process.*def build"),
        (None, TypeError, "takes a function that builds .*; got None"),
        (dict, TypeError, "build_process is to return a Process; it returned an object of type dict"),
        (Lookalike, TypeError, "build_process is to return a Process; it returned an object of type Lookalike"),
        (partial(Process, "empty"), ValueError, "has no tasks, so no crash of it was tested"),
    ],
)
def test_what_builds_no_process_to_crash_is_told(wrong, error, said):
    """A test of nothing does not pass."""
    with pytest.raises(error, match=said):
        crash_everywhere(wrong)


@pytest.mark.timeout(170)
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_killed_at_random_instants_nothing_is_lost_or_done_twice(where, tmp_path):
    """A short run of the script that anyone can run for longer."""
    command = [sys.executable, str(ROOT / "benchmarks" / "kill_loop.py"), "8", "--journal", where]
    done = subprocess.run(command, capture_output=True, text=True, timeout=160, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 recorded calls lost, 0 recorded calls made again, journal corrupt after 0 kills" in done.stdout
