"""Procession beside what else one would use, on the same work, in one run.

    pip install -e ".[benchmark]"
    python benchmarks/compare.py                 prints the table
    python benchmarks/compare.py --write         ... and puts it into docs/benchmarks.md and the README
    python benchmarks/compare.py --rounds 3 --tasks 20000        quicker, and rougher

Each piece of work has contestants. A round runs each of them once, and every round starts with another of them, so
that a disturbance of the machine or a warm cache favours nobody. Before each measurement the garbage collector runs
once; during it, it works as in any program. A figure is the median over the rounds; a ratio is the median of the
rounds' ratios. What is measured is the run; where building is measured, it says so.
"""

import argparse
import sys

from contestants import (
    SLEEP_S,
    SLEEPERS,
    SLEEPS,
    WORKERS,
    add_tasks,
    append_tuples,
    bare_loop,
    chain,
    dask_chain,
    dask_fan_in,
    dask_parallel,
    executor_submit,
    fan_in,
    importing,
    joblib_threads,
    lazy_map,
    pool_map,
    process,
    shared_iterator,
    sleeping,
    third_party_modules,
    tuples,
    waiting_in_executor,
    waiting_in_process,
)
from measuring import (
    ROOT,
    Measured,
    Work,
    at_most,
    between,
    machine,
    measure,
    ratio_at_least,
    ratio_at_most,
    shown,
    table,
    write_figures,
)

# What is compared


def works(n: int) -> list[Work]:
    """Return everything that is measured, with `n` tasks."""
    micro = "µs a task"
    return [
        Work(
            f"parallel: {n:,} trivial tasks, {WORKERS} workers",
            n,
            micro,
            {
                "procession": lambda: process("parallel", n),
                "ThreadPoolExecutor, submit each": lambda: executor_submit(n),
                "ThreadPool.map": lambda: pool_map(n),
                "threads on a shared iterator, context and clocks": lambda: shared_iterator(n),
                "joblib, threads": lambda: joblib_threads(n),
                "dask.get, threads": lambda: dask_parallel(n),
                "bare loop": lambda: bare_loop(n),
            },
            {"at least 20 times less than ThreadPoolExecutor": ratio_at_least(20, "ThreadPoolExecutor, submit each")},
            frozenset({"joblib, threads", "dask.get, threads"}),
        ),
        Work(
            f"sequential: {n:,} trivial tasks",
            n,
            micro,
            {"procession": lambda: process("sequential", n), "bare loop": lambda: bare_loop(n)},
            {"at most 0.4 µs a task": at_most(0.4), "at most 2.5 times the bare loop": ratio_at_most(2.5, "bare loop")},
        ),
        Work(
            f"building: add_task, {n:,} times",
            n,
            micro,
            {"procession": lambda: add_tasks(n), "a method that appends a tuple": lambda: append_tuples(n)},
            {"at most 0.45 µs": at_most(0.45)},
        ),
        Work(
            f"chain: {n:,} tasks, each with the value of the one before",
            n,
            micro,
            {
                "procession": lambda: chain(n),
                "procession, building it": lambda: chain(n, building=True),
                "dask.get, threads": lambda: dask_chain(n),
            },
            {"at most 3 µs a task": at_most(3)},
            frozenset({"dask.get, threads"}),
        ),
        Work(
            f"fan-in: {n:,} tasks, and one with the values of all",
            n,
            micro,
            {"procession": lambda: fan_in(n), "dask.get, threads": lambda: dask_fan_in(n)},
            {"at most 3 µs a task": at_most(3)},
            frozenset({"dask.get, threads"}),
        ),
        Work(
            f"{SLEEPS:,} sleeps of {SLEEP_S * 1e3:.0f} ms on {SLEEPERS} workers; "
            f"ideal {SLEEPS * SLEEP_S / SLEEPERS * 1e3:.1f} ms",
            1,
            "ms",
            {
                "procession": lambda: sleeping("procession"),
                "ThreadPoolExecutor, submit each": lambda: sleeping("executor"),
                "bare threads on a shared iterator": lambda: sleeping("threads"),
            },
            {"at most 1.01 times bare threads": ratio_at_most(1.01, "bare threads on a shared iterator")},
        ),
        Work(
            f"growth: parallel, {10 * n:,} trivial tasks",
            10 * n,
            micro,
            {"procession": lambda: process("parallel", 10 * n), "bare loop": lambda: bare_loop(10 * n)},
            {},
        ),
        Work(
            f"memory: each of {n:,} tasks waiting in a parallel run",
            n,
            "bytes a task",
            {
                "procession": lambda: waiting_in_process(n),
                "ThreadPoolExecutor, submit each": lambda: waiting_in_executor(n),
                "a list of tuples": lambda: tuples(n),
            },
            {"at most 400 bytes": at_most(400)},
        ),
        Work(
            f"memory: each of {10 * n:,} tasks waiting in a parallel run",
            10 * n,
            "bytes a task",
            {"procession": lambda: waiting_in_process(10 * n)},
            {"at most 400 bytes": at_most(400)},
            frozenset({"procession"}),
        ),
        Work(
            "memory: map over a lazy iterable, peak beyond the results",
            1,
            "kB",
            {
                f"procession, {n:,} elements": lambda: lazy_map(n),
                f"procession, {10 * n:,} elements": lambda: lazy_map(10 * n),
            },
            {
                "constant: with ten times the elements at most 1.1 times as much": ratio_at_most(
                    1.1, f"procession, {n:,} elements", f"procession, {10 * n:,} elements"
                )
            },
            frozenset({f"procession, {n:,} elements", f"procession, {10 * n:,} elements"}),
        ),
        Work(
            "a Python that imports ... and ends",
            1,
            "ms",
            {
                "procession": lambda: importing("import procession"),
                "concurrent.futures.thread": lambda: importing("import concurrent.futures.thread"),
                "nothing": lambda: importing("pass"),
            },
            {
                "at most 20 ms over nothing": lambda figures: (
                    figures["procession"] - figures["nothing"] <= 20,
                    f"{figures['procession'] - figures['nothing']:.1f} ms over",
                ),
                "no module from outside the standard library": lambda _: (
                    not third_party_modules(),
                    ", ".join(third_party_modules()) or "none",
                ),
            },
        ),
    ]


