"""Dask, Ray and an event loop, each beside what else one would use there, on the same work, in one run.

    pip install -e ".[benchmark,ray]"
    python benchmarks/clusters.py               prints the table
    python benchmarks/clusters.py --write       ... and puts it into docs/benchmarks-clusters.md

Clusters are started before the clock is, for all contestants alike. Each result is checked.
"""

import asyncio
import os
import time
import warnings
from functools import cache
from pathlib import Path
from typing import Any

from measuring import (
    Work,
    at_most,
    compare,
    ratio_at_least,
)
from work import after, same, same_awaited

from procession import Process

CORES = 2
TRIVIAL, LINKS, COROUTINES = 10_000, 1_000, 100_000


def trivial(executor: Any, workers: int = CORES) -> Process:
    """Return a process of trivial tasks."""
    process = Process("trivial", "parallel", workers, executor=executor)
    for number in range(TRIVIAL):
        process.add_task(same, number)
    return process


def timed(process: Process, last: object) -> float:
    """Execute, and return the seconds that took."""
    start = time.perf_counter()
    results = process.execute()
    taken = time.perf_counter() - start
    assert results[-1] == last
    return taken


def chain(executor: Any) -> Process:
    """Return a process in which each task has the value of the one before."""
    process = Process("chain", "parallel", 2 * CORES, executor=executor)
    value = process.task(same, 0)
    for _ in range(LINKS - 1):
        value = process.task(after, value)
    return process


# Clusters


@cache
def client(places: int = CORES) -> Any:
    """Return the client of a Dask cluster on this machine, of so many worker processes."""
    from distributed import Client, LocalCluster

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Client(LocalCluster(n_workers=places, threads_per_worker=1, dashboard_address=":0"))  # type: ignore[no-untyped-call]


def dask_map() -> float:
    """Map with Dask's own client."""
    start = time.perf_counter()
    results = client().gather(client().map(same, range(TRIVIAL), pure=False))
    taken = time.perf_counter() - start
    assert results == list(range(TRIVIAL))
    return taken


def dask_chain() -> float:
    """Submit each task with the future of the one before."""
    start = time.perf_counter()
    future = client().submit(same, 0, pure=False)
    for _ in range(LINKS - 1):
        future = client().submit(after, future, pure=False)
    assert future.result() == LINKS - 1
    return time.perf_counter() - start


@cache
def ray(places: int = CORES) -> Any:
    """Return Ray, connected to one on this machine that takes so many calls at the same time."""
    import ray

    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    ray.init(
        num_cpus=places, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": path}}
    )
    return ray


def ray_each() -> float:
    """Make a Ray task of each call; return the seconds that as many as in the others would take."""
    count = TRIVIAL // 5
    remote = ray().remote(same)
    start = time.perf_counter()
    results = ray().get([remote.remote(number) for number in range(count)])
    taken = time.perf_counter() - start
    assert results == list(range(count))
    return taken * TRIVIAL / count


def on_ray() -> float:
    """Run trivial tasks on Ray."""
    ray()
    return timed(trivial("ray"), TRIVIAL - 1)


# Coroutines


def coroutines() -> float:
    """Run trivial coroutines, bounded."""
    process = Process("coroutines", "parallel", 100)
    for number in range(COROUTINES):
        process.add_task(same_awaited, number)
    return timed(process, COROUTINES - 1)


def gathered() -> float:
    """Gather trivial coroutines, all at once."""

    async def gather() -> list[int]:
        return await asyncio.gather(*(same_awaited(number) for number in range(COROUTINES)))

    start = time.perf_counter()
    results = asyncio.run(gather())
    taken = time.perf_counter() - start
    assert results[-1] == COROUTINES - 1
    return taken


def works() -> list[Work]:
    """Return everything that is measured."""
    return [
        Work(
            f"{TRIVIAL:,} trivial tasks on a Dask cluster of {CORES} worker processes",
            TRIVIAL,
            "µs a task",
            {"procession": lambda: timed(trivial(client(), 2 * CORES), TRIVIAL - 1), "client.map": dask_map},
            {"at least 20 times less than client.map": ratio_at_least(20, "client.map")},
            frozenset({"client.map"}),
        ),
        Work(
            f"chain of {LINKS:,} tasks on that cluster, each with the value of the one before",
            LINKS,
            "µs a task",
            {"procession": lambda: timed(chain(client()), LINKS - 1), "client.submit each": dask_chain},
            {"at least 3 times less than client.submit": ratio_at_least(3, "client.submit each")},
            frozenset({"client.submit each"}),
        ),
        Work(
            f"{TRIVIAL:,} trivial tasks on Ray with {CORES} processors",
            TRIVIAL,
            "µs a task",
            {"procession": on_ray, "a Ray task each": ray_each},
            {"at least 20 times less than a Ray task each": ratio_at_least(20, "a Ray task each")},
            frozenset({"a Ray task each"}),
        ),
        Work(
            f"{COROUTINES:,} trivial coroutines",
            COROUTINES,
            "µs a task",
            {"procession, 100 at a time": coroutines, "asyncio.gather, all at once": gathered},
            {"at most 6 µs a task": at_most(6, "procession, 100 at a time")},
        ),
    ]


if __name__ == "__main__":
    compare("clusters and coroutines", "benchmarks-clusters.md", __doc__, lambda _: works())
