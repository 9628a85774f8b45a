"""Functions that maps call with lists of elements, and the engines that call them."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from barriers import attend, attend_async
from clusters import dask_here, ray_here
from crashing import tens
from errands import called, noted
from procession import Process, WorkerProcesses, current_task, task

ENGINES = "threads", "loop", "mixed", "processes", "workers", "pool", "dask", "ray"
HERE = "threads", "loop", "mixed"


async def tens_later(numbers, *, plus=0):
    await asyncio.sleep(0)
    return (10 * number + plus for number in numbers)


def sums(numbers, others):
    return map(sum, zip(numbers, others, strict=True))


async def sums_later(numbers, others):
    return list(map(sum, zip(numbers, others, strict=True)))


def sizes(numbers):
    """Return for each element how many the call has."""
    return [len(numbers)] * len(numbers)


async def sizes_later(numbers):
    return sizes(numbers)


def but_13(numbers):
    """Fail where one of the elements is 13."""
    if 13 in numbers:
        raise KeyError(13)
    return numbers


async def but_13_later(numbers):
    return but_13(numbers)


def one_less(numbers):
    return numbers[1:]


async def one_less_later(numbers):
    return numbers[1:]


def at_last(numbers):
    """Fail at the first attempt, after what it was given was taken apart."""
    me, count = current_task(), len(numbers)
    while numbers:
        numbers.pop()
    if me.attempt == 1:
        raise ConnectionError
    return [(me.element, me.attempt, count)] * count


async def at_last_later(numbers):
    me, count = current_task(), len(numbers)
    numbers.clear()
    if me.attempt == 1:
        raise ConnectionError
    return [(me.element, me.attempt, count)] * count


def meet(meetings):
    """Wait where other calls do, once."""
    attend([meetings[0]])
    return [1] * len(meetings)


async def meet_later(meetings):
    await attend_async([meetings[0]])
    return [1] * len(meetings)


def attend_each(meetings, values):
    """Wait at the meetings of each element in turn."""
    return [attend(some, value) for some, value in zip(meetings, values, strict=True)]


async def attend_each_later(meetings, values):
    return [await attend_async(some, value) for some, value in zip(meetings, values, strict=True)]


def counting(sheets, numbers):
    """Note the call and each of its elements; fail where one of them was noted to be wrong."""
    noted(sheets[0])
    for number in numbers:
        noted(sheets[0], number)
    if any(called(sheets[0], f"wrong{number}") for number in numbers):
        raise KeyError("wrong")
    return [number * 10 for number in numbers]


async def counting_later(sheets, numbers):
    return counting(sheets, numbers)


def asks(numbers):
    return [current_task().call(abs, number) for number in numbers]


async def asks_later(numbers):
    return [current_task().call(abs, number) for number in numbers]


LATER = {
    tens: tens_later,
    sums: sums_later,
    sizes: sizes_later,
    but_13: but_13_later,
    one_less: one_less_later,
    at_last: at_last_later,
    meet: meet_later,
    counting: counting_later,
    attend_each: attend_each_later,
    asks: asks_later,
    attend: attend_async,
}

EXECUTORS = {
    "workers": lambda: WorkerProcesses(2),
    "pool": lambda: ThreadPoolExecutor(2),
    "dask": dask_here,
    "ray": ray_here,
}


class Engine:
    """What calls functions, by two workers unless it is said otherwise."""

    def __init__(self, name, executor="threads"):
        self.name = name
        self.executor = executor

    def process(self, strategy="parallel", workers=2, **options):
        """Return a process whose calls are made here."""
        if strategy != "sequential":
            options["max_workers"] = workers
        process = Process("batches", strategy, executor=self.executor, **options)
        if self.name == "mixed":  # an event loop drives it, and threads call plain functions
            process.add_task(asyncio.sleep, 0)
        return process

    def map(self, process, function, *iterables, options=None, **more):
        """Add a map of a function, or of its twin that is a coroutine function."""
        if self.name == "loop":
            function = LATER[function]
        return process.map(task(**options)(function) if options else function, *iterables, **more)


@contextmanager
def engine_of(name):
    """Return an engine by its name."""
    if name not in EXECUTORS:
        yield Engine(name, "processes" if name == "processes" else "threads")
        return
    with EXECUTORS[name]() as executor:
        yield Engine(name, executor)
