"""The work, as each contestant does it: every function does it once and returns the seconds, or bytes, that count."""

import contextvars
import gc
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from typing import Literal

from procession import Process

WORKERS = 6

Call = tuple[Callable[[object], object], tuple[object, ...], dict[str, object]]


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


def process(strategy: Literal["sequential", "parallel"], count: int) -> float:
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


def dask_get(graph: Mapping[str, object], keys: str | list[str], expected: object) -> float:
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
                time.sleep(SLEEP_S)
                results[index] = None

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
            futures: list[Future[object]] = [pool.submit(go_on.wait) for _ in range(WORKERS)]
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
