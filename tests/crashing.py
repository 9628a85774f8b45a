"""What is called in interpreters that are killed, and processes of it: a module that they import quickly."""

import asyncio
import os
import random
import time

from procession import Process, current_task, stream, task


def double(number):
    return number * 2


async def double_async(number):
    return number * 2


async def double_late(number):
    """Take the longer the greater the number is, so that each element is written by itself."""
    await asyncio.sleep(number / 20)
    return number * 2


def chance():
    return random.random()


def hang(path):
    """Say which process this is, and never return."""
    path.write_text(str(os.getpid()))
    while True:
        time.sleep(60)


def agent(goal):
    return current_task().call(double, goal) + 1


def first(rows):
    return next(iter(rows))


def one_more(number):
    return number + 1


def by_chance(_):
    return chance()


def asks(number):
    me = current_task()
    drafted = me.call(double, number)
    return me.call(one_more, drafted) if me.wait_for("approval") else "dropped"


def waits_in_vain(number):
    me = current_task()
    if number:
        return me.sleep(3600)
    try:
        return me.wait_for("nobody", timeout=60)
    except TimeoutError:
        return "too late"


def tens(numbers, *, plus=0):
    return [10 * number + plus for number in numbers]


def small():
    """A process of everything there is: in order, at once, handles, a map, a nested process, retries."""
    inner = Process("inner", "parallel", 2)
    inner.add_task(double, 1)
    inner.add_task(double, 2)
    process = Process("small", "hybrid", 2)
    numbers = process.task(list, range(3))
    process.add_task(task(retries=1)(double), 4)
    doubled = process.map(double, numbers)
    process.add_task(sum, doubled)
    process.add_task(inner)
    return process


def piped():
    """A pipeline of batches."""
    process = Process("piped", "parallel", 2)
    first = process.map(tens, range(7), batch=3)
    second = process.map(tens, first, batch=2)
    process.task(sum, stream(second))
    return process
