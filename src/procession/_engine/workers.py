"""The workers of an engine, as those see them who make calls: what they need of them, and how one leaves a task."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from procession._engine.elements import Lend
from procession._engine.watcher import Deadline
from procession._model.task import MapFunction

if TYPE_CHECKING:
    from procession._model.outcome import NotKept


class LeaveTask(BaseException):
    """The worker leaves a task that has not ended: others are at it, or it pauses until its next attempt."""


class GiveWay(LeaveTask):
    """The worker gives its place to another, which needs one to go on with the task that was claimed here."""


class Worker(Protocol):
    """The calling worker."""

    alone: bool
    """Whether there is nothing else to do while a task pauses."""
    deadline: Deadline | None
    """The slot that holds until when its call may take; `None` where it cannot be left behind with a call."""

    def abandon(self, resume: Callable[[], object]) -> None:
        """Leave the thread behind with its call, and have `resume` make what follows ready for another worker."""
        ...


class Workers(Protocol):
    """What the calls need of the engine that makes them."""

    @property
    def worker(self) -> Worker:
        """The calling worker."""
        ...

    @property
    def alone(self) -> bool:
        """Whether the calling worker has nothing else to do while a task waits."""
        ...

    @property
    def others_wait(self) -> bool:
        """Whether something else than a ready task waits for the place of a worker."""
        ...

    def pause(self, seconds: float, resume: Callable[[], object]) -> None:
        """Call `resume` after so many seconds, to make a call ready again. The stage does not end before."""
        ...

    def break_down(self, error: BaseException) -> None:
        """End the stage with an error that is not from any call, from whatever thread."""
        ...

    def hold(self, resume: Callable[[], object]) -> Callable[[], object]:
        """Count a call that is held back, so that the stage waits; return what calls `resume` to make it ready."""
        ...

    @property
    def lend(self) -> Lend:
        """What makes a call that waits, from any thread, and has others make calls in the calling worker's place."""
        ...

    def work_on_map(self, index: int, map_function: MapFunction) -> "list[Any] | NotKept":
        """Work on a map; return its results in the last worker on it, else raise `LeaveTask`."""
        ...
