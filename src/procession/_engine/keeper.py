"""A thread for each limit that is shared with other programs: it asks the database for room, and tells it what goes on.

    Admission ──prod──▶ Keeper ──Wish──▶ Count, in a database
        ▲                  │ ◀──Grant──────┘
        └────admits────────┘

It is there as long as a run has the limit, or a call is under way that was abandoned by its run.
"""

import errno
import os
import threading
import time
from collections.abc import Callable
from typing import Final

from procession._engine import buckets
from procession._engine.admission import Admission
from procession._engine.shared_bucket import SharedBucket
from procession._model.limit import Limit, LimitKey
from procession._model.shared_limit import Count, Grant, Wish
from procession._model.text import shown
from procession.errors import JournalError, WorkersUnavailableError

_TELL_S = 0.005
"""After how long what has begun or ended is told, where calls wait."""
_LOOK_S = 0.05
"""After how long it is looked what has begun or ended that said nothing of it, and what is not used given back."""
_RENEW_S = 5.0
"""After how long the database is told that this program is there."""
_SPACE_S = 0.0005
"""How long the database is left to others after each time."""
_PATIENCE_S = 20.0
"""For how long a server that does not answer is asked again."""

_opening = threading.Lock()
_KEEPERS: Final[dict[LimitKey, "Keeper"]] = {}


class Keeper:
    """Keeps a shared bucket supplied, in a thread of its own."""

    def __init__(self, limit: Limit, bucket: SharedBucket, count: Count, clock: Callable[[], float]) -> None:
        self._runs = 0
        """How many runs have the limit."""
        self._is_over = False
        self._lock = threading.Lock()
        self._limit = limit
        self._bucket = bucket
        self._count = count
        self._clock = clock
        self._prodded = threading.Event()
        self._renewal = 0.0
        """When the database is to be told that this program is there, at the latest."""
        self.thread = threading.Thread(target=self._keep, name=f"procession-limit-{shown(limit.name, 40)}", daemon=True)

    def begin(self) -> None:
        """Start the thread, for a first run. Raises `WorkersUnavailableError` where none can be started."""
        self._runs = 1
        self._bucket.prod = self._prodded.set
        try:
            self.thread.start()
        except RuntimeError as error:
            self._count.close()
            raise WorkersUnavailableError(f"no thread could be started for {self._limit!r}: {error}") from None

    def join(self) -> bool:
        """Take note that a run has the limit; return `False` where it is too late for that, as the thread is ending."""
        with self._lock:
            self._runs += not self._is_over
            return not self._is_over

    def leave(self) -> None:
        """Take note that a run has ended that had the limit; the last one waits until what it had is given back."""
        with self._lock:
            self._runs -= 1
            last = not self._runs
        self._prodded.set()
        if last and self._is_idle():
            self.thread.join()

    # In the thread

    def _keep(self) -> None:
        try:
            while not self._is_over:
                self._prodded.wait(self._turn())
                self._prodded.clear()
        except BaseException as error:
            with self._lock:
                self._is_over = True
            for run in list(self._bucket.users):
                if isinstance(run, Admission):
                    run.break_down(error)
        finally:
            try:
                self._count.close()
            except JournalError:
                pass  # what it had is let go of when its lease ends
            finally:
                with _opening:
                    _KEEPERS.pop(self._limit.key, None)

    def _turn(self) -> float:
        """Ask the database once if there is a reason to; return when to look again, in seconds."""
        bucket, now = self._bucket, self._clock()
        with self._lock:
            self._is_over = not self._runs and self._is_idle()
        if not (self._is_over or bucket.lines or bucket.has_stock or not bucket.is_told or now >= self._renewal):
            return min(_LOOK_S if bucket.in_use else _RENEW_S, self._renewal - now)
        time.sleep(_SPACE_S)
        with buckets.lock:
            asked_at = self._clock()
            wish = bucket.wish(asked_at, last=self._is_over)
        grant = self._exchanged(wish)
        self._renewal = asked_at + _RENEW_S
        with buckets.lock:
            bucket.take(wish, grant, asked_at, self._clock())
        if self._is_over:
            return 0.0
        if grant.places:
            buckets.look_into([bucket], self._clock(), prods=False)
        if grant.again_s is None:
            return _LOOK_S
        return grant.again_s if bucket.is_told else min(grant.again_s, _TELL_S)

    def _is_idle(self) -> bool:
        """Return whether no call is under way."""
        with buckets.lock:
            self._bucket.count_noted(self._clock())
            return not self._bucket.in_use

    def _exchanged(self, wish: Wish) -> Grant:
        """Return the answer of the database; ask it again while its connection is lost, for a few seconds at most."""
        until, pause = time.monotonic() + _PATIENCE_S, 0.05
        while True:
            try:
                return self._count.exchange(wish)
            except JournalError as error:
                if error.errno != errno.ECONNRESET or time.monotonic() > until:
                    said = str(error).removeprefix("the journal ")
                    text = f"{self._limit!r} is shared by a database that cannot be used: {said}"
                    raise JournalError(text) from error
            time.sleep(pause)
            pause = min(2 * pause, 1.0)


def keep(admission: Admission, count_of: Callable[[Limit], Count]) -> None:
    """Keep the shared limits of a run supplied until it has ended; `count_of` opens the database of a limit."""
    for limit in admission.limits:
        bucket = admission.bucket(limit)
        if not isinstance(bucket, SharedBucket):
            continue
        while (keeper := _joined(limit, bucket, count_of, admission.clock)) is None:
            pass
        admission.keepers.append(keeper)


def _joined(
    limit: Limit, bucket: SharedBucket, count_of: Callable[[Limit], Count], clock: Callable[[], float]
) -> Keeper | None:
    """Return the keeper of a limit for one more run; `None` after that of earlier runs has ended."""
    with _opening:
        keeper = _KEEPERS.get(limit.key)
        if keeper is None:
            keeper = Keeper(limit, bucket, count_of(limit), clock)
            keeper.begin()
            _KEEPERS[limit.key] = keeper
            return keeper
    if keeper.join():
        return keeper
    keeper.thread.join()
    return None


def _begin_in_child() -> None:
    """Begin anew in a process that was forked: the threads are its parent's."""
    global _opening  # noqa: PLW0603
    _opening = threading.Lock()
    _KEEPERS.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)
