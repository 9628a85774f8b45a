"""Task functions for a cluster, which imports them by name."""

import logging
import os
import signal
import time
from pathlib import Path

from procession import Process, RetryAfter, current_task


def wait_until_cancelled(path):
    """Say that it has begun, and return when the run is cancelled."""
    Path(path).touch()
    until = time.monotonic() + 50
    while not current_task().cancelled:
        assert time.monotonic() < until
        time.sleep(0.01)
    return "asked to stop"


class Awaiting:
    """Can be read, by whoever gets it, when a file is there."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return wait_for, (self.path,)


def double(number):
    return number * 2


def large(number):
    return bytes([number % 256]) * 300_000


def sizes(blocks):
    return [len(block) for block in blocks]


def append_to(numbers, number):
    numbers.append(number)
    return len(numbers)


def first_bytes(*blocks):
    return [block[0] for block in blocks]


def fail(number):
    raise KeyError(number)


def die_once(number, path):
    """Kill the worker, the first time that this is called."""
    time.sleep(0.005)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return number
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def run_there(where, function, *args, deep=0):
    """Call a function three times by a process of its own; `deep` says, by so many levels of them. Return the results.

    `where` is an executor, or "client" for the one that Dask has for a task.
    """
    process = Process("nested", "parallel", 4, executor=client_here() if where == "client" else where)
    for _ in range(3):
        if deep:
            process.add_task(run_there, where, function, *args, deep=deep - 1)
        else:
            process.add_task(function, *args)
    return process.execute()


def client_here():
    import distributed

    return distributed.get_client()


def start_there(where, function, *args):
    """Have two runs going at the same time, one of them in another thread than this one."""
    process = Process("started", "parallel", 4, executor=where)
    process.add_task(function, *args)
    other = Process("executed", "parallel", 4, executor=where)
    other.add_task(function, *args)
    run = process.start()
    return [*other.execute(), *run.result()]


def run_by_way_of(way, where, function, *args):
    """Have a process on one executor that has one on another."""
    process = Process("way", "parallel", 4, executor=way)
    for _ in range(2):
        process.add_task(run_there, where, function, *args)
    return process.execute()


def run_there_and_stay(where, folder, number):
    """Say how many others there are, after a run of its own."""
    run_there(where, double, 1)
    return occupy(folder, number, 0.2)


def note(folder, number):
    """Leave a file for each call."""
    file, name = None, 0
    while file is None:
        try:
            file = os.open(Path(folder) / f"{number}.{name}", os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            name += 1
    os.close(file)
    return number


def occupy(folder, number, seconds=0.02):
    """Be one of those that run at the same time, and say how many there are."""
    mine = Path(folder) / f"{number}"
    mine.touch()
    time.sleep(seconds)
    count = len(list(Path(folder).iterdir()))
    mine.unlink()
    return count


def wait_for(path):
    while not Path(path).exists():
        time.sleep(0.01)
    return "let end"


def note_unless_first(folder, number):
    """Do the same, but fail for the first."""
    return note(folder, number) if number else fail(number)


def note_and_wait(folder, number):
    """Note the call; all but the first wait until they are told to go on."""
    note(folder, number)
    while number and not (Path(folder) / "go on").exists():
        time.sleep(0.01)
    return number


def log_and_return(number):
    """Says so."""
    logging.getLogger("tests.cluster").info("%d", number)
    return number


def instants(number):
    """Return when the call began and ended."""
    start = time.monotonic()
    time.sleep(0.02)
    return start, time.monotonic()


def put_off_once(folder, number):
    """Have the first call say that its service asks for a pause."""
    note(folder, number)
    told = Path(folder) / f"told {number}"
    if not number and not told.exists():
        told.touch()
        raise RetryAfter(0.1)
    return current_task().attempt


def chain(number):
    """Make calls, one after another and several at once."""
    me = current_task()
    return [me.call(double, number), *me.map(double, [number, number + 1])]


def make_do(number):
    """Go on with something else where a call or a wait is refused."""
    me = current_task()
    try:
        return me.call(double, number)
    except RuntimeError:
        return "a fallback"


def ask(number):
    """Wait for an answer."""
    return number, current_task().wait_for("approval")
