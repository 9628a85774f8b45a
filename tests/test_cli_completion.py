"""Completion of command lines: what a word may become, and that the shells get to it."""

import os
import shutil
import subprocess
import sys

import pytest

from procession import Process
from procession.cli.main import main


@pytest.fixture(autouse=True)
def in_folder_with_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    process = Process("one")
    process.add_task(len, "abc")
    for run_id, journal in ("morning", "runs.db"), ("evening", "runs.db"), ("other", "my.db"):
        process.execute(run_id=run_id, journal=journal)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["sh"], ["show"]),
        (["show", ""], ["evening", "morning"]),
        (["show", "--journal", "my.db", ""], ["other"]),
        (["show", "--journal", "nowhere.db", ""], []),
        (["resume", "m"], ["morning"]),
        (["show", "morning", "--fa"], ["--failed"]),
        (["run", "--strategy", ""], ["sequential", "parallel", "hybrid"]),
        (["run", "--journal", ""], []),
        (["completion", "f"], ["fish"]),
        (["fly", ""], []),
    ],
)
def test_what_a_word_may_become(words, found, capsys):
    """A command, an option, one of its values, or a run; where there is nothing, the shell takes files."""
    assert main(["complete", *words]) == 0
    assert capsys.readouterr().out.splitlines() == found


ASKS = {
    "bash": "COMP_WORDS=(procession show mo); COMP_CWORD=2; _procession; echo ${COMPREPLY[@]}",
    "zsh": "compadd() { print -l ${(P)2} }; words=(procession show mo); CURRENT=3; _procession",
    "fish": "complete -C 'procession show mo'",
}


@pytest.mark.parametrize("shell", ASKS)
def test_a_shell_completes_a_run(shell, tmp_path):
    """With what the command prints for it."""
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    (tmp_path / "procession").write_text(f'#!/bin/sh\nexec {sys.executable} -m procession "$@"\n')
    (tmp_path / "procession").chmod(0o755)
    load = "procession completion fish | source" if shell == "fish" else f'eval "$(procession completion {shell})"'
    prepared = "compdef() { true }; " if shell == "zsh" else ""
    done = subprocess.run(
        [shell, "-c", f"{prepared}{load}; {ASKS[shell]}"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.stdout.split() == ["morning"], done.stderr
