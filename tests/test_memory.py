"""What a run keeps alive, how much it needs, and what flows through threads: contexts, workers."""

import contextvars
import gc
import itertools
import sys
import threading
import tracemalloc
import weakref

import pytest

from procession import Process, WorkersUnavailableError, task

STRATEGIES = ["sequential", "parallel", "hybrid"]
POLICIES = ["stop", "continue", "return"]


class Big:
    """Something that a weak reference can watch."""


class Failure(Exception):
    """A failure that a weak reference can watch."""


def same(value):
    return value


def make(_=None):
    return Big()


@pytest.fixture(autouse=True)
def no_collector():
    """Reference counts alone have to free things."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


# Results


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_results_are_the_callers_alone(strategy):
    """Dropped by the caller they are gone, although the process and its last run are still there."""
    process = Process("results", strategy)
    for _ in range(4):
        process.add_task(make)
    results = process.execute()
    watched = [weakref.ref(result) for result in results]
    del results
    assert [watch() for watch in watched] == [None] * 4
    assert process.last_run.status == "completed"


@pytest.mark.parametrize("options", [{}, {"timeout": 50}, {"retries": 2}], ids=["plain", "timeout", "retries"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_there_is_one_reference_to_a_result(strategy, options):
    """The one in the caller's list."""
    process = Process("one", strategy)
    for _ in range(4):
        process.add_task(task(**options)(make))
    alone = [Big()]
    results = process.execute()
    expected = sys.getrefcount(alone[0])
    assert [sys.getrefcount(results[place]) for place in range(4)] == [expected] * 4


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_there_is_one_reference_to_each_result_of_a_map(strategy):
    """The one in its list."""
    process = Process("map", strategy, 2)
    process.map(make, range(100))
    alone = [Big()]
    (results,) = process.execute()
    expected = sys.getrefcount(alone[0])
    assert {sys.getrefcount(results[place]) for place in range(100)} == {expected}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_that_was_started_keeps_its_results(strategy):
    """For whoever asks it, as often as they ask."""
    process = Process("kept", strategy)
    process.add_task(make)
    run = process.start()
    watched = weakref.ref(run.result(20)[0])
    assert watched() is run.result()[0] is run.outcomes[0].value


def test_an_element_is_free_once_its_call_has_ended():
    """A map holds neither the elements that are done nor those that are not drawn yet."""
    alive = weakref.WeakSet()
    most = 0

    def source():
        for _ in range(1000):
            element = Big()
            alive.add(element)
            yield element

    def each(element):
        nonlocal most
        most = max(most, len(alive))

    process = Process("elements", "parallel", 1)
    process.map(each, source())
    process.execute()
    assert most <= 64 + 3
    assert len(alive) == 0


@pytest.mark.parametrize("kind", ["threads", "coroutines"])
def test_chains_of_tasks_hold_only_the_values_that_are_under_way(kind):
    """What is not kept is taken, and let go, before another chain begins."""
    alive, most = weakref.WeakSet(), 0

    def load(_):
        nonlocal most
        value = Big()
        alive.add(value)
        most = max(most, len(alive))
        return value

    async def load_async(number):
        return load(number)

    process = Process("chains", "parallel", 2)
    step = load_async if kind == "coroutines" else load
    for number in range(20):
        loaded = process.task(task(keep=False)(step), number)
        cleaned = process.task(task(keep=False)(step), loaded)
        process.add_task(id, cleaned)
    process.execute()
    assert most <= 8


# Arguments


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_arguments_of_a_process_that_never_ran_are_freed(strategy, policy):
    """With the process."""
    argument = Big()
    watched = weakref.ref(argument)
    process = Process("dropped", strategy, on_error=policy)
    handle = process.task(same, argument)
    process.add_task(same, [handle])
    process.map(same, [argument])
    del argument, handle, process
    assert watched() is None


