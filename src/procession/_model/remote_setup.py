"""A function that an observer sends along with a task, to be called in the process that runs the task."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Final

REMOTE_SETUP: Final[ContextVar[Callable[[], object] | None]] = ContextVar("procession_remote_setup", default=None)
"""Set by an immediate observer when a task starts. A context does not reach a task in another process, so this function
is sent there and called before the task, in the context of the task. It must be picklable and must not raise."""
