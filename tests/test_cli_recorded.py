"""Commands about recorded runs, as a person meets them."""

import re
import signal
import subprocess
import sys

import pytest

PIPELINE = """
import logging, os, threading
from procession import Process, current_task

def work(number):
    print("called", number, flush=True)
    logging.getLogger("app").info("works on %d\\nand more \\x1b[31m", number)
    logging.getLogger("app").debug("nobody wants to know")
    if number == 3 and not os.path.exists("mended"):
        raise ValueError("three is broken")
    return number

def build():
    process = Process("pipe", "hybrid", 2)
    for number in range(6):
        process.add_task(work, number)
    return process

def wait(number):
    print("ready", flush=True)
    current_task().sleep(50)

def waiting():
    process = Process("waiting", "parallel", 1)
    for number in range(3):
        process.add_task(wait, number)
    return process

def mapped():
    process = Process("mapped", on_error=os.environ.get("POLICY", "stop"))
    process.add_task(len, "four")
    process.map(work, [3, 1, 3, 3])
    return process

def wait_at(number):
    print("ready" if number else "", flush=True)
    current_task().sleep(50 * number)

def half():
    process = Process("half", "hybrid", 1)
    process.add_task(work, 1)
    process.map(work, [0, 1])
    process.map(wait_at, [0, 1])
    process.add_task(mapped())
    return process

class Bomb:
    def __reduce__(self):
        return explode, ()

def explode():
    print("unpickled", flush=True)
    return 1

def bombs():
    process = Process("bombs")
    process.add_task(Bomb)
    return process
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pipeline.py").write_text(PIPELINE)
    return tmp_path


def procession(*arguments, cwd):
    command = [sys.executable, "-m", "procession", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, encoding="utf-8", timeout=50)


def called(done):
    return sorted(int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("called"))


def test_a_run_is_resumed_as_it_was_begun_from_any_folder(folder, tmp_path_factory):
    """In its own folder, with its own options; what ended well is not called again."""
    begun = procession("run", "pipeline.py:build", "--run-id", "a", "--strategy", "sequential", cwd=folder)
    assert (begun.returncode, called(begun)) == (1, [0, 1, 2, 3])
    (folder / "mended").touch()
    journal = str(folder / "runs.db")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    again = procession("resume", "a", "--journal", journal, cwd=elsewhere)
    assert (again.returncode, called(again)) == (0, [3, 4, 5]), again.stderr
    once_more = procession("resume", "a", "--journal", journal, cwd=elsewhere)
    assert (once_more.returncode, called(once_more)) == (0, [])


def test_a_run_whose_folder_is_gone_is_not_resumed_elsewhere(folder, tmp_path_factory):
    """It says which folder, in a line."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    journal = str(elsewhere / "runs.db")
    procession("run", "pipeline.py:bombs", "--run-id", "a", "--journal", journal, cwd=folder)
    folder.rename(folder.with_name("moved"))
    done = procession("resume", "a", "--journal", journal, cwd=elsewhere)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"procession: run a was begun in {str(folder)!r}: No such file or directory\n"


def test_runs_and_show_tell_how_runs_stand(folder):
    """Each in a table; failures with their tracebacks when asked for."""
    procession("run", "pipeline.py:build", "--run-id", "first", cwd=folder)
    (folder / "mended").touch()
    procession("run", "pipeline.py:build", "--run-id", "second", cwd=folder)
    runs = procession("runs", cwd=folder)
    assert runs.returncode == 0
    assert [line.split()[:3] for line in runs.stdout.splitlines()] == [
        ["run", "process", "status"],
        ["second", "pipe", "completed"],
        ["first", "pipe", "failed"],
    ]
    assert [line.partition("ValueError: ")[2] for line in runs.stdout.splitlines()] == ["", "", "three is broken"]
    show = procession("show", "first", cwd=folder)
    assert "ValueError: three is broken" in show.stdout
    assert "Traceback" not in show.stdout
    failed = procession("show", "first", "--failed", cwd=folder)
    assert "Traceback (most recent call last)" in failed.stdout
    assert "completed" not in failed.stdout


def test_what_failed_tasks_logged_is_shown(folder):
    """The command line keeps it in each run that is recorded, from the level of its log on, and spells escapes out."""
    procession("run", "pipeline.py:build", "--run-id", "quiet", cwd=folder)
    procession("run", "pipeline.py:build", "--run-id", "told", "--log-level", "info", cwd=folder)
    procession("run", "pipeline.py:build", "--run-id", "json", "--log-format", "json", cwd=folder)
    assert "it logged" not in procession("show", "quiet", "--failed", cwd=folder).stdout
    for run in "told", "json":
        _, _, logged = procession("show", run, "--failed", cwd=folder).stdout.partition("it logged:\n")
        assert [line.partition("Z ")[2] or line for line in logged.splitlines()] == [
            "INFO app: works on 3",
            "    and more \\x1b[31m",
        ]


