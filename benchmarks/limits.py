"""Limits: what one costs that holds nothing back, and what becomes of calls of a service that refuses what is too much.

    pip install -e ".[benchmark]"
    python benchmarks/limits.py                  prints the tables
    python benchmarks/limits.py --write          ... and puts them into docs/benchmarks-limits.md
    python benchmarks/limits.py --only service --rounds 1         quicker, and rougher

The first calls are trivial, so that what is measured is what the limit itself adds. The service is a server in a
process of its own that accepts 50 calls in any second, by its own clock, and answers others with 429 and Retry-After;
each of 1,000 calls is asked for until it is accepted. It says how long it was from the first call that it accepted to
the last, which is 19 s at least: the ideal time. Where the limit is known, its span is longer than the second of the
service by a hundredth, as calls do not all take the same time to get there. Programs that share the limit are
processes of their own, each with half of the calls. A round runs each contestant once, and every round starts with
another of them. A figure is the median over the rounds, a ratio that of the rounds' ratios. Each result is checked.
"""

import asyncio
import gc
import http.client
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import count
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tenacity
from measuring import Timed, Work, at_most, compare, ratio_at_most, shown

from procession import Limit, Process, RetryAfter, task

WORKERS = 6
CALLS = 1000
RATE = 50
IDEAL_S = CALLS / RATE - 1
SPAN_S = 1.01

_NAMES = map("benchmark {}".format, count())
_KEPT = threading.local()


def same(value: Any) -> Any:
    """Return what it is given."""
    return value


async def same_awaited(value: Any) -> Any:
    """Return what it is given, as a coroutine that never waits."""
    return value


# A limit that holds nothing back


def run(function: Callable[[Any], Any], n: int, *, maps: bool) -> Timed:
    """Return the execution of so many tasks, or of a map of so many elements."""

    def timed() -> float:
        process = Process("limits", "parallel", WORKERS)
        if maps:
            process.map(function, range(n))
        else:
            for number in range(n):
                process.add_task(function, number)
        gc.collect()
        start = time.perf_counter()
        results = process.execute()
        took = time.perf_counter() - start
        if results != ([list(range(n))] if maps else list(range(n))):
            raise AssertionError("wrong results")
        return took

    return timed


def limited(function: Callable[[Any], Any], shared: str | None = None) -> Callable[[Any], Any]:
    """Return a function with a limit that always has room."""
    return task(limit=Limit(next(_NAMES), at_once=100, rate=1e9, shared=shared))(function)


def shared_in_a_file(n: int) -> float:
    """Time tasks under a limit that is shared through an SQLite file."""
    with TemporaryDirectory() as folder:
        return run(limited(same, str(Path(folder) / "limits.db")), n, maps=False)()


# A service that refuses what is too much


class Refused(Exception):
    """The service has answered with 429."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"come again in {seconds} s")
        self.seconds = seconds


@contextmanager
def service() -> Iterator[int]:
    """Serve in another process, and say on which port."""
    command = [sys.executable, __file__, "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        yield int(server.stdout.readline())
        server.stdin.close()


def ask(port: int, path: str) -> str:
    """Ask the service, each thread over a connection that it keeps. Raises `Refused`."""
    if getattr(_KEPT, "port", None) != port:
        _KEPT.port, _KEPT.connection = port, http.client.HTTPConnection("127.0.0.1", port)
    connection: http.client.HTTPConnection = _KEPT.connection
    connection.request("GET", path)
    answer = connection.getresponse()
    said = answer.read().decode()
    if answer.status == http.client.TOO_MANY_REQUESTS:
        raise Refused(float(answer.headers["retry-after"]))
    return said


def fetch(port: int, number: int) -> int:
    """Make one call."""
    return int(ask(port, f"/{number}"))


def fetch_politely(port: int, number: int) -> int:
    """Make one call, and say what the service says of a pause."""
    try:
        return fetch(port, number)
    except Refused as refused:
        raise RetryAfter(refused.seconds) from None


def by_procession(limit: Limit, port: int, numbers: range) -> list[int]:
    """Make calls under a limit."""
    process = Process("service", "parallel", 32)
    process.map(task(limit=limit)(partial(fetch_politely, port)), numbers)
    results: list[int]
    [results] = process.execute()
    return results


def by_tenacity(port: int, numbers: range) -> list[int]:
    """Make calls, each with a pause of its own when it is refused."""

    def pause(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        return error.seconds if isinstance(error, Refused) else 0.0

    retried = tenacity.retry(retry=tenacity.retry_if_exception_type(Refused), wait=pause)(partial(fetch, port))
    with ThreadPoolExecutor(32) as pool:
        return list(pool.map(retried, numbers))


def known(port: int, numbers: range) -> list[int]:
    """Make calls under the limit that the service has."""
    return by_procession(Limit(next(_NAMES), rate=RATE, per=SPAN_S), port, numbers)


def unknown(port: int, numbers: range) -> list[int]:
    """Make calls under a limit that knows only what the service says."""
    return by_procession(Limit(next(_NAMES)), port, numbers)


def shared(port: int, numbers: range) -> list[int]:
    """Make calls in two programs that share the limit."""
    middle = numbers[len(numbers) // 2]
    with TemporaryDirectory() as folder:
        halves = [range(numbers.start, middle), range(middle, numbers.stop)]
        where = str(Path(folder) / "limits.db")
        commands = [[sys.executable, __file__, "--call", port, where, half.start, half.stop] for half in halves]
        programs = [subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE) for command in commands]
        said = [program.communicate()[0] for program in programs]
    return [int(number) for line in said for number in line.split()]


def call_half(port: str, where: str, start: str, stop: str) -> None:
    """Make calls in a program of its own, and print what came of them."""
    limit = Limit("shared", rate=RATE, per=SPAN_S, shared=where)
    print(*by_procession(limit, int(port), range(int(start), int(stop))))


class Services:
    """Has each contestant make all of the calls, once for all that is to be known of it."""

    def __init__(self) -> None:
        self._refused: dict[str, list[int]] = {}

    def made(self, name: str, make: Callable[[int, range], list[int]]) -> Timed:
        """Return what makes the calls, and returns how long that took."""

        def timed() -> float:
            with service() as port:
                results = make(port, range(CALLS))
                if results != list(range(CALLS)):
                    raise AssertionError("wrong results")
                refused, took = ask(port, "/end").split()
            self._refused.setdefault(name, []).append(int(refused))
            return float(took) / IDEAL_S

        return timed

    def refused(self, name: str) -> Timed:
        """Return what tells how many calls were refused, round by round."""
        rounds = count()
        return lambda: float(self._refused[name][next(rounds)])


async def answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, accepted: list[float], refused: list[int]
) -> None:
    """Answer what comes over one connection."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            now, path = time.monotonic(), head.split()[1][1:]
            if path == b"end":
                path = b"%d %f" % (refused[0], accepted[-1] - accepted[0])
            elif len(accepted) >= RATE and now - accepted[-RATE] < 1.0:
                refused[0] += 1
                after = ceil(1.0 - (now - accepted[-RATE]))
                writer.write(b"HTTP/1.1 429 Too Many Requests\r\nretry-after: %d\r\ncontent-length: 0\r\n\r\n" % after)
                continue
            else:
                accepted.append(now)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(path), path))
    except (asyncio.IncompleteReadError, asyncio.CancelledError):  # nothing more is asked, or the server ends
        writer.close()


