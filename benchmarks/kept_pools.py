"""Work on pools that are kept from one run to the next, and on libraries with threads of their own."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from importlib import import_module
from typing import Any

from pools import SPAWN, WORKERS, same

from procession import Process, WorkerProcesses

RUNS, TASKS, PRODUCTS = 10, 20, 60


def product(seed: int) -> float:
    """Multiply matrices with NumPy, ten times."""
    import numpy as np

    matrix = np.random.default_rng(seed).random((300, 300))
    for _ in range(10):
        matrix = matrix @ matrix.T
        matrix /= np.abs(matrix).max()
    return float(matrix.sum())


def import_pandas() -> None:
    """Import what many programs import, and so each of their workers."""
    import_module("pandas")


def one_thread() -> None:
    """Have BLAS start one thread: set before NumPy is imported, as by an initializer."""
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"


@cache
def _workers() -> WorkerProcesses:
    return WorkerProcesses(WORKERS, initializer=import_pandas)


@cache
def _standard() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(WORKERS, mp_context=SPAWN, initializer=import_pandas)


def let_go() -> None:
    """End the pools that were kept."""
    _workers().shutdown()
    _standard().shutdown()


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _executed(function: Callable[[int], object], count: int, executor: Any) -> list[Any]:
    process = Process("kept", "parallel", WORKERS, executor=executor)
    process.map(function, range(count))
    results: list[Any] = process.execute()[0]
    return results


def runs_on_workers() -> float:
    """Execute small processes over one `WorkerProcesses`."""
    return _seconds(lambda: [_executed(same, TASKS, _workers()) for _ in range(RUNS)])


def runs_on_standard() -> float:
    """Execute them over one ProcessPoolExecutor."""
    return _seconds(lambda: [_executed(same, TASKS, _standard()) for _ in range(RUNS)])


def runs_by_map() -> float:
    """Map as many times over the pool itself."""
    return _seconds(lambda: [list(_standard().map(same, range(TASKS))) for _ in range(RUNS)])


def runs_by_joblib() -> float:
    """Call joblib as many times; its workers are kept, too."""
    from joblib import Parallel, delayed

    return _seconds(lambda: [Parallel(WORKERS)(delayed(same)(number) for number in range(TASKS)) for _ in range(RUNS)])


def products_on_processes() -> float:
    """Compute on workers of the run."""
    return _seconds(lambda: _executed(product, PRODUCTS, "processes"))


def products_on_workers() -> float:
    """Compute on workers that are there."""
    return _seconds(lambda: _executed(product, PRODUCTS, _workers()))


def products_by_joblib() -> float:
    """Compute with joblib, whose workers are there."""
    from joblib import Parallel, delayed

    return _seconds(lambda: Parallel(WORKERS)(delayed(product)(number) for number in range(PRODUCTS)))


def products_by_standard(*, limited: bool) -> float:
    """Compute on a ProcessPoolExecutor, with or without an initializer that limits the threads."""

    def run() -> None:
        with ProcessPoolExecutor(WORKERS, mp_context=SPAWN, initializer=one_thread if limited else None) as pool:
            list(pool.map(product, range(PRODUCTS)))

    return _seconds(run)
