"""Long sleeps of a recorded run: the task is left until it is due, and the run ends as suspended meanwhile."""

import asyncio
import time

import pytest

from procession import Process, RunSuspendedError, current_task
from procession.journal import schema
from procession.testing import memory_journal

DAY_S = 86400.0
MADE = []


@pytest.fixture(autouse=True)
def fresh():
    MADE.clear()


@pytest.fixture
def journal():
    with memory_journal() as opened:
        yield opened


def remind():
    me = current_task()
    MADE.append("asked")
    me.sleep(DAY_S)
    MADE.append("reminded")
    me.sleep(2 * DAY_S)
    return "given up"


async def remind_later():
    me = current_task()
    MADE.append("asked")
    me.sleep(DAY_S)
    MADE.append("reminded")
    await asyncio.sleep(0)
    me.sleep(2 * DAY_S)
    return "given up"


def one(function, strategy="sequential"):
    process = Process("one", strategy, 2)
    process.add_task(function)
    return process


def suspended(process, journal, match="sleeps until"):
    with pytest.raises(RunSuspendedError, match=match):
        process.execute(run_id="a", journal=journal)
    made, MADE[:] = list(MADE), []
    return made


def pass_time(journal, seconds):
    with journal.database.writing() as connection:
        connection.execute(schema.waits.update().values(due=schema.waits.c.due - seconds))


@pytest.mark.parametrize("function", [remind, remind_later])
@pytest.mark.parametrize("strategy", ["sequential", "parallel"])
def test_a_long_sleep_suspends_until_it_is_due(function, strategy, journal):
    """Each sleep counts from when it first began, and one that is over ends at once."""
    process = one(function, strategy)
    began = time.time()
    assert suspended(process, journal, r"task 0 \(remind.*\) sleeps until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC") == [
        "asked"
    ]
    assert suspended(process, journal) == ["asked"]
    [wait] = journal.run("a").waits
    assert (wait.task, wait.element, wait.kind, wait.answered) == (0, None, "sleep", False)
    assert began + DAY_S - 1 < wait.due < time.time() + DAY_S + 1
    with pytest.raises(ValueError, match="run 'a' does not wait for '0'"):
        journal.answer("a", "0", None)
    pass_time(journal, DAY_S)
    assert suspended(process, journal) == ["asked", "reminded"]
    pass_time(journal, DAY_S)
    assert suspended(process, journal) == ["asked", "reminded"]
    pass_time(journal, DAY_S)
    assert process.execute(run_id="a", journal=journal) == ["given up"]


def test_a_short_sleep_is_one_like_any_other(journal):
    process = one(lambda: current_task().sleep(0.01))
    assert process.execute(run_id="a", journal=journal) == [None]


def test_what_is_left_of_a_long_sleep_is_slept_here(journal, monkeypatch):
    """If that is a minute or less."""
    slept = []

    def nap():
        me = current_task()
        me.sleep(DAY_S)

    process = one(nap)
    suspended(process, journal)
    pass_time(journal, DAY_S - 30)
    from procession._engine.run_state import RunState

    def no_time(_run, seconds):
        slept.append(seconds)
        raise AssertionError("it sleeps")

    monkeypatch.setattr(RunState, "wait_cancelled", no_time)
    with pytest.raises(AssertionError, match="it sleeps"):
        process.execute(run_id="a", journal=journal)
    assert slept == [0.1]


def test_a_long_sleep_without_a_journal_is_one_like_any_other():
    """It ends when the run is cancelled."""
    process = one(lambda: current_task().sleep(DAY_S))
    run = process.start()
    run.cancel()
    assert run.wait(10)
    assert run.status == "cancelled"


def test_who_sleeps_goes_on_in_a_run_that_goes_on(journal):
    """The task is called again once it is due, while another one is still at work."""

    def hold():
        until = time.monotonic() + 10
        while "reminded" not in MADE and time.monotonic() < until:
            time.sleep(0.01)

    def nap():
        current_task().sleep(DAY_S)
        MADE.append("reminded")

    process = one(nap, "parallel")
    process.add_task(hold)
    run = process.start(run_id="a", journal=journal)
    until = time.monotonic() + 10
    while run.outcomes[0].state != "suspended" and time.monotonic() < until:
        time.sleep(0.01)
    pass_time(journal, DAY_S)
    assert run.result() == [None, None]
