"""The same process on executors of all kinds."""

import logging
import os
import site
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context

import pytest

import errands
from errands import Basket, add, append_to, called, same, throw
from procession import Process, TransferError, task

STRATEGIES = ["sequential", "parallel", "hybrid"]


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
def test_what_calls_change_is_each_ones_own_in_another_process(executor, strategy):
    """However many of them travel together: a list that tasks take, what lies in it, the object of a bound method."""
    shared, basket = [0], Basket()
    process = Process("shared", strategy, 2, executor=executor)
    for number in range(200):
        process.add_task(append_to, shared, number)
    for number in range(200):
        process.add_task(append_to, [shared][0], number=number)
    for _ in range(200):
        process.add_task(basket.put)
    process.map(append_to, [shared] * 200, range(200))
    *results, mapped = process.execute()
    if type(executor) is ThreadPoolExecutor:
        return  # in this process all of them have the same object, as on threads
    assert results == [2] * 400 + [1] * 200
    assert mapped == [2] * 200
    assert (shared, basket.count) == ([0], 0)


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
