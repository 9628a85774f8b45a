"""What tasks log, kept with their records: whose it is, how much of it, wherever they run."""

import asyncio
import contextvars
import importlib
import logging
import multiprocessing
import os
import re
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest

from procession import Process, TaskLogHandler, TaskTimeoutError, current_task, task
from procession.journal import Journal

LOGGER = logging.getLogger("tests.shop")
TURNS = threading.Barrier(2, timeout=20)
BROKEN = set()
STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@pytest.fixture
def handler():
    """A handler as a user adds it, on the logger of the tests, from level `INFO` on."""
    handler = TaskLogHandler()
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    yield handler
    LOGGER.removeHandler(handler)
    LOGGER.setLevel(logging.NOTSET)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "runs.db")


def logs(where, run_id="run", **which):
    """Return what each task of a run logged, by place, without the time of day."""
    with Journal(where) as journal:
        tasks = journal.tasks(run_id, **which)
    texts = [one.log and re.sub(f"^{STAMP} ", "", one.log, flags=re.MULTILINE) for one in tasks]
    return {one.task if one.element is None else one.element: text for one, text in zip(tasks, texts, strict=True)}


def say(text):
    logging.getLogger("tests.shop").info(text)
    return text


def fail(text):
    say(text)
    raise ValueError(f"no {text}")


@task(retries=2, retry_on=ConnectionError)
def stubborn():
    attempt = current_task().attempt
    if attempt != 2:
        say(f"try {attempt}")
    if attempt < 3:
        raise ConnectionError


def inside(text):
    """Executes a process by itself, of which the journal knows nothing."""
    process = Process("inner")
    process.add_task(say, text)
    return process.execute()


async def say_twice(text):
    say(f"{text} before")
    await asyncio.sleep(0)
    say(f"{text} after")


def kept(process, where, run_id="run", raises=None):
    if raises is None:
        process.execute(journal=where, run_id=run_id)
    else:
        with pytest.raises(raises):
            process.execute(journal=where, run_id=run_id)


# Whose it is


def test_what_a_task_logs_is_in_its_record(where, handler):
    """With time, level and logger, for each task its own, also for one that failed; and nothing for one that is silent."""
    process = Process("orders", "parallel", 2, on_error="return")
    process.add_task(say, "one")
    process.add_task(fail, "two")
    process.add_task(len, "three")
    began = time.time()
    kept(process, where)
    with Journal(where) as journal:
        one, two, three = journal.tasks("run")
    assert re.fullmatch(f"{STAMP} INFO tests.shop: one", one.log)
    assert time.strftime("%Y-%m-%d", time.gmtime(began)) <= one.log[:10]
    assert re.fullmatch(f"{STAMP} INFO tests.shop: two", two.log)
    assert three.log is None


def executors():
    spawn = multiprocessing.get_context("spawn")
    yield pytest.param(lambda: "threads", id="threads")
    yield pytest.param(lambda: "processes", id="processes")
    yield pytest.param(lambda: ThreadPoolExecutor(2), id="a thread pool")
    yield pytest.param(lambda: ProcessPoolExecutor(2, mp_context=spawn), id="a process pool")
    if "fork" in multiprocessing.get_all_start_methods():
        fork = multiprocessing.get_context("fork")
        yield pytest.param(lambda: ProcessPoolExecutor(2, mp_context=fork), id="a forked process pool")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("strategy", ["sequential", "parallel"])
@pytest.mark.parametrize("made", list(executors()))
def test_it_is_the_same_wherever_tasks_run(path, handler, made, strategy):
    """In order or at once, in threads or in processes: tasks, elements of a map, attempts, and runs inside of tasks."""
    executor = made()
    process = Process("orders", strategy, 2, on_error="return", executor=executor)
    for number in range(20):
        process.add_task(say, f"task {number}")
    process.map(say, ["a", "b", "c"])
    process.add_task(stubborn)
    process.add_task(inside, "inner")
    process.add_task(say_twice, "coroutine")
    process.add_task(fail, "the last")
    kept(process, path)
    if not isinstance(executor, str):
        executor.shutdown()
    said = {index: f"INFO tests.shop: task {index}" for index in range(20)}
    assert logs(path) == said | {
        20: None,
        21: "INFO tests.shop: try 1\nattempt 3:\nINFO tests.shop: try 3",
        22: "INFO tests.shop: inner",
        23: "INFO tests.shop: coroutine before\nINFO tests.shop: coroutine after",
        24: "INFO tests.shop: the last",
    }
    assert logs(path, task=20) == {place: f"INFO tests.shop: {'abc'[place]}" for place in range(3)}


