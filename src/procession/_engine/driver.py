"""What a run state needs of the engine that drives a stage of its run."""

from collections.abc import Callable
from typing import Protocol


class Driver(Protocol):
    """What a run state needs of the engine that drives a stage. Called from any thread."""

    def recruit(self, count: int) -> None:
        """Start up to `count` more workers: so many tasks became ready."""
        ...

    def commit(self) -> bool:
        """Commit what was recorded, as suits the engine; return whether the calling worker may go on."""
        ...

    def on_halt(self) -> None:
        """React to a halt: nothing new may start in this run."""
        ...

    def look(self) -> None:
        """See whether anything is left to do in the stage."""
        ...

    def at(self, seconds: float, then: Callable[[], object]) -> None:
        """Call `then` in so many seconds."""
        ...

    def break_down(self, error: BaseException) -> None:
        """End the stage with an error that is not from any call, from whatever thread."""
        ...
