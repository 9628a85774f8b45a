"""Tasks that log: a module that workers import quickly."""

import asyncio
import logging
import os
import time

from procession import Process, current_task, task

LOGGER = logging.getLogger("tests.shop")


def say(text):
    LOGGER.info(text)
    return text


def fail(text):
    say(text)
    raise ValueError(f"no {text}")


@task(retries=2, retry_on=ConnectionError)
def stubborn():
    attempt = current_task().attempt
    if attempt != 2:
        say(f"try {attempt}")
    if attempt < 3:
        raise ConnectionError


def inside(text):
    """Executes a process by itself, in a journal of its own."""
    process = Process("inner")
    process.add_task(say, text)
    return process.execute(run_id="inner", journal=":memory:")


async def say_twice(text):
    say(f"{text} before")
    await asyncio.sleep(0)
    say(f"{text} after")


def hang(path):
    say("about to hang")
    while not os.path.exists(path):
        time.sleep(0.01)
    say("too late")
