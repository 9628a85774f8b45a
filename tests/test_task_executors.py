"""Tasks with an executor of their own, by `@task(executor=...)`: the calls are made there, and all else holds."""

import gc
import os
import signal
import threading
import time
import weakref
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest

from errands import add, append_to, called, die_before, fail_before, kill_me, noted, same
from placed_jobs import (
    WAIT_S,
    at_most,
    awaited,
    awaited_rows,
    facts,
    fail_of,
    fetched,
    last_lets_the_first_go,
    parsed,
    say_and_hang,
    say_and_wait_for_cancel,
    where,
    written,
)
from pool_fixtures import children, workers  # noqa: F401 - a fixture
from procession import (
    HandleError,
    Limit,
    Process,
    RunCancelledError,
    TaskTimeoutError,
    TransferError,
    WorkerDiedError,
    WorkerProcesses,
    stream,
    task,
)
from procession._remote.backends.base import Arrival, Recalled
from procession._remote.batch_size import BatchSize
from procession._remote.submissions import Submission, Submissions
from procession._remote.wire.batch import Report
from procession._remote.wire.result import Result
from single_tasks import no_backoff

ENGINES = "threads", "loop"
EXECUTORS = "processes", "workers", "threads", "pool"


@contextmanager
def executor_of(kind):
    made = {
        "processes": lambda: None,
        "workers": lambda: WorkerProcesses(2),
        "threads": lambda: ThreadPoolExecutor(2, thread_name_prefix="theirs"),
        "pool": lambda: ProcessPoolExecutor(2),
    }[kind]()
    if made is None:
        yield kind
    else:
        with made:
            yield made


def process_on(engine, *args, **options):
    """Return a process that an event loop drives, or threads."""
    process = Process("placed", *args, **options)
    if engine == "loop":
        process.add_task(awaited, 0)
    return process


@pytest.fixture(autouse=True)
def _nothing_is_left():
    """After each run, however it ends, there is neither a worker process of it nor a thread."""
    before, threads = children(), set(threading.enumerate())
    yield
    deadline = time.monotonic() + WAIT_S
    while not (children() <= before and set(threading.enumerate()) <= threads):
        assert time.monotonic() < deadline, (children() - before, set(threading.enumerate()) - threads)
        time.sleep(0.01)


def wait_for(condition):
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize("kind", EXECUTORS)
@pytest.mark.parametrize(("fetch", "write"), [(fetched, written), (awaited, awaited_rows), (awaited, written)])
def test_a_stage_of_a_pipeline_is_called_on_its_executor_and_the_others_here(fetch, write, kind):
    """Fetch here, parse there, write here, in order, in one process."""
    with executor_of(kind) as executor:
        process = Process("pipeline", "parallel", 4)
        pages = process.map(fetch, range(100))
        rows = process.map(task(executor=executor)(parsed), pages)
        process.add_task(write, stream(rows))
        here, found = process.execute()[2]
    assert here == os.getpid()
    assert [number for number, _, _ in found] == list(range(0, 200, 2))
    assert {there for _, there, _ in found} == {os.getpid()}
    assert ({there for _, _, there in found} == {os.getpid()}) == (kind == "threads")


@pytest.mark.parametrize("kind", EXECUTORS)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("strategy", ["sequential", "parallel", "hybrid"])
def test_results_are_in_order_and_handles_hold_under_each_strategy(strategy, engine, kind):
    """It says where calls are made, never when."""
    with executor_of(kind) as executor:
        process = process_on(engine, strategy, 3)
        two = process.task(task(executor=executor)(add), 1, 1)
        four = process.task(add, two, two)
        numbers = process.map(task(executor=executor)(same), range(20))
        process.add_task(task(executor=executor)(sum), numbers)
        process.add_task(task(executor=executor)(add), four, 1)
        assert process.execute()[-5:] == [2, 4, list(range(20)), 190, 5]


def test_a_call_runs_where_its_executor_is():
    """Each task on its own, side by side with those that have none."""
    with executor_of("threads") as pool, executor_of("workers") as own:
        process = Process("places", "parallel", 4)
        for executor in None, pool, own, "processes":
            process.add_task(task(executor=executor)(where))
        (here, _), (there, thread), (first, _), (second, _) = process.execute()
    assert here == there == os.getpid()
    assert thread.startswith("theirs")
    assert len({first, second, os.getpid()}) == 3


