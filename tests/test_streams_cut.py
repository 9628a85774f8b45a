"""A map that fails as a whole, or is stopped, before a task that takes elements as they end: the task is not completed."""

import asyncio
import threading
import time
from collections import deque

import pytest

from procession import Process, RunCancelledError, stream, task, unrecorded

SUMS = deque()


def numbers():
    """Yield elements, and fail where there should be more."""
    yield from range(150)
    raise OSError("the source is gone")


def same(number):
    return number


def write(rows):
    SUMS.append(sum(rows))
    return SUMS[-1]


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_a_sink_does_not_take_what_came_for_all_there_is(stages):
    """However many maps there are in between."""
    SUMS.clear()
    process = Process("cut", "parallel", 3, on_error="continue")
    rows = process.map(same, numbers())
    for _ in range(stages - 1):
        rows = process.map(same, rows)
    process.add_task(write, stream(rows))
    with pytest.raises(ExceptionGroup):
        process.execute()
    assert [outcome.state for outcome in process.last_run.outcomes] == ["failed", *["skipped"] * stages]
    assert not SUMS


WHILE_GOING = deque()


async def same_later(number):
    return number


def count(rows):
    """Count elements; meanwhile, do once what the test says to do after three."""
    counted = 0
    for _ in rows:
        counted += 1
        if counted == 3 and WHILE_GOING:
            WHILE_GOING.pop()()
    return counted


async def count_later(rows):
    counted = 0
    async for _ in rows:
        counted += 1
        if counted == 3 and WHILE_GOING:
            await asyncio.to_thread(WHILE_GOING.pop())
    return counted


FAILURES = deque()


def fail_once(fails):
    if FAILURES:
        assert fails.wait(20)
        raise FAILURES.pop()


@pytest.mark.parametrize("ending", ["a cancel", "a failure elsewhere"])
@pytest.mark.parametrize("sink", [count, count_later])
@pytest.mark.parametrize("function", [same, same_later, task(executor="processes")(same), task(keep=False)(same)])
def test_a_sink_does_not_take_what_came_before_the_run_was_stopped_for_all_there_is(ending, sink, function, tmp_path):
    """It was busy meanwhile. It has not completed, and is called with all of them when the run goes on."""
    fails, begun = threading.Event(), threading.Event()
    FAILURES.clear()
    FAILURES.append(OSError("another task"))

    def build():
        process = Process("stopped", "parallel", 3)
        process.task(sink, stream(process.map(function, range(500))))
        if ending == "a failure elsewhere":
            process.add_task(fail_once, unrecorded(fails))
        return process

    def stop():
        assert begun.wait(20)
        fails.set()
        if ending == "a cancel":
            run.cancel()
        until = time.monotonic() + 0.5  # a map that is asleep ends only with the stage
        while run.outcomes[0].state != "cancelled" and time.monotonic() < until:
            time.sleep(0.01)

    WHILE_GOING.append(stop)
    process = build()
    run = process.start(run_id="a", journal=tmp_path / "runs.db")
    begun.set()
    with pytest.raises(RunCancelledError if ending == "a cancel" else OSError):
        run.result()
    assert [outcome.state for outcome in run.outcomes][:2] == ["cancelled", "cancelled"]
    assert build().execute(run_id="a", journal=tmp_path / "runs.db")[1] == 500
