"""A thread for what comes due while calls are made: attempts after a pause, and calls beyond their timeout.

worker ──Deadline.begin──▶ a slot that holds when its call is late ──┐
                                                                     ├──▶ one thread, asleep until the next is due
caller ──Watcher.at──────▶ a heap of what is to be done, and when ───┘

A worker pays two assignments and a comparison for a timeout that is kept: the thread is only woken for a deadline that
comes before all others.
"""

import heapq
import threading
import time
from collections.abc import Callable
from itertools import count
from typing import Any, Final

from procession.errors import WorkersUnavailableError

_NEVER: Final = float("inf")


class Deadline:
    """The slot of one worker: holds when its call is late, if the call has a timeout."""

    __slots__ = ("_claim", "_watcher", "current")

    def __init__(self, watcher: "Watcher") -> None:
        self._watcher = watcher
        self._claim: list[bool] = []
        self.current: tuple[float, list[bool], Callable[..., object], tuple[Any, ...]] | None = None
        """When the call is late, the right to end it, and what is to be done then; `None` between calls."""

    def begin(self, seconds: float, late: Callable[..., object], *args: Any) -> None:
        """Begin a call; unless `end` comes within so many seconds, `late` is called in the watcher's thread.

        It gets the arguments and, at their end, a `Straggler` that says whether the call still goes on.
        """
        at = time.monotonic() + seconds
        # The thread that pops the one entry has ended the call: popping is atomic.
        self._claim = claim = [True]
        self.current = at, claim, late, args
        if at < self._watcher.next:
            self._watcher.wake()

    def end(self) -> bool:
        """Return whether the call has ended in time, so that its end is the worker's to tell."""
        self.current = None
        return _pop(self._claim)

    def end_late(self) -> None:
        """Mark the abandoned call as ended."""
        self._claim.append(True)


class Straggler:
    """An abandoned call, which goes on in the thread that was left behind with it."""

    __slots__ = ("_ended",)

    def __init__(self, ended: list[bool]) -> None:
        self._ended = ended

    def is_alive(self) -> bool:
        """Return whether the call goes on."""
        return not self._ended


class Watcher:
    """One thread for a run, started with the first timeout or pause."""

    __slots__ = ("_alarm", "_deadlines", "_due", "_failed", "_lock", "_name", "_number", "_over", "_thread", "next")

    def __init__(self, name: str, failed: Callable[[BaseException], object]) -> None:
        self._name = name
        self._failed = failed
        self._lock = threading.RLock()  # of the same thread, as a signal handler may cancel the run
        self._alarm = threading.Event()
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._number = count()
        self._deadlines: set[Deadline] = set()
        self._thread: threading.Thread | None = None
        self._over = False
        self.next = _NEVER
        """Until when the thread sleeps, as a reading of `time.monotonic`."""

    def deadline(self) -> Deadline:
        """Return a slot for a worker. Raises `WorkersUnavailableError` where no thread can be started to watch it."""
        deadline = Deadline(self)
        with self._lock:
            self._deadlines.add(deadline)
            self._start()
        return deadline

    def forget(self, deadline: Deadline) -> None:
        """Stop watching the slot of a worker that has left."""
        with self._lock:
            self._deadlines.discard(deadline)

    def at(self, seconds: float, then: Callable[[], object]) -> None:
        """Call `then` in so many seconds. Raises `WorkersUnavailableError` where no thread can be started."""
        due = time.monotonic() + seconds
        with self._lock:
            if self._over:
                return
            self._start()
            heapq.heappush(self._due, (due, next(self._number), then))
        if due < self.next:
            self.wake()

    def wake(self) -> None:
        """Wake the thread, to do what is due."""
        self._alarm.set()

    def close(self) -> None:
        """Call nothing any more, and wait for the thread to end."""
        with self._lock:
            self._over = True
            thread = self._thread
        self._alarm.set()
        if thread is not None:
            thread.join()
        self._due.clear()
        self._deadlines.clear()
        self._failed = _nobody  # no cycle may stay

    def _start(self) -> None:
        if self._thread is not None:
            return
        thread = threading.Thread(target=self._watch, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise WorkersUnavailableError(f"no thread could be started to watch timeouts and pauses: {error}") from None
        self._thread = thread

    def _watch(self) -> None:
        while not self._over:
            try:
                self._look()
            except BaseException as error:  # and goes on, as a call that hangs has to be given up all the same
                self._failed(error)

    def _look(self) -> None:
        """Do what is due, and sleep until something else is."""
        # In this order: whoever begins a call now either is seen below or sees that the thread is to be woken.
        self.next = _NEVER
        self._alarm.clear()
        if self._over:
            return
        self.next = due = min(self._late(), self._again())
        self._alarm.wait(None if due == _NEVER else max(due - time.monotonic(), 0.0))

    def _late(self) -> float:
        """End the calls that are late; return when the next one will be late."""
        earliest, now = _NEVER, time.monotonic()
        with self._lock:
            deadlines = list(self._deadlines)
        for deadline in deadlines:
            current = deadline.current
            if current is None:
                continue
            at, claim, late, args = current
            if at > now:
                earliest = min(earliest, at)
            elif _pop(claim):
                try:
                    late(*args, Straggler(claim))
                except BaseException:
                    claim.append(True)  # to be given up at the next look
                    raise
        return earliest

    def _again(self) -> float:
        """Call what is due; return when the next is due."""
        while True:
            with self._lock:
                if not self._due:
                    return _NEVER
                if self._due[0][0] > time.monotonic():
                    return self._due[0][0]
                then = heapq.heappop(self._due)[2]
            then()


def _nobody(error: BaseException) -> None:
    """Do nothing: the run is over."""


def _pop(claim: list[bool]) -> bool:
    try:
        return claim.pop()
    except IndexError:
        return False