HEADLINES = ("parallel:", "chain:", "a Python that imports")
"""How the titles of the works begin that the README shows."""


def headline(results: list[Measured]) -> list[str]:
    """Return the few figures that the README shows, as rows of its table."""
    lines: list[str] = []
    for work, figures, _, _ in results:
        if work.title.startswith(HEADLINES):
            others = "; ".join(
                f"{name} {shown(figures[name])}" for name in work.contestants if not name.startswith("procession")
            )
            lines.append(f"| {work.title} | {shown(figures['procession'])} {work.unit} | {others} |")
    return lines


def write(results: list[Measured], where: str) -> None:
    """Put the tables into docs/benchmarks.md and the README."""
    head = (__doc__ or "").split("\n\n")
    text = f"# Benchmarks\n\nMade by `benchmarks/compare.py`. {' '.join(head[2].split())}\n\nMeasured on {where}. "
    text += "Absolute figures move from machine to machine; what to compare stands in one table.\n"
    (ROOT / "docs" / "benchmarks.md").write_text(text + table(results) + "\n", encoding="utf-8")
    write_figures(headline(results), real=False)
    readme = ROOT / "README.md"
    page = readme.read_text(encoding="utf-8")
    parallel = results[0].figures["procession"]
    page = between(page, "<!-- figure: parallel -->", "<!-- end -->", f"{parallel:.1g} µs a task")
    readme.write_text(page, encoding="utf-8")


def main() -> None:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description="Measure Procession beside its peers.")
    parser.add_argument("--rounds", type=int, default=7, help="how often each contestant runs (default: 7)")
    parser.add_argument("--tasks", type=int, default=100_000, help="how many tasks (default: 100,000)")
    parser.add_argument("--only", default="", help="only works whose title contains this")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks.md and the README")
    options = parser.parse_args()
    where = machine()
    results: list[Measured] = []
    for work in works(options.tasks):
        if options.only in work.title:
            print(work.title, file=sys.stderr)
            results.append(measure(work, options.rounds))
    print(where)
    print(table(results))
    if options.write:
        write(results, where)


if __name__ == "__main__":
    main()
