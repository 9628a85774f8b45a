"""Tasks on worker processes, and on executors of all kinds."""

import contextvars
import logging
import os
import signal
import site
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from textwrap import dedent

import psutil
import pytest

import errands
from errands import add, called, noted, same, throw
from procession import (
    ExecutorBrokenError,
    Process,
    RemoteError,
    RunCancelledError,
    TaskTimeoutError,
    TransferError,
    WorkerDiedError,
    WorkersUnavailableError,
    current_task,
    task,
)
from procession._remote.backends import processes as crew_processes
from procession._remote.wire import serialize as travel
from procession._remote.wire.batch import Batch, run_batch
from procession._remote.batch_size import BatchSize
from procession._remote.wire.crash_file import Trace

STRATEGIES = ["sequential", "parallel", "hybrid"]
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and fork are POSIX's")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")


# Executors of all kinds


def _loky():
    return pytest.importorskip("loky").ProcessPoolExecutor(2)


def _executorlib():
    # Its workers are programs of their own, which know nothing of where this one has its modules.
    os.environ["PYTHONPATH"] = os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")])
    return pytest.importorskip("executorlib").SingleNodeExecutor(max_workers=2, block_allocation=True)


def _interpreters():
    futures = __import__("concurrent.futures", fromlist=["futures"])
    if not hasattr(futures, "InterpreterPoolExecutor"):
        pytest.skip("this Python has no InterpreterPoolExecutor: it comes with 3.14")
    # Its interpreters begin with the path that Python itself has.
    return futures.InterpreterPoolExecutor(2, initializer=site.addsitedir, initargs=(os.path.dirname(__file__),))


GIVEN = {
    "ThreadPoolExecutor": lambda: ThreadPoolExecutor(2),
    "ProcessPoolExecutor": lambda: ProcessPoolExecutor(2, mp_context=get_context("spawn")),
    "loky": _loky,
    "executorlib": _executorlib,
    "InterpreterPoolExecutor": _interpreters,
}


@pytest.fixture(scope="module", params=["processes", *GIVEN])
def executor(request):
    """Each executor in turn, the same one for all tests of this file."""
    if request.param == "processes":
        yield "processes"
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))  # put back at the end
        made = GIVEN[request.param]()
        yield made
        made.shutdown()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_results_stand_in_the_order_added(executor, strategy):
    """On every executor and under every strategy."""
    process = Process("ordered", strategy, 3, executor=executor)
    for number in range(500):
        process.add_task(same, number)
    assert process.execute() == list(range(500))
    assert process.execute() == list(range(500))
    assert process.status == "completed"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_values_and_maps_travel(executor, strategy):
    """Handles become values, maps of lists, of generators and of values give lists, coroutines are awaited."""
    process = Process("wired", strategy, 3, executor=executor)
    one = process.task(same, 3)
    squares = process.map(pow, range(100), [2] * 100)
    total = process.task(sum, squares)
    process.task(add, one, total, *[one, one])
    process.map(add, squares, squares)
    process.map(same, (number for number in range(1000)))
    process.map(same, [])
    process.add_task(errands.later, "awaited")
    process.map(errands.later, [1, 2])
    expected = [number**2 for number in range(100)]
    assert process.execute() == [
        3,
        expected,
        sum(expected),
        sum(expected) + 9,
        [2 * number for number in expected],
        list(range(1000)),
        [],
        "awaited",
        [1, 2],
    ]


