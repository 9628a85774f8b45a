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
import contextvars
import gc
import os
import platform
import re
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from pathlib import Path
from statistics import median
from typing import NamedTuple

from procession import Process

WORKERS = 6
ROOT = Path(__file__).parents[1]

Call = tuple[Callable[[object], object], tuple[object, ...], dict[str, object]]
Timed = Callable[[], float]
"""Does the work once and returns the seconds that count."""


def same(value: object) -> object:
    """Return the argument: the trivial task."""
    return value


def increased(value: int) -> int:
    """Return the argument and one: the link of a chain."""
    return value + 1


def timed(function: Callable[[], object], expected: object) -> float:
    """Return how long the call took, in seconds; its result must be what is expected."""
    gc.collect()
    start = time.perf_counter()
    result = function()
    took = time.perf_counter() - start
    if result != expected:
        raise AssertionError(f"wrong result: {str(result)[:80]}")
    return took


class Work(NamedTuple):
    """One piece of work, done by several; `count` units, and figures in `unit` of each or, with a count of 1, in all."""

    title: str
    count: int
    unit: str
    contestants: dict[str, Timed]
    goals: dict[str, Callable[[dict[str, float]], tuple[bool, str]]]
    slow: frozenset[str] = frozenset()
    """Contestants that would take minutes: they run in the first three rounds only."""


# Independent tasks


def calls(count: int) -> list[Call]:
    """Return calls of the trivial task."""
    return [(same, (number,), {}) for number in range(count)]


def bare_loop(count: int) -> float:
    """Call each in a loop."""
    work = calls(count)

    def loop() -> list[object]:
        return [function(*args, **kwargs) for function, args, kwargs in work]

    return timed(loop, list(range(count)))


def process(strategy: str, count: int) -> float:
    """Execute a process; building it does not count here."""
    made = Process("trivial", strategy, WORKERS)
    for number in range(count):
        made.add_task(same, number)
    return timed(made.execute, list(range(count)))


def executor_submit(count: int) -> float:
    """Submit each call to a ThreadPoolExecutor and collect the results."""
    work = calls(count)

    def run() -> list[object]:
        with ThreadPoolExecutor(WORKERS) as pool:
            futures = [pool.submit(function, *args, **kwargs) for function, args, kwargs in work]
            return [future.result() for future in futures]

    return timed(run, list(range(count)))


def pool_map(count: int) -> float:
    """Map over a multiprocessing ThreadPool, with its own choice of chunks."""

    def run() -> list[object]:
        with ThreadPool(WORKERS) as pool:
            return pool.map(same, range(count))

    return timed(run, list(range(count)))


