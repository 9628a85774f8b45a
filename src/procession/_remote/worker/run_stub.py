"""What a task can learn of its run in a process where the run itself is not."""

from typing import TYPE_CHECKING, Any

from procession._engine.latch import Latch
from procession._model.event import EventName
from procession._model.log import Logs
from procession._model.record import WHOLE
from procession._model.task import MapFunction, name_of

if TYPE_CHECKING:
    from collections.abc import Callable


class RunStub:
    """Stands for a run in a worker process. It learns of a cancel only where the backend can tell it."""

    def __init__(self, process_name: str, run_id: str) -> None:
        self.process_name = process_name
        self.run_id = run_id
        self.halted = False
        self.children: dict[object, Callable[[], object]] = {}
        self.function: Callable[..., Any] = RunStub
        self.element = WHOLE
        self.kept = Logs()
        self.logs: Logs | None = None
        self._cancelled = Latch()

    @property
    def around(self) -> None:
        """Return `None`: the task in which the run itself is executed is not here."""

    @property
    def cancelled(self) -> bool:
        """Whether the run was cancelled, as far as is known here."""
        return self._cancelled.is_open

    def halt(self, *, cancelled: bool) -> None:
        """Take note that nothing new may start; with `cancelled`, that tasks, and their runs here, are to stop."""
        self.halted = True
        if cancelled:
            self._cancelled.open()
            for cancel_child in list(self.children.values()):
                cancel_child()

    def name(self, index: int) -> str:  # noqa: ARG002
        """Return the name of the task, which is the one that runs."""
        return name_of(self.function if self.element == WHOLE else MapFunction(self.function))

    def wait_cancelled(self, seconds: float) -> bool:
        """Wait until the run is cancelled, at most this long; return whether it is."""
        return self._cancelled.wait(seconds)

    def report(
        self,
        name: EventName,
        index: int,
        attempt: int,
        duration: float | None,
        error: BaseException | None = None,
        element: int | None = None,
    ) -> None:
        """Do nothing: nobody listens here."""
