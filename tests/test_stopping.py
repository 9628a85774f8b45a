"""What the first Ctrl-C at a terminal says, on each way to execute a process, and that the second leaves at once."""

import os
import signal
import sys

import pytest

from terminals import terminal  # noqa: F401 - a fixture

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")

PROGRAM = """
import asyncio, os, signal, sys, threading, time
from procession import Process

signal.signal(signal.SIGINT, signal.default_int_handler)
how, progress, until = sys.argv[1:]
options = {"progress": progress == "True"}

def begun():
    # Said when the main thread waits: a signal that comes before does not come while it waits.
    main, seen = threading.main_thread().ident, []
    while threading.get_ident() != main and (len(seen) < 20 or len(set(seen[-20:])) > 1):
        time.sleep(0.001)
        frame, stack = sys._current_frames()[main], []
        while frame is not None:
            stack += [frame.f_code.co_name, frame.f_lasti]
            frame = frame.f_back
        seen.append(tuple(stack))
    os.write(1, b"begun\\n")

def work():
    begun()
    while not os.path.exists(until):
        time.sleep(0.01)

async def pause():
    begun()
    await asyncio.Event().wait()

process = Process("stopping", "parallel", 2)
for _ in range(3):
    process.add_task(work)
beside = Process("beside", "parallel", 2)
for function in work, pause, work:
    beside.add_task(function)
many = Process("prompt", "parallel", 2)
for _ in range(3):
    many.add_task(pause)

async def awaited(process):
    await process.execute_async(**options)

async def grouped():
    async with asyncio.TaskGroup() as group:
        group.create_task(process.execute_async(**options))
        group.create_task(asyncio.Event().wait())

async def entered():
    async with process.start_async(**options) as run:
        async for _ in run:
            pass

async def handled(process):
    executing = asyncio.ensure_future(process.execute_async(**options))
    def stop():
        os.write(1, b"handled\\n")
        executing.cancel()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop)
    await executing

def cancelled():
    run = process.start(**options)
    def stop(*_):
        os.write(1, b"handled\\n")
        run.cancel()
    signal.signal(signal.SIGINT, stop)
    run.result()

def iterated():
    with process.start(**options) as run:
        for _ in run:
            pass

ways = {
    "asyncio.run": lambda: asyncio.run(process.execute_async(**options)),
    "coroutines": lambda: asyncio.run(awaited(beside)),
    "group": lambda: asyncio.run(grouped()),
    "start_async": lambda: asyncio.run(entered()),
    "loop of its own": lambda: beside.execute(**options),
    "result": lambda: process.start(**options).result(),
    "with": iterated,
    "prompt": lambda: asyncio.run(awaited(many)),
    "loop's handler": lambda: asyncio.run(handled(process)),
    "handler": cancelled,
}
try:
    ways[how]()
except (KeyboardInterrupt, asyncio.CancelledError, Exception) as error:
    print("left by", type(error).__name__)
"""

WAYS = {
    "asyncio.run": 2,
    "coroutines": 1,
    "group": 2,
    "start_async": 2,
    "loop of its own": 1,
    "result": 2,
    "with": 2,
}
"""How many tasks are waited for after the first Ctrl-C: coroutines end at once."""


@pytest.fixture
def interrupted(tmp_path, terminal):
    """Return what executes in one way at a terminal, with one Ctrl-C, and the file that lets its tasks end."""

    def start(how, progress=False):
        until = tmp_path / "until"
        script = f"import sys; sys.argv = ['', {how!r}, {str(progress)!r}, {str(until)!r}]\n{PROGRAM}"
        shown = terminal(script)
        shown.until(lambda rows: sum("begun" in row for row in rows) == 2)
        os.kill(shown.child.pid, signal.SIGINT)
        return shown, until

    return start


@pytest.mark.parametrize("progress", [False, True])
@pytest.mark.parametrize(("how", "count"), WAYS.items())
def test_the_first_ctrl_c_says_what_is_waited_for(interrupted, how, count, progress):
    """Once; then the running tasks finish, and no other starts."""
    shown, until = interrupted(how, progress)
    tasks = "1 task" if count == 1 else f"{count} tasks"
    shown.until(lambda rows: any("Stopping" in row for row in rows))
    until.touch()
    shown.end()
    assert f"Stopping: waiting for {tasks}. Ctrl-C again leaves now." in shown.text
    assert shown.text.count("Stopping") == 1
    assert shown.text.count("begun") == 2
    assert "left by KeyboardInterrupt" in shown.text


@pytest.mark.parametrize("how", WAYS)
def test_the_second_ctrl_c_leaves_at_once(interrupted, how):
    """As the line says: neither the call nor the interpreter's exit waits for what runs."""
    shown, _ = interrupted(how)
    shown.until(lambda rows: any("Stopping" in row for row in rows))
    os.kill(shown.child.pid, signal.SIGINT)
    shown.end()
    assert "left by KeyboardInterrupt" in shown.text
    assert "Traceback" not in shown.text


def test_nothing_is_said_where_nothing_is_waited_for(interrupted):
    """Coroutines end as they are cancelled."""
    shown, _ = interrupted("prompt")
    shown.end()
    assert "left by KeyboardInterrupt" in shown.text
    assert "Stopping" not in shown.text


@pytest.mark.parametrize("how", ["loop's handler", "handler"])
@pytest.mark.parametrize("progress", [False, True])
def test_nothing_is_said_of_a_second_ctrl_c_where_the_program_handles_it(interrupted, how, progress):
    """It would not be true: the handler decides what the second one does."""
    shown, until = interrupted(how, progress)
    shown.until(lambda rows: any("handled" in row for row in rows))
    if progress:
        shown.until(lambda rows: any("Stopping: waiting for 2 tasks." in row for row in rows))
    os.kill(shown.child.pid, signal.SIGINT)
    shown.until(lambda rows: sum("handled" in row for row in rows) == 2)
    until.touch()
    shown.end()
    assert "again" not in shown.text
    assert shown.text.count("Stopping") == progress
