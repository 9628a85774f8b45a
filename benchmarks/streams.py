"""Streams: what it takes to hand elements on through stages, beside other libraries and what one would write by hand.

    pip install -e ".[benchmark]"
    python benchmarks/streams.py                 prints the tables
    python benchmarks/streams.py --write         ... and puts them into docs/benchmarks-streams.md
    python benchmarks/streams.py --rounds 1 --tasks 20000         quicker, and rougher

Each pipeline has three stages, unless it says otherwise, and ends in a function that sums up what comes, so that no
value is kept. "Threads and queues" are written by hand, with a `queue.Queue(64)` between two stages. What takes much
longer has a tenth of the elements, and its figure is for each all the same. Memory is the most that a program of its
own has had in RAM. A round runs each contestant once, and every round starts with another of them. A figure is the
median over the rounds, a ratio that of the rounds' ratios. "Not behind" holds if 1 is not below the interval in which
the true median of the ratios lies with 95 % confidence (by the sign test). Each result is checked.
"""

import asyncio
import gc
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from measuring import Timed, Work, at_most, compare, cores, most_bytes, not_behind, ratio_at_most
from pipelines import (
    STAGES,
    between_threads,
    by_asyncio_queues,
    by_pipefunc,
    by_queues,
    by_streamable,
    same,
    same_awaited,
)
from pools import SPAWN, spin, turns_of

from procession import Process, WorkerProcesses, stream, task

WORKERS = 6
EACH = 8
"""How many workers each stage has, where the calls take a while."""
NAP_S, BUSY_S = 0.001, 0.002
PIECE = 1000
FILES, FILE_BYTES = 20, 40_000_000

Pipeline = Callable[[Callable[[int], int], int, int], Iterator[int]]


class Sink:
    """Sums up the elements of a pipeline, and notes when the first one came."""

    def __init__(self) -> None:
        self.first = 0.0

    def total(self, elements: Iterable[int]) -> int:
        """Return the sum of the elements."""
        elements = iter(elements)
        first = next(elements)
        self.first = time.perf_counter()
        return first + sum(elements)

    async def awaited_total(self, elements: AsyncIterator[int]) -> int:
        """Return the sum of the elements."""
        total = 0
        async for element in elements:
            total += element
        return total


def timed(function: Callable[[], Any], expected: Any) -> float:
    """Return how long a call takes, in seconds."""
    gc.collect()
    start = time.perf_counter()
    result = function()
    took = time.perf_counter() - start
    if result != expected:
        raise AssertionError(f"wrong result: {result}")
    return took


def chained(function: Callable[[int], Any], n: int, workers: int, sink: Callable[[Any], Any]) -> Process:
    """Return a process of three maps, each over the elements of the one before, and of what takes the last."""
    process = Process("streams", "parallel", workers)
    elements: Any = range(n)
    for _ in range(STAGES):
        elements = process.map(task(keep=False)(function), elements)
    process.task(sink, stream(elements))
    return process


def added_up(n: int) -> int:
    """Return the sum of the numbers below."""
    return n * (n - 1) // 2


def procession(function: Callable[[int], int], n: int, workers: int) -> float:
    """Time a pipeline of Procession."""
    process = chained(function, n, workers, Sink().total)
    return timed(lambda: process.execute()[-1], added_up(n))


def other(pipeline: Pipeline, function: Callable[[int], int], n: int, each: int) -> float:
    """Time a pipeline of something else."""
    return timed(lambda: sum(pipeline(function, n, each)), added_up(n))


def first(n: int) -> float:
    """Return how long it takes until the first of many elements comes out of Procession."""
    sink = Sink()
    process = chained(same, n, WORKERS, sink.total)
    start = time.perf_counter()
    process.execute()
    return sink.first - start


def other_first(pipeline: Pipeline, n: int) -> float:
    """Return how long it takes until the first of many elements comes out of something else."""
    sink = Sink()
    start = time.perf_counter()
    sink.total(pipeline(same, n, 1))
    return sink.first - start


