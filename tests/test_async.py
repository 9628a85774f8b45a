"""Coroutines as tasks: on a loop of their own, in the caller's loop, and mixed with plain functions."""

import ast
import asyncio
import contextlib
import contextvars
import functools
import gc
import inspect
import sys
import re
import threading
import traceback
import types
import weakref
from unittest import mock

import pytest
import tenacity

from procession import (
    Hybrid,
    NestingError,
    Process,
    ProcessRunningError,
    RunCancelledError,
    TaskSkippedError,
    TaskTimeoutError,
    WorkersUnavailableError,
    current_task,
    task,
)
from procession._loop.coroutines import CoroutineEngine
from procession._engine.course import Course
from procession._model.strategy import strategy_of
from procession._plan.plan import plan_of
from test_signals import Child, posix

STRATEGIES = ["sequential", "parallel", "hybrid"]
POLICIES = ["stop", "continue", "return"]


def executed(process):
    return process.execute()


def awaited(process):
    return asyncio.run(process.execute_async())


def started(process):
    return process.start().result(40)


def in_a_notebook(process):
    """Call it where a loop runs already."""

    async def kernel():
        names = {"process": process}
        exec("results = process.execute()", names)
        return names["results"]

    return asyncio.run(kernel())


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


WAYS = [executed, awaited, started, in_a_notebook]
every_way = pytest.mark.parametrize("way", WAYS)
every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)


@pytest.fixture(autouse=True)
def nothing_is_left():
    """No thread stays behind."""
    before = set(threading.enumerate())
    yield
    left = set(threading.enumerate()) - before
    for thread in left:
        thread.join(20)  # the one that drives a run which was started may just be leaving
    assert not any(thread.is_alive() for thread in left)


def same(value):
    return value


async def later(value, turns=1):
    for _ in range(turns):
        await asyncio.sleep(0)
    return value


async def at_once(value):
    return value


async def throw(error):
    await asyncio.sleep(0)
    raise error


def states(run):
    return [outcome.state for outcome in run.outcomes]


class Sleeper:
    """A coroutine function whose calls wait until they are cancelled, and say so."""

    def __init__(self, expected=1):
        self.expected = expected
        self.begun = 0
        self.cancelled = 0
        self.all_here = threading.Event()

    async def __call__(self, value=None):
        self.begun += 1
        if self.begun == self.expected:
            self.all_here.set()
        try:
            await asyncio.Event().wait()
        except Exception:  # what a careless task does must not keep it alive
            raise AssertionError("unreachable") from None
        except BaseException:
            self.cancelled += 1
            raise


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


def test_what_a_plain_function_returns_is_its_value():
    """Also if it could be awaited: whether to await a call is known before it is made."""
    process = Process("value")
    process.add_task(lambda: later(3))
    [coroutine] = process.execute()
    assert asyncio.run(coroutine) == 3


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


async def chain_link(value):
    return value + 1


def plain_link(value):
    return value + 1


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


# Cancelling


async def assert_nothing_runs():
    assert asyncio.all_tasks() == {asyncio.current_task()}


@every_strategy
def test_an_outer_timeout_stops_the_run(strategy):
    """Coroutines are cancelled for real, nothing new starts, and only the timeout's own error is seen."""

    async def main():
        sleeper, never = Sleeper(), mock.Mock()
        process = Process("limited", strategy, 1)
        process.add_task(later, 1)
        process.add_task(same, 2)
        process.add_task(sleeper)
        process.add_task(never)
        execution = asyncio.create_task(process.execute_async())

        async def limited():
            async with asyncio.timeout(None) as limit:
                while not sleeper.begun:
                    await asyncio.sleep(0.001)
                limit.reschedule(asyncio.get_running_loop().time())
                await execution

        with pytest.raises(TimeoutError):
            await limited()
        assert execution.cancelled()
        assert (sleeper.begun, sleeper.cancelled, never.call_count) == (1, 1, 0)
        assert (process.status, process.last_run.status) == ("failed", "cancelled")
        assert states(process.last_run) == ["completed", "completed", "cancelled", "cancelled"]
        await assert_nothing_runs()
        sleeper.begun = 5
        with pytest.raises(RunCancelledError):
            process.last_run.result()

    asyncio.run(main())


def test_a_cancelled_caller_waits_for_plain_functions_in_flight():
    """They can only be asked to stop; CancelledError leaves when they have."""

    async def main():
        def asked():
            begun.set()
            while not current_task().cancelled:
                threading.Event().wait(0.001)
            ended.append(True)

        for beside in ([], [Sleeper()]):
            begun, ended = threading.Event(), []
            process = Process("asked", "parallel", 3)
            process.add_task(asked)
            for sleeper in beside:
                process.add_task(sleeper)
            execution = asyncio.create_task(process.execute_async())
            while not begun.is_set():
                await asyncio.sleep(0.001)
            execution.cancel()
            with pytest.raises(asyncio.CancelledError):
                await execution
            assert ended == [True]
            assert process.last_run.status == "cancelled"
            await assert_nothing_runs()

    asyncio.run(main())


