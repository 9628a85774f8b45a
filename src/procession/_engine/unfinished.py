"""How a task ends that has begun and neither completes nor fails, though the run goes on."""

from typing import Literal, Protocol

from procession._model.text import shown
from procession.errors import TaskSkippedError


class Unfinished(BaseException):
    """Ends a task as `"skipped"`, as what it takes has failed, or as `"cancelled"`, as nobody takes what it gives.

    `value` stands in the results.
    """

    def __init__(self, state: Literal["skipped", "cancelled"], value: object) -> None:
        self.state: Literal["skipped", "cancelled"] = state
        self.value = value


class NamedRun(Protocol):
    """The run of the task."""

    process_name: str

    def name(self, index: int) -> str:
        """Return a task's name."""
        ...


def skipped_task(run: NamedRun, index: int) -> TaskSkippedError:
    """Return the error of a task that was skipped, because a map whose elements it takes failed."""
    return TaskSkippedError(f"{_where(run, index)} was skipped, because a map whose elements it takes failed")


def skipped_element(run: NamedRun, index: int, element: int) -> TaskSkippedError:
    """Return the error of an element that was skipped, because an element that it takes failed."""
    return TaskSkippedError(
        f"element {element:,} of {_where(run, index)} was skipped, because an element that it takes failed"
    )


def _where(run: NamedRun, index: int) -> str:
    return f"task {index} ({shown(run.name(index))}) of process {shown(run.process_name)!r}"
