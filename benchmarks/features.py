"""Features on: what maps, retries, timeouts, observers, coroutines and small runs cost, beside what else one would use.

    pip install -e ".[benchmark]"
    python benchmarks/features.py                prints the tables
    python benchmarks/features.py --write        ... and puts them into docs/benchmarks-features.md
    python benchmarks/features.py --rounds 3 --tasks 20000        quicker, and rougher

The calls are trivial and nothing fails or is late, so that what is measured is what the feature itself adds. A round
runs each contestant once, and every round starts with another of them. Before each measurement the garbage collector
runs once. A figure is the median over the rounds, a ratio that of the rounds' ratios. What is measured is the run, not
the making of the process, unless it says so. Each result is checked.
"""

import asyncio
import gc
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import tenacity
from measuring import Timed, Work, at_most, compare, ratio_at_most, shown

from procession import Event, Process, task

WORKERS = 6
VALUE = b"x" * 10_000

Goal = Callable[[dict[str, float]], tuple[bool, str]]


def same(value: Any) -> Any:
    """Return what it is given."""
    return value


async def same_awaited(value: Any) -> Any:
    """Return what it is given, as a coroutine that never waits."""
    return value


def ten_kb(_: int) -> bytes:
    """Return ten kilobytes."""
    return bytes(bytearray(VALUE))


class Nothing:
    """An observer that does nothing."""

    def on_event(self, event: Event) -> None:
        """Do nothing."""


def timed(function: Callable[[], Any], expected: Any) -> float:
    """Return how long a call takes, in seconds."""
    gc.collect()
    start = time.perf_counter()
    result = function()
    took = time.perf_counter() - start
    if result != expected:
        raise AssertionError("wrong results")
    return took


def tasks(
    function: Callable[[Any], Any], n: int, strategy: Literal["sequential", "parallel"] = "parallel", **options: Any
) -> Timed:
    """Return the execution of so many tasks."""

    def run() -> float:
        process = Process("tasks", strategy, WORKERS, **options)
        for number in range(n):
            process.add_task(function, number)
        return timed(process.execute, list(range(n)))

    return run


def mapped(function: Callable[[Any], Any], n: int, strategy: Literal["sequential", "parallel"] = "parallel") -> Timed:
    """Return the execution of a map of so many elements."""

    def run() -> float:
        process = Process("map", strategy, WORKERS)
        process.map(function, range(n))
        return timed(process.execute, [list(range(n))])

    return run


def more(limit: float, without: str, name: str = "procession") -> Goal:
    """Return the goal that a figure is at most so much more than another."""
    return lambda figures: (
        figures[name] - figures[without] <= limit,
        f"{shown(figures[name] - figures[without])} more",
    )


def thread_pool_map(n: int) -> float:
    """Time `multiprocessing.pool.ThreadPool.map`, one element at a time."""
    with ThreadPool(WORKERS) as pool:
        return timed(lambda: pool.map(same, range(n), 1), list(range(n)))


def executor_map(n: int) -> float:
    """Time `ThreadPoolExecutor.map`."""
    with ThreadPoolExecutor(WORKERS) as pool:
        return timed(lambda: list(pool.map(same, range(n))), list(range(n)))


def gathered(n: int) -> float:
    """Time `asyncio.gather`."""

    async def main() -> list[Any]:
        return await asyncio.gather(*map(same_awaited, range(n)))

    return timed(lambda: asyncio.run(main()), list(range(n)))


def with_tenacity(n: int) -> float:
    """Time a loop over calls that tenacity retries."""
    retried = tenacity.retry(stop=tenacity.stop_after_attempt(3))(same)
    return timed(lambda: [retried(number) for number in range(n)], list(range(n)))


def iterated(n: int) -> float:
    """Iterate over the outcomes of a run while it goes on, from its start."""
    process = Process("iterated", "parallel", WORKERS)
    for number in range(n):
        process.add_task(same, number)
    return timed(lambda: sum(1 for _ in process.start()), n)


def as_completed(n: int) -> float:
    """Iterate over futures as they end."""
    from concurrent.futures import as_completed as completed

    with ThreadPoolExecutor(WORKERS) as pool:
        return timed(lambda: sum(1 for _ in completed([pool.submit(same, number) for number in range(n)])), n)


def nested(n: int) -> float:
    """Time processes as tasks, each with one task inside."""
    outer = Process("outer", "sequential")
    for number in range(n):
        inner = Process("inner")
        inner.add_task(same, number)
        outer.add_task(inner)
    return timed(outer.execute, [[number] for number in range(n)])