# Memory


def memory(of: str, n: int) -> float:
    """Return how many bytes a program of its own has in RAM, at most, that does what one of `TAKING` does."""
    done = subprocess.run([sys.executable, __file__, "--memory", of, str(n)], stdout=subprocess.PIPE, check=True)
    return float(done.stdout)


def hand_on(n: int) -> None:
    """Hand so many elements on through three stages."""
    chained(same, n, WORKERS, Sink().total).execute()


def cleaned(data: bytes) -> bytes:
    """Return the data with another byte in place of each zero."""
    return data.replace(b"\0", b"1")


def sum_up(n: int, *, keep: bool) -> None:
    """Load so many files, clean what is in them, and sum it up, by two workers."""
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / str(number) for number in range(n)]
        for path in paths:
            with path.open("wb") as file:
                file.truncate(FILE_BYTES)
        process = Process("files", "parallel", 2)
        load, clean = task(keep=keep)(Path.read_bytes), task(keep=keep)(cleaned)
        process.map(len, process.map(clean, process.map(load, paths)))
        if process.execute()[-1] != [FILE_BYTES] * n:
            raise AssertionError("wrong results")


def count_lines(n: int) -> None:
    """Count the words of so many lines in one stage, and write them in another."""
    LongFile(n).timed(count_by_line)()


TAKING: dict[str, Callable[[int], None]] = {
    "elements": hand_on,
    "files": partial(sum_up, keep=False),
    "files that are kept": partial(sum_up, keep=True),
    "lines": count_lines,
}
"""What memory is measured of, by name, each for so many things."""


# Coroutines


def coroutines(n: int) -> float:
    """Time a pipeline of coroutines."""
    process = chained(same_awaited, n, WORKERS, Sink().awaited_total)
    return timed(lambda: process.execute()[-1], added_up(n))