@pytest.mark.parametrize("engine", ENGINES)
def test_tasks_that_name_processes_share_the_workers_of_the_run(engine):
    """As many as `max_workers` allows, for all of them."""
    process = process_on(engine, "parallel", 2)
    for _ in range(3):
        process.map(task(executor="processes")(where), range(10))
    found = process.execute()[-3:]
    assert len({pid for part in found for pid, _ in part}) <= 2


@pytest.mark.parametrize("kind", EXECUTORS)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_call_knows_which_task_it_is(engine, kind):
    """Its place, element, attempt and names."""
    with executor_of(kind) as executor:
        process = process_on(engine, "parallel", 2)
        process.add_task(task(executor=executor, name="told")(facts))
        process.map(task(executor=executor)(facts), range(3))
        alone, elements = process.execute()[-2:]
    first = len(process.tasks) - 2
    assert alone == (first, None, 1, "told", "placed")
    assert elements == [(first + 1, element, 1, "map of facts", "placed") for element in range(3)]


@pytest.mark.parametrize("engine", ENGINES)
def test_the_bound_of_the_run_holds_over_all_executors(engine, tmp_path):
    """Calls there and calls here count together."""
    process = process_on(engine, "parallel", 2)
    with executor_of("workers") as executor:
        function = partial(at_most, tmp_path)
        process.map(task(executor=executor)(function), range(0, 40, 2))
        process.map(function, range(1, 40, 2))
        counts = [count for part in process.execute()[-2:] for count in part]
    # Several of a map may travel together, and then they are called one after another.
    assert max(counts) <= 2


# Failures


@pytest.mark.parametrize("kind", EXECUTORS)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_failure_there_is_one_here(engine, kind):
    """The exception as it was raised, with the note that says where."""
    with executor_of(kind) as executor:
        process = process_on(engine, "parallel", 2)
        process.map(task(executor=executor, name="pick")(partial(fail_of, wrong=[7])), range(20))
        with pytest.raises(KeyError) as caught:
            process.execute()
    index = len(process.tasks) - 1
    assert caught.value.args == (7,)
    assert caught.value.__notes__[-1] == (f"in process 'placed', task {index} (map of pick), element 7, attempt 1")


@pytest.mark.parametrize(
    "options", [{}, {"retries": no_backoff(2)}, {"timeout": 30}], ids=["plain", "retried", "timed"]
)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_call_that_was_not_made_has_not_begun(engine, options, comes_true):
    """It waited in the executor when the run was cancelled, which takes no time then."""
    free = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        try:
            executor.submit(free.wait)
            process = process_on(engine, "parallel", 2)
            process.add_task(task(executor=executor, **options)(where))
            run = process.start()
            assert comes_true(executor._work_queue.qsize)
            run.cancel()
            with pytest.raises(RunCancelledError):
                run.result(WAIT_S)
        finally:
            free.set()
    assert (run.outcomes[-1].state, run.outcomes[-1].attempts) == ("cancelled", 0)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_ends_though_elements_come_back_uncalled_after_a_failure(engine):
    """Those that lay behind another one, as elements travel together, when the run was stopped."""
    fails, others = threading.Event(), threading.Event()

    def fail_beside_others(number):
        if number == 100:
            fails.set()
            assert others.wait(WAIT_S)
            raise KeyError(number)
        if fails.is_set():
            others.set()
            wait_for(lambda: process.last_run._run_state.ledger.halted)
        return number

    with ThreadPoolExecutor(2) as executor:
        process = process_on(engine, "parallel", 2)
        process.map(task(executor=executor)(fail_beside_others), range(2000))
        with pytest.raises(KeyError, match="100"):
            process.execute()


@pytest.mark.parametrize("kind", ["workers", "threads"])
@pytest.mark.parametrize("engine", ENGINES)
def test_failed_elements_are_left_out_of_what_follows(engine, kind):
    """With on_error="return", the others go on through the pipeline."""
    with executor_of(kind) as executor:
        process = process_on(engine, "parallel", 2, on_error="return")
        picked = process.map(task(executor=executor)(partial(fail_of, wrong=[1, 3])), range(30))
        process.add_task(sum, stream(picked))
        found, total = process.execute()[-2:]
    assert total == sum(range(30)) - 4
    assert [type(value) for value in found[:4]] == [int, KeyError, int, KeyError]


