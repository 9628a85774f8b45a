"""Runs that are kept going while a test gives answers, and what is waited for meanwhile."""

import time
from contextlib import contextmanager

from waiting_tasks import hold

PATIENCE_S = 20.0


def until(condition, what="it"):
    """Return once a condition holds; fail where it never does."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"{what} has not come about"
        time.sleep(0.01)


@contextmanager
def held(process, journal, path, holds=hold):
    """Start a process with a last task that keeps the run going, and have that task end at the end."""
    process.add_task(holds, str(path))
    run = process.start(run_id="a", journal=journal)
    try:
        yield run
    finally:
        path.touch()
        run.wait(PATIENCE_S)
