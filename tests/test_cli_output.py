"""What the commands print for programs, and what they do when nobody takes it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from procession import Process
from procession.cli.main import main


def fail(number):
    raise ValueError(f"\x1b[31m{'x' * 20_000} {number}\x7f")


@pytest.fixture(autouse=True)
def journal(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    process = Process("failing", on_error="continue")
    process.map(fail, range(2))
    process.add_task(len, "abc")
    process.add_task(Process("inner"))
    with pytest.raises(ExceptionGroup):
        process.execute(run_id="a", journal="runs.db")


def test_runs_and_tasks_are_there_as_json(capsys):
    """With all fields, and harmless to a terminal."""
    assert main(["runs", "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)
    assert (run["id"], run["status"], run["progress"]) == ("a", "failed", {"ended": 2, "failed": 2, "total": 4})
    assert main(["show", "a", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["run"] == run
    assert [(task["task"], task["state"]) for task in shown["tasks"]][0] == (0, "failed")
    assert main(["show", "a", "--json", "--failed", "--limit", "2"]) == 0
    said = capsys.readouterr().out
    assert all(character.isprintable() or character == "\n" for character in said)
    first, second = json.loads(said)["tasks"]
    assert (first["element"], second["element"]) == (None, 0) and len(second["error"]) > 20_000


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
@pytest.mark.parametrize("arguments", [["show", "a"], ["runs", "--json"]])
def test_a_full_disk_ends_a_command_quietly(arguments, tmp_path):
    """With the status of a failure."""
    command = [sys.executable, "-m", "procession", *arguments]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (1, "")


def test_errors_speak_of_options_of_the_command_line(tmp_path, capsys, monkeypatch):
    """And not of arguments in Python."""
    (tmp_path / "other_job.py").write_text("from procession import Process\nprocess = Process('other')\n")
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert main(["run", "other_job.py:process", "--run-id", "a"]) == 1
    sys.modules.pop("other_job")
    said = capsys.readouterr().err
    assert "with --allow-changes" in said and "allow_changes" not in said
