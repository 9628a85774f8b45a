"""Why a task has not begun: which other task it waits for, and how that one stands."""

from collections.abc import Sequence
from typing import NamedTuple

from procession.journal import Reader, RunInfo
from procession.web.definitions import Definition

_NEEDS = 20
"""Tasks that one waits for and that are looked at, at most, where none of them is known to have failed."""

_FAILED = 2_000
"""Failed tasks that are known by their places, at most."""

_HOW = {
    "failed": "which failed",
    "running": "which is running",
    "waiting": "which waits, too",
    "interrupted": "which was interrupted",
    "not started": "which was not started",
    "cancelled": "which was cancelled",
}


class Waits(NamedTuple):
    """The task that another one waits for, or waited for when the run ended."""

    task: int
    how: str
    """How it stands, in a few words."""


def waits_of(reader: Reader, key: int, info: RunInfo, definition: Definition, tasks: Sequence[int]) -> dict[int, Waits]:
    """Return for each task what keeps it from starting: first tasks that failed, then those that have not ended."""
    shape = definition.shape(reader, key) if tasks else None
    if shape is None:
        return {}
    in_order = {
        task for stage in shape.stages if not stage.at_once for task in tasks if stage.start < task < stage.stop
    }
    needs = {task: shape.needs.get(task, ()) or ((task - 1,) if task in in_order else ()) for task in tasks}
    failed = reader.failed_tasks(key, _FAILED)
    found: dict[int, Waits] = {}
    for task, needed in needs.items():
        bad = next((need for need in needed if need in failed), None)
        if bad is not None:
            found[task] = Waits(bad, _HOW["failed"])
    open_ones = {task: needed[:_NEEDS] for task, needed in needs.items() if needed and task not in found}
    looked_at = sorted({need for needed in open_ones.values() for need in needed})
    states = {one.task: one.state for one in reader.statuses(key, info, looked_at)}
    for task, needed in open_ones.items():
        for need in needed:
            if states[need] in _HOW:
                found[task] = Waits(need, _HOW[states[need]])
                break
    return found


def held_back_by(info: RunInfo, task: int) -> str | None:
    """Return the name of the limit that holds a task of a run back now, or elements of it, if that is known."""
    if info.status != "running":
        return None
    return next((one.limit for one in info.held_back if any(task in places for places in one.tasks)), None)
