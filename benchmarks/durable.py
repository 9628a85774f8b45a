"""Durable runs beside what else would make steps durable, on the same work, in one run.

    pip install -e ".[benchmark]"
    python benchmarks/durable.py                 prints the table
    python benchmarks/durable.py --write         ... and puts it into docs/benchmarks-durable.md

Everything is on SQLite, in a new file in the temporary folder for each measurement. "Raw SQLite" inserts a row of the
same size with the standard library and commits. DBOS runs with its defaults, on fewer steps, for it takes longer;
its figure is for each step all the same. What is measured is the run, with opening and closing the journal.
"""

import asyncio
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Literal

from measuring import (
    Timed,
    Work,
    at_most,
    compare,
    ratio_at_most,
)

from procession import Process
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
    compare("durable runs", "benchmarks-durable.md", __doc__, lambda _: works())