# Exceptions


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("options", [{}, {"timeout": 50}, {"retries": 1}], ids=["plain", "timeout", "retries"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_failure_and_what_its_frames_hold_are_freed_when_the_caller_lets_go(strategy, options, policy):
    """At once, without the collector."""
    watched = []

    @task(**options)
    def fail(argument):
        local = Big()
        watched.extend(map(weakref.ref, (argument, local)))
        raise Failure("no")

    process = Process("failed", strategy, 2, on_error=policy)
    process.add_task(fail, Big())
    process.add_task(same, Big())
    try:
        results = process.execute()
    except Failure as error:
        watched.append(weakref.ref(error))
    except ExceptionGroup as group:
        watched.append(weakref.ref(group.exceptions[0]))
    else:
        watched.append(weakref.ref(results[0]))
        del results
    assert watched[-2]() is not None  # the last run has the failure
    watched.append(weakref.ref(process.last_run))
    del process
    assert [watch() for watch in watched] == [None] * len(watched)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_failure_that_is_kept_keeps_alive_what_its_task_holds_and_nothing_else(strategy):
    """Neither the process, nor its run, nor what other tasks took and returned."""
    watched = []

    def fail(argument):
        watched.append(weakref.ref(argument))
        raise Failure("no")

    process = Process("kept", strategy, 1)
    for value in Big(), Big():
        watched.append(weakref.ref(value))
        process.add_task(same, value)
    process.add_task(fail, Big())
    process.add_task(same, 1)
    del value
    try:
        process.execute()
    except Failure as error:
        kept = error
    watched += [weakref.ref(process), weakref.ref(process.last_run)]
    del process
    assert [watch() is None for watch in watched] == [True, True, False, True, True]
    del kept
    assert watched[2]() is None


def test_the_failures_of_a_map_are_freed_when_the_caller_lets_go():
    """With the elements they were about."""
    watched = []

    def fail(element):
        watched.append(weakref.ref(element))
        raise Failure("no")

    process = Process("map", "parallel", 2, on_error="continue")
    process.map(fail, [Big() for _ in range(10)])
    try:
        process.execute()
    except ExceptionGroup as group:
        watched += map(weakref.ref, group.exceptions[0].exceptions)
    del process
    assert [watch() for watch in watched] == [None] * 20


@pytest.mark.parametrize("kind", ["plain", "handles", "timeout", "retries", "map"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_results_of_a_started_run_are_freed_with_it(strategy, kind, comes_true):
    """As soon as its thread has gone, without the collector."""
    process = Process("started", strategy, 2)
    if kind == "map":
        process.map(lambda _: Big(), range(3))
    elif kind == "handles":
        process.add_task(same, process.task(Big))
    else:
        process.add_task(task(**{"plain": {}, "timeout": {"timeout": 50}, "retries": {"retries": 1}}[kind])(Big))
    run = process.start()
    results = run.result(20)
    watched = [weakref.ref(run), weakref.ref(results[0][0] if kind == "map" else results[0])]
    del process, run, results
    assert comes_true(lambda: [watch() for watch in watched] == [None, None])


@pytest.mark.parametrize("policy", ["stop", "continue"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_a_started_run_raised_is_freed_when_the_caller_lets_go(strategy, policy, comes_true):
    """Whether result() raised it or a handle was asked for its value."""
    watched = []

    def fail(argument):
        watched.append(weakref.ref(argument))
        raise Failure("no")

    process = Process("started", strategy, 2, on_error=policy)
    handle = process.task(fail, Big())
    run = process.start()
    run.wait(20)
    for _ in range(2):
        try:
            run[handle] if watched[1:] else run.result()
        except Failure as error:
            watched.append(weakref.ref(error))
        except ExceptionGroup as group:
            watched.append(weakref.ref(group.exceptions[0]))
    watched.append(weakref.ref(run))
    del process, run, handle
    assert comes_true(lambda: [watch() for watch in watched] == [None] * 4)


# How much is needed


@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("strategy", ["sequential", "parallel"])
def test_a_map_draws_at_most_a_window_ahead(strategy, workers):
    """64 elements that wait, and one for each worker that is at one."""
    lock, drawn, finished, most = threading.Lock(), 0, 0, 0

    def source():
        nonlocal drawn, most
        for number in range(5000):
            with lock:
                drawn += 1
                most = max(most, drawn - finished)
            yield number

    def each(number):
        nonlocal finished
        with lock:
            finished += 1

    process = Process("window", strategy, workers)
    process.map(each, source())
    process.execute()
    assert drawn == finished == 5000
    assert most <= 64 + workers


def test_a_map_draws_no_further_while_its_consumers_are_held_up():
    """It waits for them, and goes on when they do."""
    held, release, drawn = threading.Barrier(3), threading.Event(), []
    counter = itertools.count()

    def source():
        for number in range(1000):
            drawn.append(number)
            yield number

    def each(number):
        if next(counter) in (500, 501):
            held.wait(20)
            assert release.wait(20)

    process = Process("held", "parallel", 2)
    process.map(each, source())
    run = process.start()
    held.wait(20)
    assert len(drawn) <= 502 + 64
    assert run.status == "running"
    release.set()
    run.result(20)
    assert len(drawn) == 1000


def test_a_waiting_task_needs_little_memory():
    """At most 400 bytes for each of 100,000 that wait, their definition included."""
    count, used = 100_000, []

    def measure():
        used.append(tracemalloc.get_traced_memory()[0])

    process = Process("many", "parallel", 1)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        process.add_task(measure)
        for _ in range(count):
            process.add_task(same, None)
        process.execute()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (used[0] - before) / count <= 400
    assert (peak - before) / count <= 400


# Contexts

LEVEL = contextvars.ContextVar("level", default="unset")


@pytest.mark.parametrize("options", [{}, {"timeout": 50}, {"retries": 1}], ids=["plain", "timeout", "retries"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_task_runs_in_a_copy_of_the_callers_context(strategy, options):
    """It sees what the caller has set; what it sets, neither the next task nor the caller sees."""
    seen = []

    @task(**options)
    def work(number):
        seen.append(LEVEL.get())
        LEVEL.set(number)
        seen.append(LEVEL.get())

    process = Process("context", strategy, 1)
    for number in range(6):
        process.add_task(work, number)

    def call():
        LEVEL.set("caller")
        process.execute()
        return LEVEL.get()

    assert contextvars.copy_context().run(call) == "caller"
    assert seen == [value for number in range(6) for value in ("caller", number)]
    assert LEVEL.get() == "unset"


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_element_of_a_map_runs_in_a_copy_of_the_callers_context(strategy, workers):
    """As if it were a task."""

    def each(number):
        before = LEVEL.get()
        LEVEL.set(number)
        return before, LEVEL.get()

    process = Process("context", strategy, workers)
    process.map(each, range(200))
    process.add_task(LEVEL.get)

    def call():
        LEVEL.set("caller")
        return process.execute()

    elements, after = contextvars.copy_context().run(call)
    assert elements == [("caller", number) for number in range(200)]
    assert after == "caller"


def test_a_failed_task_leaves_its_context_to_nobody():
    """Neither to the next task nor to the next attempt."""
    seen = []

    @task(retries=1)
    def fail():
        seen.append(LEVEL.get())
        LEVEL.set("failed")
        raise KeyError("no")

    process = Process("context", "parallel", 1, on_error="return")
    process.add_task(fail)
    process.add_task(lambda: seen.append(LEVEL.get()))
    process.execute()
    assert seen == ["unset"] * 3


def test_a_plain_task_that_failed_leaves_its_context_to_nobody_either():
    """Nor does an element of a map."""
    seen = []

    def fail(_=None):
        seen.append(LEVEL.get())
        LEVEL.set("failed")
        raise KeyError("no")

    process = Process("context", "parallel", 1, on_error="return")
    for _ in range(3):
        process.add_task(fail)
    process.map(fail, [1, 2])
    process.add_task(lambda: seen.append(LEVEL.get()))
    process.execute()
    assert seen == ["unset"] * 6


def test_a_nested_process_sees_the_context_of_the_task_it_is_in():
    """The task is its caller."""
    inner = Process("inner", "parallel")
    inner.add_task(LEVEL.get)

    def work(value):
        LEVEL.set(value)
        return inner.execute()

    outer = Process("outer")
    outer.add_task(work, "a")
    outer.add_task(work, "b")
    assert outer.execute() == [["a"], ["b"]]


def test_contexts_are_those_of_the_run_not_of_the_definition():
    """What is set between two runs is seen by the second."""

    def call():
        process = Process("context", "parallel")
        process.add_task(LEVEL.get)
        LEVEL.set("first")
        results = process.execute()
        LEVEL.set("second")
        return results + process.execute()

    assert contextvars.copy_context().run(call) == ["first", "second"]


# Workers that cannot be started


class Scarce:
    """A system that has only so many threads left."""

    def __init__(self, monkeypatch, left):
        self.left = left
        lock, start = threading.Lock(), threading.Thread.start

        def start_or_not(thread):
            with lock:
                if self.left <= 0:
                    raise RuntimeError("can't start new thread")
                self.left -= 1
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", start_or_not)


@pytest.mark.parametrize("strategy", ["parallel", "hybrid"])
def test_without_one_worker_a_run_fails_plainly(monkeypatch, strategy):
    """With an error that names the process; it can be used again when there are threads."""
    before = set(threading.enumerate())
    process = Process("poor", strategy, 4)
    for number in range(20):
        process.add_task(same, number)
    with monkeypatch.context() as patch:
        Scarce(patch, 0)
        with pytest.raises(WorkersUnavailableError, match="process 'poor'"):
            process.execute()
    assert process.status == process.last_run.status == "failed"
    assert set(threading.enumerate()) <= before
    assert process.execute() == list(range(20))


@pytest.mark.parametrize("left", [2, 3, 4])
@pytest.mark.parametrize("strategy", ["parallel", "hybrid"])
def test_a_run_goes_on_with_the_workers_there_are(monkeypatch, strategy, left):
    """However few; every task runs once."""
    begun = []

    def work(number):
        begun.append(number)
        return number

    process = Process("few", strategy, 8)
    for number in range(200):
        process.add_task(work, number)
    with monkeypatch.context() as patch:
        Scarce(patch, left)
        assert process.execute() == list(range(200))
    assert sorted(begun) == list(range(200))
    assert process.status == "completed"


def test_threads_that_run_out_in_a_graph_or_a_map_stop_nothing():
    """What was to be done at once is done by those who are there."""
    for left in 2, 3:
        with pytest.MonkeyPatch.context() as patch:
            scarce = Scarce(patch, left)
            process = Process("graph", "parallel", 8)
            first = process.task(same, 1)
            fan = [process.task(max, first, number) for number in range(50)]
            process.add_task(sum, fan)
            mapped = process.map(same, iter(range(500)))
            process.add_task(len, mapped)
            results = process.execute()
            assert results[-3] == sum(results[1:51]) == 1226
            assert results[-1] == 500
            assert scarce.left == 0


def test_a_task_with_a_timeout_for_which_there_is_no_thread_fails_plainly(monkeypatch):
    """As any task that fails; the others are not touched."""
    process = Process("poor")
    process.add_task(task(timeout=50)(same), 1)
    with monkeypatch.context() as patch:
        Scarce(patch, 0)
        with pytest.raises(WorkersUnavailableError, match="timeout") as caught:
            process.execute()
    assert caught.value.__notes__ == ["in process 'poor', task 0 (same), attempt 1"]
    assert process.execute() == [1]


def test_a_run_that_cannot_be_started_leaves_the_process_usable(monkeypatch):
    """The error is raised where start() was called."""
    process = Process("poor")
    process.add_task(same, 1)
    with monkeypatch.context() as patch:
        Scarce(patch, 0)
        with pytest.raises(RuntimeError):
            process.start()
    assert process.status == "failed"
    assert process.execute() == [1]