def test_a_second_cancellation_leaves_at_once():
    """Even a thread that hangs, and a coroutine that takes long to clean up."""

    async def main():
        release, begun, cleaning = threading.Event(), threading.Event(), []

        def hangs():
            begun.set()
            assert release.wait(30)

        async def cleans():
            try:
                await asyncio.Event().wait()
            finally:
                cleaning.append("begun")
                await asyncio.Event().wait()

        for functions in [hangs], [hangs, cleans]:
            begun.clear()
            process = Process("left", "parallel", 2)
            for function in functions:
                process.add_task(function)
            execution = asyncio.create_task(process.execute_async())
            while not begun.is_set():
                await asyncio.sleep(0.001)
            execution.cancel()
            while len(cleaning) < len(functions) - 1:
                await asyncio.sleep(0.001)
            await later(None, 5)
            assert not execution.done()
            execution.cancel()
            with pytest.raises(asyncio.CancelledError):
                await execution
            assert process.last_run.status == "cancelled"
            release.set()
        await later(None, 5)
        await assert_nothing_runs()

    asyncio.run(main())


@every_strategy
def test_a_run_is_cancelled_from_any_thread(strategy):
    """What waits never starts; coroutines end, however careless they are with exceptions."""
    sleeper = Sleeper(1 if strategy == "sequential" else 2)
    process = Process("cut", strategy, 2)
    process.add_task(later, 0)
    process.add_task(later, 1)
    process.add_task(sleeper)
    process.add_task(sleeper)
    process.add_task(later, 2)
    run = process.start()
    assert sleeper.all_here.wait(20)
    run.cancel()
    run.cancel()
    with pytest.raises(RunCancelledError):
        run.result(20)
    assert sleeper.cancelled == sleeper.begun
    assert (run.status, process.status) == ("cancelled", "failed")
    assert states(run)[:2] == ["completed", "completed"]
    assert states(run)[2:] == ["cancelled"] * 3


def test_a_task_may_cancel_its_own_run():
    """Which ends it at its next wait, too."""
    process = Process("self", "parallel")

    async def cancels():
        process.last_run.cancel()
        await asyncio.Event().wait()

    process.add_task(cancels)
    process.add_task(Sleeper())
    with pytest.raises(RunCancelledError):
        process.execute()
    assert states(process.last_run) == ["cancelled"] * 2


def test_a_coroutine_that_ends_well_although_cancelled_has_ended_well():
    """Its value counts."""
    process = Process("stubborn")

    async def stubborn():
        process.last_run.cancel()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            return 7

    process.add_task(stubborn)
    with pytest.raises(RunCancelledError):
        process.execute()
    assert process.last_run.outcomes[0].value == 7


def test_a_cancellation_that_nobody_asked_for_is_a_failure_like_any_other():
    """A coroutine that waits for something which is cancelled raises CancelledError, and that leaves as itself."""
    process = Process("foreign", "parallel")

    async def waits():
        future = asyncio.get_running_loop().create_future()
        future.cancel("by somebody")
        await future

    process.add_task(waits)
    with pytest.raises(asyncio.CancelledError, match="by somebody"):
        process.execute()
    assert process.last_run.status == "failed"
    assert states(process.last_run) == ["failed"]


class Selfish(Exception):
    pass


@pytest.mark.parametrize("mapped", [True, False])
def test_a_coroutine_that_cancels_itself_harms_no_other(mapped):
    """Whichever worker has the next one: a cancellation that comes too late is for nobody."""

    async def selfish(number):
        me = asyncio.current_task()
        assert me.cancelling() == 0
        if number % 4 == 0:
            me.cancel()  # and ends before it comes
        elif number % 4 == 2:
            me.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        else:
            await asyncio.sleep(0)
            with pytest.raises(ExceptionGroup):
                async with asyncio.TaskGroup() as group:
                    group.create_task(throw(Selfish()))
                    await asyncio.Event().wait()
        return number

    process = Process("selfish", "parallel", 1)
    if mapped:
        process.map(selfish, range(12))
        assert process.execute() == [list(range(12))]
    else:
        for number in range(12):
            process.add_task(selfish, number)
        assert process.execute() == list(range(12))


