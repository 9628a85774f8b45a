"""Where tasks run: worker processes of Procession beside other pools of them, on the same work, in one run.

    pip install -e ".[benchmark]"
    python benchmarks/executors.py               prints the tables
    python benchmarks/executors.py --write       ... and puts them into docs/benchmarks-executors.md
    python benchmarks/executors.py --rounds 3 --tasks 20000      quicker, and rougher

All pools have two workers, started with spawn. What is measured is the time from when both are there until both have
been ended; starting them has a table of its own. A round runs each contestant once, and every round starts with another
of them. A figure is the median over the rounds; a ratio is the median of the rounds' ratios. "Not behind" holds if 1 is
not below the interval in which the true median of the ratios lies with 95 % confidence (by the sign test).

A virtual machine may run a process that never rests slower than one that does, which then looks faster than it is: the
raw processes are there in both kinds.
"""

import gc
import random
from collections.abc import Callable

import large_values
from kept_pools import (
    PRODUCTS,
    RUNS,
    TASKS,
    let_go,
    products_by_joblib,
    products_by_standard,
    products_on_processes,
    products_on_workers,
    runs_by_joblib,
    runs_by_map,
    runs_on_standard,
    runs_on_workers,
)
from measuring import (
    Work,
    at_most,
    compare,
    not_behind,
    ratio_at_most,
)
from pools import (
    Job,
    Ran,
    added,
    clocked,
    idle,
    same,
    span,
    spin,
    turns_of,
    whole,
    with_loky,
    with_mpire,
    with_procession,
    with_raw_processes,
    with_standard,
)

_BUSY, _BUSY_S, _REST_S = 200, 0.01, 0.0002


def timed(run: Callable[..., Ran], job: Job, *how: float) -> float:
    """Return how long a contestant took, in seconds; its results must be those of a loop."""
    gc.collect()
    results, took = run(job, *how)
    if job[0] is not span and list(results[:3]) != [job[0](argument) for argument in job[1][:3]]:
        raise AssertionError("wrong results")
    return took


def works(n: int) -> list[Work]:
    """Return everything that is measured, with `n` trivial tasks."""
    busy = (spin, [turns_of(_BUSY_S)] * _BUSY)
    watched = (clocked, busy[1])
    trivial, tenth = (same, range(n)), (same, range(n // 10))
    waits = [0.05] * 100 + [0.0] * 1900
    random.Random(0).shuffle(waits)
    mixed = (span, waits)
    return [
        Work(
            f"{_BUSY} tasks of {_BUSY_S * 1e3:.0f} ms of pure Python; ideal {_BUSY * _BUSY_S / 2 * 1e3:,.0f} ms",
            1,
            "ms",
            {
                "procession": lambda: timed(with_procession, busy),
                "two raw processes": lambda: timed(with_raw_processes, busy),
                f"two raw processes that rest {_REST_S * 1e3:.1f} ms before each task": lambda: timed(
                    with_raw_processes, busy, _REST_S
                ),
                "ProcessPoolExecutor": lambda: timed(with_standard, busy),
                "loky": lambda: timed(with_loky, busy),
                "mpire": lambda: timed(with_mpire, busy),
            },
            {
                "within 5 % of two raw processes": ratio_at_most(1.05, "two raw processes"),
                **{f"not behind {name}": not_behind(name) for name in ("ProcessPoolExecutor", "loky", "mpire")},
            },
        ),
        Work(
            "what comes to these tasks: the whole, less the time in the calls",
            1,
            "ms",
            {
                "procession": lambda: added(with_procession(watched)),
                "two raw processes": lambda: added(with_raw_processes(watched)),
                "ProcessPoolExecutor": lambda: added(with_standard(watched)),
                "loky": lambda: added(with_loky(watched)),
                "mpire": lambda: added(with_mpire(watched)),
            },
            {f"not more than with {name}": not_behind(name) for name in ("ProcessPoolExecutor", "loky", "mpire")},
        ),
        Work(
            f"{n:,} trivial tasks",
            n,
            "µs a task",
            {
                "procession": lambda: timed(with_procession, trivial),
                "two raw processes": lambda: timed(with_raw_processes, trivial),
                "ProcessPoolExecutor, chunksize 100": lambda: timed(with_standard, trivial, 100),
                "loky, chunksize 100": lambda: timed(with_loky, trivial, 100),
                "mpire, chunks of 100": lambda: timed(with_mpire, trivial, 100),
                "ProcessPoolExecutor, chunksize 1": lambda: timed(with_standard, tenth) * 10,
                "loky, chunksize 1": lambda: timed(with_loky, tenth) * 10,
            },
            {"at most 5 µs a task": at_most(5)},
            frozenset({"ProcessPoolExecutor, chunksize 1", "loky, chunksize 1"}),
        ),
        Work(
            "workers without a task, with 1,900 trivial tasks and 100 waits of 50 ms in any order",
            1,
            "% idle",
            {
                "procession": lambda: idle(with_procession(mixed)),
                "ProcessPoolExecutor, chunksize 1": lambda: idle(with_standard(mixed, 1)),
                "ProcessPoolExecutor, chunksize 100": lambda: idle(with_standard(mixed, 100)),
            },
            {"at most 5 %": at_most(5)},
        ),
        Work(
            "from nothing to two trivial results, and back to nothing",
            1,
            "ms",
            {
                "procession": lambda: whole(with_procession),
                "two raw processes": lambda: whole(with_raw_processes),
                "ProcessPoolExecutor": lambda: whole(with_standard),
                "loky": lambda: whole(with_loky),
            },
            {},
        ),
        *large_values.works(),
        Work(
            f"{RUNS} runs of {TASKS} trivial tasks in a loop, on workers that are there",
            1,
            "ms",
            {
                "procession": runs_on_workers,
                "procession over a ProcessPoolExecutor": runs_on_standard,
                "ProcessPoolExecutor": runs_by_map,
                "joblib": runs_by_joblib,
            },
            {"at most 200 ms": at_most(200)},
        ),
        Work(
            f"{PRODUCTS} products of NumPy; workers are started where that is not said otherwise",
            1,
            "ms",
            {
                "procession": products_on_workers,
                'procession, executor="processes", started': products_on_processes,
                "joblib": products_by_joblib,
                "ProcessPoolExecutor, started": lambda: products_by_standard(limited=False),
                "ProcessPoolExecutor, started, one thread by its initializer": lambda: products_by_standard(
                    limited=True
                ),
            },
            {"at most 1.2 times joblib": ratio_at_most(1.2, "joblib")},
        ),
    ]


if __name__ == "__main__":
    compare("worker processes", "benchmarks-executors.md", __doc__, works, 100_000, rounds=15)
    let_go()
