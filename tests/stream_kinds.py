"""Functions for the stages of pipelines, of each kind: plain ones and coroutine functions, here and on executors."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from procession import (
    Process,
)

WAIT_S = 20
WINDOW = 64


def twice(number):
    return 2 * number


async def twice_async(number):
    await asyncio.sleep(0)
    return 2 * number


def pair(*values):
    return values


async def pair_async(*values):
    return values


def listed(elements):
    return list(elements)


async def listed_async(elements):
    return [element async for element in elements]


def odd_only(number):
    if number % 2 == 0:
        raise ValueError(number)
    return number


async def odd_only_async(number):
    return odd_only(number)


PLAIN = {"map": twice, "pair": pair, "sink": listed, "odd": odd_only}
AWAITED = {"map": twice_async, "pair": pair_async, "sink": listed_async, "odd": odd_only_async}
KINDS = {
    "threads": (PLAIN, PLAIN, PLAIN),
    "coroutines": (AWAITED, AWAITED, AWAITED),
    "coroutines first": (AWAITED, PLAIN, PLAIN),
    "coroutines last": (PLAIN, PLAIN, AWAITED),
    "coroutines between": (PLAIN, AWAITED, PLAIN),
}
ELSEWHERE = {"on an executor": KINDS["threads"], "on an executor, coroutines last": KINDS["coroutines last"]}


@pytest.fixture(params=[*KINDS, *ELSEWHERE])
def kinds(request, monkeypatch):
    """The functions of a first stage, of a second stage, and of what takes their elements.

    In the latter kinds, processes have their calls made on an executor: one of threads, as the functions tell each
    other what they do.
    """
    if request.param in KINDS:
        yield KINDS[request.param]
    else:
        with ThreadPoolExecutor(8) as executor:
            monkeypatch.setattr(request.module, "Process", partial(Process, executor=executor))
            yield ELSEWHERE[request.param]


def made(kind, function):
    """Return a function with the behaviour of a plain one, as a coroutine function where that is wanted."""
    if kind is PLAIN:
        return function

    async def awaited(*args):
        return await asyncio.to_thread(function, *args)

    return awaited