def small_runs(n: int) -> float:
    """Time runs of ten tasks at once, one after another."""
    process = Process("small", "parallel")
    for number in range(10):
        process.add_task(same, number)
    return timed(lambda: [process.execute() for _ in range(n)][-1], list(range(10)))


def small_pools(n: int) -> float:
    """Time the same with a ThreadPoolExecutor for each."""

    def run() -> list[int]:
        with ThreadPoolExecutor() as pool:
            return [future.result() for future in [pool.submit(same, number) for number in range(10)]]

    return timed(lambda: [run() for _ in range(n)][-1], list(range(10)))


def on_processes(n: int, *, recorded: bool) -> float:
    """Time results of 10 kB from worker processes, with a journal or without."""
    process = Process("values", "parallel", 2, executor="processes")
    for number in range(n):
        process.add_task(ten_kb, number)
    with TemporaryDirectory() as folder:
        options: dict[str, Any] = {"journal": Path(folder) / "runs.db", "run_id": "a"} if recorded else {}
        return timed(lambda: process.execute(**options), [VALUE] * n)


def works(n: int) -> list[Work]:
    """Return everything that is measured, with `n` calls."""
    few, element, micro = n // 10, "an element", "µs a task"
    return [
        Work(
            f"map in order: {n:,} elements",
            n,
            micro,
            {
                "procession": mapped(same, n, "sequential"),
                "list comprehension": lambda: timed(lambda: [same(number) for number in range(n)], list(range(n))),
            },
            {f"at most 0.5 µs {element}": at_most(0.5)},
        ),
        Work(
            f"map at once: {n:,} elements, {WORKERS} workers",
            n,
            micro,
            {
                "procession": mapped(same, n),
                "ThreadPool.map, chunk size 1": lambda: thread_pool_map(n),
                "ThreadPoolExecutor.map": lambda: executor_map(n),
            },
            {f"at most 0.6 µs {element}": at_most(0.6)},
        ),
        Work(
            f"coroutines, each in an asyncio task of its own: {n:,}, {WORKERS} workers",
            n,
            micro,
            {"procession": tasks(same_awaited, n), "gather": lambda: gathered(n)},
            {"at most half of gather": ratio_at_most(0.5, "gather")},
        ),
        Work(
            f"map of coroutines: {n:,} elements, {WORKERS} workers",
            n,
            micro,
            {"procession": mapped(same_awaited, n), "as tasks": tasks(same_awaited, n), "gather": lambda: gathered(n)},
            {"at most 2 µs more than as tasks": more(2.0, "as tasks")},
        ),
        Work(
            f"retries that are never needed: {n:,} tasks, {WORKERS} workers",
            n,
            micro,
            {
                "procession": tasks(task(retries=2)(same), n),
                "without": tasks(same, n),
                "tenacity alone": lambda: with_tenacity(n),
            },
            {"at most 0.5 µs more than without": more(0.5, "without")},
            frozenset({"tenacity alone"}),
        ),
        Work(
            f"a timeout that is kept: {n:,} tasks, {WORKERS} workers",
            n,
            micro,
            {"procession": tasks(task(timeout=30)(same), n), "without": tasks(same, n)},
            {"at most 3 µs more than without": more(3.0, "without")},
        ),
        Work(
            f"an observer that does nothing: {n:,} tasks, {WORKERS} workers",
            n,
            micro,
            {"procession": tasks(same, n, observers=[Nothing()]), "without": tasks(same, n)},
            {"at most 3 µs": at_most(3.0)},
        ),
        Work(
            f"iterating over the outcomes of a run: {n:,} tasks, {WORKERS} workers",
            n,
            micro,
            {"procession": lambda: iterated(n), "as_completed": lambda: as_completed(n)},
            {"at most 2 µs": at_most(2.0)},
            frozenset({"as_completed"}),
        ),
        Work(
            f"a process as a task, one task inside: {few // 10:,}",
            few // 10,
            micro,
            {"procession": lambda: nested(few // 10)},
            {"at most 40 µs": at_most(40.0)},
        ),
        Work(
            "execute() of ten tasks at once",
            200,
            micro,
            {"procession": lambda: small_runs(200), "ThreadPoolExecutor, submit each": lambda: small_pools(200)},
            {"not behind ThreadPoolExecutor": ratio_at_most(1.0, "ThreadPoolExecutor, submit each")},
        ),
        Work(
            f"worker processes with a journal: {few:,} results of 10 kB",
            few,
            micro,
            {
                "procession": lambda: on_processes(few, recorded=True),
                "without a journal": lambda: on_processes(few, recorded=False),
            },
            {"at most 1.5 times without a journal": ratio_at_most(1.5, "without a journal")},
        ),
    ]


if __name__ == "__main__":
    compare("features on", "benchmarks-features.md", __doc__, works, 100_000)
