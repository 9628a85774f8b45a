"""What is kept of what tasks log: how much, from which level on, and what it looks like."""

import contextvars
import importlib
import logging
import os
import re
import sys
import threading

import pytest

from logging_tasks import LOGGER, say
from task_logs import handler, kept, logs, path
from procession import Process, TaskLogHandler, current_task, task
from procession.journal import Journal


# How much of it


def test_it_is_bounded_and_says_what_was_left_out(path, handler):
    """The last of it is kept, whatever a task logs."""

    def chatter():
        for number in range(10_000):
            say(f"line {number}")

    def roar():
        say("a" * 10_000_000 + "the end")

    process = Process("loud")
    process.add_task(chatter)
    process.add_task(roar)
    kept(process, path)
    chatted, roared = logs(path).values()
    assert len(chatted) < 17_000
    head, *lines = chatted.splitlines()
    assert head == f"… {10_000 - len(lines):,} earlier entries left out"
    assert lines == [f"INFO tests.shop: line {number}" for number in range(10_000 - len(lines), 10_000)]
    assert len(lines) > 200
    assert len(roared) < 5_000
    assert roared.endswith("the end")


def test_the_level_says_what_is_kept(path, handler):
    """That of the handler and that of the logger count, as for any handler."""
    handler.setLevel("ERROR")

    def work():
        LOGGER.debug("debug")
        LOGGER.warning("warning")
        LOGGER.error("error")

    for executor in "threads", "processes":
        process = Process("levels", executor=executor)
        process.add_task(work)
        kept(process, path, run_id=executor)
        assert logs(path, executor) == {0: "ERROR tests.shop: error"}
    assert Process("levels").execute() == []


def test_workers_keep_what_the_level_here_lets_through(path, handler):
    """A worker process that nobody has set up logging in takes the level from here, and warnings still reach its stderr."""
    LOGGER.setLevel("DEBUG")

    def work():
        LOGGER.debug("debug")
        return [type(one).__name__ for one in LOGGER.handlers]

    process = Process("levels", executor="processes")
    process.add_task(work)
    [[*names]] = process.execute(journal=path, run_id="run")
    assert logs(path) == {0: "DEBUG tests.shop: debug"}
    assert "TaskLogHandler" in names
    assert "_StderrHandler" in names
    process = Process("none wanted", executor="processes")
    process.add_task(lambda: LOGGER.handlers)
    assert process.execute() == [[]]


def test_a_line_that_passes_two_handlers_is_kept_once(path, handler):
    """On a logger and on one above it."""
    root = TaskLogHandler()
    logging.getLogger().addHandler(root)
    try:
        process = Process("twice")
        process.add_task(lambda: [say("x"), say("x")])
        kept(process, path)
    finally:
        logging.getLogger().removeHandler(root)
    assert logs(path) == {0: "INFO tests.shop: x\nINFO tests.shop: x"}


def test_our_own_events_are_left_out(path):
    """That a task is tried again stands in its record anyway."""
    root = TaskLogHandler()
    logging.getLogger().addHandler(root)
    try:
        process = Process("own")
        process.add_task(task(retries=1)(lambda: current_task().attempt == 2 or 1 / 0))
        kept(process, path)
    finally:
        logging.getLogger().removeHandler(root)
    assert logs(path) == {0: None}


def test_an_entry_that_grows_when_it_is_spelt_out_is_kept(path, handler, monkeypatch):
    """Blank lines and control characters make a message longer, and push out neither it nor all that was before."""
    monkeypatch.setattr(LOGGER, "propagate", False)

    def work():
        say("before")
        say("\n" * 3_990)
        say("\U000e0041\n" * 1_990 + "the end")

    process = Process("blank")
    process.add_task(work)
    kept(process, path)
    log = logs(path)[0]
    assert log.startswith("INFO tests.shop: before\n")
    assert log.endswith("the end")
    assert len(log) < 10_000
    assert {line[:4] for line in log.splitlines() if line.strip()} == {"INFO", "    "}


def test_lines_at_the_same_instant_are_all_kept(path, handler, monkeypatch):
    """Clocks may be coarse, and those of tests stand still."""
    monkeypatch.setattr(
        LOGGER, "propagate", False
    )  # the test runner keeps each record, so that none is where another was
    process = Process("frozen")

    def work():
        monkeypatch.setattr(logging.time, "time", lambda: 1e9)
        monkeypatch.setattr(logging.time, "time_ns", lambda: 10**18)
        for number in range(5):
            say(f"line {number}")
        monkeypatch.undo()

    process.add_task(work)
    kept(process, path)
    assert logs(path) == {0: "\n".join(f"INFO tests.shop: line {number}" for number in range(5))}


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_threads_of_a_task_may_log_by_several_loggers_at_once(path, handler, executor):
    """None of them fails for it, and each entry is kept whole."""
    other = TaskLogHandler()
    logging.getLogger("tests.other").addHandler(other)
    logging.getLogger("tests.other").setLevel(logging.INFO)
    process = Process("crowd", executor=executor)
    process.add_task(crowd)
    try:
        [failed] = process.execute(journal=path, run_id="run")
    finally:
        logging.getLogger("tests.other").removeHandler(other)
        logging.getLogger("tests.other").setLevel(logging.NOTSET)
    assert failed == []
    head, *lines = logs(path)[0].splitlines()
    left_out = int(re.fullmatch(r"… ([\d,]+) earlier entries left out", head)[1].replace(",", ""))
    assert left_out + len(lines) == 4 * 1_500
    assert all(re.fullmatch(r"INFO tests.(shop|other): (.)\2*", line) for line in lines)
    assert sum(map(len, lines)) > 5_000


