"""Coroutines as tasks: on a loop of their own, in the caller's loop, and mixed with plain functions."""

import ast
import asyncio
import contextvars
import functools
import inspect
import re
import sys
import threading
import types
from unittest import mock

import pytest

from coroutines import (
    STRATEGIES,
    at_once,
    awaited,
    chain_link,
    every_strategy,
    every_way,
    executed,
    in_a_notebook,
    later,
    plain_link,
    same,
    states,
)
from procession import Hybrid, Process, current_task, task

pytestmark = pytest.mark.usefixtures("nothing_is_left")


# Coroutine functions are tasks like any other


@every_way
@every_strategy
def test_coroutines_and_plain_functions_are_tasks_side_by_side(strategy, way):
    """Under every strategy and however it is run, results stand in the order added; and again when run again."""
    process = Process("mixed", strategy, 3)
    for number in range(0, 30, 3):
        process.add_task(later, number, turns=30 - number)
        process.add_task(same, number + 1)
        process.add_task(at_once, number + 2)
    assert way(process) == list(range(30))
    assert process.status == "completed"
    assert set(states(process.last_run)) == {"completed"}
    assert way(process) == list(range(30))


class Adder:
    def __init__(self, number):
        self.number = number

    async def add(self, other):
        return self.number + await later(other)

    async def __call__(self, other):
        return await self.add(other)


@types.coroutine
def by_generator(value):
    yield
    return value


@every_strategy
def test_whatever_python_knows_as_a_coroutine_function_is_awaited(strategy):
    """Partials, bound methods, instances, decorated, generator-based, mocks and marked functions."""
    process = Process("kinds", strategy)
    process.add_task(functools.partial(functools.partial(later), 1))
    process.add_task(Adder(1).add, 1)
    process.add_task(Adder(1), 2)
    process.add_task(task(name="four")(later), 4)
    process.add_task(task(name="five")(Adder(4)), 1)
    process.add_task(by_generator, 6)
    process.add_task(mock.AsyncMock(return_value=7))
    process.add_task(mock.Mock(return_value=8))
    expected = [1, 2, 3, 4, 5, 6, 7, 8]
    if sys.version_info >= (3, 12):
        process.add_task(inspect.markcoroutinefunction(lambda: later(9)))
        expected.append(9)
    assert process.execute() == expected


def test_async_generator_functions_are_refused():
    """At once, with a word on what would be right; also for a map."""
    process = Process("generators")

    async def generator(value):
        yield value

    for add in (
        lambda: process.add_task(generator, 1),
        lambda: process.task(functools.partial(generator, 1)),
        lambda: process.map(generator, [1]),
    ):
        with pytest.raises(TypeError, match="async generator function.*make it a coroutine function"):
            add()
    assert process.tasks == []


@every_way
def test_handles_stand_for_what_coroutines_return(way):
    """As arguments of coroutines and of plain functions, in graphs of both; and run[handle] is the value."""
    process = Process("graph", "parallel", 4)
    one = process.task(later, 1)
    two = process.task(same, 2)
    three = process.task(later, value=one)
    six = process.task(sum, [one, two, three, two])
    chain = process.task(later, six)
    for _ in range(200):
        chain = process.task(chain_link, chain) if _ % 3 else process.task(plain_link, chain)
    assert way(process)[-1] == 206
    assert process.last_run[six] == 6
    assert process.last_run[chain] == 206


@pytest.mark.parametrize("first", [0, 3, 6])
def test_nothing_of_the_second_half_starts_before_the_first_has_ended(first):
    """In hybrid, for coroutines and plain functions alike."""
    log = []
    process = Process("halves", Hybrid(first=first), 6)

    async def waits(number):
        log.append(("start", number))
        await later(None, 5)
        log.append(("end", number))

    def calls(number):
        log.append(("start", number))
        log.append(("end", number))

    for number in range(6):
        process.add_task(waits if number % 2 else calls, number)
    process.execute()
    in_order = [(what, number) for number in range(first) for what in ("start", "end")]
    assert log[: len(in_order)] == in_order
    assert sorted(log[len(in_order) :]) == sorted((what, n) for n in range(first, 6) for what in ("start", "end"))


@pytest.mark.parametrize("way", [executed, in_a_notebook])
def test_plain_functions_in_order_stay_in_the_callers_thread(way):
    """Beside coroutines, too, and with no event loop around them, so that they can run one of their own."""
    process = Process("thread")
    process.add_task(later, 1)
    process.add_task(threading.get_ident)
    process.add_task(later, 2)
    if way is executed:
        process.add_task(lambda: asyncio.run(later(3)))
    results = way(process)
    assert results[1] == threading.get_ident()
    assert results[3:] in ([], [3])


