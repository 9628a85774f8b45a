"""The contract of `Process`, row by row."""

import os
import threading

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
    assert threading.active_count() == before


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


def test_hybrid_waits_for_its_first_half():
    """Nothing of the second half starts before the first half has ended well."""
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
    with pytest.raises(TypeError, match="something to call"):
        process.add_task(3)

    async def coroutine():
        pass

    with pytest.raises(TypeError, match="coroutine"):
        process.add_task(coroutine)
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


def test_retries_and_timeouts():
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
