"""What tasks log is kept with their own records, wherever they run."""

import asyncio
import contextvars
import multiprocessing
import os
import re
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest

from logging_tasks import LOGGER, fail, hang, inside, say, say_twice, stubborn
from task_logs import BROKEN, STAMP, TURNS, handler, kept, logs, path
from procession import Process, TaskTimeoutError, current_task, task
from procession.journal import Journal


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
        22: None,  # what a run with a journal of its own logs is kept there
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
    LEFT.append(inner.start(run_id="inner", journal=":memory:"))


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
    assert process.last_run._run_state.logs is None
    process = Process("recorded")
    process.add_task(len, "abc")
    say("before")
    run = process.start(journal=path, run_id="run")
    say("beside")
    run.result(20)
    assert logs(path) == {0: None}
    assert run._run_state.logs == {}


def test_nothing_stays_in_memory_once_it_is_recorded(path, handler):
    """A run of any length holds no more than what its calls in flight have logged."""
    process = Process("many", "parallel", 2, on_error="return")
    for number in range(100):
        process.add_task(say if number % 2 else fail, "x")
    process.map(say, "abc")
    kept(process, path)
    assert process.last_run._run_state.logs == {}


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_a_task_that_ran_into_its_timeout_has_what_it_logged_until_then(
    path, handler, executor, tmp_path, caplog, comes_true
):
    """That is when one wants it most; what an abandoned thread says later is dropped."""
    process = Process("late", "sequential", 1, on_error="return", executor=executor)
    process.add_task(say, "first")  # what a worker imports for a call counts as the call's time
    process.add_task(task(timeout=1.0)(hang), str(tmp_path / "go on"))
    _, error = process.execute(journal=path, run_id="run")
    assert isinstance(error, TaskTimeoutError)
    assert logs(path) == {0: "INFO tests.shop: first", 1: "INFO tests.shop: about to hang"}
    (tmp_path / "go on").touch()
    if executor == "threads":
        assert comes_true(lambda: "too late" in caplog.messages)
        assert process.last_run._run_state.logs == {}


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
    assert process.last_run._run_state.logs == {}
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
