"""The contract of `Process`, row by row."""

import os
import sys
import threading
import time
from functools import partial
from unittest.mock import Mock

import pytest

from procession import HandleError, NestingError, Process, ProcessRunningError, TaskSkippedError, current_task, task

STRATEGIES = ["sequential", "parallel", "hybrid"]


def same(value):
    return value


def fail():
    raise KeyError("no")


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("count", [0, 1, 2, 7, 500])
def test_results_stand_in_the_order_added(strategy, count):
    """Whatever ends first, results[i] belongs to task i, and the status says how it went."""
    process = Process("order", strategy, 4)
    for number in range(count):
        assert process.add_task(same, number) is None
    assert process.status == "initialized"
    assert process.execute() == list(range(count))
    assert process.status == "completed"
    assert process.execute() == list(range(count))


@pytest.mark.parametrize("strategy", ["parallel", "hybrid"])
def test_results_stand_in_the_order_added_when_tasks_end_in_another(strategy):
    """What runs at once ends in reverse here; each waits for the one after it to end."""
    turns = [threading.Event() for _ in range(9)]
    turns[-1].set()

    def work(place):
        assert turns[place + 1].wait(20)
        turns[place].set()
        return place

    process = Process("reverse", strategy, 8)
    for place in range(8 if strategy == "hybrid" else 0):
        process.add_task(same, place)
    for place in range(8):
        process.add_task(work, place)
    assert process.execute() == [*range(8)] * (2 if strategy == "hybrid" else 1)


def test_further_options_are_keyword_only():
    """Three arguments may stand by place, not more."""
    with pytest.raises(TypeError):
        Process("name", "sequential", None, "stop")
    assert Process("name", strategy="sequential", max_workers=None, on_error="stop").on_error == "stop"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_process_is_running_while_its_tasks_are(strategy):
    """And not before or after."""
    process = Process("status", strategy)
    for _ in range(4):
        process.add_task(lambda: process.status)
    assert process.status == "initialized"
    assert process.execute() == ["running"] * 4
    assert process.status == "completed"


class Adder:
    def __call__(self, number):
        return number + 1

    def add(self, number):
        return number + 1


@pytest.mark.parametrize(
    "function",
    [
        lambda n: n + 1,
        partial(max, 1, 2),
        partial(partial(Adder().add)),
        Adder(),
        Adder().add,
        (1).__add__,
        Mock(return_value=2),
    ],
    ids=["lambda", "partial", "partial of partial", "instance", "method", "builtin method", "mock"],
)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_any_callable_is_a_task(strategy, function):
    """With a name or without one; a task that fails is named all the same."""
    process = Process("any", strategy)
    process.add_task(function, 1)
    process.add_task(function, 1)
    assert process.execute() == [2, 2]
    assert process.last_run.outcomes[0].name
    process.add_task(partial(throw_with, function))
    with pytest.raises(KeyError) as caught:
        process.execute()
    assert "task 2" in caught.value.__notes__[0]


def throw_with(_):
    raise KeyError("no")


class Proxy:
    """Stands for something that is not there at present: asking it for anything raises."""

    def __getattr__(self, name):
        raise RuntimeError("nothing here")

    def __call__(self, number):
        return number + 1


def test_a_callable_that_cannot_be_asked_for_its_attributes_is_a_task():
    """As any other."""
    process = Process("proxy")
    process.add_task(Proxy(), 1)
    process.add_task(Proxy(), process.task(Proxy(), 2))
    process.map(Proxy(), [3, 4])
    process.add_task(task(name="proxy")(Proxy()), 5)
    assert process.execute() == [2, 3, 4, [4, 5], 6]


def test_whatever_is_returned_is_a_result_like_any_other():
    """Falsy values, a handle, a task, the process itself."""
    process, other = Process("values", "parallel"), Process("other")
    handle = other.task(same, 1)
    values = [None, 0, "", [], NotImplemented, ..., handle, (same, (), {}), process]
    for value in values:
        process.add_task(lambda value=value: value)
    assert all(result is value for result, value in zip(process.execute(), values, strict=True))