@pytest.mark.parametrize("kind", EXECUTORS)
@pytest.mark.parametrize("engine", ENGINES)
def test_retries_hold(engine, kind, tmp_path):
    """Of a task, and of the elements of a map."""
    with executor_of(kind) as executor:
        process = process_on(engine, "parallel", 2)
        retried = task(executor=executor, retries=no_backoff(3))(fail_before)
        process.add_task(retried, tmp_path, 2)
        folders = [tmp_path / "a", tmp_path / "b"]
        for folder in folders:
            folder.mkdir()
        process.map(task(executor=executor, retries=1)(partial(fail_before, times=1)), folders)
        assert process.execute()[-2:] == [3, [2, 2]]
    assert process.last_run.outcomes[-2].attempts == 3


@pytest.mark.parametrize("kind", ["processes", "workers"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_worker_that_dies_fails_its_call_alone(engine, kind, tmp_path):
    """And another attempt is made by another worker."""
    with executor_of(kind) as executor:
        process = process_on(engine, "parallel", 2, on_error="return")
        process.add_task(task(executor=executor)(kill_me))
        process.map(task(executor=executor)(same), range(20))
        process.add_task(task(executor=executor, retries=1)(die_before), tmp_path, 1)
        died, elements, again = process.execute()[-3:]
    assert isinstance(died, WorkerDiedError)
    assert elements == list(range(20))
    assert again == 2


@pytest.mark.parametrize("kind", ["processes", "workers"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_timeout_ends_the_worker(engine, kind, tmp_path):
    """The process is gone, and its place is another's."""
    with executor_of(kind) as executor:
        process = process_on(engine, "parallel", 2, on_error="return")
        process.add_task(task(executor=executor, timeout=3.0, name="hang")(say_and_hang), tmp_path)
        process.map(task(executor=executor)(same), range(10))
        late, elements = process.execute()[-2:]
        index = len(process.tasks) - 2
        assert isinstance(late, TaskTimeoutError)
        assert str(late) == f"task {index} (hang) took longer than its timeout of 3 s"
        assert elements == list(range(10))
        assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_call_that_is_late_is_left_behind_on_another_executor(engine):
    """No other attempt is made beside it."""
    release, calls = threading.Event(), []

    def hang():
        calls.append(None)
        release.wait(WAIT_S)

    with executor_of("threads") as executor:
        try:
            process = process_on(engine, "parallel", 2, on_error="return")
            process.add_task(task(executor=executor, timeout=0.05, retries=no_backoff(3))(hang))
            assert isinstance(process.execute()[-1], TaskTimeoutError)
        finally:
            release.set()
    assert len(calls) == 1


def test_the_time_of_a_call_begins_when_it_does():
    """And not while it waits for a worker."""
    with WorkerProcesses(1) as executor:
        for timeout in 2.0, 12.0:  # the longer one only where the machine was held up
            process = Process("late", "parallel", 6, on_error="return")
            process.map(task(executor=executor, timeout=timeout)(time.sleep), [timeout / 4] * 6)
            results = process.execute()
            if results == [[None] * 6]:
                break
        assert results == [[None] * 6]


@pytest.mark.parametrize("engine", ENGINES)
def test_what_cannot_be_pickled_is_named_and_not_tried_again(engine):
    """In a task and in one element of several."""
    lock, attempts = threading.Lock(), []
    process = process_on(engine, "parallel", 2, on_error="return")
    with executor_of("workers") as executor:
        there = task(executor=executor, retries=3, retry_on=Exception)(same)
        process.add_task(there, lock)
        process.map(there, [1, lock, 3])
        alone, elements = process.execute()[-2:]
    assert isinstance(alone, TransferError)
    assert "argument 0" in str(alone)
    assert "lock" in str(alone)
    assert [elements[0], elements[2]] == [1, 3]
    assert isinstance(elements[1], TransferError)
    assert process.last_run.outcomes[-2].attempts == 1
    assert not attempts


# Limits, streams, order of work


@pytest.mark.parametrize("kind", ["workers", "threads"])
@pytest.mark.parametrize("engine", ENGINES)
def test_limits_hold(engine, kind, tmp_path):
    """At most so many at the same time."""
    limit = Limit("there", at_once=1)
    with executor_of(kind) as executor:
        process = process_on(engine, "parallel", 4)
        process.map(task(executor=executor, limit=limit)(partial(at_most, tmp_path)), range(20))
        assert process.execute()[-1] == [1] * 20


@pytest.mark.parametrize("kind", EXECUTORS)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_call_that_others_lie_behind_keeps_no_free_worker_from_them(engine, kind, tmp_path):
    """Quick elements travel together; the one that waits for one behind it gets it."""
    with executor_of(kind) as executor:
        process = process_on(engine, "parallel", 4)
        process.map(task(executor=executor)(partial(last_lets_the_first_go, tmp_path, last=299)), range(300))
        assert process.execute()[-1] == list(range(300))


@pytest.mark.parametrize("engine", ENGINES)
def test_each_element_that_travels_gets_its_own_arguments(engine):
    """What one changes, another does not see."""
    shared = []
    with executor_of("workers") as executor:
        process = process_on(engine, "parallel", 2)
        process.map(task(executor=executor)(partial(append_to, shared)), range(200))
        assert process.execute()[-1] == [1] * 200
    assert shared == []


@pytest.mark.parametrize("engine", ENGINES)
def test_unkept_values_are_let_go(engine):
    """A pipeline with a stage there keeps nothing of what went through."""
    with executor_of("workers") as executor:
        process = process_on(engine, "parallel", 2)
        numbers = process.map(task(executor=executor, keep=False)(same), range(500))
        process.add_task(sum, stream(numbers))
        kept, total = process.execute()[-2:]
    assert (kept.count, total) == (500, sum(range(500)))


# The end of a run


@pytest.mark.parametrize("kind", ["processes", "workers"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_cancel_reaches_the_call(engine, kind, tmp_path):
    """It may end as it likes, within a second."""
    with executor_of(kind) as executor:
        process = process_on(engine, "parallel", 2)
        process.add_task(task(executor=executor)(say_and_wait_for_cancel), tmp_path)
        run = process.start()
        wait_for(lambda: called(tmp_path, "started"))
        run.cancel()
        with pytest.raises(RunCancelledError):
            run.result()
    assert called(tmp_path, "stopped")


@pytest.mark.parametrize("kind", ["processes", "workers"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_call_that_takes_no_notice_of_a_cancel_is_ended(engine, kind, tmp_path):
    """With its worker, after a second."""
    with executor_of(kind) as executor:
        process = process_on(engine, "parallel", 2)
        process.add_task(task(executor=executor)(say_and_hang), tmp_path)
        run = process.start()
        wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        begun = time.monotonic()
        run.cancel()
        with pytest.raises(RunCancelledError):
            run.result()
        assert time.monotonic() - begun < WAIT_S / 2


@pytest.mark.parametrize("engine", ENGINES)
def test_a_failure_here_keeps_calls_from_beginning_there(engine, tmp_path):
    """What waits for a worker is not called any more."""
    failing = threading.Event()

    def fail_then():
        failing.wait(WAIT_S)
        raise OSError("here")

    with WorkerProcesses(1) as executor:
        process = process_on(engine, "parallel", 8)
        process.add_task(fail_then)
        process.map(task(executor=executor)(partial(say_once_and_wait, tmp_path)), range(30))
        run = process.start()
        wait_for(lambda: called(tmp_path, "started"))
        failing.set()
        wait_for(lambda: run.outcomes[len(process.tasks) - 2].error)
        Path(tmp_path, "go").touch()
        with pytest.raises(OSError, match="here"):
            run.result()
    assert called(tmp_path, "started") <= 3


def say_once_and_wait(folder, number):
    noted(folder, "started")
    deadline = time.monotonic() + WAIT_S
    while not Path(folder, "go").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    return number


def test_a_run_keeps_nothing_of_its_values_alive():
    """No cycle is left that would keep what a run had."""

    class Value:
        pass

    gc.collect()
    gc.disable()
    try:
        with executor_of("threads") as executor:
            process = Process("values", "parallel", 2)
            process.add_task(task(executor=executor)(Value))
            value = weakref.ref(process.execute()[0])
            assert value() is None
    finally:
        gc.enable()


def test_a_run_in_a_worker_of_an_executor_makes_calls_of_that_executor_itself():
    """To wait there for another worker could be to wait for ever."""
    with ThreadPoolExecutor(1) as executor:

        def inner():
            process = Process("inner")
            process.add_task(task(executor=executor)(same), 5)
            return process.execute()

        process = Process("outer")
        process.add_task(task(executor=executor)(inner))
        assert process.execute() == [[5]]


# What is refused


async def coroutine():
    return 1


def test_an_executor_of_its_own_is_refused_where_it_has_no_meaning():
    """Plainly, where the task is defined."""
    with pytest.raises(TypeError, match=r"task 'coroutine' is for plain functions: a coroutine function is awaited"):
        task(executor="processes")(coroutine)
    with pytest.raises(TypeError, match=r"a process says itself where its tasks run"):
        task(executor="processes")(Process("inner"))
    with pytest.raises(ValueError, match=r"task\(executor=\.\.\.\) takes 'processes', a WorkerProcesses or .* got 'x'"):
        task(executor="x")
    with pytest.raises(TypeError, match=r"task\(executor=\.\.\.\) takes 'processes', a WorkerProcesses or .* got 4"):
        task(executor=4)
    process = Process("streams", "parallel")
    numbers = process.map(same, range(3))
    with pytest.raises(
        HandleError, match=r"task 1 \(sum\): with an executor of its own .* leave task\(executor=\.\.\."
    ):
        process.add_task(task(executor="processes")(sum), stream(numbers))


def test_a_process_whose_calls_are_all_made_elsewhere_takes_no_other_executor():
    """But the same one."""
    process = Process("elsewhere", executor="processes")
    process.add_task(task(executor="processes")(same), 1)
    assert process.execute() == [1]
    with WorkerProcesses(1) as executor:
        process.add_task(task(executor=executor)(same), 1)
        with pytest.raises(ValueError, match=r"task 1 \(same\): task\(executor=\.\.\.\) is for processes with exec"):
            process.execute()
    assert process.status == "completed"


def test_worker_processes_that_were_shut_down_take_no_run():
    """Said before anything is called."""
    executor = WorkerProcesses(1)
    executor.shutdown()
    process = Process("too late")
    process.add_task(task(executor=executor)(same), 1)
    with pytest.raises(RuntimeError, match="WorkerProcesses was shut down"):
        process.execute()


def test_calls_that_come_back_unmade_from_a_recalled_batch_are_made_once():
    """They are sent anew, and settled."""
    sent = []

    class Backend:
        kills, within, busy = True, None, True

        def room(self, waiting, call_s):
            return 1

        def send(self, batch, timeout):
            sent.append(batch)
            assert len(sent) <= 2

        def recall(self, late):
            return [Recalled(batch, (ended(batch, 0),), 2) for batch in late if batch is sent[0] and len(sent) == 1]

        def receive(self, seconds):
            batch = sent[-1]
            if len(sent) > 1:
                return [Arrival(batch, Report("", [ended(batch, 0)], 0.0, 0.0), None)] if len(sent) == 2 else []
            time.sleep(0.02)  # so long that it is late
            if submission.future.done():
                return [Arrival(batch, Report("", [ended(batch, 0)], 0.0, 0.0), None)]
            return []

        def wake(self):
            pass

        def close(self, *, at_once):
            pass

    def ended(batch, place):
        return Result(True, batch.calls[place][5][0], 0.0, 0.0, "")

    submissions = Submissions("test", Backend)
    submission = Submission([(0, place, 1, None, same, (place,), {}) for place in range(2)], BatchSize())
    submissions.submit(submission)
    first = submission.future.result(WAIT_S)
    assert [result.value for result in first.ended] == [0]
    assert first.others == 1
    second = first.going.future.result(WAIT_S)
    assert [result.value for result in second.ended] == [1]
    submissions.end()
    submissions.join()
    assert len(sent) == 2


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("strategy", ["sequential", "parallel"])
def test_ctrl_c_waits_for_the_call_that_goes_on(strategy, engine, tmp_path):
    """Nothing else begins, and no worker is left."""

    def interrupt():
        wait_for(lambda: called(tmp_path, "started"))
        os.kill(os.getpid(), signal.SIGINT)
        wait_for(lambda: process.last_run._execution.run_state.cancelled)
        Path(tmp_path, "go").touch()

    process = process_on(engine, strategy, 1)
    for number in range(2):
        process.add_task(task(executor="processes")(say_once_and_wait), tmp_path, number)
    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    with pytest.raises(KeyboardInterrupt):
        process.execute()
    interrupting.join()
    assert [outcome.state for outcome in process.last_run.outcomes[-2:]] == ["completed", "cancelled"]
    assert called(tmp_path, "started") == 1
