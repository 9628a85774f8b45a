"""Runs that were started, for which an interpreter that exits waits."""

import os
import threading
from concurrent.futures import thread as _pools
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast
from weakref import WeakSet

if TYPE_CHECKING:
    from procession._run import Run

_started: Final["WeakSet[Run]"] = WeakSet()
_lock: Final = threading.Lock()


def outlast(run: "Run") -> None:
    """Have the interpreter not exit before a run has ended.

    It would wait for the run's thread anyway, but only after the pools have been shut, and then no task could begin.
    """
    with _lock:
        _started.add(run)


def _wait() -> None:
    """Wait for all. Ctrl-C cancels them, and is raised when the tasks in flight have ended; a second one is at once."""
    with _lock:
        runs = list(_started)
    try:
        for run in runs:
            run.wait()
    except KeyboardInterrupt:
        for run in runs:
            run.cancel()
        for run in runs:
            run.wait()
        raise


def _forked() -> None:
    _started.clear()  # the parent's
    _lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_forked)
with suppress(RuntimeError):  # it exits already
    # The standard library's own; it shuts pools so, too. What is registered last is called first.
    assert _pools
    cast("Any", threading)._register_atexit(_wait)
