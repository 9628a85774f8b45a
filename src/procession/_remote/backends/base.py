"""What a coordinator needs of a backend: whatever makes calls, in this process or elsewhere."""

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

from procession._remote.wire.batch import Batch, Report
from procession._remote.wire.packed import Packed
from procession._remote.wire.result import Result

SETTLED_S = 0.001
"""After so many seconds, each side sees what the other has written to shared memory. (It takes nanoseconds.)"""


class Arrival(NamedTuple):
    """A batch that came back."""

    batch: Batch
    report: Report | None
    """How its calls ended; `None` if nobody knows, or if it was taken back before it was begun."""
    lost: BaseException | None
    """Why the worker went: the first call without a result ended with this, and the calls after it did not begin."""


class Recalled(NamedTuple):
    """A batch of which no other call will begin. One may be going on: the batch's arrival says how it ended."""

    batch: Batch
    ended: Sequence[Result | bytes | Packed]
    """How its first calls have ended, as far as their results are here."""
    begun: int
    """How many of its calls have been begun, at most."""


class Backend(Protocol):
    """Takes batches and gives reports. Called by one thread only."""

    @property
    def kills(self) -> bool:
        """Whether it can end a call at its timeout by ending the worker."""
        ...

    @property
    def within(self) -> object:
        """The executor that makes the calls, if these may give it further calls and wait for them."""
        ...

    @property
    def ahead(self) -> int:
        """How many of the batches that were sent occupy no worker: they lie ready behind another one."""
        ...

    @property
    def idle(self) -> bool:
        """Whether a worker has nothing to do, so that what is sent now begins now."""
        ...

    @property
    def busy(self) -> bool:
        """Whether there is something to receive sooner or later."""
        ...

    def room(self, waiting: int, call_s: float | None) -> int:
        """Return how many batches can be sent now, where about `waiting` calls wait that take `call_s` seconds each."""
        ...

    def send(self, batch: Batch, timeout: float | None) -> str:
        """Send a batch to a worker; return the name of the worker, as far as it is known.

        A batch with a timeout has one call, which may take so many seconds.
        """
        ...

    def recall(self, late: Collection[Batch]) -> list[Recalled]:
        """Keep other calls from beginning in the batches that are late, and in those that lie ready behind them.

        Returns the batches of which this is certain by now.
        """
        ...

    def receive(self, seconds: float) -> list[Arrival]:
        """Wait up to so many seconds for batches to come back, and return those that have."""
        ...

    def wake(self) -> None:
        """Make `receive` return soon, now or when it is called next. From any thread."""
        ...

    def halt(self, *, cancelled: bool) -> None:
        """Keep other calls from beginning; with `cancelled`, ask the calls under way to stop."""
        ...

    def stop(self) -> None:
        """End every worker that makes a call, if that is possible."""
        ...

    def fetch(self, values: list[object]) -> None:
        """Put values in the places where an `Away` stands for them."""
        ...

    def close(self, *, at_once: bool) -> None:
        """Release workers and connections. Batches that are still under way are abandoned."""
        ...
