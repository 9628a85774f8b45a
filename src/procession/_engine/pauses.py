"""What a stage on threads waits for besides its workers: calls that pause, or that their limits hold back."""

import threading
from collections.abc import Callable
from functools import partial

from procession._engine.watcher import Watcher


class Pauses:
    """Counts the calls that pause, and has them made ready again. `resume` is called in a thread that is a daemon.

    `ended` is called with the lock held when one of them has been made ready.
    """

    def __init__(
        self,
        lock: threading.Lock,
        name: str,
        resume: Callable[[Callable[[], object]], object],
        ended: Callable[[], object],
        break_down: Callable[[BaseException], object],
    ) -> None:
        self.count = 0
        self._lock = lock
        self._name = name
        self._resumed = resume
        self._ended = ended
        self._break_down = break_down
        self._watcher: Watcher | None = None
        self._over = False

    @property
    def watcher(self) -> Watcher:
        """The thread that looks after pauses and timeouts, started when it is first needed."""
        with self._lock:
            return self._made()

    def pause(self, seconds: float, resume: Callable[[], object]) -> None:
        """Call `resume` after so many seconds, to make a call ready again; do nothing where all is over."""
        with self._lock:
            if self._over:
                return
            watcher = self._made()
            self.count += 1
        try:
            watcher.at(seconds, partial(self._resume, resume))
        except BaseException:
            with self._lock:
                self.count -= 1
            raise

    def hold(self, resume: Callable[[], object]) -> Callable[[], object]:
        """Count a call that is held back; return what calls `resume` to make it ready."""
        _ = self.watcher
        wake = partial(self._wake, resume)
        with self._lock:
            self.count += 1
        return wake

    def look(self, then: Callable[[], object]) -> None:
        """Call a function in the watcher's thread, if a call pauses."""
        if self.count and self._watcher is not None:
            self._watcher.at(0.0, then)

    def close(self) -> None:
        """End the watcher, and let go of the engine: no cycle may stay."""
        with self._lock:
            self._over = True
        if self._watcher is not None:
            self._watcher.close()
        with self._lock:  # another run may be at admitting a call of this one
            del self._resumed, self._ended, self._break_down

    def _made(self) -> Watcher:
        """Return the watcher. With the lock held."""
        if self._watcher is None:
            self._watcher = Watcher(self._name, self._break_down)
        return self._watcher

    def _wake(self, resume: Callable[[], object]) -> None:
        # Threads that are started from a thread that is no daemon, as another run's may be, would be none, either.
        if threading.current_thread().daemon:
            self._resume(resume)
            return
        with self._lock:
            watcher = None if self._over else self._made()
        if watcher is not None:
            watcher.at(0.0, partial(self._resume, resume))

    def _resume(self, resume: Callable[[], object]) -> None:
        with self._lock:
            resumed = None if self._over else self._resumed
        if resumed is None:
            return
        resumed(resume)
        with self._lock:
            self.count -= 1
            if not self._over:
                self._ended()
