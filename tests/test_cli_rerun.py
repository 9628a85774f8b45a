"""`procession rerun`, as a person meets it."""

import re
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO

import pytest

from procession.cli.main import main
from procession.journal import Journal

INVOICE = """
import os
from procession import Process

def load():
    print("called load", flush=True)
    return 10

def convert(amount):
    print("called convert", flush=True)
    return amount * (3 if os.path.exists("mended") else 2)

def report(amount):
    print("called report", amount, flush=True)

def fetch(number):
    print("called fetch", number, flush=True)
    if number == 2 and not os.path.exists("mended"):
        raise ValueError("no")
    return number

def build():
    process = Process("invoice", "parallel", 1, on_error="return")
    process.task(report, process.task(convert, process.task(load)))
    process.map(fetch, range(4))
    return process

if __name__ == "__main__":
    build().execute(run_id="a", journal="runs.db")
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "invoice.py").write_text(INVOICE)
    return tmp_path


def program(*words, cwd):
    return subprocess.run([sys.executable, *words], cwd=cwd, capture_output=True, encoding="utf-8", timeout=50)


def procession(*words, cwd):
    return program("-m", "procession", *words, cwd=cwd)


def begun(folder):
    assert procession("run", "invoice.py:build", "--run-id", "a", cwd=folder).returncode == 1
    (folder / "mended").touch()
    return folder


def here(folder, *words):
    """Give a command that calls no task; return its status, and what it says."""
    with chdir(folder), redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        status = main(["rerun", *words])
    return status, out.getvalue(), err.getvalue()


def lines(text):
    return [re.sub(" +", " ", line).strip() for line in text.splitlines()]


def calls(done):
    return [line.removeprefix("called ") for line in done.stdout.splitlines()]


def test_a_part_of_a_run_is_called_again(folder):
    """It says first which tasks these are, forgets them, and goes on as `resume` does: with nothing else."""
    begun(folder)
    done = procession("rerun", "a", "--from", "convert", "--failed", cwd=folder)
    assert (done.returncode, sorted(calls(done))) == (0, ["convert", "fetch 2", "report 30"]), done.stderr
    assert lines(done.stderr)[:5] == [
        "called again in run a:",
        "# task why",
        "1 convert named",
        "2 report takes a value of these",
        "3.2 fetch, element 2 failed",
    ]
    assert calls(procession("resume", "a", cwd=folder)) == []


def test_an_element_is_called_again_from_any_folder(folder, tmp_path_factory):
    """Named by the name of its map, or its place."""
    begun(folder)
    journal = f"--journal={folder / 'runs.db'}"
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    done = procession("rerun", "a", "--element", "fetch:0", "--element=3:1", journal, cwd=elsewhere)
    assert (done.returncode, sorted(calls(done))) == (0, ["fetch 0", "fetch 1", "fetch 2"]), done.stderr


def test_a_dry_run_says_it_on_standard_output_and_does_nothing(folder):
    """Of what is named, and of what failed."""
    begun(folder)
    status, out, err = here(folder, "a", "--from", "0", "--dry-run")
    assert (status, err) == (0, "")
    assert lines(out)[2:] == ["0 load named", "1 convert takes a value of these", "2 report takes a value of these"]
    status, out, _ = here(folder, "a", "--failed", "--dry-run")
    assert (status, lines(out)[2:]) == (0, ["3.2 fetch, element 2 failed"])
    with Journal(folder / "runs.db") as journal:
        assert journal.run("a").status == "completed"


def test_where_nothing_failed_nothing_is_done(folder):
    """It says so; what is named and not recorded is called in any case."""
    begun(folder)
    procession("resume", "a", cwd=folder)
    assert here(folder, "a", "--failed") == (0, "", "nothing has failed in run a\n")
    with Journal(folder / "runs.db") as journal:
        journal.rerun("a", tasks=[0])
    assert here(folder, "a", "--from=0", "--dry-run")[1].startswith(
        "nothing of that is recorded in run a: it is called"
    )


def test_a_run_begun_by_a_script_is_gone_on_with_by_it(folder):
    """As with `resume`."""
    program("invoice.py", cwd=folder)
    (folder / "mended").touch()
    done = procession("rerun", "a", "--from", "report", cwd=folder)
    assert (done.returncode, sorted(calls(done))) == (0, ["fetch 2", "report 20"]), done.stderr


def test_a_run_begun_elsewhere_is_to_be_executed_again_from_there(folder):
    """What is forgotten is forgotten; it says with which id."""
    program("-c", "import invoice; invoice.build().execute(run_id='a', journal='runs.db')", cwd=folder)
    status, _, err = here(folder, "a", "--from", "report")
    assert (status, lines(err)[-1]) == (0, "execute it again from there, with run_id='a'")
    with Journal(folder / "runs.db") as journal:
        assert (journal.run("a").status, [one.task for one in journal.tasks("a")]) == ("interrupted", [0, 1, 3])


def test_nothing_is_forgotten_of_a_run_that_cannot_be_gone_on_with(folder):
    """Its script is gone, say."""
    program("invoice.py", cwd=folder)
    (folder / "invoice.py").unlink()
    status, _, err = here(folder, "a", "--from", "report")
    assert status == 1
    assert "which is not there" in err
    assert lines(err)[-1] == "procession: nothing was forgotten"
    with Journal(folder / "runs.db") as journal:
        assert journal.run("a").status == "completed"


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["a"], 2, "name what is called again: --from TASK, --element TASK:N or --failed"),
        (["a", "--from", "9"], 1, "run 'a' of process 'invoice' has no task 9: it has 4 tasks, from 0 to 3"),
        (["a", "--from", "lod"], 1, "has no task 'lod'; there are load, convert, report, map of fetch"),
        (["a", "--element", "load:0"], 1, "task 0 (load) is no map, and has no elements"),
        (["a", "--element", "3:9"], 1, "element 9 of task 3 (map of fetch) is not recorded"),
        (["b", "--failed"], 1, "the journal has no run 'b'"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(words, status, said, folder):
    """And nothing is done."""
    begun(folder)
    found, out, err = here(folder, *words)
    assert (found, out) == (status, "")
    assert said in err
    assert len(err.splitlines()) == 1


def test_an_element_without_a_place_is_refused(folder, capsys):
    """With an example."""
    with pytest.raises(SystemExit, match="2"):
        main(["rerun", "a", "--element", "fetch"])
    assert "an element is TASK:N, such as fetch:3 or 0:3, and not 'fetch'" in capsys.readouterr().err
