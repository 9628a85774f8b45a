"""Where tasks run: worker processes, Dask, Ray and an event loop, each beside what else one would use there.

    pip install -e ".[benchmark,ray]"
    python benchmarks/executors.py               prints the table
    python benchmarks/executors.py --write       ... and puts it into docs/benchmarks-executors.md

Workers and clusters are started before the clock is, of all contestants alike; those of `executor="processes"`, which
start with each run, count from the start of the first task. Each result is checked.
"""

import argparse
import asyncio
import os
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from measuring import ROOT, Measured, Timed, Work, at_most, machine, measure, ratio_at_least, ratio_at_most, table
from work import after, busy, same, same_awaited

from procession import Process

CORES = 2
BUSY_S, BUSY = 0.01, 200
TRIVIAL, LINKS, COROUTINES = 10_000, 1_000, 100_000


# Worker processes


def span(process: Process) -> float:
    """Execute, and return the seconds from the start of the first task to the end of the last."""
    process.execute()
    run = process.last_run
    assert run is not None
    starts = [outcome.start for outcome in run.outcomes if outcome.start is not None]
    ends = [
        outcome.start + outcome.duration for outcome in run.outcomes if outcome.start is not None and outcome.duration
    ]
    return max(ends) - min(starts)


def busy_process() -> float:
    """Compute on worker processes."""
    process = Process("busy", "parallel", CORES, executor="processes")
    for _ in range(BUSY):
        process.add_task(busy, BUSY_S)
    return span(process)


def raw_processes() -> float:
    """Compute in processes that each have their share from the beginning."""
    context = get_context("spawn")
    pipes = [context.Pipe() for _ in range(CORES)]
    processes = [context.Process(target=_share, args=(theirs, BUSY // CORES)) for _, theirs in pipes]
    for each in processes:
        each.start()
    for ours, _ in pipes:
        ours.recv()
    start = time.perf_counter()
    for ours, _ in pipes:
        ours.send(None)
    for ours, _ in pipes:
        ours.recv()
    taken = time.perf_counter() - start
    for each in processes:
        each.join()
    return taken


def _share(pipe: Connection, count: int) -> None:
    pipe.send(None)
    pipe.recv()
    for _ in range(count):
        busy(BUSY_S)
    pipe.send(None)


@cache
def pool() -> Executor:
    """Return the standard library's pool, with its workers started."""
    pool = ProcessPoolExecutor(CORES, mp_context=get_context("spawn"))
    list(pool.map(busy, [0.2] * CORES))
    return pool


@cache
def loky() -> Executor:
    """Return loky's pool, with its workers started."""
    from loky import get_reusable_executor

    pool: Executor = get_reusable_executor(CORES, timeout=600)
    list(pool.map(busy, [0.2] * CORES))
    return pool


def mapped(executor: Executor, function: Callable[[Any], object], values: list[Any], chunk: int) -> float:
    """Map on a pool."""
    start = time.perf_counter()
    results = list(executor.map(function, values, chunksize=chunk))
    taken = time.perf_counter() - start
    assert len(results) == len(values)
    return taken


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
def client() -> Any:
    """Return the client of a Dask cluster on this machine."""
    from distributed import Client, LocalCluster

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Client(LocalCluster(n_workers=CORES, threads_per_worker=1, dashboard_address=":0"))  # type: ignore[no-untyped-call]


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
def ray() -> Any:
    """Return Ray, connected to one on this machine."""
    import ray

    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    ray.init(
        num_cpus=CORES, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": path}}
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
    busy_ones: dict[str, Timed] = {
        "procession": busy_process,
        "two raw processes": raw_processes,
        "ProcessPoolExecutor": lambda: mapped(pool(), busy, [BUSY_S] * BUSY, 1),
        "loky": lambda: mapped(loky(), busy, [BUSY_S] * BUSY, 1),
    }
    return [
        Work(
            f"{BUSY} tasks of {BUSY_S * 1e3:.0f} ms of Python on {CORES} worker processes; "
            f"ideal {BUSY * BUSY_S / CORES * 1e3:,.0f} ms",
            1,
            "ms",
            busy_ones,
            {"at most 1.05 times two raw processes": ratio_at_most(1.05, "two raw processes")},
        ),
        Work(
            f"{TRIVIAL:,} trivial tasks on {CORES} worker processes",
            TRIVIAL,
            "µs a task",
            {
                "procession": lambda: span(trivial("processes")),
                "ProcessPoolExecutor, chunks of 1": lambda: mapped(pool(), same, list(range(TRIVIAL)), 1),
                "ProcessPoolExecutor, chunks of 100": lambda: mapped(pool(), same, list(range(TRIVIAL)), 100),
            },
            {"at most 5 µs a task": at_most(5)},
        ),
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


def write(results: list[Measured], where: str) -> None:
    """Put the tables into the docs."""
    head = (__doc__ or "").split("\n\n")
    text = f"# Benchmarks: where tasks run\n\nMade by `benchmarks/executors.py`. {' '.join(head[2].split())}\n\n"
    text += f"Measured on {where}.\n"
    (ROOT / "docs" / "benchmarks-executors.md").write_text(text + table(results) + "\n", encoding="utf-8")


def main() -> None:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description="Measure where tasks run.")
    parser.add_argument("--rounds", type=int, default=7, help="how often each contestant runs (default: 7)")
    parser.add_argument("--only", default="", help="only works whose title contains this")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks-executors.md")
    options = parser.parse_args()
    results: list[Measured] = []
    for work in works():
        if options.only in work.title:
            print(work.title, file=sys.stderr)
            results.append(measure(work, options.rounds))
    print(machine())
    print(table(results))
    if options.write:
        write(results, machine())


if __name__ == "__main__":
    main()
