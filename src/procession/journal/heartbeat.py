"""What renews the leases of runs, writes how far they have come, and reads whether they were asked to cancel.

    HeartbeatThread, one for each open journal ──every LOOK_S──▶ Heartbeat, one for each run ──▶ its row in the journal

The thread is started by the first run and stays for the next one, since to start and end it takes as long as a small
run. A run that is over before the second look is not looked at. On Linux its lease names the thread: as long as the
thread is there, and the lease has not been given back, the run is taken for alive.
"""

import errno
import json
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol

from procession._model.held_back import HeldBack
from procession._model.progress import Snapshot
from procession.errors import JournalError, RunInUseError
from procession.journal import forks
from procession.journal.lease import RENEWAL_S

LIMITS = 20
"""Limits that have held calls back and are written down, at most."""

LOOK_S = 0.25
WRITE_S = 1.0

IDLE_LOOKS: Final = 20
"""How often the thread looks for a run when there is none, until it ends by itself."""


class Leased(Protocol):
    """A run whose lease is held."""

    def renew(self, progress: str) -> bool:
        """Renew the lease, and write how far the run has come; return whether it was asked to cancel."""
        ...

    def cancelling(self) -> bool:
        """Return whether the run was asked to cancel."""
        ...


class Heartbeat:
    """What one run wants to have done from `HeartbeatThread.follow` to `stop`."""

    def __init__(
        self,
        run: Leased,
        snapshot: Callable[[], Snapshot],
        on_cancel: Callable[[], object],
        on_lost: Callable[[Exception], object],
        held_back: Callable[[], list[HeldBack]] = list,
        on_look: Callable[[], object] | None = None,
    ) -> None:
        self._run = run
        self._on_look = on_look
        self._snapshot = snapshot
        self._held_back = held_back
        self._on_cancel = on_cancel
        self._on_lost = on_lost
        self._written: str = ""
        self._age = RENEWAL_S
        self._told = False
        self._is_new = True
        self._over = False
        self._beating = threading.Lock()

    def stop(self) -> str:
        """Beat no longer, and return the last progress."""
        with self._beating:
            self._over = True
        return text_of(self._snapshot(), self._held_back())

    def look(self) -> None:
        """Do what is to be done now."""
        with self._beating:
            if not (self._over or self._is_new):
                self._beat()
            self._is_new = False

    def lose(self, error: Exception) -> None:
        """Beat no longer, and tell the run."""
        self._over = True
        self._on_lost(error)

    def _beat(self) -> None:
        try:
            # Each second, so that a reader sees it move; seldom when nothing moves.
            text = text_of(self._snapshot(), self._held_back()) if self._age >= WRITE_S else self._written
            if text != self._written or self._age >= RENEWAL_S:
                cancelling = self._run.renew(text)
                self._written, self._age = text, 0.0
            else:
                cancelling = self._run.cancelling()
            self._age += LOOK_S
            if cancelling and not self._told:
                self._told = True
                self._on_cancel()
            if self._on_look is not None:
                self._on_look()
        except Exception as error:
            # The next commit meets what a database says, and fails the run. If there is none, nothing needs to be
            # written. But no commit meets that the file is gone: it would go on into the void.
            is_journals = isinstance(error, JournalError) and not isinstance(error, RunInUseError)
            if not is_journals or getattr(error, "errno", None) == errno.ENOENT:
                self.lose(error)


class HeartbeatThread:
    """The thread of one journal. It is there from `join` until all runs have parted, and for some time afterwards.

    It ends before a fork, if no run is there, and when the journal is closed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._over: threading.Lock | None = None
        """Held until the thread is to end."""
        self._runs = 0
        self._heartbeats = list[Heartbeat]()
        self._owed = list[Callable[[], object]]()
        self._is_closed = False
        self._process = os.getpid()
        _threads.add(self)

    @property
    def is_own(self) -> bool:
        """Whether it is this process's: a forked child has none of its parent's, whose locks may be held for ever."""
        return self._process == os.getpid()

    def join(self) -> int | None:
        """Keep the thread for one run more; return the system's number of it.

        Raises `RuntimeError` if it cannot be started.
        """
        with self._lock:
            self._is_closed = False
            thread = self._thread
            if thread is None:
                over = threading.Lock()
                over.acquire()
                thread = threading.Thread(target=self._live, args=(over,), name="procession-journal", daemon=True)
                thread.start()
                self._thread, self._over = thread, over
            self._runs += 1
            return thread.native_id

    def follow(self, heartbeat: Heartbeat) -> None:
        """Look after a run from now on."""
        with self._lock:
            self._heartbeats.append(heartbeat)

    def part(self, heartbeat: Heartbeat | None) -> None:
        """Keep the thread for one run less, whose heartbeat that was, if it had one."""
        if not self.is_own:
            return
        with self._lock:
            self._runs -= 1
            if heartbeat is not None:
                self._heartbeats.remove(heartbeat)
            is_over = self._is_closed and not self._runs
        if is_over:
            self.close()

    def owe(self, give_back: Callable[[], object]) -> None:
        """Give back the lease of a run that has parted, which could not be done, when that can be done again.

        Others take the run for alive as long as the thread is there. So if no run needs it, it ends.
        """
        with self._lock:
            is_needed = self._runs > 0
            if is_needed:
                self._owed.append(give_back)
        if not is_needed:
            self.close()

    def close(self) -> None:
        """End the thread as soon as no run is there."""
        if not self.is_own:
            return
        with self._lock:
            self._is_closed = True
            thread = None if self._runs else self._thread
            if thread is not None and self._over is not None:
                self._thread = None
                self._owed.clear()
                self._over.release()
        if thread is not None:
            thread.join()

    def _live(self, over: threading.Lock) -> None:
        idle = 0
        while not over.acquire(timeout=LOOK_S):
            try:
                with self._lock:
                    idle = 0 if self._runs else idle + 1
                    if idle > IDLE_LOOKS and self._over is over:
                        self._thread = self._over = None
                        return
                    heartbeats, owed = self._heartbeats[:], self._owed[:]
                for heartbeat in heartbeats:
                    heartbeat.look()
                for give_back in owed:
                    with suppress(JournalError):
                        give_back()
                        self._owed.remove(give_back)
            except Exception as error:  # no memory, say: without a heartbeat, runs may be taken for dead elsewhere
                for heartbeat in self._heartbeats:
                    heartbeat.lose(error)


_threads = weakref.WeakSet[HeartbeatThread]()


def _end_before_fork() -> None:
    for thread in list(_threads):
        thread.close()


forks.before_each(_end_before_fork)


def text_of(snapshot: Snapshot, held_back: Sequence[HeldBack] = ()) -> str:
    """Return a snapshot, and what limits hold back, as the journal keeps it."""
    held_back = held_back[:LIMITS]
    limits = {"held_back": [one[:4] for one in held_back]} if held_back else {}
    ranges = [[(places.start, places.stop) for places in one.tasks] for one in held_back]
    tasks = {"held_tasks": ranges} if any(ranges) else {}
    labels = {"labels": dict(snapshot.labels)} if snapshot.labels else {}
    pausing = {"pausing": snapshot.pausing} if snapshot.pausing else {}
    return json.dumps(
        {**snapshot.progress._asdict(), "running": snapshot.running, **pausing, **labels, **limits, **tasks}
    )
