"""Where calls can be made, by name: here, in worker processes, in executors of others, on real clusters."""

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context

import pytest

from clusters import dask_here, ray_here
from procession import Process, WorkerProcesses

HERE = ["threads", "processes"]
MADE = {
    "worker processes": lambda: WorkerProcesses(2),
    "threads of others": lambda: ThreadPoolExecutor(2),
    "processes of others": lambda: ProcessPoolExecutor(2, mp_context=get_context("spawn")),
    "dask": dask_here,
    "ray": ray_here,
}
NEEDED = {"dask": "distributed", "ray": "ray"}


def made_on(where, name):
    """Yield what makes a process of that name whose calls are made there, by two workers."""
    if where in HERE:
        yield partial(Process, name, "parallel", 2, executor=where)
        return
    if where in NEEDED:
        pytest.importorskip(NEEDED[where])
    with MADE[where]() as executor:
        yield partial(Process, name, "parallel", 2, executor=executor)