@pytest.mark.parametrize("mapped", [True, False])
def test_whoever_cancels_every_task_of_the_loop_stops_the_run(mapped):
    """As a program does that shuts down. Plain functions in flight are waited for even then."""

    async def main():
        begun, ended = threading.Event(), []

        def plain(_=None):
            begun.set()
            while not current_task().cancelled:
                threading.Event().wait(0.001)
            ended.append(True)

        sleeper = Sleeper()
        process = Process("swept", "parallel", 3)
        process.add_task(plain)
        process.add_task(at_once, 1)
        if mapped:
            process.map(sleeper, iter([1]))
        else:
            process.add_task(sleeper)
        execution = asyncio.create_task(process.execute_async())
        while not (begun.is_set() and sleeper.begun):
            await asyncio.sleep(0.001)
        for each in asyncio.all_tasks() - {asyncio.current_task()}:
            each.cancel()
        with pytest.raises(asyncio.CancelledError):
            await execution
        assert (ended, sleeper.cancelled) == ([True], 1)
        assert process.status == "failed"
        await assert_nothing_runs()

    asyncio.run(main())


def test_plain_functions_without_a_thread_fail_plainly(monkeypatch):
    """Where the system has none left: the run ends, and can be tried again."""

    def refuse(self):
        raise RuntimeError("can't start new thread")

    process = Process("scarce", "parallel", 2)
    process.add_task(later, 1)
    process.add_task(same, 2)
    process.map(later, iter([3]))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for way in executed, awaited:
            with pytest.raises(WorkersUnavailableError, match="scarce.*no thread could be started"):
                way(process)
        process.map(later, [4])
    process = Process("again", "parallel", 2)
    process.add_task(later, 1)
    process.add_task(same, 2)
    assert process.execute() == [1, 2]


def test_plain_functions_share_the_threads_there_are(monkeypatch):
    """Where the system has but one."""
    start, started = threading.Thread.start, []

    def start_one(self):
        if started:
            raise RuntimeError("can't start new thread")
        started.append(self)
        start(self)

    process = Process("scarce", "parallel", 8)
    for number in range(0, 40, 2):
        process.add_task(later, number)
        process.add_task(same, number + 1)
    monkeypatch.setattr(threading.Thread, "start", start_one)
    assert process.execute() == list(range(40))
    assert len(started) == 1


# Failures


@every_way
@every_strategy
def test_a_failure_leaves_as_itself_with_a_note(strategy, way):
    """And what waits does not start."""
    never = mock.AsyncMock()
    process = Process("broken", strategy, 1)
    process.add_task(later, 1)
    process.add_task(throw, EOFError("the end"))
    process.add_task(never)
    process.add_task(never)
    with pytest.raises(EOFError, match="the end") as caught:
        way(process)
    assert caught.value.__notes__ == ["in process 'broken', task 1 (throw), attempt 1"]
    assert caught.traceback[-1].name == "throw"
    assert never.call_count == 0
    assert process.status == "failed"
    assert states(process.last_run) == ["completed", "failed", "skipped", "skipped"]


@pytest.mark.parametrize("error", [KeyboardInterrupt("k"), SystemExit(3), GeneratorExit("g"), StopAsyncIteration("s")])
@pytest.mark.parametrize("options", [{}, {"timeout": 30}, {"retries": 2}])
@pytest.mark.parametrize("way", [executed, started, awaited])
def test_any_exception_leaves_as_itself(error, options, way):
    """Whatever it means to an event loop, under options, too."""
    process = Process("any", "parallel", 2)
    process.add_task(task(**options)(throw) if options else throw, error)
    with pytest.raises(type(error)) as caught:
        way(process)
    assert caught.value is error
    assert process.status == "failed"


@pytest.mark.parametrize("way", [executed, awaited])
def test_policies_hold_for_coroutines(way):
    """ "continue" raises a group of all failures, "return" puts them in their places; dependents are skipped."""
    first, second = EOFError(1), KeyError(2)

    def built(policy):
        process = Process("policy", "parallel", 2, on_error=policy)
        failing = process.task(throw, first)
        process.add_task(later, failing)
        process.add_task(throw, second)
        process.add_task(later, 4)
        process.add_task(same, failing)
        return process

    with pytest.raises(ExceptionGroup) as caught:
        way(process := built("continue"))
    assert caught.value.exceptions == (first, second)
    assert states(process.last_run) == ["failed", "skipped", "failed", "completed", "skipped"]
    results = way(built("return"))
    assert results[0] is first
    assert results[2] is second
    assert results[3] == 4
    assert isinstance(results[1], TaskSkippedError)
    assert isinstance(results[4], TaskSkippedError)


@pytest.mark.parametrize("way", [executed, awaited])
def test_what_runs_is_let_end_after_a_failure(way):
    """Other coroutines are not cancelled because one has failed."""
    process = Process("let", "parallel", 2)
    process.add_task(later, 5, turns=50)
    process.add_task(throw, EOFError())
    with pytest.raises(EOFError):
        way(process)
    assert process.last_run.outcomes[0].value == 5


