"""Commands about recorded runs, as a person meets them."""

import io
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import chdir, closing, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import psycopg
import pytest

from procession.cli.main import main

posix = pytest.mark.skipif(os.name != "posix", reason="owners and modes of files are POSIX's")
root = pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs to be root to act as another user")

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
    """Give a command, and return what it came to. One that calls no task of ours needs no interpreter of its own."""
    if arguments[0] in ("run", "resume"):
        command = [sys.executable, "-m", "procession", *arguments]
        return subprocess.run(command, cwd=cwd, capture_output=True, encoding="utf-8", timeout=50)
    with chdir(cwd), redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        status = main(arguments)
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())


def called(done):
    return sorted(int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("called"))


def test_a_run_is_resumed_as_it_was_begun_from_any_folder(folder, tmp_path_factory):
    """In its own folder, with its own options; what succeeded is not called again."""
    begun = procession("run", "pipeline.py:build", "--run-id", "a", "--strategy", "sequential", cwd=folder)
    assert (begun.returncode, called(begun)) == (1, [0, 1, 2, 3])
    (folder / "mended").touch()
    journal = str(folder / "runs.db")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    again = procession("resume", "a", "--journal", journal, cwd=elsewhere)
    assert (again.returncode, called(again)) == (0, [3, 4, 5]), again.stderr
    once_more = procession("resume", "a", "--journal", journal, cwd=elsewhere)
    assert (once_more.returncode, called(once_more)) == (0, [])


@pytest.mark.parametrize("address", ["runs.db", "sqlite:///runs.db", "sqlite+pysqlite:///./runs.db?timeout=5"])
def test_a_relative_address_of_a_journal_means_the_folder_of_the_command(address, folder, tmp_path_factory):
    """Be the run begun in another folder, and change the process the folder as it is loaded."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    path = folder / "pipeline.py"
    path.write_text(path.read_text() + f"\nimport os; os.chdir({str(tmp_path_factory.mktemp('third'))!r})\n")
    begun = procession(
        "run", f"{path}:build", "--run-id", "a", "--strategy", "sequential", "--journal", address, cwd=elsewhere
    )
    assert (begun.returncode, called(begun)) == (1, [0, 1, 2, 3]), begun.stderr
    assert (elsewhere / "runs.db").exists()
    again = procession("resume", "a", "--journal", address, cwd=elsewhere)
    assert (again.returncode, called(again)) == (1, [3]), again.stderr
    assert procession("runs", "--journal", address, cwd=elsewhere).stdout.splitlines()[1].split()[:2] == ["a", "pipe"]


def test_a_run_whose_folder_is_gone_is_not_resumed_elsewhere(folder, tmp_path_factory):
    """It says which folder, in a line."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    journal = str(elsewhere / "runs.db")
    procession("run", "pipeline.py:bombs", "--run-id", "a", "--journal", journal, cwd=folder)
    folder.rename(folder.with_name("moved"))
    done = procession("resume", "a", "--journal", journal, cwd=elsewhere)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"procession: run a was begun in {str(folder)!r}: No such file or directory\n"


# Runs that somebody else may have begun


@pytest.fixture
def handed_over(folder, monkeypatch):
    """Return what changes how a run of a journal was begun, and then resumes it."""
    (folder / "mine").mkdir()
    (folder / "mine" / "other.py").write_text(PIPELINE)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["procession", "run", "pipeline.py:build"])
    monkeypatch.setattr("sys.path", [*sys.path])
    unload()
    assert main(["run", "pipeline.py:build", "--run-id", "a"]) == 1

    def resume(*arguments, **origin):
        with closing(sqlite3.connect("runs.db")) as connection, connection:
            (text,) = connection.execute("SELECT origin FROM procession_runs").fetchone()
            connection.execute("UPDATE procession_runs SET origin = ?", [json.dumps(json.loads(text) | origin)])
        unload()
        return main(["resume", "a", *arguments])

    yield resume
    unload()


def unload():
    for name in "pipeline", "other":
        sys.modules.pop(name, None)


