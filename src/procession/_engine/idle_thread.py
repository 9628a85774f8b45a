"""A thread of a stage that has nothing to do, asleep until it is woken."""

import threading


class IdleThread:
    """Where a thread waits. A pool of the standard library may count a busy thread as idle, and then starts none."""

    __slots__ = ("_asleep",)

    def __init__(self) -> None:
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def wait(self) -> None:
        """Wait to be woken, in the thread itself."""
        with self._asleep:
            pass

    def wake(self) -> None:
        """Wake the thread."""
        self._asleep.release()