@pytest.mark.parametrize("options", [{}, {"timeout": 30}, {"retries": 1, "retry_on": KeyError}])
@pytest.mark.parametrize("mapped", [True, False])
def test_a_traceback_shows_the_task_and_nothing_of_the_engine(options, mapped):
    """Whose frames would keep alive whatever the run has to do with."""
    function = task(**options)(throw) if options else throw
    process = Process("frames", "parallel", 2)
    if mapped:
        process.map(function, [EOFError()])
    else:
        process.add_task(function, EOFError())
    with pytest.raises(EOFError) as caught:
        process.execute()
    modules = [entry.frame.f_globals["__name__"] for entry in caught.traceback]
    assert modules == [__name__, "procession._process", "procession._run", "procession._run", __name__]


@every_strategy
def test_results_of_coroutines_are_the_callers_alone(strategy):
    """Dropped by the caller they are gone, without any garbage collection."""

    class Big:
        pass

    async def makes():
        await asyncio.sleep(0)
        return Big()

    process = Process("alone", strategy, 2)
    for _ in range(4):
        process.add_task(makes)
    gc.collect()
    gc.disable()
    try:
        results = process.execute()
        watched = [weakref.ref(result) for result in results]
        del results
        assert [watch() for watch in watched] == [None] * 4
    finally:
        gc.enable()


# Timeouts and retries


@every_way
def test_a_timeout_cancels_a_coroutine_for_real(way):
    """It cleans up, and the error says which task took too long and where it was waiting."""
    cleaned = []

    @task(timeout=0.02)
    async def hangs():
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    process = Process("timeout", "parallel")
    process.add_task(hangs)
    with pytest.raises(TaskTimeoutError, match=r"task 0 .*hangs.* timeout of 0.02 s") as caught:
        way(process)
    assert cleaned == [True]
    cause = caught.value.__cause__
    assert isinstance(cause, asyncio.CancelledError)
    assert traceback.extract_tb(cause.__traceback__)[0].name == "hangs"


def test_a_tasks_own_timeout_error_is_its_own():
    """Only the task's timeout is a TaskTimeoutError."""

    @task(timeout=30)
    async def own():
        async with asyncio.timeout(0.001):
            await asyncio.Event().wait()

    process = Process("own")
    process.add_task(own)
    with pytest.raises(TimeoutError) as caught:
        process.execute()
    assert type(caught.value) is TimeoutError


@every_way
def test_retries_are_counted_and_each_attempt_knows_which_it_is(way):
    """And every attempt has a context of its own."""
    seen = []
    variable = contextvars.ContextVar("variable", default="clean")

    @task(retries=tenacity.Retrying(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_none()))
    async def flaky():
        seen.append((current_task().attempt, variable.get()))
        variable.set("soiled")
        await asyncio.sleep(0)
        if len(seen) < 3:
            raise ConnectionError
        return "well"

    process = Process("flaky", "parallel")
    process.add_task(flaky)
    assert way(process) == ["well"]
    assert seen == [(1, "clean"), (2, "clean"), (3, "clean")]
    assert process.last_run.outcomes[0].attempts == 3


def test_the_rules_of_a_retrying_hold_for_coroutines():
    """On results and exceptions, with its callbacks."""
    calls, told = [], []

    def rules(**more):
        return tenacity.Retrying(stop=tenacity.stop_after_attempt(2), wait=tenacity.wait_none(), **more)

    async def gives(value):
        calls.append(value)
        await asyncio.sleep(0)
        if isinstance(value, Exception):
            raise value
        return value

    process = Process("rules", on_error="stop")
    process.add_task(
        task(
            retries=rules(
                retry=tenacity.retry_if_result(bool),
                before_sleep=lambda state: told.append(state.attempt_number),
                retry_error_callback=lambda state: "given up",
            )
        )(gives),
        1,
    )
    process.add_task(task(retries=rules(retry=tenacity.retry_if_exception_type(KeyError)))(gives), 0)
    error = EOFError()
    process.add_task(task(retries=3, retry_on=KeyError)(gives), error)
    with pytest.raises(EOFError):
        process.execute()
    assert calls == [1, 1, 0, error]
    assert told == [1]
    assert process.last_run.outcomes[0].value == "given up"


