"""What an observer sends along with a task to where that is called."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Final

REMOTE_SETUP: Final[ContextVar[Callable[[], object] | None]] = ContextVar("procession_luggage", default=None)
"""Set by an immediate observer when a task starts. Where the task is called in another process, contexts do not reach;
there, this is called before it, in its context. It has to travel by pickle, and must not raise."""
