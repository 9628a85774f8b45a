"""Kill a durable run at random instants, resume it, and see that nothing recorded is lost or done twice.

    pip install -e ".[benchmark]"
    python benchmarks/kill_loop.py 500                                   kills, on SQLite
    python benchmarks/kill_loop.py 100 --journal postgresql://...        ... on any other database

A child interpreter executes a process of tasks in order, tasks at once, a map, a nested process, a task that makes
recorded calls, a task that waits for an answer and sleeps for long, and a map whose elements wait. Each of these writes
down its call before it does anything. The child is killed (SIGKILL) after a random time and started again under the
same run id until it completes; then another run begins, until there were as many kills as asked for. In between,
answers are given, sleeps are over, and a part of the run is called again (`rerun`) by a child that may be killed, too.
After every kill the journal must be intact, must still hold all that it held before, answers included, and nothing that
it holds may be called again. Of a rerun, either all is forgotten or nothing.
"""

import argparse
import multiprocessing
import os
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from procession import JournalError, Process, RunSuspendedError, RunUnknownError, current_task
from procession.journal import Journal, schema
from procession.testing import recorded_calls

PAUSE_S = 0.001
Call = tuple[str, int, int]
"""Run, task, element or -1; of the recorded calls of a task, its place in place of an element."""
Part = tuple[int, int | None]
"""A task, or an element of a map."""
DAY_S = 86_400.0


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


def patient(calls: str, run: str) -> object:
    """Make a call, wait for an answer, make a call, sleep for long, and make a call."""
    me = current_task()
    me.call(note, calls, inside(run), PATIENT, 0)
    answer = me.wait_for("go")
    me.call(note, calls, inside(run), PATIENT, 1)
    me.sleep(DAY_S)
    me.call(note, calls, inside(run), PATIENT, 2)
    return answer


def asking(calls: str, run: str, number: int) -> tuple[int, object]:
    """Make a call, and wait for an answer, as an element of a map."""
    me = current_task()
    return me.call(note, calls, inside(run), ASKING, number), me.wait_for("approval", timeout=DAY_S)


def inside(run: str) -> str:
    """Return what stands for the calls that a task of a run makes itself."""
    return f"{run}/calls"


def build(run: str, calls: str) -> Process:
    """Return the process that is killed: tasks in order, then all else at once."""
    inner = Process("inner", "parallel", 2)
    for place in range(10):
        inner.add_task(note, calls, f"{run}/31", place, -1)
    process = Process("killed", "hybrid", 4)
    for place in range(30):
        process.add_task(note, calls, run, place, -1)
    process.map(partial(note, calls, run, 30), range(60))
    process.add_task(inner)
    for place in range(32, PATIENT):
        process.add_task(note, calls, run, place, -1)
    process.add_task(patient, calls, run)
    process.map(partial(asking, calls, run), range(3))
    process.add_task(agent, calls, run)
    return process


PATIENT, ASKING, AGENT = 58, 59, 60
"""The places of the tasks that make recorded calls and, the first two, wait."""
PARTS: list[Part] = [
    *((task, None) for task in (3, 28, 30, 31, 40, PATIENT, ASKING, AGENT)),
    *((task, element) for task in (30, ASKING) for element in range(3)),
]
"""What is called again: parts of each kind."""
EXPECTED = [
    *([-1] * 30),
    list(range(60)),
    [-1] * 10,
    *([-1] * 26),
    "yes",
    [(number, "yes") for number in range(3)],
    list(range(30, 50)),
]


def execute(journal: str, run: str, calls: str) -> None:
    """Execute the run or go on with it, in an interpreter that may be killed."""
    try:
        results = build(run, calls).execute(run_id=run, journal=journal)
    except RunSuspendedError:
        return
    assert results == EXPECTED, results
    os.write(os.open(f"{calls}.completed", os.O_WRONLY | os.O_CREAT), b"yes")


def recorded(journal: str, run: str) -> set[Call]:
    """Return the calls of a run that the journal has as completed."""
    with Journal(journal) as opened:
        try:
            calls = recorded_calls(opened)
            with suppress(RunUnknownError):  # it was killed before it had begun
                for task in PATIENT, ASKING, AGENT:
                    made = [call for call in opened.calls(run, task, limit=100) if call.state == "completed"]
                    calls |= {(inside(run), task, one.call if one.element is None else one.element) for one in made}
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


def rerun(journal: str, run: str, part: Part) -> None:
    """Forget a part of a run and what follows from it, in an interpreter that may be killed."""
    with Journal(journal) as opened:
        opened.rerun(run, **chosen(part))


def chosen(part: Part) -> dict[str, Any]:
    """Return a part as `Journal.rerun` takes it."""
    return {"tasks": [part[0]]} if part[1] is None else {"elements": [part]}


def forgotten_with(journal: str, run: str, part: Part) -> set[Part]:
    """Return what a rerun forgets; nothing of what has not begun."""
    try:
        with Journal(journal) as opened:
            return {(one.task, one.element) for one in opened.rerun(run, **chosen(part), dry_run=True)}
    except (JournalError, RunUnknownError, ValueError):  # an element that is not recorded is a ValueError
        return set()