@pytest.mark.parametrize("ends", ["cancel", "failure"])
def test_the_wait_between_attempts_ends_when_the_run_is_halted(ends):
    """It takes no thread, and the task has failed with what its last attempt raised."""
    waiting = threading.Event()

    @task(
        retries=tenacity.Retrying(
            wait=tenacity.wait_fixed(10_000), before_sleep=lambda _: waiting.set(), stop=tenacity.stop_never
        )
    )
    async def flaky():
        raise ConnectionError("again")

    async def fails():
        while not waiting.is_set():
            await asyncio.sleep(0.001)
        if ends == "failure":
            raise EOFError
        process.last_run.cancel()

    process = Process("halted", "parallel", 3)
    process.add_task(flaky)
    process.add_task(fails)
    with pytest.raises(EOFError if ends == "failure" else RunCancelledError):
        process.execute()
    outcome = process.last_run.outcomes[0]
    assert (outcome.state, outcome.attempts, str(outcome.error)) == ("failed", 1, "again")
    assert outcome.duration < 100


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
    assert asyncio.run(process.last_run.outcomes[0].task()) == 3
    assert asyncio.run(process.last_run.outcomes[1].task()) == [1, 2]


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


# Runs, followed from a coroutine


def test_a_running_process_is_refused():
    """As ever: from the same loop, and from a thread."""

    async def main():
        sleeper = Sleeper()
        process = Process("once", "parallel")
        process.add_task(sleeper)
        execution = asyncio.create_task(process.execute_async())
        while not sleeper.begun:
            await asyncio.sleep(0.001)
        for again in (process.execute, process.start, lambda: process.add_task(same, 1)):
            with pytest.raises(ProcessRunningError):
                await asyncio.to_thread(again)
        with pytest.raises(ProcessRunningError):
            await process.execute_async()
        execution.cancel()
        with pytest.raises(asyncio.CancelledError):
            await execution

    asyncio.run(main())


@every_strategy
def test_a_run_can_be_awaited(strategy):
    """It gives its results, or raises what ended it, again and again, and leaves the loop to others."""

    async def main():
        gate = threading.Event()
        process = Process("awaited", strategy)
        process.add_task(gate.wait, 30)
        process.add_task(later, 2)
        run = process.start()
        asyncio.get_running_loop().call_soon(gate.set)
        assert await run == [True, 2]
        assert await run == [True, 2]
        process.add_task(throw, EOFError())
        with pytest.raises(EOFError):
            await process.start()

    asyncio.run(main())


def test_giving_up_waiting_for_a_run_leaves_it_going():
    """As a timeout of result() does."""

    async def main():
        gate = threading.Event()
        process = Process("goes on")
        process.add_task(gate.wait, 30)
        run = process.start()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await run
        assert run.status == "running"
        gate.set()
        assert await run == [True]

    asyncio.run(main())


@pytest.mark.parametrize("how", ["start", "execute_async"])
def test_outcomes_can_be_followed_in_a_coroutine(how):
    """Each once, as the tasks end."""

    async def main():
        gates = [asyncio.Event() for _ in range(3)]

        async def waits(number):
            while not opened[number]:
                await asyncio.sleep(0.001)
            return number

        opened = [False] * 3
        process = Process("followed", "parallel", 3)
        for number in range(3):
            process.add_task(waits, number)
        if how == "start":
            run, execution = process.start(), None
        else:
            execution = asyncio.create_task(process.execute_async())
            await asyncio.sleep(0)
            run = process.last_run
        seen = []
        opened[2] = True
        async for outcome in run:
            seen.append((outcome.index, outcome.state))
            if len(seen) < 3:
                opened[2 - len(seen)] = True
        assert seen == [(2, "completed"), (1, "completed"), (0, "completed")]
        assert [outcome.index async for outcome in run] == [2, 1, 0]
        if execution is not None:
            assert await execution == [0, 1, 2]
        del gates

    asyncio.run(main())


def test_waiting_for_a_run_where_it_could_never_end_is_refused():
    """In the thread of the loop that drives it, with a word on what would be right."""

    async def main():
        sleeper = Sleeper()
        process = Process("blocked", "parallel", 2)
        handle = process.task(sleeper)

        async def waits():
            for wait in (process.last_run.wait, process.last_run.result, lambda: process.last_run[handle]):
                with pytest.raises(RuntimeError, match="await run"):
                    wait()
            with pytest.raises(RuntimeError, match="async for"):
                for _ in process.last_run:
                    pass
            assert not process.last_run.wait(0)
            process.last_run.cancel()

        process.add_task(waits)
        if way is awaited:
            with pytest.raises(RunCancelledError):
                await process.execute_async()
        else:
            return process

    for way in awaited, executed:
        process = asyncio.run(main())
        if process is not None:
            with pytest.raises(RunCancelledError):
                process.execute()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
def test_a_loop_with_eager_tasks_is_no_different():
    """Thousands of coroutines begin without recursion."""

    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        process = Process("eager", "parallel", 5000)
        for number in range(5000):
            process.add_task(later, number)
        return await process.execute_async()

    assert asyncio.run(main()) == list(range(5000))