CHANGES = [
    {"argv": ["procession", "run", "mine/other.py:build"]},
    {"argv": ["procession", "run", "pipeline.py:bombs"]},
    {"argv": ["procession", "run", "pipeline.py:build", "--timeline", "mine.svg"]},
    {"folder": "mine", "argv": ["procession", "run", "other.py:build"]},
    {"mark": ""},
    {"mark": "0" * 64},
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_journal_says_is_not_run_unless_the_caller_has_begun_it(handed_over, folder, capsys, change):
    """Neither is its file loaded; what would be run is said."""
    if "folder" in change:
        change = change | {"folder": str(folder / change["folder"])}
    capsys.readouterr()
    assert handed_over(**change) == 1
    out, said = capsys.readouterr()
    assert (out, [name for name in ("pipeline", "other") if name in sys.modules]) == ("", [])
    command = change.get("argv", ["procession", "run", "pipeline.py:build"])
    file = folder / ("mine/other.py" if "other" in command[2] else "pipeline.py")
    assert f"runs {command[2].partition(':')[2]} of {file}, in {change.get('folder', folder)}" in said
    assert f"  {' '.join(command)}" in said
    assert "nothing shows that you began this run" in said
    assert "say --yes" in said


def test_a_run_of_another_id_is_not_one_that_the_caller_has_begun(handed_over, folder, capsys):
    """A mark is of one run."""
    with closing(sqlite3.connect("runs.db")) as connection, connection:
        connection.execute("UPDATE procession_runs SET id = 'b'")
    unload()
    assert main(["resume", "b"]) == 1
    assert "nothing shows that you began this run" in capsys.readouterr().err
    assert "pipeline" not in sys.modules


def test_who_says_yes_resumes_what_the_journal_says(handed_over, folder, capsys):
    """And is told what that is."""
    (folder / "mended").touch()
    assert handed_over("--yes", mark="") == 0
    out, said = capsys.readouterr()
    assert f"runs build of {folder / 'pipeline.py'}" in said and "called 3" in out


@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("yes\n", 0), ("\n", 1), ("n\n", 1), ("", 1)])
def test_on_a_terminal_it_is_asked_for(handed_over, folder, capsys, monkeypatch, answer, status):
    """What is not yes is no."""
    (folder / "mended").touch()
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    capsys.readouterr()
    assert handed_over(mark="") == status
    out, said = capsys.readouterr()
    assert "trust the values in the journal? [y/N]" in said
    assert ("called 3" in out) == (status == 0)  # what was beside it may have ended before


class Terminal(io.StringIO):
    def isatty(self):
        return True


@root
@pytest.mark.parametrize("place", ["pipeline.py", "."])
def test_a_file_or_folder_of_somebody_else_is_named(handed_over, folder, capsys, place):
    """Though the caller has begun the run there."""
    os.chown(folder / place, 65534, 65534)
    assert handed_over() == 1
    said = capsys.readouterr().err
    assert str(folder / place) in said and "belongs to user 65534" in said


@posix
def test_a_file_that_anybody_can_write_to_is_named(handed_over, folder, capsys):
    """Though the caller has begun the run there."""
    (folder / "pipeline.py").chmod(0o646)
    assert handed_over() == 1
    assert f"every user can write to {folder / 'pipeline.py'}" in capsys.readouterr().err


