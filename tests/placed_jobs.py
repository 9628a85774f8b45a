"""What tests have called on the executors of tasks: each of these says where it was called, or does it there."""

import os
import threading
import time
from pathlib import Path

from errands import noted
from procession import TaskCancelled, current_task

WAIT_S = 20


def fetched(number):
    return number, os.getpid()


async def awaited(number):
    return number, os.getpid()


def parsed(page):
    number, there = page
    return number * 2, there, os.getpid()


def written(rows):
    return os.getpid(), list(rows)


async def awaited_rows(rows):
    return os.getpid(), [row async for row in rows]


def where(_=None):
    return os.getpid(), threading.current_thread().name


def facts(_=None):
    me = current_task()
    return me.index, me.element, me.attempt, me.name, me.process_name


def fail_of(number, wrong):
    if number in wrong:
        raise KeyError(number)
    return number


def wait_for_file(path):
    deadline = time.monotonic() + WAIT_S
    while not Path(path).exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody has made {path}")
        time.sleep(0.002)


def say_and_wait_for_cancel(folder):
    """Say that it runs, and end once it is told to; else it would take long."""
    noted(folder, "started")
    try:
        current_task().sleep(WAIT_S)
    except TaskCancelled:
        noted(folder, "stopped")
        raise
    return "not stopped"


def say_and_hang(folder):
    """Say who it is, and take no notice of anything."""
    noted(folder, "started")
    Path(folder, "pid").write_text(str(os.getpid()))
    time.sleep(WAIT_S)
    return "not ended"


def last_lets_the_first_go(folder, number, last):
    """The first one of some waits for the last one of all."""
    if number == last:
        Path(folder, "last").touch()
    elif number == last - 3:
        wait_for_file(Path(folder, "last"))
    return number


def at_most(folder, number):
    """Return how many of these went on at the same time, this one included."""
    path = Path(folder, f"on{number}")
    path.touch()
    try:
        time.sleep(0.002)
        return len(list(Path(folder).glob("on*")))
    finally:
        path.unlink()


def ask(folder, number):
    """Make a call that is recorded by itself, then fail the first time."""
    value = current_task().call(count_and_return, folder, number)
    if noted(folder, "asked") == 1:
        raise OSError("once")
    return value


def count_and_return(folder, number):
    noted(folder, "counted")
    return number
