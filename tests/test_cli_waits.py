"""Runs that wait, on the command line: how they are shown, answered and gone on with."""

import json
import shlex
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

PIPELINE = """
from procession import Process, current_task

def publish(text):
    print("called", flush=True)
    return text, current_task().wait_for("approval", timeout=3600)

def remind(text):
    current_task().sleep(86400)
    return text

def both(texts):
    return current_task().wait_for("approval")

def build(what="publish"):
    process = Process(what, "parallel", 2)
    if what == "map":
        process.map(both, ["a", "b"])
    else:
        process.add_task(publish if what == "publish" else remind, "rain")
        process.add_task(len, "four")
    return process
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pipeline.py").write_text(PIPELINE)
    return tmp_path


def procession(*arguments, cwd):
    command = [sys.executable, "-m", "procession", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=50)


def begin(folder, run_id, *words):
    return procession("run", "pipeline.py:build", "--run-id", run_id, *words, cwd=folder)


def pass_time(folder):
    with closing(sqlite3.connect(folder / "runs.db")) as connection, connection:
        connection.execute("UPDATE procession_waits SET due = 1 WHERE due IS NOT NULL")


def test_a_run_that_waits_is_shown_answered_and_resumed(folder):
    """Its exit status is 4 until it has its answer, which is JSON or else a text."""
    first = begin(folder, "news")
    assert first.returncode == 4, first.stderr
    assert "procession: run news" in first.stderr.replace("'", "")
    assert "waits for 'approval'" in first.stderr
    assert "Traceback" not in first.stderr
    assert "suspended" in first.stderr
    again = procession("resume", "news", cwd=folder)
    assert (again.returncode, again.stdout) == (4, "called\n")
    [_, row] = procession("runs", cwd=folder).stdout.splitlines()
    assert row.split()[:4] == ["news", "publish", "suspended", "1/2"]
    assert row.endswith("waits for 'approval'")
    show = procession("show", "news", cwd=folder).stdout
    assert show.startswith("news of process publish: suspended, executed 2 times, 1 of 2 tasks ended\n")
    assert "news, task 0 waits for 'approval' since " in show
    assert "suspended" in show.splitlines()[-2]
    [wait] = json.loads(procession("show", "news", "--json", cwd=folder).stdout)["run"]["waits"]
    assert (wait["task"], wait["name"], wait["answered"]) == (0, "approval", False)
    answered = procession("answer", "news", "approval", "yes, do", cwd=folder)
    assert answered.stdout == "run news has its answer approval, and is resumed with: procession resume news\n"
    assert "waits for 'approval' (answered)" in procession("runs", cwd=folder).stdout
    done = procession("resume", "news", cwd=folder)
    assert (done.returncode, done.stdout) == (0, "called\n")
    assert procession("runs", cwd=folder).stdout.splitlines()[1].split()[2] == "completed"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["other", "approval", "1"], "no run 'other'"),
        (["news", "review", "1"], "run 'news' does not wait for 'review'; it waits for 'approval' in task 0"),
        (
            ["news", "approval", "1", "--task", "1"],
            "run 'news' does not wait for 'approval' in task 1; it waits for 'approval' in task 0",
        ),
    ],
)
def test_an_answer_that_nothing_waits_for_is_refused_in_a_line(folder, words, said):
    begin(folder, "news")
    done = procession("answer", *words, cwd=folder)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_answer_is_given_once(folder):
    begin(folder, "news")
    assert procession("answer", "news", "approval", '{"by": "Ann"}', cwd=folder).returncode == 0
    done = procession("answer", "news", "approval", "false", cwd=folder)
    assert (done.returncode, done.stderr) == (1, "procession: run 'news' has been given 'approval' already\n")


def test_who_answers_is_told_what_resumes_the_run(folder):
    """A command that finds the journal; none for a program whose arguments nobody knows."""
    begin(folder, "news", "--journal", "the news.db")
    answered = procession("answer", "news", "approval", "yes", "--journal", "the news.db", cwd=folder)
    command = answered.stdout.partition("is resumed with: ")[2]
    assert command == "procession resume news --journal 'the news.db'\n"
    done = procession(*shlex.split(command)[1:], cwd=folder)
    assert (done.returncode, done.stdout) == (0, "called\n")
    script = "from pipeline import build\nbuild().execute(run_id='later', journal='runs.db')\n"
    (folder / "later.py").write_text(script)
    subprocess.run([sys.executable, "later.py", "argument"], cwd=folder, capture_output=True, timeout=50)
    answered = procession("answer", "later", "approval", "yes", cwd=folder)
    assert answered.stdout == "run later has its answer approval, and is resumed when its program executes it again\n"
    assert procession("resume", "later", cwd=folder).returncode == 1


def test_which_of_several_is_answered_has_to_be_said(folder):
    begin(folder, "both", "--what", "map")
    done = procession("answer", "both", "approval", "1", cwd=folder)
    assert done.returncode == 1
    assert "several in run 'both' wait for 'approval': task 0.0 of run 'both', task 0.1 of run 'both'" in done.stderr
    assert procession("answer", "both", "approval", "1", "--element", "1", cwd=folder).returncode == 0
    assert procession("answer", "both", "approval", "1", "--task", "0", cwd=folder).returncode == 0
    assert procession("resume", "both", cwd=folder).returncode == 0


def test_runs_that_have_their_answers_are_resumed_together(folder):
    """And no others; one that waits again is none that failed."""
    for run_id in "one", "two", "three":
        begin(folder, run_id)
    assert procession("resume", "--answered", cwd=folder).stdout == ""
    procession("answer", "two", "approval", "1", cwd=folder)
    done = procession("resume", "--answered", cwd=folder)
    assert (done.returncode, done.stdout) == (0, "called\n")
    assert "resuming two" in done.stderr
    assert [row.split()[2] for row in procession("runs", cwd=folder).stdout.splitlines()[1:]] == [
        "suspended",
        "completed",
        "suspended",
    ]


SCRIPT = """
from pipeline import build
print(build().execute(run_id="scripted", journal="runs.db"))
"""


def test_a_run_that_a_script_began_waits_again_and_goes_on(folder):
    """Though the script catches nothing, and ends with the error that says so."""
    (folder / "script.py").write_text(SCRIPT)
    assert subprocess.run([sys.executable, "script.py"], cwd=folder, capture_output=True, timeout=50).returncode == 1
    assert procession("resume", "scripted", cwd=folder).returncode == 4
    procession("answer", "scripted", "approval", "7", cwd=folder)
    done = procession("resume", "--answered", cwd=folder)
    assert (done.returncode, done.stdout) == (0, "called\n[('rain', 7), 4]\n")


def test_runs_that_are_due_are_resumed_together(folder):
    """Those that have slept long enough, and those whose time for an answer is up, which fail here."""
    begin(folder, "asleep", "--what", "remind")
    begin(folder, "late")
    [_, late, asleep] = procession("runs", cwd=folder).stdout.splitlines()
    assert asleep.endswith("waits for its time")
    assert "asleep, task 0 sleeps since " in procession("show", "asleep", cwd=folder).stdout
    assert late.endswith("waits for 'approval'")
    assert procession("resume", "--due", cwd=folder).stderr == ""
    pass_time(folder)
    done = procession("resume", "--due", cwd=folder)
    assert done.returncode == 1
    assert "TaskTimeoutError" in done.stderr
    statuses = [row.split()[2] for row in procession("runs", cwd=folder).stdout.splitlines()[1:]]
    assert statuses == ["failed", "completed"]
    assert procession("resume", "--due", cwd=folder).stderr == ""