async def serve() -> None:
    """Serve until standard input is closed."""
    accepted: list[float] = []
    answering = partial(answer, accepted=accepted, refused=[0])
    server = await asyncio.start_server(answering, "127.0.0.1", 0, backlog=1000)
    async with server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)


def more(limit: float, name: str = "procession") -> Callable[[dict[str, float]], tuple[bool, str]]:
    """Return the goal that a figure is at most so much more than that without a limit."""
    return lambda figures: (
        figures[name] - figures["without"] <= limit,
        f"{shown(figures[name] - figures['without'])} more",
    )


def works(n: int) -> list[Work]:
    """Return everything that is measured, with `n` trivial calls."""
    services = Services()
    contestants: dict[str, Callable[[int, range], list[int]]] = {
        "the limit known": known,
        "known, shared by two programs": shared,
        "Retry-After alone": unknown,
        "tenacity, each task by itself": by_tenacity,
    }
    trivial = {
        f"a limit that holds nothing back: {n:,} tasks": (same, n, False),
        f"a limit that holds nothing back: a map of {n:,} elements": (same, n, True),
        f"a limit that holds nothing back: {n // 10:,} coroutines": (same_awaited, n // 10, False),
        f"a limit that holds nothing back: a map of {n // 10:,} coroutines": (same_awaited, n // 10, True),
    }
    return [
        *(
            Work(
                title,
                calls,
                "µs a task",
                {
                    "procession": run(limited(function), calls, maps=maps),
                    "without": run(function, calls, maps=maps),
                },
                {"at most 1 µs more than without": more(1.0)},
            )
            for title, (function, calls, maps) in trivial.items()
        ),
        Work(
            f"a limit that holds nothing back, shared by an SQLite file: {n // 10:,} tasks",
            n // 10,
            "µs a task",
            {"procession": lambda: shared_in_a_file(n // 10), "without": run(same, n // 10, maps=False)},
            {"at most 100 µs": at_most(100.0)},
        ),
        Work(
            f"service that allows {RATE} calls a second, {CALLS:,} calls on 32 workers",
            1,
            "times the ideal time",
            {name: services.made(name, make) for name, make in contestants.items()},
            {"with the limit known, at most 1.03": at_most(1.03, "the limit known")},
        ),
        Work(
            f"service that allows {RATE} calls a second: calls that it refused",
            1,
            "calls",
            {name: services.refused(name) for name in contestants},
            {
                f"with the limit known, at most {CALLS // 50}": at_most(CALLS / 50, "the limit known"),
                f"shared, at most {CALLS // 50}": at_most(CALLS / 50, "known, shared by two programs"),
                "by Retry-After alone, at most a fifth of tenacity": ratio_at_most(
                    0.2, "tenacity, each task by itself", "Retry-After alone"
                ),
            },
        ),
    ]


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve"]:
        asyncio.run(serve())
    elif sys.argv[1:2] == ["--call"]:
        call_half(*sys.argv[2:])
    else:
        compare("limits", "benchmarks-limits.md", __doc__, works, 100_000, rounds=3)
