"""What people are shown on terminals that do not speak UTF-8, and through pipes that close."""

import io
import os
import subprocess
import sys

import pytest

from procession import Process
from procession.cli.main import main

LAUNCH = "launch 🚀 …"


every_encoding = pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "cp437", "cp932", "ascii"])


def terminal(monkeypatch, encoding, errors="strict"):
    """Make standard output one of another encoding; return a function that returns what was printed."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=errors)
    monkeypatch.setattr("sys.stdout", stream)

    def printed():
        stream.flush()
        return stream.buffer.getvalue().decode(encoding)

    return printed


def launched(**options):
    process = Process(LAUNCH)
    for number in range(30):
        process.add_task(abs, number)
    process.execute(**options)
    return process.last_run


@every_encoding
def test_a_summary_can_be_printed_on_any_terminal(monkeypatch, encoding):
    """What it has no characters for is replaced."""
    printed = terminal(monkeypatch, encoding)
    print(launched().summary())
    assert "launch ?" in printed()
    assert "and 10 more" in printed()


@every_encoding
def test_a_timeline_can_be_said_on_any_terminal(monkeypatch, encoding):
    """A microsecond reads as one."""
    printed = terminal(monkeypatch, encoding)
    print(launched().timeline())
    assert " us" in printed() or " µs" in printed() or " ms" in printed()
    assert "? s" not in printed() and "?s" not in printed()


@every_encoding
def test_runs_can_be_listed_and_shown_on_any_terminal(monkeypatch, encoding, tmp_path):
    """Also those whose names it has no characters for."""
    printed = terminal(monkeypatch, encoding)
    journal = str(tmp_path / "runs.db")
    launched(run_id=LAUNCH, journal=journal)
    assert main(["runs", "--journal", journal]) == 0
    assert main(["show", LAUNCH, "--limit", "3", "--journal", journal]) == 0
    assert main(["cancel", LAUNCH, "--journal", journal]) == 1
    assert printed().count("launch ?") == 5
    assert "and 27 more: see --limit" in printed()


def test_where_the_terminal_can_show_a_text_it_is_left_as_it_is(monkeypatch):
    """Or where another way of handling errors was chosen."""
    for encoding, errors in ("utf-8", "strict"), ("ascii", "backslashreplace"):
        terminal(monkeypatch, encoding, errors)
        assert LAUNCH in launched().summary()


@pytest.mark.skipif(sys.platform == "win32", reason="its pipes end in another way")
def test_a_reader_that_has_had_enough_gets_no_traceback(tmp_path):
    """As with `head`: the pipe is closed."""
    journal = str(tmp_path / "runs.db")
    launched(run_id="once", journal=journal)
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "procession", "runs", "--journal", journal]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=50)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")
