"""The log of the command line, for people and for programs."""

import json
import logging
import subprocess
import sys

import pytest

from procession.cli.logs import TextFormatter, logs_shown

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
    assert failed[0].endswith(" · ValueError")
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