def test_failed_elements_of_a_map_are_shown(folder, monkeypatch):
    """Each with its traceback and its log; of many, so many as are asked for, and how many more there are."""
    monkeypatch.setenv("POLICY", "return")
    assert procession("run", "pipeline.py:mapped", "--run-id", "a", "--log-level", "info", cwd=folder).returncode == 1
    failed = procession("show", "a", "--failed", cwd=folder).stdout
    assert [line.split()[0] for line in failed.splitlines() if " map of work " in line] == ["1", "1.0", "1.2", "1.3"]
    for element in 0, 2, 3:
        _, _, said = failed.partition(f"\n1.{element} map of work\n")
        assert said.startswith("ValueError: three is broken\n\nTraceback (most recent call last):\n")
        said = said.partition("\n1.")[0]
        assert f"task 1 (map of work), element {element}, attempt 1" in said
        assert "it logged:\n" in said and "INFO app: works on 3" in said
    assert failed.count("Traceback") == 3
    few = procession("show", "a", "--failed", "--limit", "2", cwd=folder).stdout
    assert few.count("Traceback") == 1
    assert "… and 2 more: see --limit" in few


def test_a_map_that_failed_by_an_element_is_told_once(folder):
    """By the element, whose log stands with it."""
    assert procession("run", "pipeline.py:mapped", "--run-id", "a", cwd=folder).returncode == 1
    failed = procession("show", "a", "--failed", cwd=folder).stdout
    assert failed.count("Traceback") == 1
    assert "\n1.0 map of work\n" in failed


def test_the_error_of_a_run_is_shown_line_by_line(folder):
    """As it was raised: its own line, and the note that says where, each made harmless."""
    procession("run", "pipeline.py:build", "--run-id", "a", "--strategy", "sequential", cwd=folder)
    head = procession("show", "a", cwd=folder).stdout.splitlines()[:3]
    assert head[0] == "a of process pipe: failed, executed once, 4 of 6 tasks ended, 1 failed"
    assert head[1:] == ["ValueError: three is broken", "in process 'pipe', task 3 (work), attempt 1"]