def coroutines_by_hand(n: int) -> float:
    """Time asyncio tasks over queues."""

    async def main() -> int:
        return await Sink().awaited_total(by_asyncio_queues(same_awaited, n, WORKERS // STAGES))

    return timed(lambda: asyncio.run(main()), added_up(n))


# Calls that take a while


def nap(number: int) -> int:
    """Wait, and return the argument."""
    time.sleep(NAP_S)
    return number


def bare_threads(n: int) -> float:
    """Time the same waits on as many threads, with nothing between them: the ideal."""
    left = iter(range(n * STAGES))
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                number = next(left, None)
            if number is None:
                return
            nap(number)

    def run() -> None:
        threads = [threading.Thread(target=work) for _ in range(EACH * STAGES)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return timed(run, None)


def spun(turns: int, number: int) -> int:
    """Compute, and return the argument."""
    spin(turns)
    return number


class OnProcesses:
    """A stage on worker processes between two on threads. The workers are there beforehand."""

    def __init__(self, n: int) -> None:
        self._n = n

    def between(self) -> float:
        """Time all three stages."""
        with WorkerProcesses(cores()) as workers:
            process = Process("between", "parallel", EACH * STAGES)
            passed = task(keep=False)(same)
            computed = task(keep=False, executor=workers)(self._computed(workers))
            elements = process.map(passed, process.map(computed, process.map(passed, range(self._n))))
            process.task(sum, stream(elements))
            return timed(lambda: process.execute()[-1], added_up(self._n))

    def alone(self) -> float:
        """Time the stage in the middle alone."""
        with WorkerProcesses(cores()) as workers:
            process = Process("alone", "parallel", EACH * STAGES)
            elements = process.map(task(keep=False, executor=workers)(self._computed(workers)), range(self._n))
            process.task(sum, stream(elements))
            return timed(lambda: process.execute()[-1], added_up(self._n))

    def by_streamable(self) -> float:
        """Time all three stages of streamable."""
        with ProcessPoolExecutor(cores(), SPAWN) as pool:
            computed = self._computed(pool)
            return timed(lambda: sum(between_threads(computed, self._n, pool)), added_up(self._n))

    def _computed(self, pool: WorkerProcesses | ProcessPoolExecutor) -> Callable[[int], int]:
        """Return the function of the stage in the middle, when the workers of a pool have called it."""
        function = partial(spun, turns_of(BUSY_S))
        for future in [pool.submit(function, number) for number in range(cores() * 4)]:
            future.result()
        return function


# Recorded, and long files


def recorded(n: int) -> float:
    """Time a pipeline whose elements are recorded in SQLite."""
    process = chained(same, n, WORKERS, Sink().total)
    with TemporaryDirectory() as folder:
        return timed(lambda: process.execute(run_id="a", journal=Path(folder) / "runs.db")[-1], added_up(n))


def words_of(line: str) -> str:
    """Return how many words a line has, as a line."""
    return f"{len(line.split())}\n"


def words_of_each(lines: list[str]) -> list[str]:
    """Return how many words each line has, as lines."""
    return [words_of(line) for line in lines]


class LongFile:
    """A file of so many lines, which are counted and written."""

    def __init__(self, lines: int) -> None:
        self._lines = lines
        self._expected = sum(len(words_of(line)) for line in self._made())

    def _made(self) -> Iterator[str]:
        return ("a line of words\n" if number % 3 else "a longer line of words\n" for number in range(self._lines))

    def timed(self, run: Callable[[Path, Path], object]) -> Timed:
        """Return what counts the words of the lines of one file into another."""

        def seconds() -> float:
            with TemporaryDirectory() as folder:
                source, target = Path(folder) / "lines", Path(folder) / "counts"
                with source.open("w") as file:
                    file.writelines(self._made())
                took = timed(lambda: run(source, target) and None, None)
                if target.stat().st_size != self._expected:
                    raise AssertionError("wrong results")
            return took

        return seconds


def count_by_loop(source: Path, target: Path) -> None:
    """Count and write in a loop."""
    with source.open() as lines, target.open("w") as file:
        for line in lines:
            file.write(words_of(line))


def count_by_line(source: Path, target: Path) -> None:
    """Count in one stage and write in another."""
    with source.open() as lines:
        process = Process("lines", "parallel", WORKERS)
        counts = process.map(task(keep=False)(words_of), lines)
        process.task(partial(write, target), stream(counts))
        process.execute()


def count_by_piece(source: Path, target: Path) -> None:
    """Do the same with many lines at a time."""
    with source.open() as lines:
        process = Process("pieces", "parallel", WORKERS)
        counts = process.map(task(keep=False)(words_of_each), iter(lambda: list(islice(lines, PIECE)), []))
        process.task(partial(write_each, target), stream(counts))
        process.execute()


def write(target: Path, counts: Iterable[str]) -> None:
    """Write lines."""
    with target.open("w") as file:
        file.writelines(counts)


def write_each(target: Path, pieces: Iterable[list[str]]) -> None:
    """Write pieces of lines."""
    with target.open("w") as file:
        for piece in pieces:
            file.writelines(piece)


def works(n: int) -> list[Work]:
    """Return everything that is measured, with `n` elements."""
    tenth, hundredth, micro = n // 10, n // 100, "µs an element and stage"
    by_hand, streamable, pipefunc = "threads and queues", "streamable", "pipefunc"
    processes, lines = OnProcesses(hundredth), LongFile(10 * n)
    return [
        Work(
            f"{n:,} elements through three stages of threads, {WORKERS} workers",
            n * STAGES,
            micro,
            {
                "procession": lambda: procession(same, n, WORKERS),
                f"{by_hand}, one each": lambda: other(by_queues, same, tenth, 1) * 10,
                f"{streamable}, two each": lambda: other(by_streamable, same, hundredth, 2) * 100,
            },
            {"at most 1.5 µs": at_most(1.5)},
        ),
        Work(
            f"memory that {n:,} elements through three stages take",
            1,
            "MB",
            {
                "procession": lambda: memory("elements", n),
                f"procession, {tenth:,} elements": lambda: memory("elements", tenth),
            },
            {f"at most 1.1 times that of {tenth:,}": ratio_at_most(1.1, f"procession, {tenth:,} elements")},
        ),
        Work(
            f"until the first of {tenth:,} elements is through three stages",
            1,
            "ms",
            {
                "procession": lambda: first(tenth),
                f"{by_hand}, one each": lambda: other_first(by_queues, tenth),
            },
            {"at most 10 ms": at_most(10.0)},
        ),
        Work(
            f"{tenth:,} elements through three stages of coroutines, {WORKERS} workers",
            tenth * STAGES,
            micro,
            {
                "procession": lambda: coroutines(tenth),
                "asyncio tasks and queues, two each": lambda: coroutines_by_hand(tenth),
            },
            {"at most 6 µs": at_most(6.0)},
        ),
        Work(
            f"{hundredth:,} elements of {NAP_S * 1e3:.0f} ms through three stages, {EACH} workers each",
            1,
            "ms",
            {
                "procession": lambda: procession(nap, hundredth, EACH * STAGES),
                "the same waits on bare threads": lambda: bare_threads(hundredth),
                by_hand: lambda: other(by_queues, nap, hundredth, EACH),
                streamable: lambda: other(by_streamable, nap, hundredth, EACH),
                pipefunc: lambda: other(by_pipefunc, nap, hundredth, EACH),
            },
            {
                "at most 1.05 times bare threads": ratio_at_most(1.05, "the same waits on bare threads"),
                **{f"not behind {name}": not_behind(name) for name in (by_hand, streamable, pipefunc)},
            },
        ),
        Work(
            f"{hundredth:,} elements of {BUSY_S * 1e3:.0f} ms on {cores()} worker processes, between stages on threads",
            1,
            "ms",
            {
                "procession": processes.between,
                "procession, the stage on worker processes alone": processes.alone,
                f"{streamable}, ProcessPoolExecutor": processes.by_streamable,
            },
            {
                "at most 1.1 times the stage alone": ratio_at_most(
                    1.1, "procession, the stage on worker processes alone"
                )
            },
        ),
        Work(
            f"{hundredth:,} elements through three stages, recorded in SQLite, {WORKERS} workers",
            hundredth * STAGES,
            micro,
            {"procession": lambda: recorded(hundredth), "not recorded": lambda: procession(same, hundredth, WORKERS)},
            {"at most 25 µs": at_most(25.0)},
        ),
        Work(
            f"{10 * n:,} lines of a file, counted in one stage and written in another",
            10 * n,
            "µs a line",
            {
                "procession": lines.timed(count_by_line),
                f"procession, {PIECE:,} lines at a time": lines.timed(count_by_piece),
                "a loop": lines.timed(count_by_loop),
            },
            {},
        ),
        Work(
            f"memory that {10 * n:,} lines take, counted in one stage and written in another",
            1,
            "MB",
            {"procession": lambda: memory("lines", 10 * n), f"procession, {n:,} lines": lambda: memory("lines", n)},
            {f"at most 1.1 times that of {n:,}": ratio_at_most(1.1, f"procession, {n:,} lines")},
        ),
        Work(
            f"memory that {FILES} files of {FILE_BYTES // 10**6} MB take, loaded, cleaned and summed up by 2 workers, "
            "`keep=False`",
            1,
            "MB",
            {
                "procession": lambda: memory("files", FILES),
                "procession, values kept": lambda: memory("files that are kept", FILES),
            },
            {"at most a quarter of values kept": ratio_at_most(0.25, "procession, values kept")},
        ),
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        TAKING[sys.argv[2]](int(sys.argv[3]))
        print(most_bytes())
    else:
        compare("streams", "benchmarks-streams.md", __doc__, works, 1_000_000, rounds=5)