def shared_iterator(count: int) -> float:
    """Have threads draw from one iterator, with a context and two clock readings for each call: the floor."""
    work = calls(count)

    def run() -> list[object]:
        results: list[object] = [None] * count
        times: list[object] = [None] * count
        indexes = iter(range(count))

        def draw() -> None:
            for index in indexes:
                function, args, kwargs = work[index]
                start = time.perf_counter()
                results[index] = contextvars.copy_context().run(function, *args, **kwargs)
                times[index] = start, time.perf_counter()

        threads = [threading.Thread(target=draw) for _ in range(WORKERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    return timed(run, list(range(count)))


def joblib_threads(count: int) -> float:
    """Run through joblib's threads."""
    from joblib import Parallel, delayed

    work = [delayed(same)(number) for number in range(count)]
    return timed(lambda: Parallel(n_jobs=WORKERS, prefer="threads")(work), list(range(count)))


def dask_get(graph: dict[str, object], keys: object, expected: object) -> float:
    """Run a graph on dask's threads; building it does not count."""
    from dask.threaded import get

    return timed(lambda: get(graph, keys, num_workers=WORKERS), expected)


def dask_parallel(count: int) -> float:
    """Run independent tasks through dask."""
    keys = [f"t{number}" for number in range(count)]
    graph = {key: (same, number) for number, key in enumerate(keys)}
    return dask_get(graph, keys, tuple(range(count)))


def add_tasks(count: int) -> float:
    """Add tasks to a process."""
    made = Process("trivial", "parallel", WORKERS)

    def add() -> int:
        for number in range(count):
            made.add_task(same, number)
        return len(made.tasks)

    return timed(add, count)


class Barest:
    """The least that can be done to keep a call: a list, and a method that appends to it."""

    def __init__(self) -> None:
        self.tasks: list[Call] = []

    def add_task(self, function: Callable[..., object], /, *args: object, **kwargs: object) -> None:
        """Keep a call."""
        self.tasks.append((function, args, kwargs))


def append_tuples(count: int) -> float:
    """Append calls to a list, through a method."""
    made = Barest()

    def add() -> int:
        for number in range(count):
            made.add_task(same, number)
        return len(made.tasks)

    return timed(add, count)


# Dependent tasks


def chain(count: int, *, building: bool = False) -> float:
    """Execute a chain of handles, or build it."""
    made = Process("chain", "parallel", WORKERS)

    def build() -> int:
        link = made.task(increased, 0)
        for _ in range(count - 1):
            link = made.task(increased, link)
        return len(made.tasks)

    built = timed(build, count)
    return built if building else timed(lambda: made.execute()[-1], count)


def dask_chain(count: int) -> float:
    """Run a chain through dask."""
    graph: dict[str, object] = {"t0": (increased, 0)}
    for number in range(1, count):
        graph[f"t{number}"] = (increased, f"t{number - 1}")
    return dask_get(graph, f"t{count - 1}", count)


def fan_in(count: int) -> float:
    """Execute many tasks and one that takes the values of all."""
    made = Process("fan-in", "parallel", WORKERS)
    made.task(sum, [made.task(increased, number) for number in range(count)])
    return timed(lambda: made.execute()[-1], count * (count + 1) // 2)


def dask_fan_in(count: int) -> float:
    """Run a fan-in through dask."""
    keys = [f"t{number}" for number in range(count)]
    graph: dict[str, object] = {key: (increased, number) for number, key in enumerate(keys)}
    graph["sum"] = (sum, keys)
    return dask_get(graph, "sum", count * (count + 1) // 2)


# Waiting tasks

SLEEPS, SLEEP_S, SLEEPERS = 1_000, 0.01, 32


def sleeping(engine: str) -> float:
    """Sleep many times on many workers."""

    def with_process() -> list[object]:
        made = Process("sleep", "parallel", SLEEPERS)
        for _ in range(SLEEPS):
            made.add_task(time.sleep, SLEEP_S)
        return made.execute()

    def with_executor() -> list[object]:
        with ThreadPoolExecutor(SLEEPERS) as pool:
            return [future.result() for future in [pool.submit(time.sleep, SLEEP_S) for _ in range(SLEEPS)]]

    def with_threads() -> list[object]:
        results: list[object] = [0] * SLEEPS
        indexes = iter(range(SLEEPS))

        def draw() -> None:
            for index in indexes:
                results[index] = time.sleep(SLEEP_S)

        threads = [threading.Thread(target=draw) for _ in range(SLEEPERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    run = {"procession": with_process, "executor": with_executor, "threads": with_threads}[engine]
    return timed(run, [None] * SLEEPS)


# Memory, in bytes (the columns of these works are sizes, not seconds)


def traced(act: Callable[[], Iterator[None]]) -> float:
    """Return how many bytes are in use at the first `yield` more than before."""
    gc.collect()
    tracemalloc.start()
    steps = act()
    before = tracemalloc.get_traced_memory()[0]
    next(steps)
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    next(steps, None)
    return float(used)


def waiting_in_process(count: int) -> float:
    """Hold a parallel run at its first tasks; what is in use are the definition and the run."""
    begun, go_on = threading.Barrier(WORKERS + 1), threading.Event()

    def hold() -> None:
        begun.wait()
        go_on.wait()

    def act() -> Iterator[None]:
        made = Process("held", "parallel", WORKERS)
        for _ in range(WORKERS):
            made.add_task(hold)
        for number in range(count - WORKERS):
            made.add_task(same, number)
        run = made.start()
        begun.wait()
        yield
        go_on.set()
        run.result()

    return traced(act)


def waiting_in_executor(count: int) -> float:
    """Hold a ThreadPoolExecutor at its first calls."""
    go_on = threading.Event()

    def act() -> Iterator[None]:
        with ThreadPoolExecutor(WORKERS) as pool:
            futures = [pool.submit(go_on.wait) for _ in range(WORKERS)]
            futures += [pool.submit(same, number) for number in range(count - WORKERS)]
            yield
            go_on.set()
            for future in futures:
                future.result()

    return traced(act)


def tuples(count: int) -> float:
    """Keep the calls as tuples in a list."""

    def act() -> Iterator[None]:
        kept = calls(count)
        yield
        kept.clear()

    return traced(act)


def lazy_map(count: int) -> float:
    """Map over a generator; return the peak beyond the list of results."""
    made = Process("lazy", "parallel", WORKERS)
    made.map(bool, ([number] for number in range(count)))
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    (results,) = made.execute()
    peak = tracemalloc.get_traced_memory()[1] - before - sys.getsizeof(results)
    tracemalloc.stop()
    if len(results) != count:
        raise AssertionError("wrong result")
    return float(peak)


# Import


def importing(statement: str) -> float:
    """Start a Python that does nothing else. Once before, so that everything is compiled, as it is once installed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def start() -> int:
        return subprocess.run([sys.executable, "-c", statement], check=True, env=environment).returncode

    start()
    return timed(start, 0)


def third_party_modules() -> list[str]:
    """Return the modules that `import procession` takes in and that are not of the standard library."""
    code = (
        "import sys; before = set(sys.modules); import procession; "
        "print(*{m.partition('.')[0] for m in set(sys.modules) - before} - sys.stdlib_module_names - {'procession'})"
    )
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()


# What is compared


def at_most(limit: float, name: str = "procession") -> Callable[[dict[str, float]], tuple[bool, str]]:
    """Return the goal that a figure is no more than the limit."""
    return lambda figures: (figures[name] <= limit, f"{shown(figures[name])}")


def ratio_at_most(limit: float, other: str, name: str = "procession") -> Callable[[dict[str, float]], tuple[bool, str]]:
    """Return the goal that a figure is no more than so many times that of another."""
    return lambda figures: (figures[f"{name}/{other}"] <= limit, f"{figures[f'{name}/{other}']:.3f} times")


def ratio_at_least(limit: float, other: str) -> Callable[[dict[str, float]], tuple[bool, str]]:
    """Return the goal that another's figure is at least so many times ours."""
    return lambda figures: (
        1 / figures[f"procession/{other}"] >= limit,
        f"{1 / figures[f'procession/{other}']:.0f} times",
    )


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


SCALES = {"µs a task": 1e6, "ms": 1e3, "bytes a task": 1.0, "kB": 1e-3}


class Measured(NamedTuple):
    """What came of one work: medians and ratios by name, and the spread of each contestant."""

    work: Work
    figures: dict[str, float]
    spread: dict[str, tuple[float, float]]
    rounds: dict[str, int]


def measure(work: Work, rounds: int) -> Measured:
    """Run every contestant in every round."""
    taken: dict[str, dict[int, float]] = {name: {} for name in work.contestants}
    names = list(work.contestants)
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            if number < 3 or name not in work.slow:
                taken[name][number] = work.contestants[name]() / work.count * SCALES[work.unit]
                print(f"  {name}: {shown(taken[name][number])} {work.unit}", file=sys.stderr)
    figures = {name: median(times.values()) for name, times in taken.items()}
    for one in names:
        for other in names:
            both = taken[one].keys() & taken[other].keys()
            figures[f"{one}/{other}"] = median(taken[one][number] / taken[other][number] for number in both)
    spread = {name: (min(times.values()), max(times.values())) for name, times in taken.items()}
    return Measured(work, figures, spread, {name: len(times) for name, times in taken.items()})


def shown(figure: float) -> str:
    """Return a figure with three digits."""
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}"


def table(results: list[Measured]) -> str:
    """Return the results as Markdown."""
    lines: list[str] = []
    for work, figures, spread, rounds in results:
        first = next(iter(work.contestants))
        lines += [
            "",
            f"### {work.title}",
            "",
            f"| | {work.unit} | least to most | rounds | times {first} |",
            "|---|--:|--:|--:|--:|",
        ]
        lines += [
            f"| {name} | {shown(figures[name])} | {shown(spread[name][0])} to {shown(spread[name][1])} | {rounds[name]} "
            f"| {figures[f'{name}/{first}']:.3g} |"
            for name in work.contestants
        ]
        if work.goals:
            lines.append("")
        for goal, check in work.goals.items():
            reached, what = check(figures)
            lines.append(f"- {'reached' if reached else '**missed**'}: {goal} ({what})")
    return "\n".join(lines)


def headline(results: list[Measured], where: str) -> str:
    """Return the few figures that the README shows."""
    lines = [f"| {where} | Procession | beside it |", "|---|--:|---|"]
    for work, figures, _, _ in results:
        if "procession" in work.contestants and (len(work.contestants) > 2 or "sequential" in work.title):
            others = "; ".join(
                f"{name} {shown(figures[name])}" for name in work.contestants if not name.startswith("procession")
            )
            lines.append(f"| {work.title} | {shown(figures['procession'])} {work.unit} | {others} |")
    return "\n".join(lines)


def between(text: str, start: str, end: str, new: str) -> str:
    """Return the text with what stands between two marks replaced."""
    changed, count = re.subn(
        f"(?s)({re.escape(start)}).*?({re.escape(end)})", lambda found: found[1] + new + found[2], text
    )
    if count != 1:
        raise AssertionError(f"{start} ... {end} stands {count} times in the text")
    return changed


def write(results: list[Measured], where: str) -> None:
    """Put the tables into docs/benchmarks.md and the README."""
    head = (__doc__ or "").split("\n\n")
    text = f"# Benchmarks\n\nMade by `benchmarks/compare.py`. {' '.join(head[2].split())}\n\nMeasured on {where}. "
    text += "Absolute figures move from machine to machine; what to compare stands in one table.\n"
    (ROOT / "docs" / "benchmarks.md").write_text(text + table(results) + "\n", encoding="utf-8")
    readme = ROOT / "README.md"
    page = readme.read_text(encoding="utf-8")
    page = between(page, "<!-- figures -->\n", "<!-- end figures -->", headline(results, "median") + f"\n\n{where}.\n")
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
    where = f"{platform.python_implementation()} {platform.python_version()} on {platform.system()}, {cores()} cores"
    results: list[Measured] = []
    for work in works(options.tasks):
        if options.only in work.title:
            print(work.title, file=sys.stderr)
            results.append(measure(work, options.rounds))
    print(where)
    print(table(results))
    if options.write:
        write(results, where)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    main()
