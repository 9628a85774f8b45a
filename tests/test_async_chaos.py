"""Processes of all kinds in an event loop, generated, and cut short in every way at any turn of the loop.

Whatever comes of a run: it ends, each call that has begun has ended, each value is the one of its task, no task, timer
or thread stays, and the loop has nothing to complain of. How many there are is said by `PROCESSION_CHAOS`.
"""

import asyncio
import contextvars
import os
import random
import threading
from collections import Counter
from contextlib import suppress

import anyio
import pytest
from tenacity import Retrying, stop_after_attempt, wait_fixed, wait_none

from procession import Process, current_task, task

COUNT = int(os.environ.get("PROCESSION_CHAOS", "300"))
PARTS = 6
VARIABLE = contextvars.ContextVar("variable", default=0)

pytestmark = [pytest.mark.usefixtures("nothing_is_left"), pytest.mark.timeout(120 + COUNT // 10)]


class Boom(Exception):
    pass


class Source:
    """So many times a value, and an error before one of them if there is to be one."""

    def __init__(self, value, count, bad):
        self._value, self._count, self._bad = value, count, bad

    def __iter__(self):
        for place in range(self._count):
            if place == self._bad:
                raise Boom("source")
            yield self._value


class Calls:
    """Kinds of calls, each of which returns its first argument. It counts those that have begun and not ended."""

    def __init__(self, chance):
        self._chance = chance
        self.under_way = Counter()

    def some(self, depth):
        """Return what makes a task of a kind, given a process, its value, and what it takes."""
        kinds = ["coroutine"] * 3 + [
            "plain",
            "fails",
            "retried",
            "plain_retried",
            "timed",
            "swallows",
            "cancels_itself",
        ]
        kinds += ["sets_context", "spawns", "shields", "maps", "maps_plain", "maps_source", "cancels_run"]
        return getattr(self, self._chance.choice(kinds + ["nests"] * (depth < 1)))

    def _turning(self):
        turns = self._chance.randint(0, 4)

        async def turn(value, *_):
            self.under_way[value] += 1
            try:
                for _ in range(turns):
                    await asyncio.sleep(0)
            finally:
                self.under_way[value] -= 1
            return value

        return turn

    def coroutine(self, process, value, takes):
        return process.task(self._turning(), value, *takes)

    def plain(self, process, value, takes):
        return process.task(lambda value, *_: value, value, *takes)

    def fails(self, process, value, takes):
        turn = self._turning()

        async def fail(value, *_):
            raise Boom(await turn(value))

        return process.task(fail, value, *takes)

    def _again(self):
        wait = self._chance.choice([wait_none(), wait_fixed(0.001), wait_fixed(0.01)])
        return task(retries=Retrying(stop=stop_after_attempt(3), wait=wait))

    def retried(self, process, value, takes):
        turn, last = self._turning(), self._chance.choice([2, 3, 4])

        async def fail_at_first(value, *_):
            await turn(value)
            if current_task().attempt < last:
                raise Boom(value)
            return value

        return process.task(self._again()(fail_at_first), value, *takes)

    def plain_retried(self, process, value, takes):
        last = self._chance.choice([2, 3, 4])

        def fail_at_first(value, *_):
            if current_task().attempt < last:
                raise Boom(value)
            return value

        return process.task(self._again()(fail_at_first), value, *takes)

    def timed(self, process, value, takes):
        lasts, timeout = (self._chance.choice([0.0005, 0.001, 0.002]) for _ in "ab")

        async def sleep(value, *_):
            await asyncio.sleep(lasts)
            return value

        return process.task(task(timeout=timeout, retries=self._chance.choice([0, 1]))(sleep), value, *takes)

    def swallows(self, process, value, takes):
        async def swallow(value, *_):
            for _ in range(3):
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.001)
            return value

        return process.task(swallow, value, *takes)

    def cancels_itself(self, process, value, takes):
        async def cancel(*_):
            asyncio.current_task().cancel()
            await asyncio.sleep(0)

        return process.task(cancel, value, *takes)

    def sets_context(self, process, value, takes):
        async def set_it(value, *_):
            assert VARIABLE.get() == -1
            VARIABLE.set(value)
            await asyncio.sleep(0)
            return VARIABLE.get()

        return process.task(set_it, value, *takes)

    def spawns(self, process, value, takes):
        turn = self._turning()

        async def spawn(value, *_):
            async with asyncio.TaskGroup() as group:
                spawned = group.create_task(turn(value))
            return spawned.result()

        return process.task(spawn, value, *takes)

    def shields(self, process, value, takes):
        async def shielded(value, *_):
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.001)
            return value

        return process.task(shielded, value, *takes)

    def maps(self, process, value, takes):
        return process.map(self._turning(), [value] * self._chance.randint(0, 70))

    def maps_plain(self, process, value, takes):
        return process.map(lambda value: value, [value] * self._chance.randint(0, 5))

    def maps_source(self, process, value, takes):
        return process.map(
            self._turning(), Source(value, self._chance.randint(0, 5), self._chance.choice([None, None, 2]))
        )

    def cancels_run(self, process, value, takes):
        turn = self._turning()

        async def cancel(value, *_):
            await turn(value)
            if process.last_run is not None and value == 2:
                process.last_run.cancel()
            return value

        return process.task(cancel, value, *takes)

    def nests(self, process, value, takes):
        return process.task(self.process(1))

    def process(self, depth=0):
        chance = self._chance
        process = Process(
            "chaos",
            chance.choice(["sequential", "parallel", "hybrid"]),
            chance.choice([1, 2, 3, 8]),
            on_error=chance.choice(["stop", "continue", "return"]),
        )
        handles = []
        for value in range(chance.randint(1, 10)):
            takes = [chance.choice(handles)] if handles and chance.random() < 0.4 else []
            handles.append(self.some(depth)(process, value, takes))
        return process


