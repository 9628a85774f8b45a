"""Tasks that an earlier execution of the run has recorded: they are taken for ended before anything begins."""

from collections.abc import Mapping
from typing import Protocol

from procession._engine.commit import Recorder
from procession._engine.ledger import Ledger
from procession._engine.recheck import Recheck
from procession._engine.run_progress import Ended, Part
from procession._engine.run_streams import Streams
from procession._model.progress import Progress
from procession._model.record import Recorded
from procession._model.task import MapFunction
from procession._plan.plan import Plan


class RestoredRun(Protocol):
    """What is restored of a run."""

    began: float
    plan: Plan
    recorder: Recorder | None
    recorded: dict[int, Recorded]
    recheck: Recheck | None
    ledger: Ledger
    attempts: dict[int | tuple[int, int], int]
    workers: list[str | None]
    maps: dict[int, Part]
    streams: Streams | None

    def recruit(self, count: int) -> None:
        """Ask the driver for workers for so many tasks that became ready."""
        ...

    def notify(self, index: int | None) -> None:
        """Call all watchers with the index of a task that has ended."""
        ...


def edges_left(edges: Mapping[int, tuple[int, ...]], recorded: Mapping[int, Recorded]) -> Mapping[int, tuple[int, ...]]:
    """Return the edges of a plan between tasks that are not recorded."""
    if not (recorded and edges):
        return edges
    left = {
        index: tuple(need for need in needed if need not in recorded)
        for index, needed in edges.items()
        if index not in recorded
    }
    return {index: needed for index, needed in left.items() if needed}


def restore_all(run: RestoredRun) -> None:
    """Take for ended all tasks that an earlier execution has recorded."""
    for index, recorded in run.recorded.items():
        restore(run, index, recorded)
        if run.streams is not None:
            run.streams.restore(index, run.ledger.values[index])


def restore(run: RestoredRun, index: int, recorded: Recorded) -> None:
    """Take for ended a task that an earlier execution has recorded."""
    run.ledger.values[index] = _value(run, index, recorded)
    run.ledger.ends[index] = run.began
    run.attempts[index] = recorded.attempts
    run.workers[index] = recorded.worker


def recall_kept(run: RestoredRun, index: int) -> bool:
    """Take a claimed task for ended if its record still holds; return whether it does."""
    assert run.recheck is not None
    kept = run.recheck.kept.get(index)
    if kept is None or run.ledger.halted or not run.recheck.follows_only(index, run.recorded):
        return False
    run.recorded[index] = kept
    run.recheck.recalled.add(index)
    restore(run, index, kept)
    run.recruit(run.ledger.settle(index))
    run.notify(index)
    return True


def _value(run: RestoredRun, index: int, recorded: Recorded) -> object:
    """Return the recorded value of a task."""
    if run.recorder is None or not isinstance(run.plan.calls[index][0], MapFunction):
        return recorded.value
    elements = run.recorder.elements(index)
    run.maps[index] = Ended(Progress(len(elements), 0, len(elements)))
    return [elements[place].value for place in range(len(elements))]