def test_coroutines_in_order_run_in_the_callers_thread():
    """All of a run on one loop, which is not the caller's current one."""
    process = Process("loop")

    async def here():
        return threading.get_ident(), asyncio.get_running_loop()

    process.add_task(here)
    process.add_task(same, 1)
    process.add_task(here)
    (thread, loop), _, (_, again) = process.execute()
    assert thread == threading.get_ident()
    assert loop is again
    assert loop.is_closed()


def test_the_callers_loop_stays_as_it_was():
    """What a thread has set as its current event loop is none of a run's business."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        process = Process("loop", "parallel")
        process.add_task(later, 1)
        assert process.execute() == [1]
        assert asyncio.get_event_loop() is loop
        assert loop.run_until_complete(process.execute_async()) == [1]
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def test_a_loop_of_its_own_is_closed_as_asyncio_does():
    """Tasks that coroutines left behind are cancelled, async generators are closed."""
    ended = []

    async def leaves():
        async def background():
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("task")

        async def generator():
            try:
                yield 1
            finally:
                ended.append("generator")

        kept.append(asyncio.create_task(background()))
        kept.append(generator())
        await anext(kept[1])

    kept = []
    process = Process("left", "parallel")
    process.add_task(leaves)
    process.execute()
    assert sorted(ended) == ["generator", "task"]


# The loop is never held up


def test_plain_functions_do_not_hold_up_the_callers_loop():
    """Not even when there are no others, and under any strategy."""

    async def main(process):
        async def lets():
            released.set()

        helper = asyncio.create_task(lets())
        try:
            return await process.execute_async()
        finally:
            await helper

    for strategy in STRATEGIES:
        for beside in ([], [later]):
            released = threading.Event()
            process = Process("plain", strategy, 2)
            process.add_task(released.wait, 30)
            for function in beside:
                process.add_task(function, True)
            process.add_task(same, True)
            assert asyncio.run(main(process)) == [True] * len(process.tasks)


@pytest.mark.parametrize("mapped", [True, False])
def test_coroutines_that_never_wait_let_others_have_the_loop(mapped):
    """There are too many here to end before another task of the loop gets a turn."""

    async def main():
        async def rings():
            await later(None, 3)  # by then, whoever asks is at it
            rung.append(True)

        async def asks(_):
            if rung:
                raise EOFError

        rung = []
        process = Process("endless", "parallel", 1)
        if mapped:
            process.map(asks, range(300_000))
        else:
            for number in range(300_000):
                process.add_task(asks, number)
        bell = asyncio.create_task(rings())
        with pytest.raises(EOFError):
            await process.execute_async()
        await bell

    asyncio.run(main())


def test_a_slow_iterable_does_not_hold_up_the_loop():
    """It is drawn from in a thread, element by element."""

    def source():
        for number in range(3):
            assert asked.wait(30)
            asked.clear()
            yield number

    async def main():
        async def asks():
            while True:
                asked.set()
                await asyncio.sleep(0.001)

        asking = asyncio.create_task(asks())
        process = Process("slow", "parallel", 2)
        process.map(later, source())
        results = await process.execute_async()
        asking.cancel()
        return results

    asked = threading.Event()
    assert asyncio.run(main()) == [[0, 1, 2]]


# max_workers


@pytest.mark.parametrize("way", [executed, awaited])
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_coroutines_and_threads_together_are_never_more_than_max_workers(workers, way):
    """And as many as that do run together."""
    lock, now, most = threading.Lock(), 0, 0
    full, plain = threading.Event(), threading.Event()
    process = Process("bounded", "parallel", workers)

    def enter():
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
            if now == workers:
                full.set()

    def leave():
        nonlocal now
        with lock:
            now -= 1

    def call():
        enter()
        assert full.wait(30)
        leave()

    async def wait():
        enter()
        while not full.is_set():
            await asyncio.sleep(0.001)
        leave()

    for _ in range(20):
        process.add_task(wait)
        process.add_task(call)
        process.add_task(wait)
    way(process)
    assert most == workers


def test_ten_thousand_waits_take_no_thread_each():
    """They do wait at the same time."""
    count = 10_000
    arrived = 0
    threads = set()

    async def wait(number):
        nonlocal arrived
        arrived += 1
        if arrived == 1:
            everybody.append(asyncio.Event())
        if arrived == count:
            threads.update(threading.enumerate())
            everybody[0].set()
        await everybody[0].wait()
        return number

    everybody = []
    before = threading.active_count()
    process = Process("many", "parallel", count)
    for number in range(count):
        process.add_task(wait, number)
    assert process.execute() == list(range(count))
    assert len(threads) <= before


def test_quick_coroutines_need_few_workers():
    """However many there may be."""
    most = 0

    async def counts(number):
        nonlocal most
        most = max(most, len(asyncio.all_tasks()))
        return number

    process = Process("quick", "parallel", 10_000)
    for number in range(1000):
        process.add_task(counts, number)
    assert process.execute() == list(range(1000))
    assert most < 100


# Contexts and current_task


@every_way
@every_strategy
def test_tasks_see_the_callers_context_and_keep_theirs_to_themselves(strategy, way):
    """Coroutines, elements and plain functions."""
    variable = contextvars.ContextVar("variable", default="unset")

    async def waits(_=None):
        before = variable.get()
        variable.set("changed")
        await asyncio.sleep(0)
        return before, variable.get()

    def calls():
        before = variable.get()
        variable.set("changed")
        return before, variable.get()

    process = Process("context", strategy, 2)
    for _ in range(5):
        process.add_task(waits)
        process.add_task(calls)
    process.map(waits, range(4))
    variable.set("callers")
    token = variable.set("the caller's")
    try:
        *results, mapped = way(process)
    finally:
        variable.reset(token)
    assert {*results, *mapped} == {("the caller's", "changed")}


@pytest.mark.parametrize("mapped", [True, False])
def test_the_context_of_a_coroutine_that_failed_is_gone_with_it(mapped):
    """The next one of the worker does not see what it has set."""
    variable = contextvars.ContextVar("variable", default="clean")

    async def fails():
        before = variable.get()
        variable.set("soiled")
        raise EOFError(before)

    async def element(_):
        await fails()

    process = Process("failed", "parallel", 1, on_error="return")
    if mapped:
        process.map(element, range(5))
        [errors] = process.execute()
    else:
        for _ in range(5):
            process.add_task(fails)
        errors = process.execute()
    assert [error.args for error in errors] == [("clean",)] * 5


@every_way
def test_a_coroutine_can_ask_which_task_it_is(way):
    """Through its waits, in threads it hands work to, and in each element."""
    process = Process("names", "parallel", 2)

    async def asks(_=None):
        await asyncio.sleep(0)
        here, there = current_task(), await asyncio.to_thread(current_task)
        assert (here.index, here.attempt) == (there.index, there.attempt)
        return here.process_name, here.index, here.cancelled

    process.add_task(asks)
    process.map(asks, "ab")
    process.add_task(task(timeout=30)(asks))
    assert way(process) == [
        ("names", 0, False),
        [("names", 1, False)] * 2,
        ("names", 2, False),
    ]


# Waiting in a coroutine


def test_executing_in_a_coroutine_warns_of_the_loop_it_holds_up():
    """Once for each call, at the line of the caller, however they call it; runs in the run say nothing of their own."""
    process, outer = Process("inner"), Process("outer")
    process.add_task(int, "1")
    outer.add_task(process)

    def helper():
        return outer.execute()

    async def main():
        return process.execute(), process(), helper()

    with pytest.warns(RuntimeWarning) as caught:
        assert asyncio.run(main()) == ([1], [1], [[1]])
    assert [warning.filename for warning in caught] == [__file__] * 3
    lines = [code.co_firstlineno + 1 for code in (main.__code__, main.__code__, helper.__code__)]
    assert [warning.lineno for warning in caught] == lines
    names = [re.match(r"process '(\w+)': execute\(\) holds up", str(warning.message))[1] for warning in caught]
    assert names == ["inner", "inner", "outer"]


@pytest.mark.parametrize("cell", ["process.execute()", "wait()", "await asyncio.sleep(0)\nprocess.execute()"])
def test_a_cell_of_a_notebook_may_wait_without_a_word(cell, recwarn):
    """A loop runs there in any case. A coroutine function of the cell is warned as elsewhere."""
    process = Process("cell")
    process.add_task(int, "1")
    names = {"process": process, "asyncio": asyncio}
    exec("def wait():\n    process.execute()\nasync def hold_up():\n    process.execute()", names)

    async def kernel(cell):
        code = compile(cell, "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        waited = eval(code, names)
        if waited is not None:
            await waited

    asyncio.run(kernel(cell))
    assert process.status == "completed"
    assert not recwarn.list
    with pytest.warns(RuntimeWarning, match="'cell'"):
        asyncio.run(kernel("await hold_up()"))