# Ways to execute a process, cut short after so many turns


async def until(execution, turns):
    for _ in range(turns):
        if execution.done():
            return
        await asyncio.sleep(0)


async def uncut(process, turns):
    return await process.execute_async()


async def cancelled(process, turns):
    execution = asyncio.create_task(process.execute_async())
    await until(execution, turns)
    execution.cancel()
    return await execution


async def cancelled_twice(process, turns):
    execution = asyncio.create_task(process.execute_async())
    for _ in range(2):
        await until(execution, turns)
        execution.cancel()
    return await execution


async def limited(process, turns):
    async with asyncio.timeout(turns * 0.0003):
        return await process.execute_async()


async def scoped(process, turns):
    with anyio.fail_after(turns * 0.0003):
        return await process.execute_async()


async def run_cancelled(process, turns):
    execution = asyncio.create_task(process.execute_async())
    await until(execution, turns)
    if process.last_run is not None:
        process.last_run.cancel()
    return await execution


async def followed(process, turns):
    run = process.start()
    assert sorted([outcome.index async for outcome in run]) == list(range(len(process.tasks)))
    return await run


async def cancelled_elsewhere(process, turns):
    execution = asyncio.create_task(process.execute_async())
    await until(execution, turns)
    canceller = threading.Thread(target=lambda: process.last_run and process.last_run.cancel())
    canceller.start()
    try:
        return await execution
    finally:
        canceller.join()


WAYS = [uncut, cancelled, cancelled_twice, limited, scoped, run_cancelled, followed, cancelled_elsewhere]


@pytest.mark.parametrize("part", range(PARTS))
def test_a_run_keeps_its_promises_however_it_is_cut_short(part):
    for seed in range(part, COUNT, PARTS):
        live_through(seed)


def live_through(seed):
    chance = random.Random(seed)
    calls = Calls(chance)
    process, way, complaints = calls.process(), chance.choice(WAYS), []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, complaint: complaints.append(complaint))
        VARIABLE.set(-1)
        try:
            values, error = await way(process, chance.randint(0, 25)), None
        except BaseException as raised:
            values, error = None, raised
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if way is cancelled_twice and left:  # which does not wait for what ignores that it is cancelled
            await asyncio.wait(left, timeout=10)
        else:
            assert not left, seed
        return values, error

    values, error = asyncio.run(main())
    assert not complaints, seed
    assert process.status != "running", seed
    assert type(error) not in (AssertionError, RuntimeError, AttributeError, KeyError, TypeError), seed
    assert isinstance(error, Exception | asyncio.CancelledError | None), seed
    run = process.last_run
    if run is None:
        return
    assert run.wait(10), seed
    states = [outcome.state for outcome in run.outcomes]
    assert not +calls.under_way, seed
    assert way is cancelled_twice or not {"running", "waiting"} & set(states), seed
    if error is not None:
        return
    assert process.on_error == "return" or set(states) == {"completed"}, seed
    for index, (state, value) in enumerate(zip(states, values, strict=True)):
        expected = (list, int) if state == "completed" else (list, Exception, asyncio.CancelledError)
        assert isinstance(value, expected), seed
        assert not isinstance(value, int) or value == index, seed
