"""Durable runs beside what else would make steps durable, on the same work, in one run.

    pip install -e ".[benchmark]"
    python benchmarks/durable.py                 prints the table
    python benchmarks/durable.py --write         ... and puts it into docs/benchmarks-durable.md

Everything is on SQLite, in a new file in the temporary folder for each measurement, unless PostgreSQL is named, which
is a server of this program's own. "Raw" inserts rows of the same size with the database's driver and commits. DBOS runs
with its defaults, on fewer steps or runs, for it takes longer; its figure is for each all the same. What is measured is
the run, with opening and closing the journal where nothing else is said.
"""

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import small_runs as small
from measuring import (
    Timed,
    Work,
    at_most,
    compare,
    ratio_at_least,
    ratio_at_most,
)

from procession import Process, current_task
from procession.journal import Journal

WORKERS = 6
DBOS_STEPS = 300
_ROW = ("app:step", b"", b"x" * 8, None, 1, 1.0e9, 1.0e-6, "MainThread")
_TABLE = (
    "create table steps (run integer, step integer, name text, digest blob, value blob, error text, attempts integer, "
    "started_at real, duration real, worker text, primary key (run, step)) without rowid"
)
_INSERT = "insert into steps values (1, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
Durability = Literal["process", "power"]


def step(number: int) -> int:
    """Do what a step does."""
    return number


def defined(strategy: Literal["sequential", "parallel"], count: int) -> Process:
    """Return a process of so many steps."""
    process = Process("steps", strategy, WORKERS)
    for number in range(count):
        process.add_task(step, number)
    return process


def procession(strategy: Literal["sequential", "parallel"], count: int, durability: Durability) -> float:
    """Run the steps with a journal."""
    process = defined(strategy, count)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        with Journal(Path(folder) / "runs.db", durability=durability) as journal:
            results = process.execute(run_id="steps", journal=journal)
        taken = time.perf_counter() - start
    assert results == list(range(count))
    return taken


def recorded_calls(count: int) -> float:
    """Run one task that makes so many recorded calls, one after another."""
    process = Process("calls")
    process.add_task(made_in_turn, count)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        with Journal(Path(folder) / "runs.db") as journal:
            [results] = process.execute(run_id="calls", journal=journal)
        taken = time.perf_counter() - start
    assert results == list(range(count))
    return taken


def made_in_turn(count: int) -> list[int]:
    """Make calls as a task does that decides as it goes."""
    me = current_task()
    return [me.call(step, number) for number in range(count)]


def raw_sqlite(count: int, synchronous: Literal["NORMAL", "FULL"], in_a_commit: int) -> float:
    """Do the steps in a loop, and commit after so many of them."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        connection = sqlite3.connect(Path(folder) / "steps.db", isolation_level=None)
        connection.execute("pragma journal_mode = wal")
        connection.execute(f"pragma synchronous = {synchronous}")
        connection.execute(_TABLE)
        for first in range(0, count, in_a_commit):
            connection.execute("begin immediate")
            connection.executemany(_INSERT, [(step(first + number), *_ROW) for number in range(in_a_commit)])
            connection.execute("commit")
        taken = time.perf_counter() - start
        connection.close()
    return taken


def dbos(count: int, *, parallel: bool) -> float:
    """Run steps of a DBOS workflow, and return the seconds that `count` of them would take."""
    from dbos import DBOS, DBOSConfig

    with tempfile.TemporaryDirectory() as folder:
        config: DBOSConfig = {
            "name": "steps",
            "system_database_url": f"sqlite:///{folder}/dbos.db",
            "log_level": "ERROR",
        }
        DBOS(config=config)
        durable_step = DBOS.step()(step)

        def in_order(steps: int) -> list[int]:
            return [durable_step(number) for number in range(steps)]

        async def async_step(number: int) -> int:
            return step(number)

        durable_async_step = DBOS.step()(async_step)

        async def at_once(steps: int) -> list[int]:
            places = asyncio.Semaphore(WORKERS)

            async def one(number: int) -> int:
                async with places:
                    result: int = await durable_async_step(number)
                    return result

            return list(await asyncio.gather(*map(one, range(steps))))

        durable_in_order, durable_at_once = DBOS.workflow()(in_order), DBOS.workflow()(at_once)
        DBOS.launch()
        try:
            start = time.perf_counter()
            results = asyncio.run(durable_at_once(DBOS_STEPS)) if parallel else durable_in_order(DBOS_STEPS)
            taken = time.perf_counter() - start
        finally:
            DBOS.destroy(destroy_registry=True)
    assert results == list(range(DBOS_STEPS))
    return taken / DBOS_STEPS * count


def resuming(count: int) -> float:
    """Execute a completed run again."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.db"
        defined("parallel", count).execute(run_id="steps", journal=path)
        again = defined("parallel", count)
        start = time.perf_counter()
        results = again.execute(run_id="steps", journal=path)
        taken = time.perf_counter() - start
    assert results == list(range(count))
    return taken


