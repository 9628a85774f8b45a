"""What type checkers say of the wiring of a process: `typing/accepted.py` is right, and `typing/refused.py` is not."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

TYPING = Path(__file__).parent / "typing"
ACCEPTED, REFUSED = TYPING / "accepted.py", TYPING / "refused.py"


def module(name, *arguments, cwd):
    """Run a checker away from this project's settings, as a user has it; return what it prints."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("MYPY", "PYRIGHT_PYTHON_"))}
    command = [sys.executable, "-m", name, *arguments, ACCEPTED, REFUSED]
    done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, encoding="utf-8", timeout=110)
    assert done.returncode == 1, done.stdout + done.stderr  # 0 found nothing to refuse; 2 and more did not check
    return done.stdout


def mypy(cwd):
    found = module("mypy", "--strict", "--config-file=", "--output=json", "--cache-dir=cache", cwd=cwd)
    for line in found.splitlines():
        error = json.loads(line)
        if error["severity"] == "error":
            yield error["file"], error["line"], error["message"]


def pyright(cwd):  # each file says itself that it is to be checked strictly
    found = module("pyright", "--pythonpath", sys.executable, "--outputjson", cwd=cwd)
    for error in json.loads(found)["generalDiagnostics"]:
        if error["severity"] == "error":
            yield error["file"], error["range"]["start"]["line"] + 1, error["message"]


@pytest.fixture(scope="module", params=[mypy, pyright])
def checker(request, tmp_path_factory):
    """The name of a type checker, and its errors: a dictionary of lines and messages for each file."""
    errors = defaultdict(dict)
    for file, line, message in request.param(tmp_path_factory.mktemp("checker")):
        errors[Path(file).name][line] = message
    return request.param.__name__, errors


def test_what_is_wired_right_is_accepted(checker):
    """A strict checker finds nothing wrong with right uses of every public name, and sees the types they have."""
    _, errors = checker
    assert errors[ACCEPTED.name] == {}


def test_what_is_wired_wrong_is_refused(checker):
    """A strict checker refuses each wrong use, at its line, and nothing beside them."""
    name, errors = checker
    marks = {}
    for number, line in enumerate(REFUSED.read_text(encoding="utf-8").splitlines(), start=1):
        _, marked, by = line.partition("  # refused")
        if marked:
            marks[number] = by.removeprefix(" by ") or name
    assert len(marks) > 100
    let_pass = {line for line, by in marks.items() if by == name} - errors[REFUSED.name].keys()
    assert let_pass == set()
    of_others = {line: message for line, message in errors[REFUSED.name].items() if line not in marks}
    assert of_others == {}
