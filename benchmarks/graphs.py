"""Random graphs of tasks that take a while, the schedule they would have at best, and those who run them.

Importable from every worker, and light, for that reason.
"""

import asyncio
import heapq
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import Any, Literal, NamedTuple

from pools import spin, turns_of

from procession import Process

SHORTEST_S, LONGEST_S = 0.005, 0.05

Kind = Literal["layers", "chains", "fan-ins"]


class Node(NamedTuple):
    """A task: how long it takes, in seconds, and the tasks before it whose values it takes."""

    seconds: float
    needs: tuple[int, ...]


Graph = Sequence[Node]


def graph(kind: Kind, count: int) -> list[Node]:
    """Return a random graph, the same each time.

    In layers of 20, a task takes the values of one to three of the layer before; a chain has ten tasks; at fan-ins
    each value goes to one task, which takes those of four to eight, until one task is left.
    """
    chance = random.Random(f"{kind} {count}")
    nodes: list[Node] = []

    def add(*needs: int) -> int:
        nodes.append(Node(chance.uniform(SHORTEST_S, LONGEST_S), needs))
        return len(nodes) - 1

    if kind == "layers":
        for index in range(count):
            before = range(index // 20 * 20 - 20, index // 20 * 20)
            add(*(sorted(chance.sample(before, chance.randint(1, 3))) if index >= 20 else ()))
    elif kind == "chains":
        for index in range(count):
            add(*((index - count // 10,) if index >= count // 10 else ()))
    else:
        loose = [add() for _ in range(count * 5 // 6)]
        while len(loose) > 1:
            taken = [loose.pop(0) for _ in range(min(len(loose), chance.randint(4, 8)))]
            loose.append(add(*taken))
    return nodes


def schedule(nodes: Graph, workers: int) -> float:
    """Return how many seconds it takes if the first task that is ready starts whenever a worker is free."""
    dependents, waiting = wired(nodes)
    ready = [index for index, count in enumerate(waiting) if not count]
    busy: list[tuple[float, int]] = []
    now = 0.0
    while ready or busy:
        while ready and len(busy) < workers:
            index = ready.pop(0)
            heapq.heappush(busy, (now + nodes[index].seconds, index))
        now, index = heapq.heappop(busy)
        for after in dependents[index]:
            waiting[after] -= 1
            if not waiting[after]:
                ready.append(after)
    return now


def wired(nodes: Graph) -> tuple[list[list[int]], list[int]]:
    """Return which tasks take the value of each, and for how many others each one waits."""
    dependents: list[list[int]] = [[] for _ in nodes]
    for index, node in enumerate(nodes):
        for need in node.needs:
            dependents[need].append(index)
    return dependents, [len(node.needs) for node in nodes]


# What a task does: it returns how many paths lead to it, so that a wrong value is found out, and how long it took

Value = tuple[int, float]
Call = Callable[[float, Sequence[Value]], Value]


def paths(values: Sequence[Value]) -> int:
    """Return how many paths lead to a task."""
    return sum(count for count, _ in values) or 1


def waits(seconds: float, values: Sequence[Value]) -> Value:
    """Wait."""
    time.sleep(seconds)
    return paths(values), seconds


async def waits_awaited(seconds: float, values: Sequence[Value]) -> Value:
    """Wait, as a coroutine."""
    await asyncio.sleep(seconds)
    return paths(values), seconds


def computes(turns: float, values: Sequence[Value]) -> Value:
    """Compute in Python."""
    start = time.perf_counter()
    spin(round(turns))
    return paths(values), time.perf_counter() - start


def in_turns(nodes: Graph) -> list[Node]:
    """Return the graph with turns of `computes` in place of seconds."""
    a_second = turns_of(1.0)
    return [Node(node.seconds * a_second, node.needs) for node in nodes]


def check(nodes: Graph, values: Sequence[Value]) -> None:
    """Raise unless these are the values of the graph's tasks."""
    expected: list[Value] = []
    for node in nodes:
        expected.append((paths([expected[need] for need in node.needs]), 0.0))
    if [count for count, _ in values] != [count for count, _ in expected]:
        raise AssertionError("wrong results")


# Contestants


def added_to(process: Process, nodes: Graph, call: Callable[..., Any]) -> None:
    """Add the tasks of a graph to a process."""
    handles: list[Any] = []
    for seconds, needs in nodes:
        handles.append(process.task(call, seconds, [handles[need] for need in needs]))


def with_executor(nodes: Graph, pool: Executor, call: Call) -> list[Value]:
    """Submit each task once what it takes is there."""
    dependents, waiting = wired(nodes)
    ended: SimpleQueue[tuple[int, Future[Value]]] = SimpleQueue()
    values: dict[int, Value] = {}

    def submit(index: int) -> None:
        future = pool.submit(call, nodes[index].seconds, [values[need] for need in nodes[index].needs])
        future.add_done_callback(lambda future: ended.put((index, future)))

    for index, count in enumerate(waiting):
        if not count:
            submit(index)
    while len(values) < len(nodes):
        index, future = ended.get()
        values[index] = future.result()
        for after in dependents[index]:
            waiting[after] -= 1
            if not waiting[after]:
                submit(after)
    return [values[index] for index in range(len(nodes))]


async def with_asyncio(nodes: Graph, workers: int) -> list[Value]:
    """Make an asyncio task of each, with a semaphore for the number at a time."""
    limit = asyncio.Semaphore(workers)
    tasks: list[asyncio.Task[Value]] = []

    async def one(node: Node) -> Value:
        values = [await tasks[need] for need in node.needs]
        async with limit:
            return await waits_awaited(node.seconds, values)

    for node in nodes:
        tasks.append(asyncio.create_task(one(node)))  # noqa: PERF401  # each reads the list
    return await asyncio.gather(*tasks)


def for_dask(nodes: Graph, call: Call) -> tuple[Mapping[str, object], list[str]]:
    """Return a graph as Dask takes it, and its keys."""
    keys = [f"t{index}" for index in range(len(nodes))]
    return {
        key: (call, seconds, [keys[need] for need in needs]) for key, (seconds, needs) in zip(keys, nodes, strict=True)
    }, keys
