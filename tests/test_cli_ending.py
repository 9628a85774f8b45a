"""What the command line says at the end of a run: what failed, how the run went, and what shows more."""

import sys

import pytest

from procession.cli.main import main

JOB = """
import asyncio, time
from procession import Process, task

def work(number):
    if number % 2:
        raise OSError(f"disk {number} is broken\\nhint: mend it")
    return number

def other(text):
    try:
        return int(text)
    except ValueError as error:
        raise LookupError("no such number") from error

@task(timeout=0.01)
async def late():
    await asyncio.sleep(50)

async def grouped():
    async with asyncio.TaskGroup():
        raise KeyError("own group")

def job(*calls, on_error="continue"):
    process = Process("job", "parallel", 2, on_error=on_error)
    for function, *args in calls:
        process.add_task(function, *args)
    return process

many = job((other, "x"), *[(abs, number) for number in range(7)])
many.map(work, range(30))
returned = job((other, "x"), on_error="return")
returned.map(work, range(30))
timed, group, well = job((late,)), job((grouped,)), job((abs, 1))
"""


@pytest.fixture
def run(monkeypatch, tmp_path, capfd):
    """Return a function that runs a process, and returns what is said on standard error."""
    (tmp_path / "job.py").write_text(JOB)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def give(name, *options, status=1):
        monkeypatch.delitem(sys.modules, "job", raising=False)
        assert main(["run", f"job.py:{name}", *options]) == status
        return capfd.readouterr().err

    yield give
    monkeypatch.delitem(sys.modules, "job", raising=False)


def test_like_failures_are_shown_once(run):
    """With one traceback, in which no frame is ours, and the places of some."""
    said = run("many")
    assert said.count("in work\n") == 1
    assert "OSError × 15, the first of them:\nTraceback" in said
    assert "The above exception was the direct cause" in said
    assert "src/procession" not in said and "ExceptionGroup:" not in said.partition("Traceback")[2]
    places = ", ".join(f"task 8.{number} (map of work)" for number in (1, 3, 5, 7, 9))
    assert f"\nOSError × 15 in {places} and 10 more: disk 1 is broken …\n" in said
    assert "\nLookupError in task 0 (other): no such number\n" in said


def test_few_slow_tasks_are_listed(run):
    """Five, the slowest first."""
    said = run("many")
    rows = said[said.index("\nslowest") + 1 :].splitlines()
    assert [row.split()[0] for row in rows[:1]] == ["slowest"]
    assert len(rows) == 6


def test_without_an_exception_there_is_no_traceback(run):
    """Failures that stand in the results are listed."""
    said = run("returned")
    assert "Traceback" not in said
    assert "OSError × 15 in task 1.1 (map of work)" in said and "LookupError in task 0 (other)" in said


def test_the_command_that_shows_more_is_named(run):
    """With the journal, unless it is the usual one; where none was recorded, there is none."""
    assert "→" not in run("many")
    assert run("many", "--run-id", "a b").endswith("\n→ procession show 'a b' --failed\n")
    assert run("many", "--run-id", "c", "--journal", "my.db").endswith(
        "\n→ procession show c --failed --journal my.db\n"
    )
    assert "→" not in run("well", "--run-id", "d", status=0)


def test_no_frame_of_ours_is_shown(run):
    """Where an error is the library's own, there is nothing but what it says."""
    said = run("timed")
    assert "procession.errors.TaskTimeoutError: task 0 (late) took longer than its timeout of 0.01 s" in said
    assert "_execution.py" not in said and "cli/main.py" not in said
    assert "own group" in run("group")


def test_the_log_says_why_a_task_failed(run):
    """In one line each, whatever the message has below its first."""
    said = run("many", "--log-format", "text").partition("Traceback")[0]
    assert "ERROR   job: task failed · task 0 (other) · attempt 1 · " in said
    assert " · LookupError: no such number\n" in said
    assert "\\n" not in said
