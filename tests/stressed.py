"""A process of everything there is, whose calls leave marks; run by a program of its own, which may be killed.

    python stressed.py JOURNAL RESULTS     executes it as the run "a"
    procession run stressed.py:threads     one of its parts; there is one for each kind of executor

Each call writes a line into the file that `STRESS_CALLS` names, before it does anything: its run, its task and its
element, or -1. So each line stands for what a journal may have as recorded. The variable also marks the program and its
worker processes, so that those that are left behind can be found.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil

from procession import Process, RunSuspendedError, current_task, stream, task
from procession.journal import Journal, schema

CALLS = "STRESS_CALLS"
KINDS = ["in order", "threads", "coroutines", "worker processes", "a pipeline"]


def note(run, index, element=-1):
    file = os.open(os.environ[CALLS], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, f"{run} {index} {element}\n".encode())
    os.close(file)


def call(run, index, *values):
    note(run, index)
    time.sleep(0.002)
    return [index, *values]


async def call_async(run, index, *values):
    note(run, index)
    await asyncio.sleep(0.002)
    return [index, *values]


def element(run, index, number, size=0):
    note(run, index, number)
    time.sleep(0.002)
    return number if not size else f"{number}:{'x' * size}"


async def element_async(run, index, number, size=0):
    note(run, index, number)
    await asyncio.sleep(0.002)
    return number if not size else f"{number}:{'x' * size}"


def hungry(number):
    """Need some memory for a moment."""
    room = bytearray(20_000_000)
    time.sleep(0.005)
    return number + len(room) - 20_000_000


def fails_first(run, index):
    note(run, index)
    if current_task().attempt == 1:
        raise ConnectionError("at first")
    return "at last"


def joined(run, index, number, *, first, size):
    return [*first, element(run, index, number, size)]


def count(run, index, values):
    note(run, index)
    return sum(1 for _ in values)


def agent(run, index):
    note(run, index)
    me = current_task()
    return [me.call(abs, -1), *me.map(abs, [-2, 3])]


def patient(index):
    """Make a call, wait for an answer, make a call, sleep for a day, and make a call."""
    me = current_task()
    found = [me.call(element, "a/calls", index, 0), me.wait_for("go"), me.call(element, "a/calls", index, 1)]
    me.sleep(86_400)
    return [*found, me.call(element, "a/calls", index, 2)]


def asking(index, number):
    """Make a call, and wait for an answer, as an element of a map."""
    me = current_task()
    return [me.call(element, "a/calls", index, number), me.wait_for("approval", timeout=86_400)]


def pipeline(run, elements, size, hunger):
    """Return a process whose elements go from coroutines to worker processes and threads, and to a task as they end."""
    process = Process("a pipeline", "parallel", 3)
    fetched = process.map(partial(element_async, run, 0), range(elements))
    parsed = process.map(task(executor="processes")(partial(element, run, 1, size=size)), fetched)
    first = process.task(partial(call, run, 2))
    process.map(partial(joined, run, 3), fetched, constants={"first": first, "size": size})
    process.task(partial(count, run, 4), stream(parsed))
    process.add_task(agent, run, 5)
    if hunger:
        process.map(hungry, range(hunger))
    return process


def part(kind, run, elements=12, size=0, hunger=0):
    """Return a process on one kind of executor: tasks, one that takes a value, maps over a range and a generator.

    Each element returns about `size` characters, and another map has `hunger` elements that need memory.
    """
    if kind == "a pipeline":
        return pipeline(run, elements, size, hunger)
    awaited = kind == "coroutines"
    made, each = (call_async, element_async) if awaited else (call, element)
    strategy = "sequential" if kind == "in order" else "parallel"
    executor = "processes" if kind == "worker processes" else "threads"
    process = Process(kind, strategy, 3, executor=executor)
    first = process.task(partial(made, run, 0))
    for index in range(1, 5):
        process.add_task(partial(made, run, index))
    process.task(partial(made, run, 5), first)
    process.map(partial(each, run, 6, size=size), range(elements))
    process.map(partial(each, run, 7, size=size), (number for number in range(elements)))
    if hunger:
        process.map(hungry, range(hunger))
    return process


def everything():
    """Return a process of all kinds at once, with a retry, a task that takes the value of a kind, and some that wait."""
    process = Process("everything", "parallel", 4)
    handles = [process.task(part(kind, f"a/{index}")) for index, kind in enumerate(KINDS)]
    process.add_task(task(retries=2)(partial(fails_first, "a", RETRIED)))
    parts = process.task(len, handles[1])
    process.task(partial(call, "a", RETRIED + 2), parts)
    process.add_task(patient, PATIENT)
    process.map(partial(asking, ASKING), range(2))
    return process


def execute_everything(journal):
    """Execute `everything` until it has completed: where it waits, what it waits for is given."""
    while True:
        try:
            return everything().execute(run_id="a", journal=journal)
        except RunSuspendedError:
            let_go_on(journal)


def let_go_on(journal):
    """Give the run its answers, and let its sleeps be over."""
    with Journal(journal) as opened:
        for one in opened.run("a").waits:
            if one.kind == "answer" and not one.answered:
                opened.answer("a", one.name, "yes", task=one.task, element=one.element)
        with opened.database.writing() as connection:
            connection.execute(schema.waits.update().where(schema.waits.c.kind == "sleep").values(due=1.0))


def part_results(kind, elements=12, size=0, hunger=0):
    numbers = list(range(elements))
    mapped = [number if not size else f"{number}:{'x' * size}" for number in numbers]
    more = [list(range(hunger))] if hunger else []
    if kind == "a pipeline":
        return [numbers, mapped, [2], [[2, one] for one in mapped], elements, [1, 2, 3], *more]
    return [[0], [1], [2], [3], [4], [5, [0]], mapped, mapped, *more]


RETRIED = len(KINDS)
"""The place in `everything` of the task that fails at first."""
PATIENT, ASKING = RETRIED + 3, RETRIED + 4
"""The places of the tasks that wait."""
EVERYTHING = [
    *map(part_results, KINDS),
    "at last",
    8,
    [RETRIED + 2, 8],
    [0, "yes", 1, 2],
    [[0, "yes"], [1, "yes"]],
]

in_order, threads, coroutines, processes, stages = (partial(part, kind, "a") for kind in KINDS)
TARGETS = ["in_order", "threads", "coroutines", "processes", "stages"]


def called(calls):
    """Return the calls that were noted, and forget them."""
    if not calls.exists():
        return []
    lines = [line.rsplit(" ", 2) for line in calls.read_text().splitlines()]
    calls.unlink()
    return [(run, int(index), int(at)) for run, index, at in lines]


def started(folder, *command, before=()):
    """Start a program that is no part of our group, with a file for its calls; return it, and the file."""
    calls = folder / "calls"
    environment = {**os.environ, CALLS: str(calls), "TMPDIR": str(folder)}
    modules = [os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, modules))
    popen = subprocess.Popen(
        [*before, sys.executable, *map(str, command)],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    return popen, calls


def wait_for_calls(popen, calls, count):
    """Return when a program has noted so many calls, or has ended."""
    until = time.monotonic() + 40
    while popen.poll() is None and not (calls.exists() and calls.read_bytes().count(b"\n") >= count):
        assert time.monotonic() < until, "the program hangs"
        time.sleep(0.001)


def left_of(calls):
    """Return the living processes that were started with this file for their calls."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(CALLS) == str(calls) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


if __name__ == "__main__":
    _, journal, results = sys.argv
    Path(results).write_text(json.dumps(execute_everything(journal)))