@pytest.mark.parametrize("strategy", ["parallel", "sequential"])
def test_many_small_runs_in_one_loop_do_not_meet(strategy):
    """A hundred at once, each with results of its own."""

    async def main():
        async def one(number):
            process = Process(f"run {number}", strategy, 2)
            for place in range(5):
                process.add_task(later, (number, place))
                process.add_task(same, (number, place))
            return await process.execute_async()

        return await asyncio.gather(*map(one, range(100)))

    for number, results in enumerate(asyncio.run(main())):
        assert results == [(number, place) for place in range(5) for _ in range(2)]


def test_a_rapidly_switching_interpreter_changes_nothing():
    """Each task runs exactly once, whoever takes it, and whatever becomes ready is taken."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(30):
            calls = [0] * 60

            async def waits(index, *_):
                calls[index] += 1
                await asyncio.sleep(0)

            def plain(index, *_):
                calls[index] += 1

            process = Process("races", "parallel", 8)
            handles = []
            for index in range(60):
                needs = [handles[index // 2], handles[index // 3]] if index > 2 else []
                handles.append(process.task(waits if index % 3 else plain, index, *needs))
            process.execute()
            assert calls == [1] * 60
    finally:
        sys.setswitchinterval(before)


# Who is told


@every_way
def test_each_step_is_told_where_somebody_wants_it(way):
    """Starts and ends of coroutines, of elements, and attempts, as of plain functions."""

    class Told:
        immediate = True

        def __init__(self):
            self.events = []

        def on_event(self, event):
            if event.index is not None:
                self.events.append((event.index, event.name, event.attempt))
                if event.name == "task_started":
                    variable.set(event.name)

    variable = contextvars.ContextVar("variable", default=None)
    tries = []

    async def asks(_=None):
        await asyncio.sleep(0)
        return variable.get()

    @task(retries=tenacity.Retrying(stop=tenacity.stop_after_attempt(2), wait=tenacity.wait_none()))
    async def flaky():
        tries.append(1)
        if len(tries) == 1:
            raise ConnectionError
        return await asks()

    told = Told()
    process = Process("told", "sequential", observers=[told])
    process.add_task(asks)
    process.map(asks, [1])
    process.add_task(flaky)
    process.add_task(throw, EOFError())
    with pytest.raises(EOFError):
        way(process)
    assert told.events == [
        (0, "task_started", 1),
        (0, "task_completed", 1),
        (1, "task_started", 1),
        (1, "element_started", 1),
        (1, "element_completed", 1),
        (1, "task_completed", 1),
        (2, "task_started", 1),
        (2, "task_retrying", 1),
        (2, "task_completed", 2),
        (3, "task_started", 1),
        (3, "task_failed", 1),
    ]
    assert [outcome.value for outcome in process.last_run.outcomes[:3]] == [
        "task_started",
        ["task_started"],
        "task_started",
    ]


# Journals


class FakeRecorder:
    """Keeps records in memory, and the threads that brought them."""

    allow_changes = False
    recorded = {}

    def __init__(self, broken=False):
        self.broken = broken
        self.records = []
        self.threads = set()
        self.gate = threading.Event()

    def elements(self, index):
        return {}

    def encode(self, value):
        if value is None:
            raise TypeError("cannot be encoded")
        return repr(value).encode()

    def commit(self, records):
        self.threads.add(threading.get_ident())
        assert self.gate.wait(30)
        if self.broken:
            raise OSError("disk full")
        self.records += records


def recorded_run(strategy, calls, recorder, workers=4):
    plan = plan_of([(f, a, {}) for f, a in calls], strategy_of(strategy), options={}, needs={}, handled=set())
    course = Course(
        plan,
        process_name="recorded",
        run_id="r",
        max_workers=workers,
        on_error="stop",
        tell=lambda event: None,
        verbose=False,
        recorder=recorder,
    )
    return course, CoroutineEngine(course)


@every_strategy
def test_commits_do_not_hold_up_the_loop(strategy):
    """While the journal is slow, the loop goes on; in order, the next task starts only once the last is recorded."""

    async def main():
        recorder, begun = FakeRecorder(), []

        async def begins(number):
            begun.append(number)
            return number

        course, engine = recorded_run(strategy, [(begins, (n,)) for n in range(20)] + [(same, (20,))], recorder)
        driving = asyncio.create_task(engine.drive_async())
        while not recorder.threads:
            await asyncio.sleep(0.001)
        await later(None, 20)
        assert begun == ([0] if strategy != "parallel" else list(range(20)))
        assert course.ledger.ends.count(None) == 21
        recorder.gate.set()
        await driving
        assert threading.get_ident() not in recorder.threads
        assert sorted(record.task for record in recorder.records) == list(range(21))
        assert course.ledger.values == list(range(21))

    asyncio.run(main())


@every_strategy
def test_what_cannot_be_recorded_fails(strategy):
    """A value that cannot be encoded fails its task, a journal that fails fails the run; neither hangs."""
    recorder = FakeRecorder()
    recorder.gate.set()
    course, engine = recorded_run(strategy, [(later, (1,)), (at_once, (None,)), (later, (2,))], recorder, 1)
    engine.drive()
    assert isinstance(course.ledger.failure, TypeError)
    assert list(course.ledger.errors) == [1]
    recorder = FakeRecorder(broken=True)
    recorder.gate.set()
    course, engine = recorded_run(strategy, [(later, (n,)) for n in range(4)], recorder)
    engine.drive()
    assert isinstance(course.ledger.failure, OSError)
    assert recorder.records == []


class Unready(Exception):
    pass


class Notes:
    """What recorded tasks have done, and may do: no part of them, or they would be others the next time."""

    calls = []
    ready = False


@pytest.fixture
def notes():
    pytest.importorskip("sqlalchemy")
    Notes.calls, Notes.ready = [], False
    return Notes


async def counts(value):
    Notes.calls.append(value)
    await asyncio.sleep(0)
    return value


async def fails_first(value):
    if not Notes.ready:
        raise Unready
    return await counts(value)


async def begins_and_waits():
    Notes.calls.append(asyncio.current_task())
    await asyncio.Event().wait()


@every_way
@every_strategy
def test_a_recorded_run_of_coroutines_goes_on_where_it_failed(strategy, way, tmp_path, notes):
    """Tasks and elements that have ended well are not called again, those of a nested process neither."""
    inner = Process("inner", "parallel")
    inner.add_task(counts, 2)

    def executed(**how):
        process = Process("recorded", strategy, 1, journal=tmp_path / "runs.db")
        process.add_task(counts, 0)
        process.add_task(same, 1)
        process.add_task(inner.execute_async)
        process.map(counts, [3, 4])
        process.add_task(fails_first, 5)
        process.map(fails_first, iter([6]))
        if way is awaited:
            return asyncio.run(process.execute_async(run_id="r"))
        if way is started:
            return process.start(run_id="r").result(40)
        return process.execute(run_id="r")

    with pytest.raises(Unready):
        executed()
    assert sorted(notes.calls) == [0, 2, 3, 4]
    notes.ready = True
    assert executed() == [0, 1, [2], [3, 4], 5, [6]]
    assert sorted(notes.calls) == [0, 2, 3, 4, 5, 6]
    assert executed() == [0, 1, [2], [3, 4], 5, [6]]
    assert sorted(notes.calls) == [0, 2, 3, 4, 5, 6]


def test_a_cancelled_recorded_run_is_closed(tmp_path, notes):
    """Its journal says that it was cancelled, and another execution goes on with it."""

    async def main():
        process = Process("recorded", "parallel", journal=tmp_path / "runs.db")
        process.add_task(later, 1)
        process.add_task(begins_and_waits)
        for times in 1, 2:
            execution = asyncio.create_task(process.execute_async(run_id="r"))
            while len(notes.calls) < times and not execution.done():
                await asyncio.sleep(0.001)
            execution.cancel()
            with pytest.raises(asyncio.CancelledError):
                await execution
            assert process.last_run.status == "cancelled"
            assert states(process.last_run) == ["completed", "cancelled"]
        assert process.last_run.outcomes[0].recorded

    asyncio.run(main())


@pytest.mark.parametrize("times", [1, 2])
def test_a_caller_cancelled_while_a_run_begins_leaves_nothing_begun(times, tmp_path, notes):
    """Opening a journal takes time, and a thread."""

    async def main():
        process = Process("recorded", journal=tmp_path / "runs.db")
        process.add_task(counts, 1)
        execution = asyncio.create_task(process.execute_async())
        await asyncio.sleep(0)
        for _ in range(times):
            execution.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await execution
        while process.status in ("running", "initialized"):
            await asyncio.sleep(0.001)
        assert process.status == "failed"
        assert process.last_run.status == "cancelled"
        assert notes.calls == []

    asyncio.run(main())


# Ctrl-C


ASYNC_PRELUDE = """
import asyncio

