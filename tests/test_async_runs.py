"""Runs with coroutines, followed from a coroutine or told to observers."""

import asyncio
import contextvars
import sys
import threading

import pytest
import tenacity

from coroutines import Sleeper, awaited, every_strategy, every_way, executed, later, same, throw
from procession import Process, ProcessRunningError, RunCancelledError, task

pytestmark = pytest.mark.usefixtures("nothing_is_left")


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