def test_tasks_at_the_same_time_do_not_mix(path, handler):
    """Two threads that log in turns each have their own lines."""

    def talk(name):
        for number in range(5):
            TURNS.wait()
            say(f"{name}{number}")

    process = Process("talks", "parallel", 2)
    process.add_task(talk, "a")
    process.map(talk, ["b"])
    kept(process, path)
    assert logs(path)[0] == "\n".join(f"INFO tests.shop: a{number}" for number in range(5))
    assert logs(path, task=1)[0] == "\n".join(f"INFO tests.shop: b{number}" for number in range(5))


COUNT = 20  # of which a worker process soon gets several at once
GO, SAID = threading.Event(), threading.Event()


def leave_a_thread(number):
    """Leave a thread behind that logs when the next call says so, and stay until the one before has logged."""
    if number:
        GO.set()
        assert SAID.wait(20)
    GO.clear()
    SAID.clear()
    say(f"call {number}")

    def late():
        assert GO.wait(20)
        say(f"what call {number} has left behind")
        SAID.set()

    if number < COUNT - 1:
        threading.Thread(target=contextvars.copy_context().run, args=(late,), daemon=True).start()


async def leave_a_coroutine(number):
    """Do the same with a coroutine."""
    if number:
        await asyncio.sleep(0.01)  # in which the one left behind has its turn
        assert SAID.is_set()
    SAID.clear()
    say(f"call {number}")

    async def late():
        say(f"what call {number} has left behind")
        SAID.set()

    if number < COUNT - 1:
        LEFT.append(asyncio.ensure_future(late()))


@task(retries=1)
def leave_a_thread_of_an_attempt(number):
    leave_a_thread(number)


LEFT = []


@pytest.mark.parametrize("as_map", [False, True])
@pytest.mark.parametrize("strategy", ["sequential", "parallel"])
@pytest.mark.parametrize(
    ("work", "executor"),
    [
        (leave_a_thread, "threads"),
        (leave_a_thread, "processes"),
        (leave_a_thread_of_an_attempt, "threads"),
        (leave_a_thread_of_an_attempt, "processes"),
        (leave_a_coroutine, "threads"),
    ],
)
def test_what_a_call_leaves_behind_logs_into_no_others_record(path, handler, work, executor, strategy, as_map):
    """Nor into its own, which has been written by then."""
    process = Process("left", strategy, 1, executor=executor)
    if as_map:
        process.map(work, range(COUNT))
    else:
        for number in range(COUNT):
            process.add_task(work, number)
    kept(process, path)
    found = logs(path, task=0) if as_map else logs(path)
    assert found == {number: f"INFO tests.shop: call {number}" for number in range(COUNT)}
    LEFT.clear()


def test_a_run_that_outlives_the_task_that_started_it_logs_into_no_others_record(path, handler):
    """It is that task's while it lasts."""
    GO.clear()
    process = Process("outer")
    process.add_task(start_a_run)
    process.add_task(end_it)
    kept(process, path)
    assert logs(path) == {0: None, 1: None}


def start_a_run():
    inner = Process("inner")
    inner.add_task(lambda: GO.wait(20) and say("late"))
    LEFT.append(inner.start())


def end_it():
    GO.set()
    assert LEFT.pop().result(20) == ["late"]


def test_coroutines_at_the_same_time_do_not_mix(path, handler):
    """What a coroutine logs after an await is its own still, whoever had the loop meanwhile."""
    process = Process("talks", "parallel", 3)

    async def talk(name):
        for number in range(5):
            say(f"{name}{number}")
            await asyncio.sleep(0)
            await asyncio.to_thread(say, f"{name} aside")

    for name in "ab":
        process.add_task(talk, name)
    process.map(talk, ["c", "d", "e"])
    kept(process, path)

    def expected(name):
        return "\n".join(f"INFO tests.shop: {name}{number}\nINFO tests.shop: {name} aside" for number in range(5))

    assert logs(path) == {0: expected("a"), 1: expected("b"), 2: None}
    assert logs(path, task=2) == {place: expected(name) for place, name in enumerate("cde")}


def test_what_an_iterable_logs_is_the_maps_own(path, handler):
    """Drawing belongs to no element."""

    def source():
        for number in range(3):
            say(f"draws {number}")
            yield str(number)
        say("drawn")

    process = Process("drawn", "sequential")
    process.map(say, source())
    kept(process, path)
    assert logs(path) == {
        0: "\n".join(f"INFO tests.shop: {what}" for what in ("draws 0", "draws 1", "draws 2", "drawn"))
    }
    assert logs(path, task=0) == {place: f"INFO tests.shop: {place}" for place in range(3)}


