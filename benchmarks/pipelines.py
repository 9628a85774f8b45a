"""Pipelines of three stages beside those of Procession: by hand over queues, and with the libraries of `streams.py`.

Each takes the function of the stages, the number of elements, and how many workers each stage has, and yields what
comes out, in whatever order that is.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import pairwise
from queue import Queue
from typing import Any

STAGES = 3
WINDOW = 64
"""How many elements a queue holds: as many as are at most on their way between two maps of Procession."""

_END: Any = object()


def by_queues(function: Callable[[int], int], n: int, each: int) -> Iterator[int]:
    """Have threads for each stage, and queues between the stages."""
    queues: list[Queue[int]] = [Queue(WINDOW) for _ in range(STAGES + 1)]

    def draw() -> None:
        for number in range(n):
            queues[0].put(number)
        for _ in range(each):
            queues[0].put(_END)

    def work(taken: Queue[int], given: Queue[int]) -> None:
        while (element := taken.get()) is not _END:
            given.put(function(element))
        given.put(_END)

    threads = [threading.Thread(target=draw)]
    threads += [threading.Thread(target=work, args=pair) for pair in pairwise(queues) for _ in range(each)]
    for thread in threads:
        thread.start()
    ended = 0
    while ended < each:  # each worker ends one of the next stage; the last of these ends comes after all elements
        if (element := queues[-1].get()) is _END:
            ended += 1
        else:
            yield element
    for thread in threads:
        thread.join()


async def by_asyncio_queues(
    function: Callable[[int], Coroutine[Any, Any, int]], n: int, each: int
) -> AsyncIterator[int]:
    """Have asyncio tasks for each stage, and queues between the stages."""
    queues: list[asyncio.Queue[int]] = [asyncio.Queue(WINDOW) for _ in range(STAGES + 1)]

    async def draw() -> None:
        for number in range(n):
            await queues[0].put(number)
        for _ in range(each):
            await queues[0].put(_END)

    async def work(taken: asyncio.Queue[int], given: asyncio.Queue[int]) -> None:
        while (element := await taken.get()) is not _END:
            await given.put(await function(element))
        await given.put(_END)

    async with asyncio.TaskGroup() as group:
        group.create_task(draw())
        for taken, given in pairwise(queues):
            for _ in range(each):
                group.create_task(work(taken, given))
        ended = 0
        while ended < each:
            if (element := await queues[-1].get()) is _END:
                ended += 1
            else:
                yield element


def by_streamable(function: Callable[[int], int], n: int, each: int) -> Iterator[int]:
    """Chain maps of streamable, each with threads of its own."""
    from streamable import stream

    elements = stream(range(n))
    for _ in range(STAGES):
        elements = elements.map(function, concurrency=each)
    return iter(elements)


def by_pipefunc(function: Callable[[int], int], n: int, each: int) -> Iterator[int]:
    """Map a pipeline of pipefunc, which has all threads for each stage, and ends one before it begins the next."""
    from pipefunc import PipeFunc, Pipeline

    def stage(number: int) -> PipeFunc[..., int]:
        given, made = f"x{number}", f"x{number + 1}"
        return PipeFunc(function, made, renames={"number": given}, mapspec=f"{given}[i] -> {made}[i]")

    pipeline = Pipeline([stage(number) for number in range(STAGES)])
    with ThreadPoolExecutor(STAGES * each) as pool:
        results = pipeline.map({"x0": list(range(n))}, executor=pool, storage="dict")
    return iter(results[f"x{STAGES}"].output.tolist())


def between_threads(function: Callable[[int], int], n: int, pool: Executor) -> Iterator[int]:
    """Chain maps of streamable on threads before and after one on worker processes."""
    from streamable import stream

    elements = stream(range(n)).map(same, concurrency=2).map(function, concurrency=pool)
    return iter(elements.map(same, concurrency=2))


def same(number: int) -> int:
    """Return the argument."""
    return number


async def same_awaited(number: int) -> int:
    """Return the argument, as a coroutine that never waits."""
    return number