def crowd():
    failed, interval = [], sys.getswitchinterval()

    def talk(logger, text):
        try:
            for _ in range(1_500):
                logger.info(text)
        except BaseException as error:
            failed.append(repr(error))

    voices = [("tests.shop", "a" * 5), ("tests.other", "b" * 300), ("tests.shop", "c"), ("tests.other", "ü" * 900)]
    threads = [
        threading.Thread(target=contextvars.copy_context().run, args=(talk, logging.getLogger(name), text))
        for name, text in voices
    ]
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    return failed


# Set up in workers


@pytest.fixture
def below():
    """A logger below that of the tests, with a handler and a level of its own."""
    handler, logger = TaskLogHandler(), logging.getLogger("tests.shop.below")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield logger
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def test_each_logger_with_a_handler_has_its_level_in_workers(path, handler, below):
    """Also one below another that has a handler, too."""
    name = below.name

    def work():
        for logger in LOGGER, logging.getLogger(name):
            logger.debug("debug")
            logger.info("info")

    for executor in "threads", "processes":
        process = Process("levels", executor=executor)
        process.add_task(work)
        kept(process, path, run_id=executor)
        assert logs(path, executor)[0].splitlines() == [
            "INFO tests.shop: info",
            "DEBUG tests.shop.below: debug",
            "INFO tests.shop.below: info",
        ]


def test_of_two_handlers_of_a_logger_the_one_that_keeps_more_counts_in_workers(path, handler):
    """Whatever the order in which they were added."""
    stricter = TaskLogHandler(logging.ERROR)
    LOGGER.addHandler(stricter)
    try:
        process = Process("two", executor="processes")
        process.add_task(say, "x")
        kept(process, path)
    finally:
        LOGGER.removeHandler(stricter)
    assert logs(path) == {0: "INFO tests.shop: x"}


@pytest.mark.parametrize("level", [logging.NOTSET, logging.ERROR])
def test_logging_that_a_tasks_module_sets_up_is_left_as_it_is_in_workers(path, tmp_path, monkeypatch, level):
    """Its handlers and levels count there, and of what they let through, the level of our handler."""
    (tmp_path / "sets_up_logging.py").write_text(
        "import logging, multiprocessing\n"
        "if multiprocessing.parent_process() is not None:\n"
        "    logging.basicConfig(level=logging.INFO, filename=__file__ + '.log', format='%(message)s')\n"
        "def work():\n"
        "    logging.getLogger('tests.there').info('info')\n"
        "    logging.getLogger('tests.there').error('error')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    root = TaskLogHandler(level)
    logging.getLogger().addHandler(root)
    try:
        process = Process("set up", executor="processes")
        process.add_task(importlib.import_module("sets_up_logging").work)
        kept(process, path)
    finally:
        logging.getLogger().removeHandler(root)
        sys.modules.pop("sets_up_logging")
    assert (tmp_path / "sets_up_logging.py.log").read_text() == "info\nerror\n"
    error = "ERROR tests.there: error"
    assert logs(path) == {0: error if level else f"INFO tests.there: info\n{error}"}


# What it looks like


def test_hostile_lines_are_kept_harmless(where, handler, monkeypatch):
    """Terminal escapes are spelt out, and no message can pass for an entry of its own, or for another attempt."""
    monkeypatch.setattr(LOGGER, "propagate", False)  # the test runner's own handlers do not bear it

    def hostile():
        LOGGER.info("\x1b[31mred\u202e\0\r2026-11-25T00:00:00.000Z ERROR app: forged\nattempt 2:\n\udcff")

    process = Process("hostile")
    process.add_task(hostile)
    kept(process, where)
    [log] = logs(where).values()
    assert log == (
        "INFO tests.shop: \\x1b[31mred\\u202e\\x00\\r2026-11-25T00:00:00.000Z ERROR app: forged\n"
        "    attempt 2:\n    \\udcff"
    )


def test_tracebacks_that_are_logged_are_kept(path, handler):
    """As any handler writes them, set in."""

    def work():
        try:
            1 / 0
        except ZeroDivisionError:
            LOGGER.exception("it broke")

    process = Process("traced")
    process.add_task(work)
    kept(process, path)
    first, *rest = logs(path)[0].splitlines()
    assert first == "ERROR tests.shop: it broke"
    assert rest[0] == "    Traceback (most recent call last):"
    assert rest[-1] == "    ZeroDivisionError: division by zero"


def test_a_formatter_of_ones_own_says_what_an_entry_looks_like(path, handler):
    """As for any handler."""
    handler.setFormatter(logging.Formatter("<%(levelname)s> %(message)s"))
    process = Process("formatted")
    process.add_task(say, "x")
    kept(process, path)
    with Journal(path) as journal:
        assert journal.tasks("run")[0].log == "<INFO> x"


def test_a_message_that_cannot_be_formatted_fails_no_task(path, handler, capsys, monkeypatch):
    """It is complained of as any handler does."""
    monkeypatch.setattr(LOGGER, "propagate", False)  # the test runner's own handlers are stricter
    process = Process("unformatted")
    process.add_task(LOGGER.info, "%d", "no number")
    kept(process, path)
    assert logs(path) == {0: None}
    assert "--- Logging error ---" in capsys.readouterr().err


def test_a_child_that_a_task_forks_can_log(path, handler):
    """No lock of ours is held for ever in it, and what it says is its own."""
    if not hasattr(os, "fork"):
        pytest.skip("there is no fork here")

    def work():
        child = os.fork()
        if child == 0:
            say("in the child")
            os._exit(7)
        say("in the task")
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    process = Process("forks")
    process.add_task(work)
    assert process.execute(journal=path, run_id="run") == [7]
    assert logs(path) == {0: "INFO tests.shop: in the task"}
