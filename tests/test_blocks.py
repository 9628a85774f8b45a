"""Runs that last as long as a block: `with process.start()` and `async with process.start_async()`."""

import asyncio
import threading
from contextlib import suppress

import pytest

from procession import Process, current_task


async def forever():
    await asyncio.Event().wait()


async def loop_of_the_task():
    return asyncio.get_running_loop()


def waiting():
    """Return a process of a task that ends and one that only a cancelled run ends."""
    process = Process("waiting", "parallel", 2)
    process.add_task(abs, -1)
    process.add_task(lambda: current_task().sleep(50))
    return process


def asleep():
    process = Process("asleep", "parallel", 2)
    process.add_task(loop_of_the_task)
    process.add_task(forever)
    return process


@pytest.mark.parametrize("how", ["break", "raise", "return"])
def test_a_block_that_is_left_early_cancels_its_run_and_waits(how):
    """However it is left; an exception passes, and no thread stays."""
    process, before = waiting(), set(threading.enumerate())

    def look():
        with process.start() as run:
            for outcome in run:
                assert outcome.value == 1
                if how == "raise":
                    raise KeyError("enough")
                if how == "return":
                    return run
                break
        return run

    with suppress(KeyError):
        assert look() is process.last_run
    assert process.last_run.status == "cancelled"
    assert process.last_run.outcomes[1].state == "cancelled"
    assert set(threading.enumerate()) <= before


def test_a_block_leaves_a_run_that_has_ended_as_it_was():
    """With its results."""
    process = Process("ended")
    process.add_task(abs, -1)
    with process.start() as run:
        assert run.result(50) == [1]
    assert run.status == "completed"
    assert run.result(50) == [1]


def test_a_run_in_the_callers_loop():
    """So that its coroutines can use what belongs to that loop."""

    async def main():
        process = Process("here", "parallel", 2)
        process.add_task(loop_of_the_task)
        process.add_task(threading.get_ident)
        async with process.start_async() as run:
            assert process.last_run is run
            loop, thread = await run
        assert run.status == "completed"
        assert loop is asyncio.get_running_loop()
        assert thread != threading.get_ident()

    asyncio.run(main())


@pytest.mark.parametrize("how", ["break", "raise", "cancel"])
def test_an_async_block_that_is_left_early_cancels_its_run_and_waits(how):
    """Also where the task around it is cancelled."""
    process = asleep()

    async def look(seen):
        async with process.start_async() as run:
            async for _ in run:
                seen.set()
                if how == "raise":
                    raise KeyError("enough")
                if how == "break":
                    break

    async def main():
        seen = asyncio.Event()
        looking = asyncio.ensure_future(look(seen))
        await seen.wait()
        if how == "cancel":
            looking.cancel()
        with suppress(KeyError, asyncio.CancelledError):
            await looking
        assert process.last_run.status == "cancelled"
        assert process.status == "failed"
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_a_failure_in_an_async_block_is_raised_where_it_is_waited_for():
    """As it was raised."""

    async def main():
        process = Process("failing")
        process.add_task(int, "x")
        with pytest.raises(ValueError, match="invalid literal"):
            async with process.start_async() as run:
                await run
        assert run.status == "failed"

    asyncio.run(main())


def test_an_async_block_is_recorded_and_entered_once(tmp_path):
    """As any run is."""

    async def main():
        process = Process("recorded")
        process.add_task(len, "abc")
        for _ in range(2):
            async with process.start_async(run_id="a", journal=tmp_path / "runs.db") as run:
                assert await run == [3]
        assert run.outcomes[0].recorded
        started = process.start_async()
        async with started:
            pass
        with pytest.raises(RuntimeError, match="entered once"):
            await started.__aenter__()

    asyncio.run(main())
