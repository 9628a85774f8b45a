"""Tasks that make recorded calls, and fail at their end as long as `STATE` says so."""

import asyncio

import pytest
from sqlalchemy import select

from procession import (
    Process,
    current_task,
)
from procession.journal import schema
from procession.testing import memory_journal

MADE = []
STATE = {}


@pytest.fixture(autouse=True)
def fresh():
    """Begin with nothing made, and with tasks that fail at their end."""
    MADE.clear()
    STATE.clear()
    STATE["fails"] = True


@pytest.fixture
def journal():
    with memory_journal() as opened:
        yield opened


def made():
    found, MADE[:] = list(MADE), []
    return found


def fail():
    if STATE["fails"]:
        raise ConnectionError("the task has failed")


def double(number):
    MADE.append(number)
    return 2 * number


async def double_later(number):
    MADE.append(number)
    await asyncio.sleep(0)
    return 2 * number


def chain():
    """Make calls of which each takes the value of the one before."""
    me = current_task()
    value = 1
    for _ in range(4):
        value = me.call(double, value)
    fail()
    return value


async def chain_later():
    me = current_task()
    value = await me.call(double_later, 1)
    pair = await asyncio.gather(me.call(double_later, value), me.call(double_later, 10))
    rest = await me.map(double_later, [5, 6])
    fail()
    return [value, *pair, *rest]


def at_once():
    found = current_task().map(double, [1, 2, 3])
    fail()
    return found


def one(function, **options):
    process = Process("one", **options)
    process.add_task(function)
    return process


def gone_on_with(process, journal, **options):
    """Execute a process whose tasks fail, and again when they do not; return the result, and what was called then."""
    with pytest.raises((ConnectionError, ExceptionGroup)):
        process.execute(run_id="a", journal=journal)
    first = made()
    STATE["fails"] = False
    [result] = process.execute(run_id="a", journal=journal, **options)
    return first, result, made()


def recorded(journal, run_id="a"):
    """Return the calls that tasks of a run have recorded: task, element, call, state."""
    c = schema.calls.c
    with journal.reader() as reader:
        key = reader.key(run_id)
    with journal.database.reading() as connection:
        query = select(c.task, c.element, c.call, c.state).where(c.run == key)
        return [tuple(row) for row in connection.execute(query)]
