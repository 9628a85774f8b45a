"""Ctrl-C under `asyncio.run`, in real interpreters."""

import signal
import subprocess
import sys
from textwrap import dedent

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


@pytest.mark.parametrize("task", ["threading.Event().wait", "wait_for_ever"])
def test_a_second_ctrl_c_leaves_at_once_and_so_does_the_interpreter(task):
    """Though threads of the run are still busy, with coroutines beside them or without."""
    script = f"""
        import asyncio, signal, sys, threading
        from procession import Process

        signal.signal(signal.SIGINT, signal.default_int_handler)

        async def wait_for_ever():
            await asyncio.Event().wait()

        def stuck():
            print("ready", flush=True)
            threading.Event().wait()

        process = Process("stuck", "parallel", 3)
        process.add_task(stuck)
        process.add_task({task})
        try:
            asyncio.run(process.execute_async())
        except KeyboardInterrupt:
            print("left", flush=True)
    """
    with subprocess.Popen([sys.executable, "-c", dedent(script)], stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout.readline() == "ready\n"
            while child.poll() is None:  # the first may not have been seen when the second comes: then they are one
                child.send_signal(signal.SIGINT)
                try:
                    child.wait(0.5)
                except subprocess.TimeoutExpired:
                    continue
            assert child.stdout.read() == "left\n"
            assert child.returncode in (0, -signal.SIGINT)
        finally:
            child.kill()
