"""The decimal context, which everybody who has it changes in place: each task works with a copy of the caller's."""

import asyncio
import decimal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from decimal import Decimal
from pathlib import Path

import pytest

from coroutines import every_strategy, every_way
from procession import Process, current_task, task

PRECISIONS = [3, 7, 11, 15]


@pytest.fixture(autouse=True, params=[28, 30])
def callers(request):
    """The caller has a context of its own, as after any arithmetic with decimals; nothing of it changes.

    It has the usual precision, or another.
    """
    with decimal.localcontext(decimal.DefaultContext, prec=request.param) as context:
        yield context
        assert decimal.getcontext() is context
        assert context.prec == request.param


FAILS = []


def fail_once():
    if FAILS:
        FAILS.pop()
        raise ConnectionError


def digits():
    return len(str(Decimal(1) / 3)) - 2


class Together:
    """Sets a precision, and divides when all have set theirs."""

    def __init__(self, parties):
        self.barrier = threading.Barrier(parties)

    def __call__(self, precision):
        before = decimal.getcontext().prec
        decimal.getcontext().prec = precision
        self.barrier.wait(20)
        return before, digits()


THREE = Together(3)


async def together(precision):
    before = decimal.getcontext().prec
    decimal.getcontext().prec = precision
    for _ in range(5):
        await asyncio.sleep(0)
    return before, digits()


def alone(precision):
    return Together(1)(precision)


def expected():
    return [(decimal.getcontext().prec, precision) for precision in PRECISIONS]


def process_of(function, strategy="parallel", mapped=False, **options):
    process = Process("thirds", strategy, len(PRECISIONS), **options)
    if mapped:
        process.map(function, PRECISIONS)
    else:
        for precision in PRECISIONS:
            process.add_task(function, precision)
    return process


@pytest.mark.parametrize("mapped", [False, True])
def test_tasks_on_threads_each_have_their_own_precision(mapped):
    """What one sets, neither another nor the caller sees."""
    results = process_of(Together(len(PRECISIONS)), mapped=mapped).execute()
    assert (results[0] if mapped else results) == expected()


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("function", [alone, together])
@every_strategy
@every_way
def test_each_begins_with_the_callers_precision(way, strategy, function, mapped):
    """Under every strategy, called or awaited, as tasks and as elements."""
    results = way(process_of(function, strategy, mapped))
    assert (results[0] if mapped else results) == expected()


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("function", [alone, together])
def test_so_it_is_on_an_executor_in_this_process(function, mapped):
    """Where one thread makes the calls, one after another."""
    with ThreadPoolExecutor(1) as executor:
        results = process_of(function, mapped=mapped, executor=executor).execute()
    assert (results[0] if mapped else results) == expected()


@pytest.mark.parametrize("function", [alone, together])
def test_so_it_is_in_a_recorded_run(function, tmp_path):
    """Whose loop is another."""
    process = process_of(function)
    assert process.execute(run_id="once", journal=tmp_path / "runs.db") == expected()


@pytest.mark.parametrize("waits", [False, True])
def test_each_attempt_begins_with_the_callers_precision(waits):
    """What an attempt that failed had set is gone with it."""
    seen = []

    def fail(precision):
        seen.append(decimal.getcontext().prec)
        decimal.getcontext().prec = precision
        if len(seen) == 1:
            raise sqlite3.OperationalError
        return digits()

    async def fail_later(precision):
        return fail(precision)

    import tenacity

    rules = tenacity.Retrying(stop=tenacity.stop_after_attempt(2))
    process = Process("thirds")
    process.add_task(task(retries=rules)(fail_later if waits else fail), 5)
    assert process.execute() == [5]
    assert seen == [decimal.getcontext().prec] * 2


def test_flags_and_traps_are_the_callers_and_stay_with_the_task(callers):
    """All of the context counts, not only its precision."""
    callers.traps[decimal.Inexact] = True
    callers.clear_flags()

    def divide():
        with pytest.raises(decimal.Inexact):
            Decimal(1) / 3
        return decimal.getcontext().flags[decimal.Inexact]

    process = Process("exact")
    process.add_task(divide)
    assert process.execute() == [True]
    assert not callers.flags[decimal.Inexact]


def three_together(precision):
    return THREE(precision)


@pytest.mark.parametrize("function", [three_together, together])
def test_so_it_is_with_the_calls_that_a_task_makes_itself(function, tmp_path):
    """Each begins with the precision of the task, whose own stays: a call that is recalled would not set it."""
    one_alone = alone if function is three_together else together

    def plain():
        me, decimal.getcontext().prec = current_task(), 5
        found = [*me.map(function, [3, 7, 11]), me.call(one_alone, 9), digits()]
        fail_once()
        return found

    async def later():
        me, decimal.getcontext().prec = current_task(), 5
        found = [*await me.map(function, [3, 7, 11]), await me.call(one_alone, 9), digits()]
        fail_once()
        return found

    process = Process("calls", "parallel", max_workers=3)
    process.add_task(plain if function is three_together else later)
    FAILS.append(True)
    with pytest.raises(ConnectionError):
        process.execute(run_id="a", journal=tmp_path / "runs.db")
    expected = [(5, 3), (5, 7), (5, 11), (5, 9), 5]
    assert process.execute() == process.execute(run_id="a", journal=tmp_path / "runs.db") == [expected]


def test_a_call_that_a_task_makes_leaves_no_precision_where_there_was_none():
    """Where neither the caller nor the task has used decimals before."""

    def both():
        return current_task().call(alone, 9), digits()

    process = Process("calls", "parallel")
    process.add_task(both)
    assert Context().run(process.execute) == [((28, 9), 28)]


def test_what_the_caller_sets_while_a_run_goes_on_is_not_seen_by_its_tasks(callers):
    """A run takes the context as it is when it begins, as with everything in `contextvars`."""
    go = threading.Event()
    process = Process("thirds", "parallel")
    first = process.task(go.wait, 20)
    process.add_task(lambda _: digits(), first)
    run = process.start()
    with decimal.localcontext(callers) as context:
        callers.prec = 5
        go.set()
        results = run.result(20)
        callers.prec = context.prec
    assert results == [True, callers.prec]


def test_a_nested_process_has_the_precision_of_the_task_around_it():
    """And gives that nothing back."""
    inner = process_of(alone)

    def around():
        decimal.getcontext().prec = 20
        return inner.execute(), digits()

    process = Process("around")
    process.add_task(around)
    assert process.execute() == [([(20, precision) for precision in PRECISIONS], 20)]


def test_a_precision_that_a_module_sets_as_it_is_imported_holds_in_each_task_of_a_worker(tmp_path):
    """And what one task of a worker process sets, the next one there does not see."""
    Path(tmp_path / "thirds.py").write_text(
        "import decimal\n"
        "decimal.getcontext().prec = 9\n"
        "def alone(precision):\n"
        "    before, decimal.getcontext().prec = decimal.getcontext().prec, precision\n"
        "    return before\n"
    )
    code = (
        "from thirds import alone\n"
        "from procession import Process\n"
        "process = Process('thirds', max_workers=1, executor='processes')\n"
        "for precision in 3, 7, 11: process.add_task(alone, precision)\n"
        "print(process.execute())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=50)
    assert (done.stdout, done.stderr) == ("[9, 9, 9]\n", "")