def test_a_run_inside_a_run_has_its_own(path, handler):
    """A process as a task is recorded task by task, with what each logged."""
    inner = Process("inner")
    inner.add_task(say, "one")
    inner.add_task(say, "two")
    outer = Process("outer")
    outer.add_task(inner)
    kept(outer, path)
    assert logs(path) == {0: None}
    assert logs(path, "run/0") == {0: "INFO tests.shop: one", 1: "INFO tests.shop: two"}


def test_a_resumed_run_keeps_the_log_of_what_was_done_before(where, handler):
    """What had ended keeps its own; what is called again has that of the last call."""

    def second():
        say(f"broken: {bool(BROKEN)}")
        if BROKEN:
            raise ValueError

    def built():
        process = Process("resumed")
        process.add_task(say, "first")
        process.add_task(second)
        return process

    BROKEN.add("second")
    kept(built(), where, raises=ValueError)
    assert logs(where) == {0: "INFO tests.shop: first", 1: "INFO tests.shop: broken: True"}
    BROKEN.clear()
    kept(built(), where)
    assert logs(where) == {0: "INFO tests.shop: first", 1: "INFO tests.shop: broken: False"}


def test_outside_of_a_recorded_runs_tasks_it_keeps_nothing(path, handler):
    """A program's own lines are nobody's, and a run that is not recorded pays for none of its tasks'."""
    process = Process("not recorded", "parallel", 2)
    process.add_task(say, "x")
    process.execute()
    assert process.last_run._course.logs is None
    process = Process("recorded")
    process.add_task(len, "abc")
    say("before")
    run = process.start(journal=path, run_id="run")
    say("beside")
    run.result(20)
    assert logs(path) == {0: None}
    assert run._course.logs == {}


def test_nothing_stays_in_memory_once_it_is_recorded(path, handler):
    """A run of any length holds no more than what its calls in flight have logged."""
    process = Process("many", "parallel", 2, on_error="return")
    for number in range(100):
        process.add_task(say if number % 2 else fail, "x")
    process.map(say, "abc")
    kept(process, path)
    assert process.last_run._course.logs == {}


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_a_task_that_ran_into_its_timeout_has_what_it_logged_until_then(
    path, handler, executor, tmp_path, caplog, comes_true
):
    """That is when one wants it most; what an abandoned thread says later is dropped."""
    process = Process("late", "parallel", 2, on_error="return", executor=executor)
    process.add_task(task(timeout=1.0)(hang), str(tmp_path / "go on"))
    [error] = process.execute(journal=path, run_id="run")
    assert isinstance(error, TaskTimeoutError)
    assert logs(path) == {0: "INFO tests.shop: about to hang"}
    (tmp_path / "go on").touch()
    if executor == "threads":
        assert comes_true(lambda: "too late" in caplog.messages)
        assert process.last_run._course.logs == {}


def hang(path):
    say("about to hang")
    while not os.path.exists(path):
        time.sleep(0.01)
    say("too late")


@task(retries=2)
def crash(text):
    """Dies in its second attempt without a word, and in its third with many."""
    attempt = current_task().attempt
    if attempt == 1:
        fail(text)
    if attempt == 3:
        for number in range(3_000):
            LOGGER.warning("%s %d ü", text, number)
    os._exit(3)


def leave():
    os._exit(3)


def test_a_worker_process_that_dies_leaves_what_its_task_had_logged(path, handler):
    """Whatever ended it, and only to the task that it died in."""
    process = Process("dying", "parallel", 1, on_error="return", executor="processes")
    for number in range(200):
        process.add_task(*((leave,) if number in (5, 150) else (say, f"task {number}")))
    process.map(crash, ["a"])
    kept(process, path)
    said = {number: f"INFO tests.shop: task {number}" for number in range(200)}
    assert logs(path, limit=300) == said | {5: None, 150: None, 200: None}
    assert process.last_run._course.logs == {}
    first, second, head, *lines = logs(path, task=200)[0].splitlines()
    left_out = re.fullmatch(r"… ([\d,]+) earlier entries left out", first)
    assert second == "attempt 3:"
    lines = [head, *lines]
    assert lines == [f"WARNING tests.shop: a {number} ü" for number in range(3_000 - len(lines), 3_000)]
    assert int(left_out[1].replace(",", "")) == 3_000 - len(lines) + 1
    assert len(lines) > 200


def test_an_attempt_that_dies_without_a_word_repeats_nobody_elses(path, handler):
    """What the attempt before had logged is there once."""
    process = Process("dying", "parallel", 1, on_error="return", executor="processes")
    process.add_task(task(retries=1)(fail_then_die))
    kept(process, path)
    assert logs(path) == {0: "INFO tests.shop: once"}


def fail_then_die():
    if current_task().attempt == 1:
        fail("once")
    os._exit(3)


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
