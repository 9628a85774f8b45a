"""What a coordinator needs of those who make calls, whoever and wherever they are."""

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

from procession._remote.wire.batch import Batch, Report
from procession._remote.wire.result import Result

SETTLED_S = 0.001
"""After so long, what a worker does is seen by the coordinator, and the other way round. (It takes nanoseconds.)"""


class Arrival(NamedTuple):
    """A batch that came back."""

    batch: Batch
    report: Report | None
    """What was made of it; `None` if nobody can say, or if it was taken back before it was begun."""
    lost: BaseException | None
    """Why the call that was being made did not end, nor any after it begin."""


class Recalled(NamedTuple):
    """A batch of which no other call is begun. One may be going on, and is told of by the batch's arrival."""

    batch: Batch
    ended: Sequence[Result | bytes]
    """How its first calls have ended."""
    begun: int
    """How many of its calls have been begun, at most."""


class Backend(Protocol):
    """Takes batches and gives reports. All is asked for in one thread."""

    @property
    def kills(self) -> bool:
        """Whether it can end a call at its timeout by ending whoever makes it."""
        ...

    @property
    def within(self) -> object:
        """The executor it gives the calls to, if that may be asked to make others that they wait for."""
        ...

    @property
    def ahead(self) -> int:
        """How many batches have been sent that only lie ready for when another one is done."""
        ...

    @property
    def busy(self) -> bool:
        """Whether there is something to receive sooner or later."""
        ...

    def room(self, waiting: int, call_s: float | None) -> int:
        """Return how many batches can be sent now, where about so many calls wait that take about so long each."""
        ...

    def send(self, batch: Batch, timeout: float | None) -> str:
        """Have the calls of a batch made, and return by whom, as far as is known.

        With a timeout, there is one call, and it may take so many seconds.
        """
        ...

    def recall(self, late: Collection[Batch]) -> list[Recalled]:
        """Have no other call begun of batches that take longer than they should, and of those that lie behind them.

        Returns those of which that is certain by now.
        """
        ...

    def receive(self, seconds: float) -> list[Arrival]:
        """Wait for batches to come back, at most so long, and return those that have."""
        ...

    def halt(self, *, cancelled: bool) -> None:
        """Have nothing new begun; with `cancelled`, those who are at it are asked to stop."""
        ...

    def stop(self) -> None:
        """End whoever makes a call, if that is possible."""
        ...

    def fetch(self, values: list[object]) -> None:
        """Put values in place of what stands for them, if anything does: see `Away`."""
        ...

    def close(self, *, at_once: bool) -> None:
        """Let everything go. Whatever is still in flight then is of no interest any more."""
        ...
