"""Runs with a bit of everything that the page shows, with names too long for it: `python shown_runs.py WHICH WHERE ID`."""

import logging
import os
import signal
import sys
import time

from procession import Limit, Process, TaskLogHandler, current_task, task
from procession.journal import Journal

LONG = "a_name_that_is_far_too_long_for_a_cell_" * 3
SCARCE = Limit("a limit with a name too long for a fact of a page", at_once=1)


def fine(number=0):
    return {"number": number}


def named(name, function):
    return task(name=name)(function)


def bad(number):
    logging.getLogger().warning("asks for %s", number)
    raise LookupError(f"nothing at {number}: " + "the whole story " * 10)


def hold():
    while not current_task().cancelled:
        current_task().sleep(0.01)


@task(retries=1)
def refused_once(host):
    if current_task().attempt == 1:
        raise ConnectionError(f"{host} has refused the connection: " + "x" * 90)


def careful(number):
    me = current_task()
    me.call(named(LONG, fine), number)
    if number % 2:
        me.call(named(LONG, bad), number)


def unsure(name):
    current_task().call(fine, 1)
    return current_task().wait_for(name, timeout=3600)


def inner(name, *functions):
    process = Process(name, "parallel", 2, on_error="continue")
    for function in functions:
        process.add_task(function)
    return process


def everything(good):
    process = Process("everything", "parallel", 2, on_error="continue")
    process.add_task(named(LONG, fine if good else lambda: bad(1)))
    process.add_task(named("short", fine))
    process.map(task(name="fetch {number} of " + LONG)(fine if good else careful), range(130))
    process.add_task(inner(f"within {LONG}", named(LONG, fine if good else lambda: bad(2)), fine))
    process.add_task(refused_once, "https://example.org/" + "path/" * 60)
    process.add_task(fine if good else careful, 3)
    value = process.task(fine if good else bad, 4)
    process.add_task(fine, value)
    for number in range(140):
        process.add_task(named(f"{number % 30} {LONG}", fine), number)
    return process


def live():
    process = Process(f"live {LONG}", "parallel", 4)
    process.add_task(named("short", fine))
    for _ in range(3):
        process.add_task(task(name=LONG, limit=SCARCE)(hold))
    process.map(task(name="hold {number} of " + LONG, limit=SCARCE)(lambda number: hold()), range(3))
    process.add_task(fine, process.task(named(LONG, hold)))
    return process


def suspended():
    process = Process(f"suspended {LONG}", "parallel", 2)
    process.map(task(name=LONG)(unsure), [f"an answer to {LONG}", "ok"])
    process.add_task(inner(LONG, lambda: current_task().sleep(86400)))
    return process


def killed():
    process = Process("killed", "sequential")
    process.add_task(fine)
    process.add_task(lambda: (time.sleep(1.2), os.kill(os.getpid(), signal.SIGKILL)))
    process.add_task(named(LONG, fine))
    return process


def chain():
    """Return a process of 60 tasks, each of which takes the value of the one before."""
    process = Process("chain", "parallel", 2)
    value = process.task(fine)
    for number in range(1, 60):
        value = process.task(named(f"step_{number}_of_the_chain", fine), value)
    return process


if __name__ == "__main__":
    logging.getLogger().addHandler(TaskLogHandler())
    which, where, run_id = sys.argv[1:]
    makers = {"good": lambda: everything(True), "bad": lambda: everything(False)}
    process = makers.get(which, lambda: globals()[which]())()
    with Journal(where, codec="json") as journal:
        try:
            process.execute(journal=journal, run_id=run_id)
        except BaseException as error:
            sys.exit(type(error).__name__)
