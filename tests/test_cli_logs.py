"""The log of the command line, for people and for programs."""

import io
import json
import logging
import subprocess
import sys

import pytest

from procession.cli.logs import TextFormatter, logs_shown

ELSEWHERE = """
import logging
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from procession import Process

log = logging.getLogger("app")
log.warning("imported \\x1b[31m")

def work():
    log.info("too little")
    log.warning("careful %s", "\\x1b]0;owned\\x07\\u202e\\nforged")
    warnings.warn("old \\x1b[31m")
    try:
        raise ValueError("\\x9b31m")
    except ValueError:
        log.exception("failed")

POOLS = []  # and not gone before the interpreter ends, at which one would complain

def process(executor):
    one = Process("one", "parallel", executor=executor)
    one.add_task(work)
    return one

def ours(): return process("processes")
def given():
    POOLS.append(ProcessPoolExecutor(1, get_context("spawn")))
    return process(POOLS[0])
"""

PIPELINE = """
import logging
from procession import Process

log = logging.getLogger("app")

def work():
    log.info("working\\nERROR forged")
    log.warning("careful \\x1b[31m")

def throw():
    raise ValueError("no\\n12:00:00 ERROR forged")

good = Process("good\\nERROR forged", "parallel", 1)
good.add_task(work)

bad = Process("bad")
bad.add_task(throw)

def own():
    logging.basicConfig(format="OWN %(message)s", level=logging.INFO)
    return good
"""


@pytest.fixture
def run(tmp_path):
    (tmp_path / "pipeline.py").write_text(PIPELINE)
    (tmp_path / "elsewhere.py").write_text(ELSEWHERE)

    def command(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "procession", "run", *arguments],
            cwd=tmp_path,
            capture_output=True,
            encoding="utf-8",
            timeout=50,
        )

    return command


def test_failures_and_warnings_are_logged_in_a_line_each(run):
    """With when and what, those of the library and of the program alike, before the summary."""
    done = run("pipeline.py:good")
    assert done.returncode == 0
    first, second = done.stderr.splitlines()[:2]
    assert first[8:] == r" WARNING app: careful \x1b[31m"
    assert second.startswith("good\\nERROR forged: completed in")
    failed = run("pipeline.py:bad").stderr.splitlines()
    assert failed[0][8:].startswith(" ERROR   bad: task failed · task 0 (throw) · attempt 1 · ")
    assert failed[0].endswith(" · ValueError: no …")
    assert failed[1][8:].startswith(" ERROR   bad: run failed · ")


def test_the_level_says_how_much_is_logged(run):
    """From every step to errors alone."""
    debug = [line[9:] for line in run("pipeline.py:good", "--log-level", "debug").stderr.splitlines()]
    assert [line.split(" · ")[0] for line in debug[:6]] == [
        r"INFO    good\nERROR forged: run started",
        r"DEBUG   good\nERROR forged: task started",
        r"INFO    app: working\nERROR forged",
        r"WARNING app: careful \x1b[31m",
        r"DEBUG   good\nERROR forged: task completed",
        r"INFO    good\nERROR forged: run completed",
    ]
    assert run("pipeline.py:good", "--log-level", "error").stderr.startswith("good\\nERROR forged: completed")


def test_json_is_one_object_a_line_and_nothing_else(run):
    """On the standard error stream, with the fields of each event and with the traceback of a failure."""
    done = run("pipeline.py:good", "--log-format", "json")
    assert done.returncode == 0
    records = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(record["level"], record["logger"], record["message"]) for record in records] == [
        ("INFO", "procession", "run_started"),
        ("INFO", "app", "working\nERROR forged"),
        ("WARNING", "app", "careful \x1b[31m"),
        ("INFO", "procession", "run_completed"),
    ]
    assert records[-1]["process_name"] == "good\\nERROR forged"
    assert records[-1]["duration_s"] > 0
    assert len({record["run_id"] for record in (records[0], records[-1])}) == 1
    assert all(record["timestamp"].startswith("2") for record in records)
    assert all(line.isprintable() for line in done.stderr.splitlines())
    failed = run("pipeline.py:bad", "--log-format", "json")
    assert failed.returncode == 1
    records = [json.loads(line) for line in failed.stderr.splitlines()]
    assert [record["message"] for record in records] == ["run_started", "task_failed", "run_failed", "execute_raised"]
    assert "in throw" in records[-1]["exc_info"]
    assert "_engine" not in records[-1]["exc_info"]


