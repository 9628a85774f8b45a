"""Real work: graphs, requests, files and calculations, beside what else one would use and a simulated schedule.

    pip install -e ".[benchmark,ray]"
    python benchmarks/real_work.py               prints the tables
    python benchmarks/real_work.py --write       ... and puts them into docs/benchmarks-real-work.md and the README
    python benchmarks/real_work.py --rounds 1 --tasks 40         quicker, and rougher

A figure is how many times as long it takes as the simulated schedule, in which the first task that is ready starts
whenever a worker is free, and nothing else takes any time. Of tasks that compute, it takes the time that each took in
the run itself, since a core is slower while the others are busy. A round runs each contestant once, and every round
starts with another of them; a figure is the median over the rounds, a ratio that of the rounds' ratios. Worker
processes and clusters are started before the clock is, for all contestants alike. Each result is checked.
"""

import asyncio
import gc
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import clusters
from fetching import fetch, fetch_awaited, served
from graphs import (
    Call,
    Graph,
    Kind,
    Node,
    Value,
    added_to,
    check,
    computes,
    for_dask,
    graph,
    in_turns,
    schedule,
    waits,
    waits_awaited,
    with_asyncio,
    with_executor,
)
from measuring import TIMES_SCHEDULE, Measured, Timed, Work, at_most, compare, ratio_at_most, shown, write_figures
from pools import SPAWN, WORKERS, meet
from words import Counted, count_words, summed, written

from procession import Process

