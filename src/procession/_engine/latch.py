"""A latch: closed until it is opened, and open from then on."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress

SLICE_S = 0.05

_MAKING = threading.RLock()  # of the same thread, as a signal handler may wait, too


class Latch:
    """An event that happens once and that threads can wait for.

    Unlike `threading.Event`, a latch waits in a single C call, so that Ctrl-C in the waiting thread is raised as
    `KeyboardInterrupt`; inside the Python code of an event it may turn into a `RuntimeError` or get lost. The wait is
    divided into slices of 0.05 s, since a signal that arrives just before a thread falls asleep does not wake it, and
    on Windows no signal does.

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
        self._lock: threading.Lock | None = None  # made by the first thread that waits: most latches nobody waits for

    def open(self) -> None:
        """Wake all threads that wait; later ones do not wait. Opening an open latch does nothing."""
        self.is_open = True
        lock = self._lock  # a thread that makes the lock only now sees afterwards that the latch is open
        if lock is not None:
            _release(lock)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the latch is open, at most `seconds`, or without limit for `None`; return whether it is open."""
        deadline = None if seconds is None else time.monotonic() + seconds
        lock = self._made()
        while not self.is_open:
            left = SLICE_S if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return False
            if lock.acquire(timeout=min(left, SLICE_S)):
                _release(lock)  # for the next thread that waits
        return True

    def wait_through(
        self, interrupt: Callable[[BaseException], object], begin: Callable[[], object] | None = None
    ) -> None:
        """Wait on through a first Ctrl-C, with which `interrupt` is called; a second one is raised.

        So the main thread waits for a run, as signals reach only that thread, at any instruction. `begin` is called
        first, and an exception in it counts as the first.
        """
        try:
            if begin is not None:
                begin()
            self.wait()
        except BaseException as error:
            interrupt(error)
            self.wait()

    def _made(self) -> threading.Lock:
        """Return the lock that is held until the latch opens."""
        with _MAKING:
            if self._lock is None:
                lock = threading.Lock()
                lock.acquire()
                self._lock = lock
            return self._lock


def _release(lock: threading.Lock) -> None:
    with suppress(RuntimeError):  # another thread was faster
        lock.release()