def test_attributes_are_as_given_and_default_workers_are_counted():
    """Name, strategy, tasks and max_workers are there through slots."""
    process = Process("name")
    process.add_step(same, 1)
    process.add_task(dict, callable=1, self=2, name=3, timeout=4)
    assert (process.name, process.strategy) == ("name", "sequential")
    assert process.max_workers == min(32, (os.cpu_count() or 1) + 4)
    assert process.tasks == [(same, (1,), {}), (dict, (), {"callable": 1, "self": 2, "name": 3, "timeout": 4})]
    assert not hasattr(process, "__dict__")
    assert process.execute()[1] == {"callable": 1, "self": 2, "name": 3, "timeout": 4}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_failure_leaves_as_itself_with_a_note(strategy):
    """The type that the task raised, the process and the place in a note, and no thread left."""
    process = Process("broken", strategy)
    process.add_task(fail)
    process.add_task(same, 1)
    before = threading.active_count()
    with pytest.raises(KeyError) as caught:
        process.execute()
    assert caught.value.__notes__ == ["in process 'broken', task 0 (fail), attempt 1"]
    assert process.status == "failed"
    assert threading.active_count() <= before


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, SystemExit, GeneratorExit, StopIteration, StopAsyncIteration, IndexError]
)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_any_exception_is_raised_as_itself(strategy, error):
    """No exception is taken for the end of a loop."""

    def raising():
        raise error

    process = Process("any", strategy)
    process.add_task(raising)
    with pytest.raises(error):
        process.execute()
    assert process.status == "failed"


def test_bounded_by_max_workers():
    """Never more than max_workers tasks at the same time, and all of them are used."""
    lock, barrier = threading.Lock(), threading.Barrier(3)
    running, most = 0, 0

    def work():
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        barrier.wait(20)
        with lock:
            running -= 1

    process = Process("bounded", "parallel", 3)
    for _ in range(30):
        process.add_task(work)
    process.execute()
    assert most == 3


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_graphs_and_maps_are_bounded_by_max_workers_together(workers):
    """Tasks that become ready, elements of several maps and attempts with a timeout: never more than that many."""
    lock, running, most = threading.Lock(), 0, 0

    def work(_, turns=3):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        for _ in range(turns):
            threading.Event().wait(0.0005)  # let others in, if they may
        with lock:
            running -= 1

    process = Process("bounded", "parallel", workers)
    first = process.task(work, None)
    fan = [process.task(work, first) for _ in range(10)]
    process.map(work, range(20))
    process.map(task(timeout=50)(work), iter(range(20)))
    process.add_task(work, fan)
    process.execute()
    assert 1 <= most <= workers