async def stuck(value=None):
    # Ends by a cancellation, and says so.
    begun.append(value)
    if len(begun) == expected:
        asyncio.get_running_loop().call_soon(ready)
    try:
        await asyncio.Event().wait()
    except BaseException as error:
        say(type(error).__name__)
        raise

async def stubborn():
    begun.append(None)
    if len(begun) == expected:
        ready()
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            asyncio.get_running_loop().call_soon(say, "no")

begun = []
"""


@posix
@pytest.mark.parametrize("way", ["process.execute()", "asyncio.run(process.execute_async())"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_ctrl_c_cancels_coroutines(strategy, way):
    """And nothing new starts; KeyboardInterrupt is raised, the outcomes can be read, no thread is left."""
    with Child(
        ASYNC_PRELUDE
        + f"""
expected = {1 if strategy == "sequential" else 2}
process = Process("cut", {strategy!r}, 2)
process.add_task(int, 7)
process.add_task(int, 8)
process.add_task(stuck)
process.add_task(stuck)
process.add_task(print, "never")
try:
    {way}
except KeyboardInterrupt:
    say("caught", process.status, process.last_run.status)
run = process.last_run
say([outcome.state for outcome in run.outcomes])
say([thread.name for thread in threading.enumerate()])
process = Process("another")
process.add_task(asyncio.sleep, 0, 5)
say(process.execute(), signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""
    ) as child:
        child.expect("ready")
        child.interrupt()
        child.expect(*["CancelledError"] * (1 if strategy == "sequential" else 2))
        child.expect("caught failed cancelled")
        child.expect(str(["completed"] * 2 + ["cancelled"] * 3))
        assert child.rest() == (0, "['MainThread']\n[5] True\n", "")


