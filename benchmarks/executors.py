"""Where tasks run: worker processes of Procession beside other pools of them, on the same work, in one run.

    pip install -e ".[benchmark]"
    python benchmarks/executors.py               prints the tables
    python benchmarks/executors.py --write       ... and puts them into docs/benchmarks-executors.md
    python benchmarks/executors.py --rounds 3 --tasks 20000      quicker, and rougher

All pools have two workers, started with spawn. What is measured is the time from when both are there until both have
been ended; starting them has a table of its own. A round runs each contestant once, and every round starts with another
of them. A figure is the median over the rounds; a ratio is the median of the rounds' ratios.
"""

import argparse
import gc
import random
import sys
from collections.abc import Callable

from measuring import ROOT, Measured, Work, at_most, machine, measure, ratio_at_most, shown, table
from pools import (
    Job,
    Ran,
    idle,
    same,
    span,
    spin,
    turns_of,
    whole,
    with_loky,
    with_procession,
    with_raw_processes,
    with_standard,
)

_BUSY, _BUSY_S = 200, 0.01


def timed(run: Callable[..., Ran], job: Job, *how: int) -> float:
    """Return how long a contestant took, in seconds; its results must be those of a loop."""
    gc.collect()
    results, took = run(job, *how)
    if job[0] is not span and list(results[:3]) != [job[0](argument) for argument in job[1][:3]]:
        raise AssertionError("wrong results")
    return took


def works(n: int) -> list[Work]:
    """Return everything that is measured, with `n` trivial tasks."""
    busy = (spin, [turns_of(_BUSY_S)] * _BUSY)
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
                "ProcessPoolExecutor": lambda: timed(with_standard, busy),
                "loky": lambda: timed(with_loky, busy),
            },
            {
                "within 5 % of two raw processes": ratio_at_most(1.05, "two raw processes"),
                "not behind ProcessPoolExecutor": ratio_at_most(1.0, "ProcessPoolExecutor"),
                "not behind loky": ratio_at_most(1.0, "loky"),
            },
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
    ]


def write(results: list[Measured], where: str) -> None:
    """Put the tables into docs/benchmarks-executors.md."""
    head = (__doc__ or "").split("\n\n")
    text = f"# Benchmarks: worker processes\n\nMade by `benchmarks/executors.py`. {' '.join(head[2].split())}\n\n"
    text += f"Measured on {where}. Absolute figures move from machine to machine; compare within one table.\n"
    (ROOT / "docs" / "benchmarks-executors.md").write_text(text + table(results) + "\n", encoding="utf-8")


def main() -> None:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description="Measure worker processes beside other pools.")
    parser.add_argument("--rounds", type=int, default=7, help="how often each contestant runs (default: 7)")
    parser.add_argument("--tasks", type=int, default=100_000, help="how many trivial tasks (default: 100,000)")
    parser.add_argument("--only", default="", help="only works whose title contains this")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks-executors.md")
    options = parser.parse_args()
    results: list[Measured] = []
    for work in works(options.tasks):
        if options.only in work.title:
            print(work.title, file=sys.stderr)
            results.append(measure(work, options.rounds))
    print(machine())
    print(table(results))
    if options.write:
        write(results, machine())
    print(f"{len(results)} works, {shown(options.rounds)} rounds", file=sys.stderr)


if __name__ == "__main__":
    main()
