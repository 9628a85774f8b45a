"""Task functions for a cluster, which imports them by name."""

import logging
import os
import signal
import time
from pathlib import Path

from procession import current_task


def wait_until_cancelled(path):
    """Say that it has begun, and return when the run is cancelled."""
    Path(path).touch()
    until = time.monotonic() + 50
    while not current_task().cancelled:
        assert time.monotonic() < until
        time.sleep(0.01)
    return "asked to stop"


def double(number):
    return number * 2


def large(number):
    return bytes([number % 256]) * 300_000


def sizes(blocks):
    return [len(block) for block in blocks]


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


def occupy(folder, number):
    """Be one of those that run at the same time, and say how many there are."""
    mine = Path(folder) / f"{number}"
    mine.touch()
    time.sleep(0.02)
    count = len(list(Path(folder).iterdir()))
    mine.unlink()
    return count


def wait_for(path):
    while not Path(path).exists():
        time.sleep(0.01)
    return "let end"


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
