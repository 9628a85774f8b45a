"""Programs of their own that run a process on workers, and waiting for what they do."""

import os
import subprocess
import sys
import time
from textwrap import dedent


def wait_for(path):
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def program(tmp_path, text, *args, stdin=False):
    """Start a program that runs a process; the text is its main part, indented."""
    path = tmp_path / "program.py"
    path.write_text(dedent(text))
    modules = os.pathsep.join(filter(None, [os.path.dirname(__file__), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": modules}
    return subprocess.Popen(
        [sys.executable, str(path), *args],
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=tmp_path,
        start_new_session=sys.platform != "win32",
    )


PROGRAM = """
    import errands, os, signal, sys
    from procession import Process, RunCancelledError

    def work(number):
        return number + 1

    if __name__ == "__main__":
        signal.signal(signal.SIGINT, signal.default_int_handler)
        process = Process("program", "parallel", 2, executor="processes")
"""
