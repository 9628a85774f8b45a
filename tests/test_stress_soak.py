"""Many executions in one interpreter: none leaves anything behind. And a clock that jumps while a run goes on."""

import asyncio
import gc
import itertools
import logging
import os
import random
import threading
import time
import tracemalloc

import pytest

from marks import linux
from procession import Process, RunInUseError, TaskTimeoutError, current_task, task
from procession.journal import Journal
from procession.journal.database import Database


def same(value):
    return value


async def same_async(value):
    await asyncio.sleep(0)
    return value


def fail(value):
    raise ValueError(value)


def filled(strategy="parallel", function=same, **options):
    process = Process("soak", strategy, max_workers=3, **options)
    for number in range(4):
        process.add_task(function, number)
    process.task(same, [process.task(function, 1)])
    process.map(function, [1, 2, 3])
    return process


def failing():
    process = filled(on_error="continue")
    process.add_task(fail, 1)
    with pytest.raises(ExceptionGroup):
        process.execute()


def late():
    process = filled(on_error="return")
    process.add_task(task(timeout=0.001)(sleeps_for), 0.02)
    assert isinstance(process.execute()[-1], TaskTimeoutError)


def sleeps_for(seconds):
    current_task().sleep(seconds)


NUMBERS = itertools.count()
WAYS = {
    "parallel": lambda _: filled().execute(),
    "sequential": lambda _: filled("sequential").execute(),
    "hybrid": lambda _: filled("hybrid").execute(),
    "started": lambda _: filled().start().result(),
    "coroutines": lambda _: filled(function=same_async).execute(),
    "in a loop": lambda _: asyncio.run(filled(function=same_async).execute_async()),
    "failing": lambda _: failing(),
    "late": lambda _: late(),
    "recorded": lambda folder: filled().execute(run_id=str(next(NUMBERS) % 10), journal=folder / "runs.db"),
    "nested": lambda _: (outer := Process("outer"), outer.add_task(filled()), outer.execute()),
}


def open_files():
    return len(os.listdir("/proc/self/fd"))


@linux
@pytest.mark.parametrize("way", WAYS)
def test_many_executions_leave_nothing_behind(way, tmp_path, rounds, comes_true, monkeypatch):
    """No thread, no open file, and no memory that grows with their number."""
    monkeypatch.setattr(logging.getLogger("procession"), "disabled", True)  # pytest keeps all records
    execute, count = WAYS[way], rounds(20)
    for _ in range(20):
        execute(tmp_path)
    gc.collect()
    threads, files = threading.active_count(), open_files()
    grown = []
    tracemalloc.start()
    try:
        for _ in range(4):
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(count):
                execute(tmp_path)
            assert comes_true(lambda: threading.active_count() <= threads and open_files() <= files)
            gc.collect()
            grown.append(tracemalloc.get_traced_memory()[0] - before)
    finally:
        tracemalloc.stop()
    # What a warm interpreter caches, it caches once; what leaks, grows each time.
    assert min(grown) < 10_000 + 200 * count, f"{grown} bytes more after {count} executions each"


DAY_S = 86_400.0
JUMPED = [0.0]
WHERE = []


def definition(strategy):
    process = Process("clocks", strategy, 2, on_error="return")
    for number in range(10):
        process.add_task(jump, number)
    process.add_task(task(retries=2)(third_time_lucky))
    if strategy == "parallel":
        process.add_task(task(timeout=0.05)(sleeps_for), 30)
    return process


def jump(number):
    """Set the clock by a day, and once look whether somebody else could execute the run then."""
    JUMPED[0] = DAY_S * random.Random(number).choice([-1, 0, 1])
    if number == 5:
        with pytest.raises(RunInUseError), Journal(WHERE[0]) as journal:
            definition("sequential").execute(run_id="a", journal=journal)
    return number


def third_time_lucky():
    if current_task().attempt < 3:
        raise ConnectionError("not yet")
    return "at last"


@pytest.mark.parametrize("strategy", ["sequential", "parallel"])
def test_a_clock_that_jumps_changes_nothing_of_a_run(strategy, rounds, tmp_path, monkeypatch):
    """By a day, to and fro: timeouts and pauses last what they should, no duration is negative, the run stays held."""
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + JUMPED[0])
    monkeypatch.setattr(Database, "now", lambda database, connection: clock() + JUMPED[0])
    for round_ in range(rounds(2)):
        WHERE[:] = [tmp_path / f"{round_}.db"]
        began = time.monotonic()
        process = definition(strategy)
        results = process.execute(run_id="a", journal=WHERE[0])
        took = time.monotonic() - began
        assert results[:11] == [*range(10), "at last"]
        assert strategy == "sequential" or isinstance(results[11], TaskTimeoutError)
        assert all(0 <= outcome.duration <= took for outcome in process.last_run.outcomes)
        with Journal(WHERE[0]) as journal:
            assert all(0 <= told.duration <= took for told in journal.tasks("a"))
        assert definition(strategy).execute(run_id="a", journal=WHERE[0])[:11] == results[:11]