@pytest.mark.parametrize("more", [(), ("--run-id", "recorded")], ids=["", "recorded"])
@pytest.mark.parametrize("name", ["ours", "given"])
def test_what_tasks_log_in_worker_processes_is_shown_as_what_they_log_here(run, name, more):
    """In the same format, from the same level on, as harmless; and so are warnings, and what modules log."""
    done = run(f"elsewhere.py:{name}", "--log-format", "json", "--log-level", "warning", *more)
    records = [json.loads(line) for line in done.stderr.splitlines()]
    told = [(record["logger"], record["message"]) for record in records]
    assert told[0] == ("app", "imported \x1b[31m")
    assert ("app", "careful \x1b]0;owned\x07\u202e\nforged") in told
    assert any(logger == "py.warnings" and "old \x1b[31m" in message for logger, message in told)
    assert "\x9b31m" in records[-1]["exc_info"]
    assert "too little" not in done.stderr


def test_what_tasks_log_in_worker_processes_cannot_command_the_terminal(run):
    """One line for each record, and tracebacks set in."""
    done = run("elsewhere.py:ours")
    assert all(line.isprintable() for line in done.stderr.splitlines())
    assert r" WARNING app: careful \x1b]0;owned\x07\u202e\nforged" in done.stderr
    assert "    ValueError: \\x9b31m\n" in done.stderr


@pytest.mark.parametrize("chosen", ["text", "json"])
def test_a_record_that_cannot_be_shown_is_said_in_a_line_like_any(monkeypatch, chosen):
    """And not as `logging` would, which prints whatever is in it."""

    class Mute:
        def __str__(self):
            raise ValueError("\x1b[31m\nno")

        def __repr__(self):
            return "\x1b[31m"

    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with logs_shown(chosen, None):
        record = logging.LogRecord("app", logging.WARNING, __file__, 1, "this is %s", (Mute(),), None)
        logging.getLogger().handlers[-1].handle(record)
    [line] = stream.getvalue().splitlines()
    assert line.isprintable()
    message = json.loads(line)["message"] if chosen == "json" else line
    assert "a record that cannot be shown, 'this is %s': ValueError: " in message


def test_a_program_that_sets_up_its_own_log_keeps_it(run):
    """Unless the command line says otherwise."""
    done = run("pipeline.py:own")
    assert "OWN run_started" in done.stderr
    assert "WARNING app: careful" not in done.stderr
    assert "WARNING app: careful" in run("pipeline.py:own", "--log-format", "text").stderr


def test_a_traceback_cannot_be_taken_for_records():
    """Its lines are indented and escaped."""
    try:
        raise ValueError("no\n12:00:00 ERROR   forged\x1b[31m")
    except ValueError:
        record = logging.LogRecord("app", logging.ERROR, __file__, 1, "it failed: %s", ("x",), sys.exc_info())
    head, *trace = TextFormatter().format(record).split("\n")
    assert head[9:] == "ERROR   app: it failed: x"
    assert len(trace) >= 4
    assert all(line.startswith("    ") and line.isprintable() for line in trace)


def test_json_without_its_extra_is_refused_with_the_mend(monkeypatch):
    """And logging is as it was."""
    monkeypatch.setitem(sys.modules, "pythonjsonlogger.json", None)
    before = logging.getLogger().handlers[:], logging.getLogger().level
    with pytest.raises(ImportError, match=r'pip install "procession\[cli\]"'), logs_shown("json", None):
        pass
    assert (logging.getLogger().handlers, logging.getLogger().level) == before


def test_what_is_said_of_observers_is_readable():
    """Which one, and how much it missed."""
    record = logging.makeLogRecord(
        {
            "name": "procession",
            "levelname": "WARNING",
            "msg": "events_dropped",
            "process_name": "slow",
            "run_id": "a",
            "observer": "Printer",
            "dropped": 1200,
        }
    )
    assert TextFormatter().format(record)[9:] == "WARNING slow: events dropped · Printer · 1,200 of its events"