def states(show):
    """Return the place, name and state of each task that is shown."""
    rows = show.partition("#  task")[2].partition("\n\n")[0].splitlines()[1:]
    return [
        re.match(r"(\d+) +(\S.*?)  +(completed|failed|running|waiting|interrupted|never begun)", row).groups()
        for row in rows
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_tasks_that_have_not_ended_are_shown(folder):
    """With their names and states, while the run goes on and after it was killed; of many, as many as are asked for."""
    command = [sys.executable, "-m", "procession", "run", "pipeline.py:half", "--run-id", "a"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as running:
        try:
            while running.stdout.readline() != "ready\n":
                pass
            show = _until(lambda: procession("show", "a", cwd=folder).stdout, "running: 2 map of wait_at")
        finally:
            running.kill()
    ended = [("0", "work", "completed"), ("1", "map of work", "completed")]
    assert states(show) == [*ended, ("2", "map of wait_at", "running"), ("3", "mapped", "waiting")]
    show = procession("show", "a", cwd=folder).stdout
    assert states(show) == [*ended, ("2", "map of wait_at", "interrupted"), ("3", "mapped", "never begun")]
    assert "running: " not in show
    assert show.startswith("a of process half: interrupted, executed once, 4 of 6 tasks ended\n")
    few = procession("show", "a", "--limit", "3", cwd=folder).stdout
    assert "… and 1 more: see --limit" in few
    assert "mapped" not in few


def test_a_map_of_which_only_a_part_is_recorded_was_interrupted(folder):
    """Also where the run itself has said how it ended."""
    (folder / "pipeline.py").write_text(
        PIPELINE.replace("current_task().sleep(50 * number)", "number and part()")
        + """
def part():
    whole.last_run.cancel()
    current_task().sleep(50)

whole = half()
"""
    )
    assert procession("run", "pipeline.py:whole", "--run-id", "a", cwd=folder).returncode == 3
    assert states(procession("show", "a", cwd=folder).stdout)[2:] == [
        ("2", "map of wait_at", "interrupted"),
        ("3", "mapped", "never begun"),
    ]


def test_a_run_is_cancelled_from_another_process(folder):
    """It ends as cancelled, and can be gone on with."""
    command = [sys.executable, "-m", "procession", "run", "pipeline.py:waiting", "--run-id", "a"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout.readline() == "ready\n"
            assert "running: 0 wait" in _until(lambda: procession("show", "a", cwd=folder).stdout, "running: ")
            asked = procession("cancel", "a", cwd=folder)
            assert (asked.returncode, asked.stdout) == (0, "run a was asked to stop\n")
            _, complaints = running.communicate(timeout=30)
        finally:
            running.kill()
    assert running.returncode == 3
    assert "waiting: cancelled in" in complaints
    assert "Traceback" not in complaints
    assert procession("runs", cwd=folder).stdout.splitlines()[1].split()[2] == "cancelled"
    assert procession("cancel", "a", cwd=folder).returncode == 1


def test_a_run_that_another_process_executes_is_told_in_a_line(folder):
    """Who that is, and no traceback."""
    command = [sys.executable, "-m", "procession", "run", "pipeline.py:waiting", "--run-id", "a"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout.readline() == "ready\n"
            for again in (["run", "pipeline.py:waiting", "--run-id", "a"], ["resume", "a"]):
                done = procession(*again, cwd=folder)
                assert (done.returncode, done.stdout) == (1, "")
                assert done.stderr.startswith(f"procession: run 'a' is being executed by process {running.pid}")
                assert done.stderr.count("\n") == 1, done.stderr
        finally:
            running.kill()


def test_a_run_whose_definition_has_changed_is_refused_in_a_line(folder):
    """The difference is named, and no traceback shown."""
    procession("run", "pipeline.py:build", "--run-id", "a", cwd=folder)
    done = procession("run", "pipeline.py:bombs", "--run-id", "a", cwd=folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert "the process was called 'pipe', now 'bombs'" in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def test_a_journal_that_fails_while_the_run_goes_on_is_told_in_a_line(folder):
    """Above the summary; which of the tasks it was that could not be recorded is no matter of theirs."""
    procession("run", "pipeline.py:build", "--run-id", "a", cwd=folder)
    (folder / "spoil.py").write_text(
        "import sqlite3\nfrom procession import Process\n\n"
        "def spoil():\n"
        "    with sqlite3.connect('runs.db') as journal:\n"
        "        journal.execute('DROP TABLE procession_records')\n\n"
        "process = Process('spoil')\nprocess.add_task(spoil)\n"
    )
    done = procession("run", "spoil.py:process", "--run-id", "b", cwd=folder)
    assert done.returncode == 1
    assert "\nprocession: the journal" in done.stderr
    assert "no such table" in done.stderr
    assert "Traceback" not in done.stderr
    assert "spoil: failed in" in done.stderr


def _until(look, word):
    for _ in range(40):
        if word in (text := look()):
            return text
    raise AssertionError(text)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_run_whose_process_was_killed_is_shown_as_interrupted_and_resumed(folder):
    """At once: its process is gone."""
    command = [sys.executable, "-m", "procession", "run", "pipeline.py:waiting", "--run-id", "a"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout.readline() == "ready\n"
        running.send_signal(signal.SIGKILL)
    assert procession("runs", cwd=folder).stdout.splitlines()[1].split()[2] == "interrupted"
    command = [sys.executable, "-m", "procession", "resume", "a"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout.readline() == "ready\n"
        running.send_signal(signal.SIGKILL)


def test_nothing_is_unpickled_to_be_shown(folder):
    """A value that would run code when it is read is shown as a row like others."""
    assert procession("run", "pipeline.py:bombs", "--run-id", "a", cwd=folder).stdout.count("unpickled") == 1
    for command in ["runs"], ["show", "a"]:
        done = procession(*command, cwd=folder)
        assert done.returncode == 0
        assert "unpickled" not in done.stdout


def test_a_run_begun_by_a_program_says_how(folder):
    """Nobody guesses how to call it."""
    (folder / "program.py").write_text(PIPELINE + "\nbombs().execute(run_id='a', journal='runs.db')\n")
    subprocess.run([sys.executable, "program.py", "--an-option"], cwd=folder, check=True, timeout=50)
    done = procession("resume", "a", cwd=folder)
    assert done.returncode == 1
    assert "program.py --an-option" in done.stderr
    assert "run_id='a'" in done.stderr


def test_runs_are_pruned(folder):
    """By id or by age; what is not there is told."""
    for name in "abc":
        procession("run", "pipeline.py:bombs", "--run-id", name, "--journal", "other.db", cwd=folder)
    assert procession("prune", "a", "--journal", "other.db", cwd=folder).stdout == "deleted a\n"
    assert procession("prune", "--older-than", "1", "--journal", "other.db", cwd=folder).stdout == "deleted 0 runs\n"
    left = procession("runs", "--journal", "other.db", cwd=folder).stdout.splitlines()[1:]
    assert [line.split()[0] for line in left] == ["c", "b"]
    missing = procession("prune", "a", "--journal", "other.db", cwd=folder)
    assert (missing.returncode, missing.stderr) == (1, "procession: the journal has no run 'a'\n")
    assert procession("prune", "--journal", "other.db", cwd=folder).returncode == 2


@pytest.mark.parametrize("command", [["runs"], ["show", "a"], ["resume", "a"], ["cancel", "a"], ["prune", "a"]])
def test_a_journal_that_is_not_there_is_told_and_not_made(folder, command):
    """By its path."""
    done = procession(*command, cwd=folder)
    assert done.returncode == 1
    assert f"there is no journal {str(folder / 'runs.db')!r}" in done.stderr
    assert not (folder / "runs.db").exists()