@posix
@pytest.mark.parametrize("spoil", [lambda key: key.chmod(0o644), lambda key: key.write_bytes(b"short"), Path.unlink])
def test_a_key_that_is_not_the_callers_alone_shows_nothing(handed_over, monkeypatch, tmp_path, capsys, spoil):
    """The run is asked about, and the next one begins all the same."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    unload()
    main(["run", "pipeline.py:build", "--run-id", "b"])
    spoil(tmp_path / "state" / "procession" / "key")
    unload()
    capsys.readouterr()
    assert main(["resume", "b"]) == 1
    assert "nothing shows that you began this run" in capsys.readouterr().err
    assert main(["run", "pipeline.py:build", "--run-id", "c"]) == 1
    assert "called 3" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--none"], ["--help"], ["a", "b", "\x1b[31m"]])
def test_a_recorded_command_line_that_means_nothing_is_told_in_a_line(handed_over, capsys, words):
    """And not what each of its words means."""
    capsys.readouterr()
    assert handed_over(argv=["procession", "run", *words]) == 1
    out, said = capsys.readouterr()
    assert (out, said.count("\n")) == ("", 1)
    assert "no command line here" in said and "\x1b" not in said


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
        re.match(r"(\d+) +(\S.*?)  +(completed|failed|running|waiting|interrupted|not started)", row).groups()
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
    assert states(show) == [*ended, ("2", "map of wait_at", "interrupted"), ("3", "mapped", "not started")]
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
        ("3", "mapped", "not started"),
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
    """Who that is, and no traceback; with a status of its own, that no failure has."""
    command = [sys.executable, "-m", "procession", "run", "pipeline.py:waiting", "--run-id", "a"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout.readline() == "ready\n"
            for again in (["run", "pipeline.py:waiting", "--run-id", "a"], ["resume", "a"], ["prune", "a"]):
                done = procession(*again, cwd=folder)
                assert (done.returncode, done.stdout) == (75, "")
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
    until = time.monotonic() + 20
    while word not in (text := look()):
        assert time.monotonic() < until, text
        time.sleep(0.05)
    return text


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
    """Nobody guesses how to call it; its arguments, which may be secrets, are not kept."""
    (folder / "program.py").write_text(PIPELINE + "\nbombs().execute(run_id='a', journal='runs.db')\n")
    subprocess.run([sys.executable, "program.py", "--an-option"], cwd=folder, check=True, timeout=50)
    done = procession("resume", "a", cwd=folder)
    assert done.returncode == 1
    assert "but by: program.py\n" in done.stderr
    assert "run_id='a'" in done.stderr


@posix
def test_all_runs_that_were_interrupted_are_resumed_together(folder):
    """Those that were killed, and neither those that go on, nor those that have failed, nor what others have begun."""
    for name in ("a", "b", "going"):
        command = [sys.executable, "-m", "procession", "run", "pipeline.py:waiting", "--run-id", name]
        child = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
        assert child.stdout.readline() == "ready\n"
        if name != "going":
            child.kill()
            child.communicate()
    procession("run", "pipeline.py:build", "--run-id", "failed", cwd=folder)
    pipeline = folder / "pipeline.py"
    pipeline.write_text(pipeline.read_text().replace("current_task().sleep(50)", "pass"))
    done = procession("resume", "--interrupted", cwd=folder)
    assert (done.returncode, done.stdout.split()) == (0, ["ready"] * 6)
    assert [line for line in done.stderr.splitlines() if "resuming" in line] == [
        "procession: resuming a",
        "procession: resuming b",
    ]
    rows = procession("runs", cwd=folder).stdout
    assert re.findall(r"^(\w+) +\w+ +(\w+)", rows, re.MULTILINE)[1:] == [
        ("failed", "failed"),
        ("going", "running"),
        ("b", "completed"),
        ("a", "completed"),
    ]
    assert procession("resume", "--interrupted", cwd=folder).stdout == ""
    assert procession("resume", cwd=folder).returncode == 2
    child.kill()
    child.communicate()


def test_a_run_is_resumed_without_the_password_that_it_was_begun_with(folder, postgres, tmp_path_factory):
    """No address is recorded; the one that resumes it may leave the password to the environment."""
    address = postgres.new_database()
    begun = procession(
        *("run", "pipeline.py:build", "--run-id=-a", "--strategy", "sequential", "--log-level", "error"),
        f"--jour={address.replace('procession@', 'procession:hunter2@')}",
        cwd=folder,
    )
    assert (begun.returncode, called(begun)) == (1, [0, 1, 2, 3]), begun.stderr
    with psycopg.connect(address) as connection:
        ((origin,),) = connection.execute("SELECT origin FROM procession_runs").fetchall()
    command = ["procession", "run", "pipeline.py:build", "--run-id=-a", "--strategy=sequential", "--log-level=error"]
    begun_by = json.loads(origin)
    assert (begun_by["argv"], begun_by["folder"]) == (command, str(folder))
    (folder / "mended").touch()
    again = procession("resume", "--journal", address, "--", "-a", cwd=tmp_path_factory.mktemp("elsewhere"))
    assert (again.returncode, called(again)) == (0, [3, 4, 5]), again.stderr


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


SCRIPT = (
    PIPELINE
    + """
process = build()
process.strategy = "sequential"
process.execute(run_id='a', journal='runs.db')
"""
)


def begin_by_script(folder, *arguments, script=SCRIPT):
    (folder / "program.py").write_text(script)
    subprocess.run([sys.executable, "program.py", *arguments], cwd=folder, timeout=50, capture_output=True)


def test_a_run_begun_by_a_script_is_resumed_by_running_it_again(folder, tmp_path_factory):
    """From any folder; what succeeded is not called again."""
    begin_by_script(folder)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    journal = str(folder / "runs.db")
    again = procession("resume", "a", "--journal", journal, cwd=elsewhere)
    assert (again.returncode, called(again)) == (1, [3]), again.stderr
    (folder / "mended").touch()
    again = procession("resume", "a", "--journal", journal, cwd=elsewhere)
    assert (again.returncode, called(again)) == (0, [3, 4, 5]), again.stderr


def test_a_script_that_does_not_execute_the_run_again_is_told(folder):
    """As one that has another run id each time."""
    begin_by_script(folder)
    (folder / "program.py").write_text("print('hello')")
    done = procession("resume", "a", cwd=folder)
    assert (done.returncode, done.stdout) == (1, "hello\n")
    assert "program.py exited without an error, but did not execute run a again" in done.stderr
    (folder / "program.py").unlink()
    assert "program.py', which is not there" in procession("resume", "a", cwd=folder).stderr.replace("py,", "py',")


def test_a_script_that_somebody_else_may_have_written_into_the_journal_is_not_run(folder, tmp_path_factory):
    """Without a word that says so."""
    begin_by_script(folder)
    other = tmp_path_factory.mktemp("other") / "program.py"
    other.write_text("print('evil')")
    with closing(sqlite3.connect(folder / "runs.db")) as connection, connection:
        origin = json.dumps({"argv": [str(other)], "folder": str(folder), "arguments": 0})
        connection.execute("UPDATE procession_runs SET origin = ?", [origin])
    done = procession("resume", "a", cwd=folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert "nothing shows that you began this run" in done.stderr and f"python {other}" in done.stderr
