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

from procession import Process, current_task, task

CALLS = "STRESS_CALLS"
KINDS = ["in order", "threads", "coroutines", "worker processes"]


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


def part(kind, run, elements=12, size=0, hunger=0):
    """Return a process on one kind of executor: tasks, one that takes a value, maps over a range and a generator.

    Each element returns about `size` characters, and another map has `hunger` elements that need memory.
    """
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
    """Return a process of all kinds at once, with a retry, and a task that waits for one of the kinds."""
    process = Process("everything", "parallel", 4)
    handles = [process.task(part(kind, f"a/{index}")) for index, kind in enumerate(KINDS)]
    process.add_task(task(retries=2)(partial(fails_first, "a", 4)))
    count = process.task(len, handles[1])
    process.task(partial(call, "a", 6), count)
    return process


def part_results(elements=12, size=0, hunger=0):
    mapped = [number if not size else f"{number}:{'x' * size}" for number in range(elements)]
    return [[0], [1], [2], [3], [4], [5, [0]], mapped, mapped, *([list(range(hunger))] if hunger else [])]


EVERYTHING = [*[part_results()] * 4, "at last", 8, [6, 8]]

in_order, threads, coroutines, processes = (partial(part, kind, "a") for kind in KINDS)
TARGETS = ["in_order", "threads", "coroutines", "processes"]


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
    Path(results).write_text(json.dumps(everything().execute(run_id="a", journal=journal)))
