"""Parameters of a function that builds a process, on the command line."""

import sys

import pytest

from procession.cli.main import main

JOB = """
import os
from datetime import date
from enum import Enum
from pathlib import Path
from typing import Literal, Optional
from procession import Process

class Mode(Enum):
    fast = 1
    slow = 2

def show(*values):
    print(*values)
    if not os.path.exists("mended"):
        raise ConnectionError("down")

def job(*values):
    process = Process("job")
    process.add_task(show, *values)
    return process

def build(day: date, /, limit: int = 10, *, mode: Mode = Mode.fast, dry: bool = False, cities: list[str] = (),
          level: Literal["low", 3] = "low", ratio: Optional[float] = None, plain=7, path: "Path" = Path(".")):
    '''Build the nightly job.

    More of it.
    '''
    return job(day, limit, mode.name, dry, list(cities), level, ratio, plain, path)

def of_today(day: date = date.fromisoformat(os.environ.get("TODAY", "2026-11-27")), key: str = "a secret"):
    return job(day)

def plain():
    return job()

process = job()
"""
DAY = "2026-11-27"


@pytest.fixture
def give(monkeypatch, tmp_path, capfd):
    """Return a function that gives a command, and returns its status, and what it prints."""
    (tmp_path / "job.py").write_text(JOB)
    (tmp_path / "mended").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def command(*words):
        monkeypatch.delitem(sys.modules, "job", raising=False)
        try:
            status = main(words)
        except SystemExit as left:
            status = left.code
        out, err = capfd.readouterr()
        return status, out.strip(), err.strip()

    yield command
    monkeypatch.delitem(sys.modules, "job", raising=False)


@pytest.mark.parametrize(
    ("words", "seen"),
    [
        ([], "10 fast False [] low None 7 ."),
        (["--limit", "3", "--dry", "--mode=slow"], "3 slow True [] low None 7 ."),
        (["--no-dry", "--cities", "Rome", "Oslo", "--level", "3"], "10 fast False ['Rome', 'Oslo'] 3 None 7 ."),
        (["--ratio", "0.5", "--plain", "8", "--path", "a/b"], "10 fast False [] low 0.5 8 a/b"),
    ],
)
def test_values_are_read_by_their_types(give, words, seen):
    """Annotated, or that of the default."""
    assert give("run", "job.py:build", "--day", DAY, *words)[:2] == (0, f"{DAY} {seen}")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["job.py:build"], "the following arguments are required: --day"),
        (["job.py:build", "--day", "today"], "argument --day: a value of type date is needed, not 'today'"),
        (["job.py:build", "--day", DAY, "--mode", "mad"], "argument --mode: one of fast, slow is needed, not 'mad'"),
        (["job.py:build", "--day", DAY, "--level", "4"], "argument --level: one of low, 3 is needed, not '4'"),
        (["job.py:build", "--day", DAY, "--limt", "4"], "unrecognized arguments: --limt 4; did you mean '--limit'?"),
        (["job.py:plain", "--day", DAY], f"unrecognized arguments: --day {DAY}"),
        (["job.py:process", "--day", DAY], f"unrecognized arguments: --day {DAY}"),
    ],
)
@pytest.mark.parametrize("command", ["run", "graph"])
def test_wrong_parameters_are_told_before_anything_runs(give, command, words, said):
    """With exit status 2."""
    status, out, err = give(command, *words)
    assert (status, out) == (2, "")
    assert err.endswith(said)


def test_the_help_has_the_parameters_of_the_function(give):
    """Above the options of the command."""
    status, out, _ = give("run", "job.py:build", "--help")
    assert status == 0
    for text in "Build the nightly job.", "--day DATE", "default: 10", "--mode {fast,slow}", "--max-workers":
        assert text in out
    assert "More of it" not in out
    assert "--run-id" in give("run", "job.py:plain", "-h")[1]


def test_a_resumed_run_goes_on_with_its_parameters(give, tmp_path):
    """As they were said, for they are kept with the run."""
    (tmp_path / "mended").unlink()
    words = ["--day", DAY, "--limit=3", "--dry", "--cities", "a b", "c", "--mode", "slow"]
    seen = f"{DAY} 3 slow True ['a b', 'c'] low None 7 ."
    assert give("run", "job.py:build", "--run-id", "a", *words)[:2] == (1, seen)
    (tmp_path / "mended").touch()
    assert give("resume", "a")[:2] == (0, seen)


def test_a_default_that_is_another_one_by_now_is_kept_but_no_text(give, tmp_path, monkeypatch):
    """As the day of today past midnight; a text may be a secret."""
    (tmp_path / "mended").unlink()
    monkeypatch.setenv("TODAY", DAY)
    assert give("run", "job.py:of_today", "--run-id", "a")[:2] == (1, DAY)
    monkeypatch.setenv("TODAY", "2026-11-28")
    (tmp_path / "mended").touch()
    assert give("resume", "a")[:2] == (0, DAY)
    assert b"a secret" not in (tmp_path / "runs.db").read_bytes()


def test_a_picture_is_of_the_process_that_the_parameters_make(give):
    """Without running it."""
    assert "show" in give("graph", "job.py:build", "--day", DAY)[1]
