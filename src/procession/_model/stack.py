"""Where the code of running tasks stands."""

from dataclasses import dataclass
from traceback import StackSummary

from procession._model.text import shown


@dataclass(frozen=True, slots=True)
class TaskStack:
    """Where the code of one running task stands, as of `Run.stacks`. `str()` of it is text of several lines."""

    index: int
    """The task's place in its process; 0 is the first."""
    element: int | None
    """The element's place in its map; `None` for a task that is no map."""
    name: str
    worker: str
    """The name of the thread, asyncio task or process that makes the call."""
    where: str
    """In words where that is: `"in a thread"`, `"in a coroutine"`, `"in another process"`,
    `"elsewhere"` (on an executor), `"between two attempts"`."""
    frames: StackSummary
    """The frames from the task's function on, the innermost last; none where they are not known here."""

    def __str__(self) -> str:
        element = "" if self.element is None else f", element {self.element}"
        worker = f", {shown(self.worker)}" if self.worker else ""
        head = f"task {self.index} ({shown(self.name)}){element}, {self.where}{worker}\n"
        return "".join([head, *self.frames.format()])


class Stacks(tuple[TaskStack, ...]):
    """Where all running tasks of a run stand, by place. `str()` of it is text to be printed."""

    __slots__ = ()

    def __str__(self) -> str:
        return "\n".join(map(str, self)) or "no task runs\n"
