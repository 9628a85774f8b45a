"""What the thread pools of the standard library do when the interpreter exits, which is private to them."""

import sys
import threading
from typing import Any

from procession._model.text import shown
from procession.errors import WorkersUnavailableError


def forget(thread: threading.Thread) -> None:
    """Keep the interpreter's exit from waiting for a thread of a pool: it was left behind on purpose."""
    _pools()._threads_queues.pop(thread, None)


def no_workers(process_name: str) -> WorkersUnavailableError:
    """Return the error of a run for which no thread of a pool could be started."""
    at_exit = sys.is_finalizing() or _pools() is None or _pools()._shutdown
    why = "the interpreter is shutting down" if at_exit else "the system has no more threads"
    return WorkersUnavailableError(f"process {shown(process_name)!r}: no worker thread could be started: {why}")


def _pools() -> Any:
    """Return the module of the pools; `None` if it cannot be imported any more."""
    return sys.modules.get("concurrent.futures.thread")
