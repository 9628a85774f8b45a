"""Durable runs of five steps, one after another and many at once: what `durable.py` measures of them."""

import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import psycopg
from measuring import ROOT, Timed

from procession import Process
from procession.journal import Journal

STEPS = 5
THREADS = 16
_TABLES = (
    "create table runs (id text primary key, status text, definition {blob})",
    """create table steps (run text, step integer, name text, digest {blob}, value {blob}, attempts integer,
        started_at double precision, duration double precision, worker text, primary key (run, step))""",
)
_BEGIN = "insert into runs values (?, 'running', ?)"
_STEP = "insert into steps values (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_END = "update runs set status = 'completed' where id = ?"
_ROW = ("app:step", b"", b"x" * 8, 1, 1.0e9, 1.0e-6, "MainThread")


def step(number: int) -> int:
    """Do what a step does."""
    return number


def run_once(run_id: str, journal: "Journal | Path") -> None:
    """Make a durable run of five steps."""
    process = Process("order")
    for number in range(STEPS):
        process.add_task(step, number)
    assert process.execute(run_id=run_id, journal=journal) == list(range(STEPS))


@contextmanager
def new_file() -> Generator[Path]:
    """Provide the path of a file that is not there, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "runs.db"


class Server:
    """A PostgreSQL server, as the tests start it: once, at the first use."""

    def __init__(self) -> None:
        self._server: Any = None

    def new_database(self) -> str:
        """Return the address of an empty database."""
        if self._server is None:
            sys.path.append(str(ROOT / "tests"))
            self._server = import_module("postgres").Server().__enter__()
        server: Any = self._server
        return str(server.new_database())

    def close(self) -> None:
        """Stop it."""
        if self._server is not None:
            self._server.__exit__()


SERVER = Server()


def journal_open(count: int) -> float:
    """Make runs one after another in a journal that is open."""
    with new_file() as path, Journal(path) as journal:
        run_once("first", journal)
        return in_turn(count, lambda number: run_once(str(number), journal))


def by_path(count: int) -> float:
    """Make runs one after another, each of which opens the journal."""
    with new_file() as path:
        run_once("first", path)
        return in_turn(count, lambda number: run_once(str(number), path))


def at_once(count: int, where: str | None = None) -> float:
    """Make runs in several threads, in one journal: in a new file, if none is given."""
    with new_file() as path, Journal(where or path) as journal:
        run_once("first", journal)
        return in_threads(count, lambda number: run_once(str(number), journal))


def raw_open(count: int) -> float:
    """Write the same rows by the standard library, each by itself, on a connection that is open."""
    with new_file() as path:
        connection = _raw(path)
        taken = in_turn(count, lambda number: _raw_run(connection, str(number)))
        connection.close()
        return taken


def raw_by_path(count: int) -> float:
    """Do the same, and open and close a connection for each run."""

    def run(number: int) -> None:
        connection = _raw(path)
        _raw_run(connection, str(number))
        connection.close()

    with new_file() as path:
        _raw(path).close()
        return in_turn(count, run)


def dbos_runs(count: int, threads: int = 1, *, server: bool = False) -> float:
    """Run DBOS workflows of five steps."""
    with dbos(server=server) as workflow:
        workflow(STEPS)
        if threads == 1:
            return in_turn(count, lambda _: workflow(STEPS))
        return in_threads(count, lambda _: workflow(STEPS))


def dbos_steps(count: int) -> float:
    """Run one DBOS workflow on the server, of a few steps in order, and return what `count` of them would take."""
    few = 300
    with dbos(server=True) as workflow:
        workflow(STEPS)
        return timed(lambda: workflow(few)) / few * count


@contextmanager
def dbos(*, server: bool) -> Generator[Callable[[int], object]]:
    """Provide a DBOS workflow of so many steps in order."""
    from dbos import DBOS, DBOSConfig

    with new_file() as path:
        address = SERVER.new_database().replace("postgresql:", "postgresql+psycopg:") if server else f"sqlite:///{path}"
        config: DBOSConfig = {"name": "steps", "system_database_url": address, "log_level": "ERROR"}
        DBOS(config=config)
        durable_step = DBOS.step()(step)

        def in_order(steps: int) -> list[int]:
            return [durable_step(number) for number in range(steps)]

        workflow = DBOS.workflow()(in_order)
        DBOS.launch()
        try:
            yield workflow
        finally:
            DBOS.destroy(destroy_registry=True)


def server_in_order(count: int) -> float:
    """Make one run of steps in order on the server."""
    process = Process("steps")
    for number in range(count):
        process.add_task(step, number)
    with Journal(SERVER.new_database()) as journal:
        run_once("first", journal)
        return timed(lambda: process.execute(run_id="steps", journal=journal))


def raw_server_in_order(count: int) -> float:
    """Insert the same rows with psycopg, with an INSERT and a COMMIT each."""
    with psycopg.connect(SERVER.new_database(), prepare_threshold=None) as connection:
        for table in _TABLES:
            connection.execute(table.format(blob="bytea"))
        connection.commit()
        connection.execute("set synchronous_commit to off")
        connection.commit()
        insert = _STEP.replace("?", "%s")

        def run() -> None:
            for number in range(count):
                connection.execute(insert, ("run", number, *_ROW))
                connection.commit()

        return timed(run)


def server_at_once(count: int, workers: int) -> float:
    """Make one run of steps at once on the server."""
    process = Process("steps", "parallel", workers)
    for number in range(count):
        process.add_task(step, number)
    with Journal(SERVER.new_database()) as journal:
        run_once("first", journal)
        return timed(lambda: process.execute(run_id="steps", journal=journal))


def newest_of_many(count: int) -> float:
    """List the newest of so many runs, in a journal that is opened for that."""
    with new_file() as path:
        with Journal(path) as journal:
            for number in range(count):
                run_once(str(number), journal)

        def look() -> None:
            with Journal(path) as journal, journal.reader() as reader:
                assert len(reader.runs(limit=50)) == 50
                assert sum(reader.counts().by_status.values()) == count

        return timed(look)


def pruned(count: int) -> float:
    """Delete so many runs."""
    with new_file() as path, Journal(path) as journal:
        for number in range(count):
            run_once(str(number), journal)
        return timed(lambda: journal.prune(time.time() + 60))


def timed(work: Callable[[], object]) -> float:
    """Return how many seconds something takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turn(count: int, run: Callable[[int], object]) -> float:
    """Return how many seconds so many runs take, one after another."""

    def run_all() -> None:
        for number in range(count):
            run(number)

    return timed(run_all)


def in_threads(count: int, run: Callable[[int], object]) -> float:
    """Return how many seconds so many runs take that several threads make."""
    numbers: Iterator[int] = iter(range(count))
    lock = threading.Lock()
    errors: list[BaseException] = []

    def serve() -> None:
        try:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                run(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=serve) for _ in range(THREADS)]

    def serve_all() -> None:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    taken = timed(serve_all)
    assert not errors, errors
    return taken


def of(count: int, contestants: dict[str, Callable[[int], float]]) -> dict[str, Timed]:
    """Return contestants that each do the work so many times."""
    return {name: partial(work, count) for name, work in contestants.items()}


def _raw(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = normal")
    for table in _TABLES:
        connection.execute(table.format(blob="blob").replace("create table", "create table if not exists"))
    return connection


def _raw_run(connection: sqlite3.Connection, run_id: str) -> None:
    connection.execute(_BEGIN, (run_id, b"x" * 200))
    for number in range(STEPS):
        connection.execute(_STEP, (run_id, number, *_ROW))
    connection.execute(_END, (run_id,))
