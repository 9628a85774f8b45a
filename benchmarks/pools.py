"""The work of `executors.py`, as each contestant does it on worker processes, all of them spawned.

Importable from every worker, and light, for that reason.
"""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from multiprocessing.connection import Connection
from tempfile import TemporaryDirectory
from typing import Any

from procession import Process

WORKERS = 2
SPAWN = get_context("spawn")

Job = tuple[Callable[[Any], object], Sequence[object]]
"""What to call, with each of these."""


def same(value: object) -> object:
    """Return the argument: the trivial task."""
    return value


def spin(turns: int) -> int:
    """Keep a core busy in pure Python."""
    total = 0
    for turn in range(turns):
        total += turn & 3
    return total


def clocked(turns: int) -> float:
    """Do the same; return how long it took, in seconds."""
    start = time.perf_counter()
    spin(turns)
    return time.perf_counter() - start


@cache
def turns_of(seconds: float) -> int:
    """Return how many turns `spin` makes in so many seconds here, at its best."""
    turns, best = 200_000, float("inf")
    for _ in range(20):
        start = time.perf_counter()
        spin(turns)
        best = min(best, time.perf_counter() - start)
    return round(turns * seconds / best)


def span(seconds: float) -> tuple[int, float, float]:
    """Wait, or return at once; return in which process, from when to when."""
    start = time.perf_counter()
    if seconds:
        time.sleep(seconds)
    return os.getpid(), start, time.perf_counter()


def meet(folder: str) -> None:
    """Return when there are as many here as there are workers: then all of them have been started."""
    with open(f"{folder}/{os.getpid()}", "w"):  # noqa: PTH123
        pass
    while len(os.listdir(folder)) < WORKERS:  # noqa: PTH208
        time.sleep(0.001)


# Contestants: each returns the results, and the seconds from when all workers were there until they have been ended

Ran = tuple[Sequence[Any], float]


def with_procession(job: Job, meet: Callable[[str], object] = meet) -> Ran:
    """Execute a process whose first tasks wait until all workers are there."""
    process = Process("pools", "parallel", WORKERS, executor="processes")
    with TemporaryDirectory() as folder:
        for _ in range(WORKERS):
            process.add_task(meet, folder)
        for argument in job[1]:
            process.add_task(job[0], argument)
        run = process.start()
        results = run.result()
    there = max((outcome.start or 0.0) + (outcome.duration or 0.0) for outcome in run.outcomes[:WORKERS])
    return results[WORKERS:], run.duration - there


def with_executor(pool: Executor, job: Job, chunksize: int, meet: Callable[[str], object] = meet) -> Ran:
    """Map over an executor."""
    with TemporaryDirectory() as folder:
        for future in [pool.submit(meet, folder) for _ in range(WORKERS)]:
            future.result()
    start = time.perf_counter()
    results = list(pool.map(job[0], job[1], chunksize=chunksize))
    pool.shutdown()
    return results, time.perf_counter() - start


def with_standard(job: Job, chunksize: int = 1, meet: Callable[[str], object] = meet) -> Ran:
    """Map over a ProcessPoolExecutor."""
    return with_executor(ProcessPoolExecutor(WORKERS, mp_context=SPAWN), job, chunksize, meet)


def with_loky(job: Job, chunksize: int = 1, meet: Callable[[str], object] = meet) -> Ran:
    """Map over loky's executor."""
    from loky import ProcessPoolExecutor as LokyExecutor

    return with_executor(LokyExecutor(WORKERS), job, chunksize, meet)


def with_mpire(job: Job, chunksize: int = 1, meet: Callable[[str], object] = meet) -> Ran:
    """Map over mpire's pool."""
    from mpire.pool import WorkerPool
    from mpire.utils import make_single_arguments

    with WorkerPool(n_jobs=WORKERS, start_method="spawn", keep_alive=True) as pool:
        with TemporaryDirectory() as folder:
            pool.map(meet, [folder] * WORKERS, chunk_size=1)
        start = time.perf_counter()
        arguments = make_single_arguments(job[1], generator=False)
        results = pool.map(
            job[0],
            arguments,
            iterable_len=len(job[1]),
            chunk_size=chunksize,
            concatenate_numpy_output=False,  # else arrays become one
        )
        pool.stop_and_join()
    return results, time.perf_counter() - start


def with_raw_processes(job: Job, rest: float = 0.0) -> Ran:
    """Give each of two processes half of the arguments at once, over a pipe: the least there is.

    With `rest`, they sleep for so many seconds before each call.
    """
    pipes = []
    processes = []
    for _ in range(WORKERS):
        ours, theirs = SPAWN.Pipe()
        processes.append(SPAWN.Process(target=_serve, args=(theirs,)))
        processes[-1].start()
        theirs.close()
        ours.recv()
        pipes.append(ours)
    start = time.perf_counter()
    for place, pipe in enumerate(pipes):
        pipe.send((job[0], list(job[1][place::WORKERS]), rest))
    parts = [pipe.recv() for pipe in pipes]
    for process in processes:
        process.join()
    took = time.perf_counter() - start
    results: list[object] = [None] * len(job[1])
    for place, part in enumerate(parts):
        results[place::WORKERS] = part
    return results, took


def _serve(pipe: Connection) -> None:
    pipe.send(None)
    function, arguments, rest = pipe.recv()
    results = []
    for argument in arguments:
        if rest:
            time.sleep(rest)
        results.append(function(argument))
    pipe.send(results)


def whole(run: Callable[[Job], Ran]) -> float:
    """Return how long it takes from nothing to two trivial results and back to nothing, in seconds."""
    start = time.perf_counter()
    run((same, [1, 2]))
    return time.perf_counter() - start


def added(ran: Ran) -> float:
    """Return how much longer it took than the calls themselves would, shared among the workers, in seconds."""
    calls, took = ran
    return took - sum(calls) / WORKERS


def idle(ran: Ran) -> float:
    """Return the share of the workers' time in which they made no call, from the first start to the last end."""
    spans: Sequence[tuple[int, float, float]] = ran[0]
    busy = sum(end - start for _, start, end in spans)
    return 1 - busy / (WORKERS * (max(end for _, _, end in spans) - min(start for _, start, _ in spans)))