KINDS: tuple[Kind, ...] = ("layers", "chains", "fan-ins")
PLACES, CALL_S = 4, 0.2
SOON_S, LATE_S = 0.005, 0.05


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Return how long something took, in seconds, and what it returned."""
    gc.collect()
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


# Graphs that wait


def waiting(nodes: Graph, workers: int) -> dict[str, Timed]:
    """Return who runs a graph of tasks that wait, on threads or on an event loop."""
    from dask.threaded import get

    best = schedule(nodes, workers)

    def by(run: Callable[[], Sequence[Value]]) -> Timed:
        def measured() -> float:
            took, values = timed(run)
            check(nodes, values)
            return took / best

        return measured

    def with_procession(call: Callable[..., Any]) -> Sequence[Value]:
        process = Process("graph", "parallel", workers)
        added_to(process, nodes, call)
        return process.execute()

    def with_threads() -> Sequence[Value]:
        with ThreadPoolExecutor(workers) as pool:
            return with_executor(nodes, pool, waits)

    def with_dask() -> Sequence[Value]:
        values: Sequence[Value] = get(*for_dask(nodes, waits), num_workers=workers)
        return values

    return {
        "procession": by(lambda: with_procession(waits)),
        "procession, coroutines": by(lambda: with_procession(waits_awaited)),
        "ThreadPoolExecutor by hand": by(with_threads),
        "dask.get, threads": by(with_dask),
        "asyncio by hand": by(lambda: asyncio.run(with_asyncio(nodes, workers))),
    }


# Requests


@cache
def port() -> int:
    """Return where the server listens, after starting it."""
    return RESOURCES.enter_context(served())


def requesting(delays: Sequence[int], workers: int) -> dict[str, Timed]:
    """Return who makes requests that take so many microseconds each."""
    from joblib import Parallel, delayed

    best = schedule([Node(delay / 1e6, ()) for delay in delays], workers)
    ports = [port()] * len(delays)

    def by(run: Callable[[], Sequence[int]]) -> Timed:
        def measured() -> float:
            took, said = timed(run)
            if list(said) != list(delays):
                raise AssertionError("wrong results")
            return took / best

        return measured

    def with_procession(function: Callable[..., Any]) -> Sequence[int]:
        process = Process("requests", "parallel", workers)
        process.map(function, ports, delays)
        said: Sequence[int] = process.execute()[0]
        return said

    def with_threads() -> Sequence[int]:
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(fetch, ports, delays))

    def with_joblib() -> Sequence[int]:
        calls = [delayed(fetch)(*both) for both in zip(ports, delays, strict=True)]
        said: Sequence[int] = Parallel(n_jobs=workers, prefer="threads")(calls)
        return said

    async def with_loop() -> Sequence[int]:
        limit = asyncio.Semaphore(workers)

        async def one(at: int, delay: int) -> int:
            async with limit:
                return await fetch_awaited(at, delay)

        return await asyncio.gather(*map(one, ports, delays))

    return {
        "procession": by(lambda: with_procession(fetch)),
        "procession, coroutines": by(lambda: with_procession(fetch_awaited)),
        "ThreadPoolExecutor.map": by(with_threads),
        "joblib, threads": by(with_joblib),
        "asyncio by hand": by(lambda: asyncio.run(with_loop())),
    }


# What computes, on worker processes


def started(pool: Executor) -> Executor:
    """Return a pool of processes when all of them are there."""
    with TemporaryDirectory() as folder:
        for future in [pool.submit(meet, folder) for _ in range(WORKERS)]:
            future.result()
    return pool


def on_processes(fill: Callable[[Process], object]) -> tuple[float, list[Any]]:
    """Execute what `fill` adds on worker processes; return how long that took once all were there, and the results."""
    process = Process("computing", "parallel", WORKERS, executor="processes")
    with TemporaryDirectory() as folder:
        for _ in range(WORKERS):
            process.add_task(meet, folder)
        fill(process)
        gc.collect()
        run = process.start()
        results = run.result()
    there = max((outcome.start or 0.0) + (outcome.duration or 0.0) for outcome in run.outcomes[:WORKERS])
    return run.duration - there, results[WORKERS:]


def computing(nodes: Graph) -> dict[str, Timed]:
    """Return who runs a graph of tasks that compute."""
    from dask.multiprocessing import get

    turns = in_turns(nodes)

    def by(run: Callable[[], tuple[float, Sequence[Value]]]) -> Timed:
        def measured() -> float:
            took, values = run()
            check(nodes, values)
            real = [Node(seconds, node.needs) for node, (_, seconds) in zip(nodes, values, strict=True)]
            return took / schedule(real, WORKERS)

        return measured

    def with_pool(run: Callable[[Executor], Sequence[Value]]) -> tuple[float, Sequence[Value]]:
        pool = started(ProcessPoolExecutor(WORKERS, mp_context=SPAWN))

        def whole() -> Sequence[Value]:
            with pool:
                return run(pool)

        return timed(whole)

    def with_dask(pool: Executor) -> Sequence[Value]:
        call: Call = computes
        dsk, keys = for_dask(turns, call)
        values: Sequence[Value] = get(dsk, keys, pool=pool, num_workers=WORKERS)
        return values

    return {
        "procession": by(lambda: on_processes(lambda process: added_to(process, turns, computes))),
        "ProcessPoolExecutor by hand": by(lambda: with_pool(lambda pool: with_executor(turns, pool, computes))),
        "dask.get, processes": by(lambda: with_pool(with_dask)),
    }


def reducing(files: Sequence[Path]) -> dict[str, Timed]:
    """Return who counts the words of files, and adds them up: in this process, unless it says otherwise."""
    expected = summed([count_words(file) for file in files])[0]

    def by(run: Callable[[], tuple[float, tuple[Sequence[Counted], Counted]]]) -> Timed:
        def measured() -> float:
            took, (parts, (total, last_s)) = run()
            if total != expected:
                raise AssertionError("wrong results")
            nodes = [Node(seconds, ()) for _, seconds in parts]
            return took / schedule([*nodes, Node(last_s, tuple(range(len(nodes))))], WORKERS)

        return measured

    def with_procession() -> tuple[float, tuple[Sequence[Counted], Counted]]:
        took, (parts,) = on_processes(lambda process: process.map(count_words, files))
        adding, total = timed(lambda: summed(parts))
        return took + adding, (parts, total)

    def with_procession_throughout() -> tuple[float, tuple[Sequence[Counted], Counted]]:
        took, (parts, total) = on_processes(lambda process: process.task(summed, process.map(count_words, files)))
        return took, (parts, total)

    def with_pool() -> tuple[float, tuple[Sequence[Counted], Counted]]:
        pool = started(ProcessPoolExecutor(WORKERS, mp_context=SPAWN))

        def whole() -> tuple[Sequence[Counted], Counted]:
            with pool:
                parts = list(pool.map(count_words, files))
            return parts, summed(parts)

        return timed(whole)

    def with_joblib() -> tuple[float, tuple[Sequence[Counted], Counted]]:
        from joblib import Parallel, delayed

        with TemporaryDirectory() as folder, Parallel(n_jobs=WORKERS, batch_size=1) as parallel:
            parallel([delayed(meet)(folder) for _ in range(WORKERS)])

            def whole() -> tuple[Sequence[Counted], Counted]:
                parts: list[Counted] = parallel([delayed(count_words)(file) for file in files])
                return parts, summed(parts)

            return timed(whole)

    return {
        "procession": by(with_procession),
        "procession, the sum as a task on a worker": by(with_procession_throughout),
        "ProcessPoolExecutor.map": by(with_pool),
        "joblib, processes": by(with_joblib),
    }


@cache
def files(count: int) -> list[Path]:
    """Return so many files of words, after writing them."""
    return written(Path(RESOURCES.enter_context(TemporaryDirectory())), count)


# Clusters


def calling(count: int) -> dict[str, dict[str, Timed]]:
    """Return who makes calls on a Dask cluster, and on Ray."""
    calls = [CALL_S] * count
    best = schedule([Node(seconds, ()) for seconds in calls], PLACES)

    def by(start: Callable[..., Any], run: Callable[[Any, Sequence[float]], object]) -> Timed:
        def measured() -> float:
            cluster = start(PLACES)
            run(cluster, calls[:PLACES])  # the first that is asked for waits for the workers
            took, results = timed(lambda: run(cluster, calls))
            if results != [None] * count:
                raise AssertionError("wrong results")
            return took / best

        return measured

    def with_procession(executor: Any, calls: Sequence[float]) -> object:
        process = Process("calls", "parallel", PLACES, executor=executor)
        process.map(time.sleep, calls)
        return process.execute()[0]

    def with_client(client: Any, calls: Sequence[float]) -> object:
        return client.gather(client.map(time.sleep, calls, pure=False))

    def with_remotes(ray: Any, calls: Sequence[float]) -> object:
        remote = ray.remote(nap)
        return ray.get([remote.remote(seconds) for seconds in calls])

    return {
        f"on {PLACES} places of a Dask cluster": {
            "procession": by(clusters.client, with_procession),
            "client.map": by(clusters.client, with_client),
        },
        f"on {PLACES} places of Ray": {
            "procession": by(clusters.ray, lambda _, calls: with_procession("ray", calls)),
            "a Ray task each": by(clusters.ray, with_remotes),
        },
    }


def nap(seconds: float) -> None:
    """Sleep, as a function that Ray takes: it wants one that is written in Python."""
    time.sleep(seconds)


# All of it

RESOURCES = ExitStack()
"""What is there until the end: a server, files."""


def work(title: str, contestants: dict[str, Timed], limit: float, **how: Any) -> Work:
    """Return a piece of work with the goals that all have."""
    awaited = "procession, coroutines"
    peers = [name for name in contestants if not name.startswith("procession") and not name.startswith("asyncio")]

    def beside(figures: dict[str, float]) -> tuple[bool, str]:
        best = min(peers, key=lambda peer: figures[peer])
        ratio = figures[f"procession/{best}"]
        return ratio <= 1.02, f"{ratio:.3f} times {best}"

    goals = {
        f"at most {limit:g} times the simulated schedule": at_most(limit),
        "at most 1.02 times the best peer": beside,
    }
    if awaited in contestants:
        goals[f"coroutines at most {limit:g} times"] = at_most(limit, awaited)
        goals["coroutines at most 1.02 times asyncio by hand"] = ratio_at_most(1.02, "asyncio by hand", awaited)
    return Work(title, 1, TIMES_SCHEDULE, contestants, goals, **how)


def works(n: int) -> list[Work]:
    """Return everything that is measured, with `n` tasks."""
    span = f"{SOON_S * 1e3:g} to {LATE_S * 1e3:g} ms"
    chance = random.Random(0)
    delays = [round(chance.uniform(SOON_S, LATE_S) * 1e6) for _ in range(n * 5 // 2)]
    slow, hard = [(kind, graph(kind, n)) for kind in KINDS], [(kind, graph(kind, n // 2)) for kind in KINDS]
    return [
        *(
            work(f"{len(nodes)} waiting tasks of {span} in {kind}, {workers} workers", waiting(nodes, workers), 1.05)
            for kind, nodes in slow
            for workers in (8, 4, 32)
        ),
        *(
            work(f"{len(delays)} requests that take {span}, {workers} workers", requesting(delays, workers), 1.05)
            for workers in (8, 4, 32)
        ),
        *(
            work(f"{len(nodes)} computing tasks of {span} in {kind}, {WORKERS} processes", computing(nodes), 1.1)
            for kind, nodes in hard
        ),
        work(
            f"map-reduce of {n // 2} files, counted on {WORKERS} processes and added up in this one",
            reducing(files(n // 2)),
            1.1,
        ),
        *(work(f"{n} calls of {CALL_S:g} s {where}", those, 1.1) for where, those in calling(n).items()),
    ]


def publish(results: list[Measured]) -> None:
    """Put the first row, and the first of each other kind of work, into the README."""
    rows: dict[str, str] = {}
    for one, figures, _, _ in results:
        kind = one.title.split()[1]
        others = "; ".join(f"{name} {shown(figures[name])}" for name in one.contestants if name != "procession")
        rows.setdefault(kind, f"| {one.title} | {shown(figures['procession'])} {TIMES_SCHEDULE} | {others} |")
    write_figures(list(rows.values()), real=True)


if __name__ == "__main__":
    with RESOURCES:
        compare("real work", "benchmarks-real-work.md", __doc__, works, 200, rounds=3, publish=publish)