@pytest.mark.parametrize("count", range(6))
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_runs_in_order_runs_in_the_callers_thread(strategy, count):
    """All of a sequential process, none of a parallel one, of a hybrid one the first half, rounded down."""
    process = Process("threads", strategy, 2)
    for _ in range(count):
        process.add_task(threading.current_thread)
    in_order = {"sequential": count, "parallel": 0, "hybrid": count // 2}[strategy]
    mine = threading.current_thread()
    assert [thread is mine for thread in process.execute()] == [place < in_order for place in range(count)]


def test_hybrid_waits_for_its_first_half():
    """Nothing of the second half starts before the first half has succeeded."""
    seen = []
    process = Process("half", "hybrid", 4)
    for number in range(7):
        process.add_task(seen.append, number)
    process.execute()
    assert seen[:3] == [0, 1, 2]
    assert sorted(seen) == list(range(7))


@pytest.mark.parametrize(
    ("workers", "error"), [(0, ValueError), (-1, ValueError), (True, TypeError), (2.5, TypeError), ("4", TypeError)]
)
def test_wrong_max_workers_is_refused(workers, error):
    """At construction."""
    with pytest.raises(error, match="max_workers"):
        Process("x", max_workers=workers)


def test_wrong_definitions_are_refused_at_once_and_harm_nothing():
    """Each names what is wrong, and the process can still be used."""
    with pytest.raises(ValueError, match="'sequential', 'parallel', 'hybrid'"):
        Process("x", "zigzag")
    process, other = Process("x"), Process("other")
    for wrong in (None, 3, "print", same(None)):
        for add in (process.add_task, process.add_step, process.task):
            with pytest.raises(TypeError, match="process 'x', task 0: a task is something to call"):
                add(wrong)
        with pytest.raises(TypeError, match="something to call"):
            process.map(wrong, [1])
    assert process.tasks == []

    async def generator():
        yield

    with pytest.raises(TypeError, match="async generator"):
        process.add_task(generator)
    handle = other.task(same, 1)
    with pytest.raises(HandleError, match="another process"):
        process.add_task(same, handle)
    other.add_task(process)
    with pytest.raises(NestingError):
        process.add_task(other.execute)
    with pytest.raises(TypeError, match="iterated"):
        process.map(same, 3)
    with pytest.raises(ValueError, match="equally long"):
        process.map(max, [1], [1, 2])
    process.add_task(same, 1)
    assert process.execute() == [1]


def test_a_handle_is_no_value():
    """Conditions, arithmetic, iteration, comparison and attributes are refused at that line."""
    handle = Process("x").task(same, 1)
    for misuse in (
        bool,
        list,
        lambda h: h + 1,
        lambda h: 1 + h,
        lambda h: h < 1,
        lambda h: h == 1,
        lambda h: h.real,
        lambda h: h[0],
        lambda h: f"{h}",
    ):
        with pytest.raises(HandleError):
            misuse(handle)


def test_a_task_sees_all_that_those_before_it_wrote(restless):
    """Each finds the marks of all its predecessors, at any distance, whether it waits by place or by a handle.

    layer 0 ──▶ layer 1 ──▶ … ──▶ layer 9        each task waits for three of the layer before
    """
    for strategy in "parallel", "hybrid":
        process = Process("seen", strategy, 8)
        written = {}
        missing = []

        def work(place, before, *_, written=written, missing=missing):
            missing += [other for other in before if written.get(other) != "ended"]
            written[place] = "begun"
            written[place] = "ended"

        in_order = [(-1, number) for number in range(45)] if strategy == "hybrid" else []
        for number, place in enumerate(in_order):
            process.add_task(work, place, in_order[:number])
        layer = []
        for depth in range(9):
            places = [(depth, number) for number in range(5)]
            chosen = [[layer[(number + shift) % 5] for shift in range(3)] if layer else [] for number in range(5)]
            layer = [
                (
                    place,
                    process.task(work, place, [*in_order, *(other for other, _ in needed)], *(h for _, h in needed)),
                )
                for place, needed in zip(places, chosen, strict=True)
            ]
        for _ in range(10):
            written.clear()
            process.execute()
            assert len(written) == len(process.tasks)
            assert missing == []


@pytest.mark.parametrize("strategy", ["parallel", "hybrid"])
def test_each_task_is_called_once_and_in_its_place_every_time(strategy, restless):
    """Two hundred rounds of eight workers that interrupt each other all the time."""
    calls = []
    process = Process("rounds", strategy, 8)

    def work(number):
        calls.append(number)
        time.sleep(0)  # lets another thread go on
        return number

    for number in range(80):
        process.add_task(work, number)
    shared = process.task(work, 80)
    fan = [process.task(lambda _, number: work(number), shared, number) for number in range(81, 91)]
    process.add_task(lambda numbers: work(91), fan)
    process.map(work, range(92, 102))
    for _ in range(200):
        calls.clear()
        assert process.execute() == [*range(92), [*range(92, 102)]]
        assert sorted(calls) == [*range(102)]


def test_changing_or_executing_a_running_process_is_refused():
    """And harms nothing."""
    process = Process("busy")

    def meddle():
        for act in (process.execute, lambda: process.add_task(same, 1)):
            with pytest.raises(ProcessRunningError):
                act()
        return "fine"

    process.add_task(meddle)
    assert process.execute() == ["fine"]


def test_nested_ten_deep_on_one_worker():
    """No deadlock on a shared pool, for none is shared."""
    process = Process("0", "parallel", 1)
    process.add_task(same, 7)
    for level in range(1, 11):
        outer = Process(str(level), "parallel", 1)
        outer.add_task(process)
        process = outer
    result = process.execute()
    for _ in range(10):
        (result,) = result
    assert result == [7]


def test_values_flow_through_handles_and_maps():
    """A handle becomes its value as an argument and directly inside list, tuple and dict; a map gives a list."""
    for strategy in STRATEGIES:
        process = Process("flow", strategy, 4)
        one = process.task(same, 1)
        process.add_task(lambda *a, **k: (a, k), one, [one], (one, 2), {"k": one}, kw=one)
        words = process.task(str.split, "a bb ccc")
        lengths = process.map(len, words)
        lazy = process.map(pow, (n for n in range(1000)), [2] * 1000)
        process.add_task(sum, lengths)
        results = process.execute()
        assert results[1] == ((1, [1], (1, 2), {"k": 1}), {"kw": 1})
        assert results[3] == [1, 2, 3]
        assert results[4] == [n * n for n in range(1000)]
        assert results[5] == 6
        assert process.last_run[lazy] == results[4]


def test_a_long_chain_needs_no_recursion():
    """100,000 tasks, each waiting for the one before."""
    process = Process("chain", "parallel", 4)
    handle = process.task(same, 0)
    for _ in range(100_000):
        handle = process.task(lambda n: n + 1, handle)
    assert process.execute()[-1] == 100_000


@pytest.mark.parametrize("workers", [1, 4])
def test_policies_say_what_a_failure_means(workers):
    """Independent tasks go on under continue and return; what waits for a failed one is skipped."""
    process = Process("policy", "parallel", workers, on_error="return")
    broken = process.task(fail)
    process.add_task(same, broken)
    process.add_task(same, 3)
    first, second, third = process.execute()
    assert (type(first), type(second), third) == (KeyError, TaskSkippedError, 3)
    process.on_error = "continue"
    with pytest.raises(ExceptionGroup) as caught:
        process.execute()
    assert [type(error) for error in caught.value.exceptions] == [KeyError]
    assert [outcome.state for outcome in process.last_run.outcomes] == ["failed", "skipped", "completed"]


def test_retries_and_timeouts(comes_true):
    """A failed attempt is made again; a hung one ends with TimeoutError while its thread is left behind."""
    tries, release = [], threading.Event()

    @task(retries=2)
    def flaky():
        tries.append(current_task().attempt)
        if len(tries) < 3:
            raise OSError
        return "done"

    @task(timeout=0.05, retries=3)
    def hung():
        tries.append("hung")
        release.wait(30)

    process = Process("again")
    process.add_task(flaky)
    process.add_task(hung)
    try:
        with pytest.raises(TimeoutError):
            process.execute()
        assert comes_true(lambda: "hung" in tries)
        assert tries == [1, 2, 3, "hung"]
        assert process.last_run.outcomes[0].attempts == 3
    finally:
        release.set()


def test_a_run_is_followed_and_cancelled():
    """Outcomes come as tasks end, and after cancel() nothing new starts."""
    gate = threading.Event()
    process = Process("cancel", "parallel", 1)
    process.add_task(same, 1)
    process.add_task(gate.wait, 20)
    process.add_task(same, 3)
    run = process.start()
    assert next(iter(run)).value == 1
    run.cancel()
    run.cancel()
    gate.set()
    with pytest.raises(RuntimeError, match="cancelled"):
        run.result(20)
    assert run.status == "cancelled"
    assert run.outcomes[2].state == "cancelled"
    assert "cancelled" in run.summary()


# In many threads


def in_threads(*functions):
    """Call each function in a thread of its own, all at the same time; return what they returned or raised."""
    barrier, ended = threading.Barrier(len(functions)), [None] * len(functions)

    def call(place, function):
        barrier.wait(20)
        try:
            ended[place] = function()
        except BaseException as error:
            ended[place] = error

    threads = [threading.Thread(target=call, args=pair) for pair in enumerate(functions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    return ended


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_of_several_threads_that_execute_a_process_one_does(strategy, restless):
    """The others are told plainly, nothing is mixed, and it can be executed again."""
    others = threading.Semaphore(0)

    def wait_for_the_others():
        for _ in range(7):
            assert others.acquire(timeout=20)
        return "done"

    def execute():
        try:
            return process.execute()
        except ProcessRunningError:
            others.release()
            raise

    process = Process("contended", strategy, 2)
    process.add_task(wait_for_the_others)
    process.add_task(same, 1)
    for _ in range(5):
        ended = in_threads(*[execute] * 8)
        assert ended.count(["done", 1]) == 1
        refused = [error for error in ended if isinstance(error, ProcessRunningError)]
        assert len(refused) == 7
        assert all("process 'contended' is running" in str(error) for error in refused)
        assert process.status == "completed"


def test_tasks_added_by_several_threads_are_all_there(restless):
    """Plain tasks in one piece each, and handles stand for the right ones."""
    process = Process("shared", "parallel", 4)

    def plain(number):
        for _ in range(200):
            process.add_task(same, number)

    def wired(number):
        for turn in range(100):
            handle = process.task(same, (number, turn))
            process.add_task(lambda value, expected: value == expected, handle, (number, turn))
            process.map(same, handle)

    adding = [partial(plain, 1), partial(wired, 2), partial(plain, 3), partial(wired, 4)]
    assert in_threads(*adding) == [None] * 4
    results = process.execute()
    assert len(process.tasks) == len(results) == 2 * 200 + 2 * 300
    assert [sum(result is value for result in results) for value in (1, 3, True, False)] == [200, 200, 200, 0]


class Crowded(list):
    """A list to which another thread always adds a plain task just before."""

    def append(self, call):
        super().append((same, ("another",), {}))
        super().append(call)


def test_a_handle_stands_for_its_task_wherever_that_came_to_lie():
    """Another thread may have added one between any two steps."""
    process = Process("crowded", "parallel")
    process.tasks = Crowded()
    first = process.task(same, "first")
    second = process.task(lambda *values: values, first, [first])
    mapped = process.map(len, second)
    third = process.task(task(name="third")(lambda: current_task().name))
    process.execute()
    run = process.last_run
    assert [run[first], run[second], run[mapped], run[third]] == ["first", ("first", ["first"]), [5, 1], "third"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_processes_in_many_threads_do_not_meet(strategy):
    """Each has its results, its status and its failures."""

    def work(number):
        process = Process(f"thread {number}", strategy, 2)
        for _ in range(20):
            process.add_task(same, number)
        if number % 2:
            process.add_task(fail)
        try:
            return process.execute()
        except KeyError as error:
            assert error.__notes__ == [f"in process 'thread {number}', task 20 (fail), attempt 1"]
            return process.status

    ended = in_threads(*[partial(work, number) for number in range(10)])
    assert ended == ["failed" if number % 2 else [number] * 20 for number in range(10)]
