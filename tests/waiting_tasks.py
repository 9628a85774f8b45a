"""Tasks that wait for answers, wherever they are called: a module that workers import quickly."""

import time
from pathlib import Path

from procession import TaskTimeoutError, current_task

DAY_S = 86400.0


def counted(number, folder):
    with Path(folder, f"{number}").open("a") as file:
        file.write("x")
    return 2 * number


def approve(number, folder):
    me = current_task()
    paid = me.call(counted, number, folder)
    return [paid, me.wait_for("approval", timeout=3600)]


def double(number):
    return 2 * number


def nap():
    current_task().sleep(DAY_S)
    return "rested"


def late():
    try:
        return current_task().wait_for("approval", timeout=3600)
    except TaskTimeoutError:
        return "nobody came"


def hold(path):
    until = time.monotonic() + 20
    while not Path(path).exists() and time.monotonic() < until:
        time.sleep(0.01)


def tell(path, folder):
    found = approve(1, folder)
    Path(path).touch()
    return found


def sign(number):
    """Wait for a signature where the number ends with 7."""
    return number, current_task().wait_for("signature") if number % 50 == 7 else None


async def sign_later(number):
    return sign(number)