@pytest.mark.parametrize("policy", ["stop", "continue", "return"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_failures_are_what_they_are_on_threads(executor, strategy, policy):
    """The same exceptions, states and notes, whatever the policy."""

    def outcome(where):
        process = Process("failing", strategy, 1, on_error=policy, executor=where)
        for number in range(4):
            process.add_task(same, number)
        process.add_task(throw, KeyError("no"))
        process.add_task(same, 5)
        try:
            ending = [repr(value) for value in process.execute()]
        except Exception as error:
            ending = repr(error)
        outcomes = process.last_run.outcomes
        noted = [note for note in outcomes[4].error.__notes__ if note.startswith("in process")]
        return ending, [(one.state, repr(one.error), one.attempts) for one in outcomes], noted

    assert outcome(executor) == outcome("threads")


@pytest.mark.parametrize("place", [4, 6, 9])
def test_nothing_starts_after_a_failure_that_stops_the_run(tmp_path, place):
    """With one worker that is certain: what lies ready at it comes back, too."""
    process = Process("stopped", "parallel", 1, executor="processes")
    for number in range(12):
        # As long as makes chunks of one or two, the next of which is sent before the one before has ended.
        process.add_task(*((throw, KeyError("no")) if number == place else (errands.note_slowly, str(tmp_path))))
    with pytest.raises(KeyError):
        process.execute()
    assert called(tmp_path) == place
    assert [outcome.state for outcome in process.last_run.outcomes[place + 1 :]] == ["skipped"] * (11 - place)


def test_attempts_are_counted_wherever_they_are_made(executor, tmp_path):
    """A call is made exactly once for each attempt, and can ask which one it is."""
    process = Process("retried", "parallel", 2, executor=executor)
    process.add_task(task(retries=3, name="thrice")(partial(errands.fail_before, str(tmp_path))), 2)
    process.add_task(errands.who)
    process.map(task(name="each")(partial(errands.who)), [0])
    assert process.execute() == [
        3,
        ("who", 1, 1, "retried", False),
        [("map of each", 2, 1, "retried", False)],
    ]
    assert called(tmp_path) == 3
    assert [outcome.attempts for outcome in process.last_run.outcomes] == [3, 1, 1]


def test_a_task_that_can_not_be_sent_fails_alone(executor):
    """Where calls are pickled, it says which part could not be; the others run."""
    process = Process("boxes", "parallel", 2, on_error="return", executor=executor)
    for number in range(3):
        process.add_task(same, number)
    process.add_task(same, threading.Lock())
    process.add_task(errands.lock)
    process.add_task(same, 5)
    *first, argument, result, last = process.execute()
    assert [*first, last] == [0, 1, 2, 5]
    if type(executor) is ThreadPoolExecutor:  # of which that of interpreters is a kind
        assert type(argument) is type(result) is type(threading.Lock())
        return
    assert isinstance(argument, TransferError)
    assert isinstance(result, TransferError)
    assert "argument 0, an object of type lock," in str(argument)
    assert "the result, an object of type lock," in str(result)
    assert "in process 'boxes', task 3 (same), attempt 1" in argument.__notes__
    assert "in process 'boxes', task 4 (lock), attempt 1" in result.__notes__


def test_lambdas_and_closures_travel(executor):
    """By value, through cloudpickle."""
    base = 40
    process = Process("closed over", "parallel", 2, executor=executor)
    process.add_task(lambda: base + 2)
    process.map(lambda number: number + base, range(3))
    assert process.execute() == [42, [40, 41, 42]]


def test_what_a_worker_says_of_itself_is_in_the_outcome(executor):
    """Start, duration and worker are known, whoever made the call."""
    process = Process("timed", "parallel", 2, executor=executor)
    for _ in range(10):
        process.add_task(same, 0)
    process.execute()
    run = process.last_run
    for outcome in run.outcomes:
        assert 0 <= outcome.start <= outcome.start + outcome.duration <= run.duration
        assert outcome.worker


def test_a_process_inside_a_process_runs_where_it_says(executor):
    """It is driven from here: its tasks go to its own executor."""
    inner = Process("inner", "parallel", 2, executor=executor)
    inner.add_task(same, 1)
    inner.add_task(errands.pid)
    outer = Process("outer", "parallel", 1, executor=executor)
    outer.add_task(inner)
    outer.add_task(same, 2)
    (one, where), two = outer.execute()
    assert (one, two) == (1, 2)
    assert (where == os.getpid()) == isinstance(executor, ThreadPoolExecutor)


def test_every_start_and_end_is_logged_in_order(executor, caplog):
    """With the level DEBUG, each task starts once and then completes."""
    caplog.set_level(logging.DEBUG, "procession")
    process = Process("logged", "parallel", 2, executor=executor)
    for _ in range(20):
        process.add_task(same, 0)
    process.execute()
    for index in range(20):
        told = [record.message for record in caplog.records if getattr(record, "index", None) == index]
        assert told == ["task_started", "task_completed"]


# The option


def test_an_unknown_executor_is_refused_at_construction():
    """The error lists the known ones; an attribute that was changed is looked at again."""
    with pytest.raises(
        ValueError, match="process 'p': unknown executor 'threds'; known are 'threads', 'processes', 'dask', 'ray', "
    ):
        Process("p", executor="threds")
    with pytest.raises(TypeError, match="executor is 4; known are"):
        Process("p", executor=4)
    with pytest.raises(TypeError, match="class ThreadPoolExecutor"):
        Process("p", executor=ThreadPoolExecutor)
    process = Process("p")
    assert process.executor == "threads"
    process.executor = "nowhere"
    with pytest.raises(ValueError, match="unknown executor 'nowhere'"):
        process.execute()
    process.executor = "threads"
    assert process.execute() == []


# Any executor


class Counting(ThreadPoolExecutor):
    """Counts what it was given, and what it holds at the same time."""

    def __init__(self, workers):
        super().__init__(workers)
        self.lock = threading.Lock()
        self.given = self.held = self.most = 0

    def submit(self, *call):
        with self.lock:
            self.given += 1
            self.held += 1
            self.most = max(self.most, self.held)
        future = super().submit(*call)
        future.add_done_callback(self.note_done)
        return future

    def note_done(self, _):
        with self.lock:
            self.held -= 1


def test_never_more_than_max_workers_are_with_the_executor():
    """However many workers it has itself; and short calls travel together."""
    with Counting(8) as executor:
        process = Process("bounded", "parallel", 3, executor=executor)
        for number in range(2000):
            process.add_task(same, number)
        process.execute()
        assert executor.most <= 3
        assert executor.given < 1000


def test_in_order_one_after_the_other():
    """In a stage in order, a task starts after the one before has ended well, on an executor with many workers."""
    begun = []

    def work(number):
        assert begun == list(range(number))
        begun.append(number)

    with ThreadPoolExecutor(4) as executor:
        process = Process("in order", executor=executor)
        for number in range(300):
            process.add_task(work, number)
        process.execute()


def test_the_executor_of_the_caller_is_left_alone():
    """It works on after a run that failed, and after one that was cancelled."""
    with ThreadPoolExecutor(2) as executor:
        process = Process("failing", "parallel", executor=executor)
        process.add_task(throw, KeyError("no"))
        with pytest.raises(KeyError):
            process.execute()
        go = threading.Event()
        process = Process("cancelled", "parallel", executor=executor)
        process.add_task(go.wait)
        run = process.start()
        run.cancel()
        go.set()
        with pytest.raises(RunCancelledError):
            run.result(20)
        assert executor.submit(same, 1).result() == 1


def test_an_executor_that_is_shut_down_is_told_plainly():
    """The run ends, and the process runs on another one."""
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    process = Process("too late", "parallel", executor=executor)
    process.add_task(same, 1)
    with pytest.raises(
        ExecutorBrokenError, match="ThreadPoolExecutor, did not take a task: RuntimeError: cannot schedule"
    ):
        process.execute()
    assert process.status == "failed"
    process.executor = "threads"
    assert process.execute() == [1]


def test_an_executor_that_breaks_in_the_middle_ends_the_run():
    """What had ended is kept, what was with it failed, nothing hangs."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        process = Process("breaking", executor=executor)
        process.add_task(same, 0)
        process.add_task(errands.die)
        process.add_task(same, 2)
        with pytest.raises(ExecutorBrokenError, match="ProcessPoolExecutor, failed: BrokenProcessPool"):
            process.execute()
        states = [outcome.state for outcome in process.last_run.outcomes]
        assert states[0] in ("completed", "failed")
        assert set(states[1:]) <= {"failed", "skipped"}
        assert "failed" in states
        with pytest.raises(ExecutorBrokenError):
            process.execute()


def test_calls_that_somebody_else_cancels_are_told_plainly():
    """An executor that is shut down with `cancel_futures` in the middle of a run ends it."""
    begun, go = threading.Event(), threading.Event()

    def hold():
        begun.set()
        go.wait(20)

    executor = ThreadPoolExecutor(1)
    process = Process("cancelled by others", "parallel", 2, executor=executor)
    process.add_task(hold)
    process.add_task(hold)
    run = process.start()
    begun.wait(20)
    while executor._work_queue.empty():
        time.sleep(0.001)
    executor.shutdown(wait=False, cancel_futures=True)
    go.set()
    with pytest.raises(ExecutorBrokenError, match="cancelled what it was given"):
        run.result(20)


def test_what_waits_in_the_executor_is_taken_back_on_cancel():
    """It never starts, and is told apart from what ran."""
    begun, go, ran = threading.Event(), threading.Event(), []

    def hold():
        begun.set()
        go.wait(20)
        assert current_task().cancelled
        ran.append(1)

    with ThreadPoolExecutor(1) as executor:
        process = Process("taken back", "parallel", 4, executor=executor)
        for _ in range(6):
            process.add_task(hold)
        run = process.start()
        begun.wait(20)
        run.cancel()
        go.set()
        with pytest.raises(RunCancelledError):
            run.result(20)
    assert ran == [1]
    assert [outcome.state for outcome in run.outcomes].count("cancelled") == 5


@pytest.mark.parametrize("over_map", [False, True])
def test_an_attempt_that_was_taken_back_does_not_count(over_map):
    """Cancelled while its retry waits with the executor, a task has failed in the one attempt that was made."""
    waits = threading.Event()

    class Once(Executor):
        """Makes the first call, and lets the others wait."""

        def submit(self, function, batch):
            future = Future()
            if not self.made:
                self.made = True
                future.set_result(function(batch))
            else:
                waits.set()
            return future

        made = False

    @task(retries=1)
    def refuse(number):
        raise KeyError(number)

    process = Process("taken back", "parallel", 1, executor=Once())
    if over_map:
        process.map(refuse, [7])
    else:
        process.add_task(refuse, 7)
    run = process.start()
    assert waits.wait(20)
    run.cancel()
    with pytest.raises(RunCancelledError):
        run.result(20)
    (outcome,) = run.outcomes
    assert (outcome.state, outcome.attempts, outcome.error.args) == ("failed", 1, (7,))
    assert any(note.endswith("attempt 1") for note in outcome.error.__notes__)


@pytest.mark.parametrize("depth", [1, 10])
def test_a_pool_of_one_that_tasks_nest_in_does_not_lock_up(depth):
    """A run inside a task of the same executor finds threads of its own."""
    with ThreadPoolExecutor(1) as executor:
        assert errands.nest(depth, executor) == depth


def test_each_task_sees_the_context_of_the_caller_and_keeps_its_changes_to_itself():
    """On executors in this process, as on threads."""
    variable = contextvars.ContextVar("variable", default="none")

    def change(value):
        seen = variable.get()
        variable.set(value)
        return seen

    variable.set("caller's")
    with ThreadPoolExecutor(1) as executor:
        process = Process("contexts", "parallel", executor=executor)
        for value in range(10):
            process.add_task(change, value)
        assert process.execute() == ["caller's"] * 10
        assert variable.get() == "caller's"


def test_a_thread_that_is_given_up_leaves_its_place_to_others():
    """A timeout on somebody else's threads ends the attempt, and no other is made beside it."""
    go, calls = threading.Event(), []

    def hang():
        calls.append(1)
        go.wait(20)

    with ThreadPoolExecutor(1) as executor:
        process = Process("hanging", "parallel", on_error="return", executor=executor)
        process.add_task(task(timeout=0.05, retries=3)(hang))
        process.add_task(same, 1)
        error, one = process.execute()
        assert isinstance(error, TaskTimeoutError)
        assert one == 1
        assert calls == [1]
        go.set()


class Mute(Executor):
    """Takes calls and makes them only when told to."""

    def __init__(self):
        self.calls = []

    def submit(self, function, /, *args):
        future = Future()
        self.calls.append((future, function, args))
        return future

    def make_next(self):
        future, function, args = self.calls.pop(0)
        future.set_result(function(*args))


def test_a_lazy_iterable_is_drawn_no_further_than_the_window():
    """With nobody to make the calls, at most 64 elements are drawn."""
    drawn = []

    def numbers():
        for number in range(1000):
            drawn.append(number)
            yield number

    executor = Mute()
    process = Process("lazy", "parallel", 2, executor=executor)
    process.map(same, numbers())
    run = process.start()
    done = 0
    while done < 1000 and not run.wait(0):
        if not executor.calls:
            time.sleep(0.001)
            continue
        assert len(drawn) - done <= 64
        ((batch,), *_) = [call[2] for call in executor.calls]
        done += len(batch.calls)
        executor.make_next()
    while not run.wait(0.001):
        if executor.calls:
            executor.make_next()
    assert run.result() == [list(range(1000))]


def test_a_source_may_wait_for_what_becomes_of_its_elements():
    """Each element is sent as soon as it is there, however many would travel together."""
    ended = threading.Semaphore(0)

    def numbers():
        for number in range(200):
            yield number
            if number >= 100:
                assert ended.acquire(timeout=20)

    def work(number):
        if number >= 100:
            ended.release()
        return number

    with ThreadPoolExecutor(2) as executor:
        process = Process("fed back", "parallel", 2, executor=executor)
        process.map(work, numbers())
        assert process.execute() == [list(range(200))]


def test_a_source_that_hangs_does_not_keep_others_from_their_timeouts():
    """The coordinator goes on while an iterable takes its time."""
    go = threading.Event()

    def numbers():
        yield 1
        assert go.wait(20)
        yield 2

    def late():
        go.set()
        raise KeyError

    with ThreadPoolExecutor(2) as executor:
        process = Process("waiting for a source", "parallel", 2, on_error="return", executor=executor)
        process.map(same, numbers())
        process.add_task(task(timeout=0.05)(threading.Event().wait))
        process.add_task(late)
        elements, timeout, error = process.execute()
    assert (elements, type(timeout), type(error)) == ([1, 2], TaskTimeoutError, KeyError)


# Chunks


def test_a_chunk_gives_back_what_it_has_no_time_for():
    """One call is always made; the others only as long as the budget lasts."""
    calls = [(index, -1, 1, None, same, (index,), {}) for index in range(5)]
    names = ("process", "run")
    assert len(run_batch(Batch(calls, None, names, budget=0, stops=False)).ended) == 1
    assert len(run_batch(Batch(calls, None, names, budget=60, stops=False)).ended) == 5


def test_a_chunk_that_stops_makes_no_call_after_one_that_failed():
    """What comes after it is given back."""
    calls = [(index, -1, 1, None, throw if index == 2 else same, (KeyError(),), {}) for index in range(5)]
    report = run_batch(Batch(calls, None, ("process", "run"), budget=60, stops=True))
    assert [returned for returned, *_ in report.ended] == [True, True, False]


def test_chunks_grow_to_what_the_way_is_worth_and_shrink_towards_the_end():
    """From one call up to as many as travel well; long calls travel alone; nobody hoards the last ones."""
    batch_size = BatchSize()
    assert batch_size.size(100_000, 2) == 1
    sizes = []
    for _ in range(8):
        batch_size.learn(max(sizes, default=1), seconds=max(sizes, default=1) * 2e-6, way=5e-5, size=0)
        sizes.append(batch_size.size(100_000, 2))
    assert sizes == sorted(sizes)
    assert sizes[-1] == 2000
    assert batch_size.size(1000, 2) == 250
    assert batch_size.size(10, 2) == 5  # one for each, though more would be worth the way
    for _ in range(3):
        batch_size.learn(1, seconds=0.05, way=5e-5, size=0)
    assert batch_size.size(100_000, 2) == 1
    for _ in range(40):
        batch_size.learn(10, seconds=2e-5, way=5e-5, size=10 << 16)
        batch_size.size(100_000, 2)
    assert batch_size.size(100_000, 2) == 16  # a megabyte


# Worker processes


@pytest.fixture
def processes():
    """Makes a process on worker processes; afterwards nothing of it is left."""
    here = psutil.Process()
    before = {child.pid for child in here.children(recursive=True)}
    threads = set(threading.enumerate())
    yield partial(Process, "workers", "parallel", 2, executor="processes")
    # What was there before, as a database server of other tests, may have more children by now.
    left = [child for child in here.children(recursive=True) if not before & {child.pid, child.ppid()}]
    # The standard library keeps one helper for all that was ever spawned, for as long as the interpreter lives.
    assert [child.cmdline() for child in left if "resource_tracker" not in " ".join(child.cmdline())] == []
    assert set(threading.enumerate()) <= threads


def test_tasks_run_in_other_processes(processes):
    """In no more than max_workers of them, and in more than one at a time when tasks wait for each other."""
    process = processes()
    for _ in range(50):
        process.add_task(errands.pid)
    pids = set(process.execute())
    assert os.getpid() not in pids
    assert len(pids) <= 2


def test_workers_are_there_when_tasks_wait_for_each_other(processes, tmp_path):
    """As many as max_workers allows, even if that is more than there are cores."""
    process = processes()
    process.max_workers = 5
    for _ in range(5):
        process.add_task(errands.together, str(tmp_path), 5)
    assert process.execute() == [5] * 5


@posix
@pytest.mark.parametrize("place", [0, 1, 57, 299])
def test_a_worker_that_is_killed_fails_only_the_task_it_was_killed_in(processes, tmp_path, place):
    """All others run once, although many of them travel together."""
    process = processes(on_error="return")
    for number in range(300):
        call = errands.note_and_die if number == place else errands.note_and_return
        process.add_task(call, str(tmp_path), str(number))
    results = process.execute()
    error = results.pop(place)
    assert isinstance(error, WorkerDiedError)
    assert str(error) == "the worker process that ran the task was ended by SIGKILL"
    assert f"in process 'workers', task {place} (note_and_die), attempt 1" in error.__notes__
    assert results == [str(number) for number in range(300) if number != place]
    assert [called(tmp_path, str(number)) for number in range(300)] == [1] * 300


@posix
@pytest.mark.parametrize("place", [3, 20, 57])
def test_what_lay_ready_at_a_worker_that_is_killed_goes_to_another(processes, tmp_path, place):
    """It was not begun, so it is called once, elsewhere."""
    process = processes(on_error="return")
    for number in range(60):
        call = errands.note_and_die if number == place else errands.note_and_sleep
        process.add_task(call, str(tmp_path), str(number))
    results = process.execute()
    assert isinstance(results.pop(place), WorkerDiedError)
    assert results == [str(number) for number in range(60) if number != place]
    assert [called(tmp_path, str(number)) for number in range(60)] == [1] * 60


def test_what_lies_ready_at_a_worker_is_dropped_on_cancel(processes, tmp_path):
    """It never starts, and the run ends."""
    process = processes()
    for number in range(200):
        process.add_task(errands.note_and_sleep, str(tmp_path), str(number))
    run = process.start()
    next(iter(run))
    run.cancel()
    with pytest.raises(RunCancelledError):
        run.result(20)
    for number, outcome in enumerate(run.outcomes):
        assert outcome.state in ("completed", "cancelled")
        assert called(tmp_path, str(number)) == (outcome.state == "completed")


def test_a_task_that_exits_for_good_fails_and_the_run_goes_on(processes):
    """os._exit takes the worker with it, and another one comes."""
    process = processes(on_error="return")
    for code in range(3, 6):
        process.add_task(errands.die, code)
        process.add_task(same, code)
    results = process.execute()
    assert results[1::2] == [3, 4, 5]
    assert [str(error) for error in results[::2]] == [
        f"the worker process that ran the task ended with exit code {code}" for code in range(3, 6)
    ]


@posix
def test_a_task_whose_worker_died_is_retried_as_its_policy_says(processes, tmp_path):
    """And the attempts are counted."""
    process = processes()
    process.add_task(task(retries=2)(partial(errands.die_before, str(tmp_path))), 2)
    assert process.execute() == [3]
    assert process.last_run.outcomes[0].attempts == called(tmp_path) == 3


@posix
def test_a_worker_killed_while_it_sends_leaves_nothing_locked(processes):
    """Half a message arrives, and the run goes on."""
    process = processes(on_error="return")
    for number in range(3):
        process.add_task(errands.kill_me_half_sent)
        process.add_task(errands.big, 300_000)
    results = process.execute()
    assert [type(error) for error in results[::2]] == [WorkerDiedError] * 3
    assert [len(value) for value in results[1::2]] == [300_000] * 3


@posix
def test_a_worker_killed_at_any_moment_loses_no_call_and_makes_none_twice(processes, tmp_path):
    """Every call was made once; at most the one that ran at that moment has failed."""
    process = processes(on_error="return")
    for _ in range(5):
        process.add_task(errands.kill_me_between_results, str(tmp_path))
        for _ in range(300):
            process.add_task(noted, str(tmp_path))
    results = process.execute()
    failed = sum(isinstance(result, WorkerDiedError) for result in results)
    assert failed <= 5
    assert len(results) - failed <= called(tmp_path) <= len(results)


@posix
def test_a_timeout_ends_the_worker_and_a_retry_follows(processes, tmp_path):
    """The attempt is gone for good, so another one may be made."""
    path = tmp_path / "pid"
    process = processes(on_error="return")
    process.add_task(task(timeout=0.5, retries=1)(errands.say_pid_and_sleep), str(path))
    process.add_task(same, 1)
    error, one = process.execute()
    assert one == 1
    assert isinstance(error, TaskTimeoutError)
    assert "task 0 (say_pid_and_sleep) took longer than its timeout of 0.5 s" in str(error)
    assert process.last_run.outcomes[0].attempts == 2
    assert not psutil.pid_exists(int(path.read_text()))


def test_exceptions_arrive_as_themselves(processes):
    """With the traceback from the worker as a note, whatever their constructors take."""
    process = processes(on_error="return")
    process.add_task(throw, KeyError("no"))
    process.add_task(errands.raise_new, errands.TwoArguments, 404, "gone")
    process.add_task(errands.raise_new, errands.Reworded, "such thing")
    process.add_task(errands.raise_new, errands.WithLock, "locked")
    process.add_task(throw, ExceptionGroup("both", [ValueError(1), OSError(2, "no")]))
    key, two, reworded, locked, group = process.execute()
    assert repr(key) == "KeyError('no')"
    assert "errands.py" in key.__notes__[0] and key.__notes__[0].rstrip().endswith("KeyError: 'no'")
    assert "_remote" not in key.__notes__[0]
    assert (type(two), str(two), two.code, two.reason) == (errands.TwoArguments, "404: gone", 404, "gone")
    assert (type(reworded), str(reworded)) == (errands.Reworded, "there is no such thing")
    assert (type(locked), str(locked), locked.code) == (errands.WithLock, "locked", 7)
    assert repr(group.exceptions) == "(ValueError(1), FileNotFoundError(2, 'no'))"


def test_an_exception_that_can_not_travel_arrives_readable(processes):
    """Its type and message are told, and its traceback is the note."""
    process = processes()
    process.add_task(errands.throw_untransportable)
    with pytest.raises(RemoteError, match="Untransportable: not in a box") as caught:
        process.execute()
    assert "in throw_untransportable" in caught.value.__notes__[0]


def test_exceptions_keep_their_type_whatever_they_carry(processes):
    """For `except`, `except*` and `retry_on` go by it: what is in the way is stood for, and what is built in is kept."""
    process = processes(on_error="return")
    process.add_task(errands.raise_new, errands.Refused, errands.Request("u"))
    process.add_task(errands.raise_new, ValueError, "cannot use", errands.Request("u"))
    process.add_task(errands.raise_new, errands.ApiError, "u", 503)
    process.add_task(errands.raise_new, errands.NotThere, "/x")
    process.add_task(errands.raise_new, errands.Checked, code=4)
    process.add_task(errands.raise_new, errands.Refused, {"a set", "of words", "in any", "order"})
    process.add_task(partial(errands.raise_new, ImportError, "no module", name="them", path="/them"))
    refused, value, api, not_there, checked, words, imported = process.execute()
    assert (type(refused), refused.args[0].url) == (errands.Refused, "u")
    assert (type(value), value.args[0], value.args[1].url) == (ValueError, "cannot use", "u")
    assert (type(api), api.errno, str(api), api.url) == (errands.ApiError, 503, "[Errno 503] bad answer from u", "u")
    assert (type(not_there), not_there.filename) == (errands.NotThere, "/x")
    assert (type(checked), str(checked)) == (errands.Checked, "code 4")
    assert (type(words), len(words.args[0])) == (errands.Refused, 4)
    assert (type(imported), imported.name, imported.path) == (ImportError, "them", "/them")


def test_a_part_of_an_exception_that_can_not_travel_is_stood_for(processes):
    """The message reads as it did, and the type counts for retries."""
    process = processes(on_error="return")
    process.add_task(task(retries=1, retry_on=ValueError)(errands.throw_with_lock))
    (error,) = process.execute()
    assert type(error) is ValueError
    assert str(error).startswith("('cannot use', <unlocked _thread.lock object at 0x")
    assert process.last_run.outcomes[0].attempts == 2


def test_the_exceptions_of_a_group_arrive_as_themselves(processes):
    """At any depth, so that `except*` finds them."""
    process = processes()
    process.add_task(errands.throw_group)
    with pytest.raises(ExceptionGroup) as caught:
        process.execute()
    reworded, deeper = caught.value.exceptions
    assert (type(reworded), str(reworded)) == (errands.Reworded, "there is no such thing")
    assert (type(deeper.exceptions[0]), deeper.exceptions[0].filename) == (errands.NotThere, "/x")


def test_a_result_that_can_not_be_read_back_fails_its_task(processes):
    """And no other one."""
    process = processes(on_error="return")
    process.add_task(errands.make, errands.Unreadable)
    process.add_task(same, 1)
    error, one = process.execute()
    assert one == 1
    assert isinstance(error, TransferError)
    assert "not be unpickled again: OSError: this cannot be read" in str(error)


def test_an_argument_that_can_not_be_read_in_the_worker_fails_its_task(processes):
    """The others that travelled with it run."""
    process = processes(on_error="return")
    for number in range(20):
        process.add_task(same, number if number != 10 else errands.Unreadable())
    results = process.execute()
    error = results.pop(10)
    assert isinstance(error, TransferError)
    assert "not be unpickled in the worker: OSError: this cannot be read" in str(error)
    assert results == [number for number in range(20) if number != 10]


def test_without_cloudpickle_a_lambda_is_told_what_to_install(processes, monkeypatch):
    """The extra is named; everything else works."""
    monkeypatch.setattr(travel, "by_value", lambda: None)
    process = processes(on_error="return")
    process.add_task(lambda: 1)
    process.add_task(same, 1)
    error, one = process.execute()
    assert one == 1
    assert "the callable, an object of type function, cannot be pickled" in str(error)
    assert 'pip install "procession[processes]"' in str(error)


def test_large_arguments_and_results_travel(processes):
    """More than any pipe holds, in both directions at once."""
    process = processes()
    for _ in range(4):
        process.add_task(same, b"x" * 3_000_000)
    assert [len(value) for value in process.execute()] == [3_000_000] * 4


@posix
def test_what_a_forked_child_returns_is_not_taken_for_what_the_task_did(processes):
    """A worker that dies later than its child has ended has died in its task."""
    process = processes(on_error="return")
    process.add_task(errands.die_after_a_child_has_returned)
    process.add_task(same, 1)
    died, after = process.execute()
    assert isinstance(died, WorkerDiedError)
    assert after == 1


@posix
def test_a_task_may_fork_close_stdin_and_leave_threads_behind(processes, monkeypatch):
    """What it does to its worker stays there. A thread that does not end is cut off in the end, and that is said."""
    monkeypatch.setattr(crew_processes, "_CLOSING_S", 0.1)
    process = processes()
    process.add_task(errands.close_stdin)
    process.add_task(errands.fork_and_return)
    process.add_task(errands.leave_a_thread)
    process.add_task(same, 4)
    with pytest.warns(RuntimeWarning, match=r"'workers': procession-workers-\d .*cut off.*a thread.*wait for what"):
        closed, child, left, four = process.execute()
    assert (closed, left, four) == ("closed", "left", 4)
    assert isinstance(child, int)


def test_what_tasks_have_left_in_a_worker_is_let_end(processes, tmp_path):
    """A handler at exit, and a thread, do what they have to before the run is over."""
    process = processes()
    for how in "handler", "thread":
        process.add_task(errands.leave_to_do, how, str(tmp_path))
    process.execute()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["handler", "thread"]


@linux
def test_a_worker_that_dies_is_noticed_though_its_child_holds_its_pipes(processes, tmp_path):
    """A daemon that a task has started keeps nobody waiting."""
    path = tmp_path / "child"
    process = processes(on_error="return")
    process.add_task(errands.leave_a_child, str(path))
    process.add_task(same, 1)
    try:
        error, one = process.execute()
    finally:
        os.kill(int(path.read_text()), signal.SIGKILL)
    assert one == 1
    assert isinstance(error, WorkerDiedError)


@posix
def test_cancel_asks_tasks_in_workers_and_ends_those_that_do_not_listen(processes, tmp_path):
    """Both are cancelled, and the run ends."""
    process = processes()
    process.add_task(errands.listen, str(tmp_path / "listens"))
    process.add_task(errands.say_pid_and_sleep, str(tmp_path / "deaf"))
    process.add_task(same, 1)
    run = process.start()
    wait_for(tmp_path / "listens")
    wait_for(tmp_path / "deaf")
    run.cancel()
    with pytest.raises(RunCancelledError):
        run.result(20)
    assert [outcome.state for outcome in run.outcomes] == ["cancelled"] * 3
    assert called(tmp_path, "told") == 1


def test_cancel_reaches_runs_that_tasks_in_workers_have_started(processes, tmp_path):
    """Their tasks are asked to stop, too."""
    process = processes()
    process.add_task(errands.execute, errands.listen, str(tmp_path / "listens"))
    run = process.start()
    wait_for(tmp_path / "listens")
    run.cancel()
    with pytest.raises(RunCancelledError):
        run.result(20)
    assert called(tmp_path, "told") == 1


def wait_for(path):
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@linux
def test_after_a_run_there_are_no_more_files_and_processes_than_before(processes, comes_true):
    """Nothing is left open, on success and on failure."""

    def execute(call, *args):
        process = processes(on_error="return")
        process.add_task(call, *args)
        process.add_task(same, 2)
        process.execute()

    def open_files():
        return len(os.listdir("/proc/self/fd"))

    execute(same, 1)  # the first one starts the standard library's resource tracker
    before = open_files()
    execute(same, 1)
    execute(throw, KeyError())
    execute(errands.die)
    execute(task(timeout=0.05)(time.sleep), 20)
    assert comes_true(lambda: open_files() <= before)


def test_a_worker_that_can_not_start_is_told_plainly(processes, monkeypatch):
    """The system's reason is in the message."""
    from procession._remote.backends import processes as module

    def refuse(*_, **__):
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(module._SPAWN, "Process", refuse)
    process = processes()
    process.add_task(same, 1)
    with pytest.raises(WorkersUnavailableError, match="no worker process could be started: BlockingIOError"):
        process.execute()
    monkeypatch.undo()
    assert process.execute() == [1]


@posix
def test_workers_that_are_killed_as_they_start_do_not_end_a_run_whose_others_work(tmp_path, monkeypatch):
    """Others start in their place, or those that are there do the work."""
    from procession._remote.backends import processes as module

    monkeypatch.setattr(module, "serve", errands.serve_after)
    monkeypatch.setenv("STARTS", str(tmp_path))
    monkeypatch.setenv("STILLBORN", "2")
    process = Process("decimated", "parallel", 2, executor="processes")
    process.map(same, range(10))
    assert process.execute() == [list(range(10))]


@posix
def test_workers_none_of_which_starts_are_told_plainly(tmp_path, monkeypatch):
    """After a few of them."""
    from procession._remote.backends import processes as module

    monkeypatch.setattr(module, "serve", errands.serve_after)
    monkeypatch.setenv("STARTS", str(tmp_path))
    monkeypatch.setenv("STILLBORN", "1000")
    process = Process("stillborn", "parallel", 2, executor="processes")
    process.map(same, range(10))
    with pytest.raises(WorkersUnavailableError, match="before it could take a task"):
        process.execute()
    assert called(tmp_path) <= 5


@posix
def test_signals_are_kept_from_each_worker_until_it_handles_them(tmp_path, monkeypatch):
    """From the first one of an interpreter, too, with which a helper of the standard library starts."""
    from multiprocessing import resource_tracker

    from procession._remote.backends import processes as module

    monkeypatch.setattr(module, "serve", errands.serve_and_say)
    monkeypatch.setenv("STARTS", str(tmp_path))
    resource_tracker._resource_tracker._stop()
    process = Process("spared", "parallel", 1, executor="processes")
    process.add_task(same, 1)
    assert process.execute() == [1]
    assert (called(tmp_path, "kept"), called(tmp_path, "not kept")) == (1, 0)


@posix
def test_sigterm_lets_what_runs_in_workers_end(processes):
    """As it may go to the whole group; children that tasks fork end by it."""
    process = processes()
    process.add_task(errands.terminate_me)
    process.add_task(errands.terminate_a_child)
    assert process.execute() == ["went on", -signal.SIGTERM]


@posix
def test_workers_whose_exit_codes_somebody_else_takes_are_let_go(processes, comes_true):
    """Be it the system, where the program ignores SIGCHLD."""
    process = processes()
    process.add_task(same, 1)
    process.add_task(errands.kill_me)
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with pytest.raises(WorkerDiedError):
            process.execute()
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert comes_true(
        lambda: not [child for child in psutil.Process().children() if "spawn_main" in str(child.cmdline())]
    )


@linux
def test_the_memory_of_a_worker_lies_in_no_folder(tmp_path, monkeypatch):
    """So nothing stays there when the program is killed, and none needs to have room."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "there is none"))
    ours = Trace.made()
    theirs = Trace(ours.path)
    ours.unlink()
    theirs.begin(1, 0)
    theirs.note(b"one")
    assert ours.read(1, 0) == [b"one"]
    theirs.close()
    ours.close()
    assert not os.path.exists(ours.path)


def test_of_a_chunk_that_was_recalled_no_other_call_begins(tmp_path):
    """The worker sees it after each call."""
    ours = Trace.made()
    theirs = Trace(ours.path)
    theirs.begin(2, 0)
    ours.recall(1)
    assert not theirs.is_recalled(2)
    ours.recall(2)
    assert theirs.is_recalled(2)
    assert ours.at == (2, 0)
    theirs.close()
    ours.close()


def test_the_trace_of_a_worker_counts_nothing_twice(tmp_path):
    """Only what was noted of this chunk, and of this part of its report, is read."""
    ours = Trace.made()
    theirs = Trace(ours.path)
    theirs.begin(1, 0)
    assert theirs.note(b"one")
    assert theirs.note(b"")
    assert ours.read(1, 0) == [b"one", b""]
    assert ours.read(1, 1) == ours.read(2, 0) == []
    assert not theirs.note(bytes(1 << 17))
    theirs.begin(1, 1)
    assert ours.read(1, 1) == []
    theirs.close()
    ours.close()


# Programs


def program(tmp_path, text):
    """Start a program that runs a process; the text is its main part, indented."""
    path = tmp_path / "program.py"
    path.write_text(dedent(text))
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(__file__)}
    return subprocess.Popen(
        [sys.executable, str(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=tmp_path,
        start_new_session=sys.platform != "win32",
    )


PROGRAM = """
    import errands, os, signal, sys
    from procession import Process, RunCancelledError

    def work(number):
        return number + 1

    if __name__ == "__main__":
        signal.signal(signal.SIGINT, signal.default_int_handler)
        process = Process("program", "parallel", 2, executor="processes")
"""


def test_functions_of_the_main_module_travel(tmp_path):
    """As they do with the standard library, with the main module guarded."""
    with program(
        tmp_path,
        PROGRAM
        + """
        process.add_task(work, 1)
        process.map(work, [2, 3])
        print(process.execute())
    """,
    ) as child:
        out, complaints = child.communicate(timeout=50)
    assert (out, complaints) == ("[2, [3, 4]]\n", "")


def test_code_that_is_not_in_a_file_travels_by_value():
    """As in an interactive session, whose functions no worker can import."""
    code = """
from procession import Process
class Pair:
    def __init__(self, one): self.one = one
def work(number): return Pair(number)
process = Process("typed in", "parallel", 2, executor="processes")
process.map(work, range(3))
(pairs,) = process.execute()
print([pair.one for pair in pairs], all(type(pair) is Pair for pair in pairs))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert (done.stdout, done.stderr) == ("[0, 1, 2] True\n", "")


def test_what_comes_back_by_value_changes_no_class_that_is_here():
    """Neither what a task assigned to a class in the worker, nor what was redefined here since, counts there or here."""
    code = """
from enum import Enum
from procession import Process
class Price:
    limit = 1
    def __init__(self, number): self.number = number * FACTOR
class Color(Enum):
    RED = 1
class Refused(Exception):
    limit = 1
FACTOR = 10
def work(number):
    Price.limit = Color.limit = Refused.limit = 99
    class Special(Price):
        def twice(self): return 2 * self.number
    return Price(number), Color.RED, Special(number), Refused(number)
def fail(number):
    Refused.limit = 99
    raise Refused(number)
process = Process("typed in", "parallel", 1, executor="processes", on_error="return")
process.add_task(work, 1)
process.add_task(fail, 2)
(price, color, special, refused), raised = process.execute()
FACTOR = 20
print(type(price) is Price, color is Color.RED, special.twice(), isinstance(special, Price), type(raised) is Refused)
print(Price(3).number, Price.limit, hasattr(Color, "limit"), Refused.limit, refused.args, raised.args)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert done.stdout == "True True 20 True True\n60 1 False 1 (1,) (2,)\n", done.stderr


@pytest.mark.parametrize("arguments", [["-"], ["-c", "import sys; exec(sys.stdin.read())"]])
def test_a_program_that_is_in_no_file_works_or_is_told_what_it_has_to_be(arguments):
    """From standard input there is nothing that a worker could import; nobody is told of a guard that is there."""
    code = """
from procession import Process, WorkersUnavailableError
def square(number): return number * number
if __name__ == "__main__":
    process = Process("typed in", "parallel", 2, executor="processes")
    process.map(square, range(3))
    try: print(process.execute())
    except WorkersUnavailableError as error: print(error)
"""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, input=code, capture_output=True, text=True, timeout=50)
    if arguments == ["-"]:
        assert "'<stdin>' is no file that it could read: save the program to a file" in done.stdout
        assert "put that under" not in done.stdout
    else:
        assert done.stdout == "[[0, 1, 4]]\n"


def test_a_main_module_without_a_guard_is_told_plainly(tmp_path):
    """Every worker would start the process again when it imports it."""
    with program(
        tmp_path,
        """
        from procession import Process, WorkersUnavailableError
        process = Process("unguarded", "parallel", 2, executor="processes")
        process.add_task(int, "1")
        try:
            process.execute()
        except WorkersUnavailableError as error:
            print("told:", error)
            raise SystemExit(1)
    """,
    ) as child:
        out, _ = child.communicate(timeout=50)
    assert "before it could take a task" in out
    assert out.count('put that under if __name__ == "__main__":') == 2  # here, and in a worker
    assert "\\n" not in out


@pytest.mark.parametrize("full", [False, True])
def test_a_folder_for_temporary_files_that_takes_none_is_named(processes, monkeypatch, tmp_path, full):
    """With what a worker needs there; and nothing of it is left."""

    def no_room(descriptor, *_, **__):
        os.close(descriptor)
        raise OSError(28, "No space left on device")

    folder = tmp_path if full else tmp_path / "gone"
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setattr(
        "procession._remote.wire.crash_file._memory", lambda: None
    )  # as where a file cannot be in memory only
    if full:
        monkeypatch.setattr("procession._remote.wire.crash_file.os.fdopen", no_room)
    process = processes()
    process.add_task(same, 1)
    with pytest.raises(WorkersUnavailableError, match="takes a temporary file of .*TMPDIR names") as caught:
        process.execute()
    assert str(folder) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@posix
def test_pipes_that_others_have_made_not_to_wait_are_waited_on(processes, monkeypatch):
    """gevent makes all sockets so, those of `multiprocessing` too."""
    make = crew_processes._SPAWN.Pipe

    def pipe(duplex=True):
        ends = make(duplex)
        for end in ends:
            os.set_blocking(end.fileno(), False)
        return ends

    monkeypatch.setattr(crew_processes._SPAWN, "Pipe", pipe)
    process = processes()
    for number in range(20):
        process.add_task(errands.big, number * 10_000)
    assert [len(value) for value in process.execute()] == [number * 10_000 for number in range(20)]


@posix
def test_ctrl_c_lets_what_runs_in_workers_end_and_starts_nothing_new(tmp_path):
    """It reaches the whole group, as in a terminal; workers say nothing of it."""
    with program(
        tmp_path,
        PROGRAM
        + """
        process.add_task(errands.listen, "listens")
        process.add_task(errands.listen, "listens too")
        for _ in range(1000):
            process.add_task(errands.noted, ".", "after")
        try:
            process.execute()
        except KeyboardInterrupt:
            print("interrupted", process.status, process.last_run.status)
            print({outcome.state for outcome in process.last_run.outcomes})
    """,
    ) as child:
        wait_for(tmp_path / "listens")
        wait_for(tmp_path / "listens too")
        os.killpg(child.pid, signal.SIGINT)
        out, complaints = child.communicate(timeout=50)
    assert (out, complaints) == ("interrupted failed cancelled\n{'cancelled'}\n", "")
    assert called(tmp_path, "told") == 2
    assert called(tmp_path, "after") == 0


@posix
def test_a_second_ctrl_c_leaves_at_once_and_takes_the_workers_along(tmp_path):
    """A task that does not listen keeps nobody."""
    with program(
        tmp_path,
        PROGRAM
        + """
        process.add_task(errands.say_pid_and_sleep, "deaf")
        process.add_task(errands.listen, "listens")
        try:
            process.execute()
        except KeyboardInterrupt:
            print("interrupted", process.status)
            print(Process("another", executor="processes").execute())
    """,
    ) as child:
        wait_for(tmp_path / "deaf")
        wait_for(tmp_path / "listens")
        os.killpg(child.pid, signal.SIGINT)
        wait_for(tmp_path / "callstold")
        os.killpg(child.pid, signal.SIGINT)
        out, complaints = child.communicate(timeout=50)
    assert (out, complaints) == ("interrupted failed\n[]\n", "")
    assert not psutil.pid_exists(int((tmp_path / "deaf").read_text()))


@posix
def test_no_worker_outlives_a_parent_that_is_killed(tmp_path):
    """They are gone within seconds, whatever they do."""
    with program(
        tmp_path,
        PROGRAM
        + """
        process.add_task(errands.say_pid_and_sleep, "one")
        process.add_task(errands.listen, "two")
        process.execute()
    """,
    ) as child:
        workers = []
        for name in "one", "two":
            wait_for(tmp_path / name)
            workers.append(psutil.Process(int((tmp_path / name).read_text())))
        child.kill()
        child.communicate(timeout=50)
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert alive == []


# With a journal


def test_a_run_on_workers_that_failed_goes_on_where_it_was(tmp_path):
    """What ended well is not called again."""
    process = Process("recorded", "hybrid", 2, executor="processes")
    sheet = str(tmp_path)
    process.add_task(errands.note_and_return, sheet, "first")
    numbers = process.map(partial(errands.note_and_return, sheet), list("abc"))
    process.add_task(errands.fail_before, sheet, 1)
    process.add_task("".join, numbers)
    with pytest.raises(KeyError):
        process.execute(run_id="one", journal=str(tmp_path / "runs.db"))
    assert process.execute(run_id="one", journal=str(tmp_path / "runs.db")) == ["first", ["a", "b", "c"], 2, "abc"]
    assert [called(tmp_path, key) for key in ("first", "a", "b", "c", "")] == [1, 1, 1, 1, 2]
