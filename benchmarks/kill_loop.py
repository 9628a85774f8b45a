"""Kill a durable run at random instants, resume it, and see that nothing recorded is lost or done twice.

    pip install -e ".[benchmark]"
    python benchmarks/kill_loop.py 500                                   kills, on SQLite
    python benchmarks/kill_loop.py 100 --journal postgresql://...        ... on any other database

A child interpreter executes a process of tasks in order, tasks at once, a map, a nested process and a task that makes
recorded calls. Each of these writes down its call before it does anything. The child is killed (SIGKILL) after a random
time and started again under the same run id until it completes; then another run begins, until there were as many kills
as asked for. After every kill the journal must be intact, must still hold all that it held before, and nothing that it
holds may be called again.
"""

import argparse
import multiprocessing
import os
import random
import sqlite3
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from procession import JournalError, Process, RunUnknownError, current_task
from procession.journal import Journal
from procession.testing import recorded_calls

PAUSE_S = 0.001
Call = tuple[str, int, int]
"""Run, task, element or -1; of the recorded calls of a task, its place in place of an element."""


def note(calls: str, run: str, task: int, number: int) -> int:
    """Write down the call, then be busy for a moment."""
    file = os.open(calls, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{run} {task} {number}\n".encode())
    os.close(file)
    time.sleep(PAUSE_S)
    return number


def agent(calls: str, run: str) -> list[int]:
    """Make calls one after another, each with the value of the one before, and then several at once."""
    me, value = current_task(), 0
    for _ in range(30):
        value = me.call(note, calls, inside(run), AGENT, value) + 1
    return me.map(partial(note, calls, inside(run), AGENT), range(value, value + 20))


def inside(run: str) -> str:
    """Return what stands for the calls that a task of a run makes itself."""
    return f"{run}/calls"


def build(run: str, calls: str) -> Process:
    """Return the process that is killed: tasks in order, then a nested process, a map, tasks at once and an agent."""
    inner = Process("inner", "parallel", 2)
    for place in range(10):
        inner.add_task(note, calls, f"{run}/31", place, -1)
    process = Process("killed", "hybrid", 4)
    for place in range(30):
        process.add_task(note, calls, run, place, -1)
    process.map(partial(note, calls, run, 30), range(60))
    process.add_task(inner)
    for place in range(32, 60):
        process.add_task(note, calls, run, place, -1)
    process.add_task(agent, calls, run)
    return process


AGENT = 60
"""The place of the task that makes recorded calls."""
EXPECTED = [-1] * 30 + [list(range(60))] + [[-1] * 10] + [-1] * 28 + [list(range(30, 50))]


def execute(journal: str, run: str, calls: str) -> None:
    """Execute the run or go on with it, in an interpreter that may be killed."""
    results = build(run, calls).execute(run_id=run, journal=journal)
    assert results == EXPECTED, results
    os.write(os.open(f"{calls}.completed", os.O_WRONLY | os.O_CREAT), b"yes")


def recorded(journal: str, run: str) -> set[Call]:
    """Return the calls of a run that the journal has as completed."""
    with Journal(journal) as opened:
        try:
            calls = recorded_calls(opened)
            with suppress(RunUnknownError):  # it was killed before it had begun
                made = opened.calls(run, AGENT, limit=100)
                calls |= {(inside(run), AGENT, call.call) for call in made if call.state == "completed"}
        except JournalError as error:
            if "there is no journal" in str(error):  # it was killed before it had made one
                return set()
            raise
    return {call for call in calls if call[0] == run or call[0].startswith(f"{run}/")}


def called(calls: str) -> set[Call]:
    """Return the calls written down since the last look, and forget them."""
    path = Path(calls)
    if not path.exists():
        return set()
    lines = [line.split() for line in path.read_text().splitlines()]
    path.unlink()
    return {(run, int(task), int(number)) for run, task, number in lines}


def intact(journal: str) -> bool:
    """Return what SQLite says of the file; a server is asked for nothing but what it recorded."""
    if "://" in journal or not Path(journal).exists():
        return True
    connection = sqlite3.connect(journal)
    try:
        return bool(connection.execute("pragma integrity_check").fetchone() == ("ok",))
    finally:
        connection.close()


def kill_loop(kills: int, journal: str, calls: str, seed: int) -> tuple[int, int, int, int]:
    """Kill so many times; return how many runs that took, and what was lost, called twice and corrupt."""
    chance = random.Random(seed)
    if os.name != "nt":
        multiprocessing.set_start_method("forkserver")
        multiprocessing.set_forkserver_preload(["procession.testing", "psycopg", "sqlalchemy.dialects.postgresql"])
    done = runs = lost = twice = corrupt = 0
    longest = 1.0
    while done < kills:
        runs += 1
        run, before = f"run-{seed}-{runs}", set[Call]()
        completed = Path(f"{calls}.completed")
        completed.unlink(missing_ok=True)
        while not completed.exists():
            child = multiprocessing.Process(target=execute, args=(journal, run, calls))
            start = time.monotonic()
            child.start()
            child.join(chance.uniform(0, longest) if done < kills else None)
            if child.exitcode is None:
                child.kill()
                child.join()
                done += 1
            elif child.exitcode:
                raise SystemExit(f"run {run} ended with exit code {child.exitcode}")
            else:
                longest = min(longest, 1.2 * (time.monotonic() - start))
            again = called(calls)
            twice += len(before & again)
            corrupt += not intact(journal)
            after = recorded(journal, run)
            lost += len(before - after)
            before = after
    return runs, lost, twice, corrupt


def main() -> None:
    """Kill as often as asked for, and fail if anything was lost, done twice or corrupt."""
    parser = argparse.ArgumentParser(description="Kill a durable run at random instants and resume it.")
    parser.add_argument("kills", type=int, nargs="?", default=100)
    parser.add_argument("--journal", help="path or URL (default: a new SQLite file)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        journal = options.journal or str(Path(folder) / "runs.db")
        runs, lost, twice, corrupt = kill_loop(options.kills, journal, str(Path(folder) / "calls"), options.seed)
    print(
        f"{options.kills} kills in {runs} runs (seed {options.seed}): {lost} recorded calls lost, "
        f"{twice} recorded calls made again, journal corrupt after {corrupt} kills"
    )
    raise SystemExit(bool(lost or twice or corrupt))


if __name__ == "__main__":
    main()