def on_disk(count: int) -> float:
    """Return the bytes that a journal of so many small results takes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.db"
        defined("parallel", count).execute(run_id="steps", journal=path)
        return float(sum(file.stat().st_size for file in Path(folder).iterdir()))


def row(number: int) -> dict[str, object]:
    """Return a small dict."""
    return {"id": number, "name": f"row {number}", "score": number / 2}


def mapped(function: Callable[[Any], object], elements: Sequence[object]) -> float:
    """Run a map with a journal."""
    process = Process("map", "parallel", WORKERS)
    process.map(function, elements)
    with small.new_file() as path:
        return small.timed(lambda: process.execute(run_id="map", journal=path))


def rows_again(count: int) -> float:
    """Execute a completed run of a map over small dicts again."""
    rows, taken = [row(number) for number in range(count)], 0.0
    with small.new_file() as path:
        for _ in range(2):
            process = Process("map", "parallel", WORKERS)
            process.map(dict, rows)
            taken = small.timed(partial(process.execute, run_id="map", journal=path))
    return taken


def ten_kilobytes(number: int) -> bytes:
    """Return a result of 10 kB."""
    return bytes(10_000) + bytes([number % 256])


def on_worker_processes(count: int, *, recorded: bool) -> float:
    """Make results of 10 kB on worker processes."""
    process = Process("results", "parallel", WORKERS, executor="processes")
    for number in range(count):
        process.add_task(ten_kilobytes, number)
    with small.new_file() as path:
        if recorded:
            return small.timed(lambda: process.execute(run_id="results", journal=path))
        return small.timed(process.execute)


def small_works() -> list[Work]:
    """Return what is measured of many small runs, of a server, and of maps."""
    few, many = 100, 1000
    dbos = {"DBOS": small.dbos_runs}
    return [
        Work(
            "a durable run of 5 steps, journal open",
            few,
            "ms",
            small.of(few, {"procession": small.journal_open, "raw SQLite": small.raw_open, **dbos}),
            {
                "at most 1.0 ms": at_most(1),
                "at most 8 times raw SQLite": ratio_at_most(8, "raw SQLite"),
                "at least 5 times less than DBOS": ratio_at_least(5, "DBOS"),
            },
            frozenset({"DBOS"}),
        ),
        Work(
            "a durable run of 5 steps by path, opened each time",
            few,
            "ms",
            small.of(few, {"procession": small.by_path, "raw SQLite": small.raw_by_path}),
            {"at most 3 ms": at_most(3), "at most 16 times raw SQLite": ratio_at_most(16, "raw SQLite")},
        ),
        Work(
            f"1,000 durable runs of 5 steps, {small.THREADS} threads at once, SQLite",
            many,
            "ms",
            {
                "procession": lambda: small.at_once(many),
                "DBOS": lambda: small.dbos_runs(few, small.THREADS) / few * many,
            },
            {"at least 5 times the runs a second of DBOS": ratio_at_least(5, "DBOS")},
            frozenset({"DBOS"}),
        ),
        Work(
            f"1,000 durable runs of 5 steps, {small.THREADS} threads at once, PostgreSQL",
            many,
            "ms",
            {
                "procession": lambda: small.at_once(many, small.SERVER.new_database()),
                "DBOS": lambda: small.dbos_runs(few, small.THREADS, server=True) / few * many,
            },
            {"at least 5 times the runs a second of DBOS": ratio_at_least(5, "DBOS")},
            frozenset({"DBOS"}),
        ),
        Work(
            "1,000 steps in order, PostgreSQL, each durable before the next",
            many,
            "µs a step",
            small.of(
                many,
                {
                    "procession": small.server_in_order,
                    "raw INSERT and COMMIT": small.raw_server_in_order,
                    "DBOS": small.dbos_steps,
                },
            ),
            {"at most 1.5 times raw": ratio_at_most(1.5, "raw INSERT and COMMIT")},
            frozenset({"DBOS"}),
        ),
        Work(
            f"10,000 steps at once, PostgreSQL, {WORKERS} workers, each durable",
            10_000,
            "µs a step",
            {
                "procession": lambda: small.server_at_once(10_000, WORKERS),
                "DBOS, in order": lambda: small.dbos_steps(10_000),
            },
            {"at least 10 times DBOS": ratio_at_least(10, "DBOS, in order")},
            frozenset({"DBOS, in order"}),
        ),
        Work(
            "an element of a durable map of 10,000: numbers",
            10_000,
            "µs a task",
            {"procession": lambda: mapped(step, range(10_000))},
            {"at most 20 µs": at_most(20)},
        ),
        Work(
            "an element of a durable map of 10,000: small dicts",
            10_000,
            "µs a task",
            {"procession": lambda: mapped(dict, [row(number) for number in range(10_000)])},
            {"at most 30 µs": at_most(30)},
        ),
        Work(
            "executing a completed run of 100,000 rows, small dicts, again",
            1,
            "ms",
            {"procession": lambda: rows_again(100_000)},
            {"under 2 s": at_most(2000)},
        ),
        Work(
            "10,000 results of 10 kB on worker processes, with a journal and without",
            1,
            "ms",
            {
                "procession": lambda: on_worker_processes(10_000, recorded=True),
                "without a journal": lambda: on_worker_processes(10_000, recorded=False),
            },
            {"at most 1.5 times without": ratio_at_most(1.5, "without a journal")},
        ),
        Work(
            "the newest 50 of 10,000 runs, and how many there are by status",
            1,
            "ms",
            {"procession": lambda: small.newest_of_many(10_000)},
            {"under 100 ms": at_most(100)},
            frozenset({"procession"}),
        ),
        Work(
            "deleting 1,000 runs of 5 steps",
            many,
            "ms",
            {"procession": lambda: small.pruned(many)},
            {"at most 1 ms a run": at_most(1)},
        ),
    ]


def works() -> list[Work]:
    """Return everything that is measured."""
    micro = "µs a step"
    in_order: dict[str, Timed] = {
        "procession": lambda: procession("sequential", 1000, "process"),
        "raw SQLite, NORMAL": lambda: raw_sqlite(1000, "NORMAL", 1),
        "DBOS": lambda: dbos(1000, parallel=False),
    }
    return [
        Work(
            '1,000 steps in order, each durable before the next, durability="process"',
            1000,
            micro,
            in_order,
            {"at most 60 µs": at_most(60)},
            frozenset({"DBOS"}),
        ),
        Work(
            "1,000 recorded calls of one task, each durable before the next",
            1000,
            micro,
            {
                "procession": lambda: recorded_calls(1000),
                "procession, tasks": lambda: procession("sequential", 1000, "process"),
            },
            {"at most 1.3 times a task": ratio_at_most(1.3, "procession, tasks")},
        ),
        Work(
            '1,000 steps in order, each durable before the next, durability="power"',
            1000,
            micro,
            {
                "procession": lambda: procession("sequential", 1000, "power"),
                "raw SQLite, FULL": lambda: raw_sqlite(1000, "FULL", 1),
            },
            {"at most 1.5 times raw SQLite": ratio_at_most(1.5, "raw SQLite, FULL")},
        ),
        Work(
            f"10,000 steps at once, {WORKERS} workers, each durable",
            10_000,
            micro,
            {
                "procession": lambda: procession("parallel", 10_000, "process"),
                "raw SQLite, 100 a commit, NORMAL": lambda: raw_sqlite(10_000, "NORMAL", 100),
                "DBOS, async steps": lambda: dbos(10_000, parallel=True),
            },
            {"at most 15 µs": at_most(15)},
            frozenset({"DBOS, async steps"}),
        ),
        Work(
            "executing a completed run of 100,000 tasks again",
            1,
            "ms",
            {"procession": lambda: resuming(100_000)},
            {"under 1 s": at_most(1000)},
        ),
        Work(
            "journal of 100,000 tasks with small results, on disk",
            100_000,
            "bytes a task",
            {"procession": lambda: on_disk(100_000)},
            {"at most 200 bytes": at_most(200)},
            frozenset({"procession"}),
        ),
    ]


if __name__ == "__main__":
    try:
        compare("durable runs", "benchmarks-durable.md", __doc__, lambda _: [*works(), *small_works()])
    finally:
        small.SERVER.close()