def is_of(run: str, call: Call, forgotten: set[Part]) -> bool:
    """Return whether a call is one of those, or within them; a map is called again with an element of it."""
    name, task, number = call
    if name not in (run, inside(run)):
        return any(name == f"{run}/{task}" for task, _ in forgotten)
    within = (task, None) in forgotten or (task, number) in forgotten
    return within or (number == -1 and any(task == one for one, _ in forgotten))


class Loop:
    """Kills runs, and counts what was lost, called twice and corrupt."""

    def __init__(self, kills: int, journal: str, calls: str, seed: int) -> None:
        self.kills, self.journal, self.calls, self.seed = kills, journal, calls, seed
        self.chance = random.Random(seed)
        self.done = self.runs = self.lost = self.twice = self.corrupt = self.answered = self.reruns = 0
        self.longest = 1.0
        self.known = set[Call]()
        """What was recorded when the journal was looked at last."""
        self.given = set[Part]()
        """The tasks and elements that have their answers."""

    def go(self) -> None:
        """Kill as often as asked for."""
        if os.name != "nt":
            multiprocessing.set_start_method("forkserver")
            multiprocessing.set_forkserver_preload(["procession.testing", "psycopg", "sqlalchemy.dialects.postgresql"])
        while self.done < self.kills:
            self.runs += 1
            self.known, self.given = set(), set()
            self.run_through(f"run-{self.seed}-{self.runs}")

    def run_through(self, run: str) -> None:
        """Have a run killed and gone on with until it completes, with a part of it called again once or more often."""
        completed = Path(f"{self.calls}.completed")
        completed.unlink(missing_ok=True)
        again = False
        while not completed.exists():
            killed = self.child(execute, run, self.calls)
            self.look(run)
            if not killed or self.chance.random() < 0.5:
                self.let_go_on(run)
            if not completed.exists() and (not (again or killed) or self.chance.random() < 0.4):
                again |= self.call_again(run, self.chance.choice(PARTS))

    def child(self, function: Callable[..., None], run: str, *rest: object, longest: float | None = None) -> bool:
        """Call a function in an interpreter of its own; return whether it was killed there, after a random time."""
        process = multiprocessing.Process(target=function, args=(self.journal, run, *rest))
        start = time.monotonic()
        process.start()
        may_last = self.chance.uniform(0, self.longest if longest is None else longest)
        process.join(may_last if self.done < self.kills else None)
        if process.exitcode is None:
            process.kill()
            process.join()
            self.done += 1
            return True
        if process.exitcode:
            raise SystemExit(f"run {run} ended with exit code {process.exitcode}")
        if longest is None:
            self.longest = min(self.longest, 1.2 * (time.monotonic() - start))
        return False

    def look(self, run: str) -> None:
        """Count what the journal has lost since the last look, and what was called though it had it."""
        self.twice += len(self.known & called(self.calls))
        self.corrupt += not intact(self.journal)
        after = recorded(self.journal, run)
        self.lost += len(self.known - after)
        self.known = after

    def let_go_on(self, run: str) -> None:
        """Answer what the run waits for, and let its sleeps be over. What was answered must not be asked for again."""
        try:
            with Journal(self.journal) as journal, journal.reader() as reader:
                key = reader.key(run)
                waits = reader.waits(key)
        except (JournalError, RunUnknownError):  # it was killed before it had begun
            return
        with Journal(self.journal) as journal:
            for one in waits:
                if one.kind == "answer" and not one.answered:
                    self.lost += (one.task, one.element) in self.given
                    journal.answer(run, one.name, "yes", task=one.task, element=one.element)
                    self.given.add((one.task, one.element))
                    self.answered += 1
            with journal.database.writing() as connection:
                sleeps = schema.waits.c.run == key, schema.waits.c.kind == "sleep"
                connection.execute(schema.waits.update().where(*sleeps).values(due=1.0))

    def call_again(self, run: str, part: Part) -> bool:
        """Have a part called again, by an interpreter that may be killed; return whether there was anything of it.

        It forgets all of it, or nothing.
        """
        forgotten = forgotten_with(self.journal, run, part)
        if not forgotten:
            return False
        self.reruns += 1
        kept = {call for call in self.known if not is_of(run, call, forgotten)}
        self.child(rerun, run, part, longest=0.05)
        after = recorded(self.journal, run)
        self.corrupt += after not in (self.known, kept) or not intact(self.journal)
        self.known = after
        if forgotten_with(self.journal, run, part) != forgotten:
            self.given -= {one for one in self.given if one in forgotten or (one[0], None) in forgotten}
        return True


def main() -> None:
    """Kill as often as asked for, and fail if anything was lost, done twice or corrupt."""
    parser = argparse.ArgumentParser(description="Kill a durable run at random instants and resume it.")
    parser.add_argument("kills", type=int, nargs="?", default=100)
    parser.add_argument("--journal", help="path or URL (default: a new SQLite file)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        journal = options.journal or str(Path(folder) / "runs.db")
        loop = Loop(options.kills, journal, str(Path(folder) / "calls"), options.seed)
        loop.go()
    print(
        f"{loop.done} kills in {loop.runs} runs with {loop.answered} answers and {loop.reruns} reruns "
        f"(seed {options.seed}): {loop.lost} recorded calls lost, {loop.twice} recorded calls made again, "
        f"journal corrupt after {loop.corrupt} kills"
    )
    raise SystemExit(bool(loop.lost or loop.twice or loop.corrupt))


if __name__ == "__main__":
    main()
