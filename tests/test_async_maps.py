"""Maps over coroutine functions, and processes in coroutines of others."""

import asyncio
from queue import SimpleQueue
from threading import Semaphore

import pytest

from coroutines import POLICIES, Sleeper, chain_link, every_strategy, every_way, later, plain_link, states
from procession import NestingError, Process, RunCancelledError

pytestmark = pytest.mark.usefixtures("nothing_is_left")


# Maps


@every_way
def test_elements_of_a_map_wait_together(way):
    """As many as max_workers allows, and no more; the results are in order."""
    count, now, most = 0, 0, 0

    async def waits(number):
        nonlocal count, now, most
        now += 1
        count += 1
        most = max(most, now)
        if now == 4:
            gates[0].set()
        elif not gates:
            gates.append(asyncio.Event())
        await gates[0].wait()
        now -= 1
        return number * 2

    gates = []
    process = Process("together", "parallel", 4)
    process.map(waits, range(40))
    assert way(process) == [[number * 2 for number in range(40)]]
    assert (count, most) == (40, 4)


@every_strategy
def test_a_lazy_iterable_is_drawn_lazily(strategy):
    """At most 64 elements ahead, also in the loop."""
    drawn, done = 0, 0

    def source():
        nonlocal drawn
        for number in range(1000):
            drawn += 1
            assert drawn - done <= 64 + 1 + 3
            yield number

    async def takes(number):
        nonlocal done
        await asyncio.sleep(0)
        done += 1
        return number

    process = Process("lazy", strategy, 3)
    process.map(takes, source())
    assert process.execute() == [list(range(1000))]


async def stays(value):
    return value


def stays_plain(value):
    return value


either_kind = pytest.mark.parametrize("function", [stays, stays_plain], ids=["coroutines", "threads"])


@either_kind
def test_other_tasks_run_while_a_source_keeps_a_map_waiting(function):
    """Workers that have nothing to do for a map do the rest: here the source waits for what another task puts there."""
    given = SimpleQueue()

    def put_all():
        for number in (1, 2, 3, None):
            given.put(number)

    process = Process("fed", "parallel", 3)
    numbers = process.map(function, iter(lambda: given.get(timeout=10), None))
    process.add_task(put_all)
    run = process.start()
    assert run[numbers] == [1, 2, 3]


@either_kind
def test_what_is_drawn_is_called_while_a_source_that_was_quick_waits(function):
    """However many were to be drawn at once: here the source waits until the last one it gave has been called."""
    called = Semaphore(0)

    def source():
        for number in range(100):
            yield number
        for _ in range(100):
            assert called.acquire(timeout=10)
        for number in range(100, 110):
            yield number
            assert called.acquire(timeout=10)

    async def calls(number):
        called.release()
        return await stays(number)

    def calls_plain(number):
        called.release()
        return number

    process = Process("answered", "parallel", 3)
    process.map(calls if function is stays else calls_plain, source())
    assert process.execute() == [list(range(110))]


def test_a_map_takes_what_another_gives():
    """Coroutines of plain values and plain functions of awaited ones, with several iterables."""
    process = Process("maps", "parallel", 3)
    numbers = process.task(later, [1, 2, 3])
    doubled = process.map(chain_link, numbers)
    plain = process.map(plain_link, doubled)
    process.map(max_later, doubled, plain)
    assert process.execute() == [[1, 2, 3], [2, 3, 4], [3, 4, 5], [3, 4, 5]]
    with pytest.raises(ValueError, match="equally long"):
        process.map(max_later, [1], [1, 2])


async def max_later(*values):
    return await later(max(values))


@pytest.mark.parametrize("policy", POLICIES)
def test_elements_that_fail_mean_what_the_policy_says(policy):
    """As in a map of a plain function."""

    async def fails(number):
        await asyncio.sleep(0)
        if number % 2:
            raise KeyError(number)
        return number

    process = Process("elements", "parallel", 2, on_error=policy)
    process.map(fails, [0, 1, 2, 3])
    if policy == "return":
        [results] = process.execute()
        assert (results[0], results[2]) == (0, 2)
        assert [type(results[1]), type(results[3])] == [KeyError, KeyError]
    elif policy == "continue":
        with pytest.raises(ExceptionGroup) as caught:
            process.execute()
        assert len(caught.value.exceptions[0].exceptions) == 2
    else:
        with pytest.raises(KeyError) as caught:
            process.execute()
        assert "element 1" in caught.value.__notes__[0]


@pytest.mark.parametrize("lazy", [True, False])
def test_a_map_is_cancelled_with_its_run(lazy):
    """Elements that wait are cancelled, the others never begin."""
    sleeper = Sleeper(3)
    process = Process("cut", "parallel", 3)
    process.map(sleeper, iter(range(100)) if lazy else range(100))
    run = process.start()
    assert sleeper.all_here.wait(20)
    run.cancel()
    with pytest.raises(RunCancelledError):
        run.result(20)
    assert (sleeper.begun, sleeper.cancelled) == (3, 3)
    assert states(run) == ["cancelled"]


def test_an_outcome_gives_the_call_again():
    """Of a coroutine function, what to await."""
    process = Process("again")
    process.add_task(later, 3)
    process.map(later, [1, 2])
    process.execute()
    assert asyncio.run(process.last_run.outcomes[0].call_again()) == 3
    assert asyncio.run(process.last_run.outcomes[1].call_again()) == [1, 2]


# Nested


@every_way
def test_a_process_with_coroutines_can_be_a_task_of_another(way):
    """Called, it runs in a thread with a loop of its own; its execute_async is a coroutine function. Ten levels of each."""
    process = Process("inner", "parallel", 1)
    process.add_task(later, 1)
    for level in range(10):
        outer = Process(f"outer {level}", "parallel", 1)
        outer.add_task(later, level)
        outer.add_task(process if level % 2 else process.execute_async)
        process = outer
    nested = way(process)
    for level in reversed(range(10)):
        mine, nested = nested
        assert mine == level
    assert nested == [1]


def test_a_process_cannot_await_itself():
    """At any depth, as ever."""
    process, other = Process("a"), Process("b")
    other.add_task(process.execute_async)
    with pytest.raises(NestingError):
        process.add_task(other.execute_async)


def test_a_nested_run_is_cancelled_with_the_one_around_it():
    """Whether awaited or called."""
    for nest in (lambda inner: inner.execute_async), (lambda inner: inner):
        sleeper = Sleeper()
        inner = Process("inner", "parallel")
        inner.add_task(sleeper)
        outer = Process("outer", "parallel")
        outer.add_task(nest(inner))
        outer.add_task(later, 1)
        run = outer.start()
        assert sleeper.all_here.wait(20)
        run.cancel()
        with pytest.raises(RunCancelledError):
            run.result(20)
        assert sleeper.cancelled == 1
        assert (inner.status, inner.last_run.status) == ("failed", "cancelled")


def test_a_process_can_be_executed_inside_a_coroutine():
    """It holds up that loop, as any call does, which it is warned of, but not itself."""
    inner = Process("inner", "parallel", 1)
    inner.add_task(later, 5)

    async def calls():
        return inner.execute()

    outer = Process("outer", "parallel", 1)
    outer.add_task(calls)
    with pytest.warns(RuntimeWarning, match="process 'inner'"):
        assert outer.execute() == [[5]]
