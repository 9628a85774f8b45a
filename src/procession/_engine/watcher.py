"""What comes due while calls are being made: attempts after a pause, and calls that take longer than their timeout.

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
    """The slot of one worker: until when the call that it makes may take, if there is a limit."""

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
        # Whoever pops the one entry has ended the call: popping is atomic.
        self._claim = claim = [True]
        self.current = at, claim, late, args
        if at < self._watcher.next:
            self._watcher.wake()

    def end(self) -> bool:
        """Return whether the call has ended in time, so that its end is the worker's to tell."""
        self.current = None
        return _pop(self._claim)

    def end_late(self) -> None:
        """Take note that a call that was given up has ended after all."""
        self._claim.append(True)


class Straggler:
    """A call that was given up and goes on in the thread that was left behind with it."""

    __slots__ = ("_ended",)

    def __init__(self, ended: list[bool]) -> None:
        self._ended = ended

    def is_alive(self) -> bool:
        """Return whether the call goes on."""
        return not self._ended


class Watcher:
    """One thread for a run, started when there is first something to look after."""

    __slots__ = ("_alarm", "_deadlines", "_due", "_lock", "_name", "_number", "_over", "_thread", "next")

    def __init__(self, name: str) -> None:
        self._name = name
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
        """Look no more at the slot of a worker that has left."""
        with self._lock:
            self._deadlines.discard(deadline)

    def at(self, seconds: float, then: Callable[[], object]) -> None:
        """Have `then` called in so many seconds. Raises `WorkersUnavailableError` where no thread can be started."""
        due = time.monotonic() + seconds
        with self._lock:
            heapq.heappush(self._due, (due, next(self._number), then))
            self._start()
        if due < self.next:
            self.wake()

    def wake(self) -> None:
        """Have the thread look what is due."""
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
            # In this order: whoever begins a call now either is seen below or sees that the thread is to be woken.
            self.next = _NEVER
            self._alarm.clear()
            if self._over:
                return
            self.next = due = min(self._late(), self._again())
            self._alarm.wait(None if due == _NEVER else max(due - time.monotonic(), 0.0))

    def _late(self) -> float:
        """End the calls that are late; return when the next one is."""
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
                late(*args, Straggler(claim))
        return earliest

    def _again(self) -> float:
        """Do what is due; return when the next is."""
        while True:
            with self._lock:
                if not self._due:
                    return _NEVER
                if self._due[0][0] > time.monotonic():
                    return self._due[0][0]
                then = heapq.heappop(self._due)[2]
            then()


def _pop(claim: list[bool]) -> bool:
    try:
        return claim.pop()
    except IndexError:
        return False
