"""A thread that keeps a run's lease, says how far the run is, and looks whether somebody wants it to stop."""

import errno
import json
import threading
from collections.abc import Callable
from typing import Protocol

from procession._model.progress import Progress
from procession.errors import JournalError, ProcessionError, RunInUseError
from procession.journal.lease import RENEWAL_S

Snapshot = tuple[Progress, list[tuple[int, str, str, float]]]
"""How far a run has come; and the tasks that run now: place, name, worker, start in seconds since the epoch."""

LOOK_S = 0.25
WRITE_S = 1.0


class Leased(Protocol):
    """A run whose lease is held."""

    def renew(self, progress: str) -> bool:
        """Keep the lease, and write how far the run is; return whether somebody wants it to stop."""
        ...

    def cancelling(self) -> bool:
        """Return whether somebody wants it to stop."""
        ...


class Heartbeat:
    """Beats from `start` to `stop`. Its thread lives until `end`: others on this system take it for the run's."""

    def __init__(
        self,
        run: Leased,
        snapshot: Callable[[], Snapshot],
        on_cancel: Callable[[], object],
        on_lost: Callable[[ProcessionError], object],
    ) -> None:
        self._run = run
        self._snapshot = snapshot
        self._on_cancel = on_cancel
        self._on_lost = on_lost
        self._over = threading.Event()
        self._stopped = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._live, name="procession-journal", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> str:
        """Beat no longer, and return the last progress."""
        self._over.set()
        self._stopped.wait()
        return text_of(self._snapshot())

    def end(self) -> None:
        """Leave nothing behind."""
        self._ended.set()
        self._thread.join()

    def _live(self) -> None:
        try:
            self._beat()
        finally:
            self._stopped.set()
            self._ended.wait()

    def _beat(self) -> None:
        written, age, told = "", RENEWAL_S, False
        while True:
            try:
                # A second, so that whoever watches sees it move; and seldom when nothing moves.
                text = text_of(self._snapshot()) if age >= WRITE_S else written
                if text != written or age >= RENEWAL_S:
                    cancelling = self._run.renew(text)
                    written, age = text, 0.0
                else:
                    cancelling = self._run.cancelling()
            except RunInUseError as error:
                self._on_lost(error)
                return
            except JournalError as error:
                if error.errno == errno.ENOENT:  # commits do not look, and would go on into the void
                    self._on_lost(error)
                    return
                # The next commit meets the same and fails the run. If there is none, nothing needs to be written.
                cancelling = False
            if cancelling and not told:
                told = True
                self._on_cancel()
            if self._over.wait(LOOK_S):
                return
            age += LOOK_S


def text_of(snapshot: Snapshot) -> str:
    """Return a snapshot as the journal keeps it."""
    progress, running = snapshot
    return json.dumps({**progress._asdict(), "running": running})
