"""What workers of a `WorkerProcesses` are given to do in the tests, and how they are set up."""

import decimal
import logging
import os
import sys
import threading

from barriers import attend
from errands import kill_me, noted
from procession import current_task

MODEL = None


def load(sheet, model):
    """Set a worker up."""
    global MODEL  # noqa: PLW0603  # as programs do
    MODEL = model
    noted(sheet, f"load {os.getpid()}")


def used(value):
    return MODEL, value


def pid(*_):
    return os.getpid()


def pid_together(meetings):
    attend(meetings)
    return os.getpid()


def refuse(sheet):
    noted(sheet)
    raise LookupError("no model here")


def refuse_once(sheet):
    if noted(sheet) == 1:
        raise LookupError("no model yet")


def hang_for_ever(*_):
    threading.Event().wait()


def exit_at_once():
    os._exit(7)


def noted_pid(sheet, key):
    noted(sheet, str(key))
    return os.getpid()


def fail(value):
    raise KeyError(value)


def kill_self(*_):
    kill_me()


def seen():
    """Return what a run could have left to the next in this worker."""
    task = current_task()
    watched = logging.getLogger("watched")
    return (
        task.process_name,
        task.run_id,
        task.cancelled,
        watched.level,
        [type(handler).__name__ for handler in watched.handlers],
        decimal.getcontext().prec,
    )


def change_and_wait(meeting):
    """Change what can be changed, meet, and wait until the run is cancelled."""
    decimal.getcontext().prec = 5
    attend([meeting])
    current_task().sleep(60)


def print_lines(letter, count, before, after):
    """Print lines in pieces, as `print` does, between two meetings."""
    attend(before)
    for stream in sys.stdout, sys.stderr:
        for _ in range(count):
            print(letter * 1500, letter * 1500, file=stream)
    attend(after)


def print_unended(text):
    print(text, end="")


def variable(name):
    return os.environ.get(name)


def limit_memory(megabytes):
    """Leave so much more memory to this process."""
    import resource

    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (megabytes << 20),) * 2)


def take_memory(bytes_):
    return len(bytearray(bytes_))


def return_memory(megabytes):
    return b"x" * (megabytes << 20)
