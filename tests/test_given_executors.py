"""Tasks on an Executor of the caller's own: what is sent to it and when, and what it may do in the middle."""

import contextvars
import threading
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import pytest
from tenacity import Retrying, stop_after_attempt, wait_fixed

import errands
from errands import same, throw
from procession import ExecutorBrokenError, Process, RunCancelledError, TaskTimeoutError, current_task, task


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
    """In a stage in order, a task starts after the one before has succeeded, on an executor with many workers."""
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


def test_a_thread_that_is_given_up_leaves_its_place_to_others(comes_true):
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
        assert comes_true(lambda: calls)
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


def test_of_a_map_only_so_many_elements_pause_at_the_same_time():
    """Then no other is begun, and what else is ready goes on."""
    begun, gone_on = [], threading.Event()
    rules = Retrying(stop=stop_after_attempt(2), wait=wait_fixed(60))

    @task(retries=rules)
    def fail(number):
        begun.append(number)
        gone_on.wait(0.03)
        raise KeyError(number)

    with ThreadPoolExecutor(2) as executor:
        process = Process("pausing", "parallel", 2, on_error="continue", executor=executor)
        process.map(fail, list(range(200)))
        process.add_task(gone_on.set)
        run = process.start()
        assert gone_on.wait(30)
        run.cancel()
        with pytest.raises(RunCancelledError):
            run.result(30)
    assert 64 <= len(begun) < 64 + 10