@posix
@pytest.mark.parametrize("loop", ["own", "notebook"])
@pytest.mark.parametrize("kind", ["coroutine", "thread"])
def test_ctrl_c_twice_leaves_at_once(kind, loop):
    """A coroutine that ignores it, and a thread that hangs; the interpreter exits without a word of complaint."""
    with Child(
        ASYNC_PRELUDE
        + f"""
expected = 1

def hangs():
    begun.append(None)
    ready()
    try:
        current_task().sleep(50)
    except TaskCancelled:
        say("no")
    threading.Event().wait()

async def quick():
    return 1

async def kernel():
    exec(compile("process.execute()", "<cell>", "exec"), globals())

process = Process("twice", "parallel", 3)
process.add_task(quick)
process.add_task({"stubborn" if kind == "coroutine" else "hangs"})
try:
    {"process.execute()" if loop == "own" else "asyncio.new_event_loop().run_until_complete(kernel())"}
except KeyboardInterrupt:
    say("caught", process.status, process.last_run.status, process.last_run.outcomes[0].value)
"""
    ) as child:
        child.expect("ready")
        child.interrupt()
        child.expect("no")
        child.interrupt()
        code, out, err = child.rest()
        assert out.replace("no\n", "").splitlines() == ["caught failed cancelled 1"]
        assert code == 0
        assert err == ""


@posix
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_programs_own_handler_may_raise(strategy):
    """As for SIGTERM: what it raises right inside the loop stops the run as Ctrl-C does."""
    with Child(
        ASYNC_PRELUDE
        + f"""
expected = 1 if {strategy!r} == "sequential" else 2

class Terminated(KeyboardInterrupt):
    pass

def handler(*_):
    raise Terminated

signal.signal(signal.SIGINT, handler)
process = Process("handled", {strategy!r}, 2)
process.add_task(int)
process.add_task(int)
process.add_task(stuck)
process.add_task(stuck)
process.add_task(print, "never")
try:
    process.execute()
except Terminated:
    say("caught", process.status, process.last_run.status)
"""
    ) as child:
        child.expect("ready")
        child.interrupt()
        child.expect("CancelledError")
        if strategy != "sequential":
            child.expect("CancelledError")
        child.expect("caught failed cancelled")
        assert child.rest() == (0, "", "")


@posix
def test_what_runs_is_let_end_where_a_handler_raised():
    """As where Ctrl-C came: a plain function in flight is waited for."""
    with Child(
        ASYNC_PRELUDE
        + """
expected = 1

def handler(*_):
    raise KeyboardInterrupt

def asked():
    told()
    say("left" if gone.wait(0.5) else "waited for")

gone = threading.Event()
signal.signal(signal.SIGINT, handler)
process = Process("handled", "parallel", 2)
process.add_task(asked)
process.add_task(stuck)
try:
    process.execute()
except KeyboardInterrupt:
    gone.set()
    say("caught", [outcome.state for outcome in process.last_run.outcomes])
"""
    ) as child:
        child.expect("ready")
        child.interrupt()
        assert {child.popen.stdout.readline() for _ in range(2)} == {"told\n", "CancelledError\n"}
        child.expect("waited for", "caught ['completed', 'cancelled']")
        assert child.rest() == (0, "", "")


@posix
def test_ctrl_c_in_a_nested_process_ends_all():
    """A process with coroutines, called as a task of another in the main thread."""
    with Child(
        ASYNC_PRELUDE
        + """
expected = 1
inner, outer = Process("inner", "parallel"), Process("outer")
inner.add_task(stuck)
outer.add_task(inner)
outer.add_task(say, "never")
try:
    outer.execute()
except KeyboardInterrupt:
    say(inner.last_run.status, outer.last_run.status)
"""
    ) as child:
        child.expect("ready")
        child.interrupt()
        child.expect("CancelledError", "cancelled cancelled")
        assert child.rest() == (0, "", "")
