"""Ends of tasks that no engine tells of: of those that are left when a run ends, and of those without their value."""

from typing import Protocol

from procession._engine.ledger import Ledger
from procession._engine.unawaited import unawaited, unawaited_in
from procession._engine.unfinished import Unfinished
from procession._model.event import EventName
from procession.errors import TaskCancelled


class EndingRun(Protocol):
    """What ends."""

    ledger: Ledger
    verbose: bool
    attempts: dict[int | tuple[int, int], int]

    def raised(self, index: int, error: BaseException, *, in_order: bool) -> None:
        """Record that a task raised."""
        ...

    def report(self, name: EventName, index: int, attempt: int, duration: float | None) -> None:
        """Tell of something that happened to a task."""
        ...


def end_unfinished(run: EndingRun, index: int, unfinished: Unfinished, end: float) -> None:
    """End a task that neither completes nor fails, though the run goes on."""
    run.ledger.values[index] = unfinished.value
    if unfinished.state == "skipped":
        run.ledger.skip(index)
    else:
        run.ledger.stop(index)
        if run.verbose:
            run.report("task_cancelled", index, run.attempts.get(index, 1), None)
    run.ledger.ends[index] = end


def stop_begun(run: EndingRun) -> None:
    """End the tasks that have begun and of which nobody has said how they ended."""
    ends, suspended = run.ledger.ends, run.ledger.suspended
    for index, start in enumerate(run.ledger.starts):
        if start is not None and ends[index] is None and index not in suspended:
            run.raised(index, TaskCancelled("the run was stopped before the task had ended"), in_order=False)


def fail_unawaited(run: EndingRun) -> None:
    """Fail tasks that returned a coroutine. Checked at the end: to check each value would slow tasks down."""
    values = run.ledger.values
    for index in unawaited_in(values) if isinstance(values, list) else ():
        error, values[index] = unawaited(values[index]), None
        run.raised(index, error, in_order=False)
