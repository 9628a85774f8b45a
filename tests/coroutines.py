"""Coroutine functions that several test files call as tasks, and the ways to execute a process that has some."""

import asyncio
import threading

import pytest

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


WAYS = [executed, awaited, started, in_a_notebook]
every_way = pytest.mark.parametrize("way", WAYS)
every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)


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


async def chain_link(value):
    return value + 1


def plain_link(value):
    return value + 1
