"""A latch: shut until it is opened, then open for good."""

import threading
import time
from contextlib import suppress

SLICE_S = 0.05


class Latch:
    """Something that threads wait for and that happens once.

    Unlike `threading.Event` it waits in C, so that Ctrl-C in the waiting thread is raised as it is: inside the
    event's own locks it may turn into a `RuntimeError` or get lost. And it waits in slices, for a signal that comes
    just before a thread falls asleep does not wake it, and on Windows none does.

    Example:
        >>> latch = Latch()
        >>> latch.wait(0)
        False
        >>> latch.open()
        >>> latch.wait()
        True

    """

    __slots__ = ("_lock", "is_open")

    def __init__(self) -> None:
        self.is_open = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def open(self) -> None:
        """Let everyone pass who waits or comes later. Harmless when it is open."""
        self.is_open = True
        self._release()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the latch is open, at most so many seconds; return whether it is."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while not self.is_open:
            left = SLICE_S if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return False
            if self._lock.acquire(timeout=min(left, SLICE_S)):
                self._release()  # for the next one who waits
        return True

    def _release(self) -> None:
        with suppress(RuntimeError):  # another thread was faster
            self._lock.release()
