"""How far the tasks of a run have come that are more than one call: maps, and processes that are themselves tasks."""

from procession._engine.run_progress import with_parts
from procession._engine.run_state import RunState
from procession._model.progress import Progress
from procession._model.task import MapFunction, callee_of, is_process, known_length


def known_sizes(run_state: RunState) -> dict[int, int]:
    """Return of how many calls such tasks are, by index, as far as that is known before they begin."""
    sizes: dict[int, int] = {}
    for index, (function, args, _) in enumerate(run_state.plan.calls):
        if isinstance(function, MapFunction):
            length = None if index in run_state.plan.needs else known_length(args[0])
            if length is not None:
                sizes[index] = length
        elif is_process(function):
            sizes[index] = len(getattr(callee_of(function), "tasks", ()))
    return sizes


def parts_of(run_state: RunState) -> dict[int, Progress]:
    """Return how far each of them has come that has begun, by index; not of maps of which nobody knows how long."""
    maps = {index: part.progress for index, part in list(run_state.maps.items()) if part.total is not None}
    return maps | {index: progress() for index, progress in list(run_state.nested.items())}


def whole_progress(run_state: RunState) -> Progress:
    """Return how far a run has come with all that is nested in it, in calls."""
    ledger = run_state.ledger
    count = len(ledger.ends)
    tasks = Progress(count - ledger.ends.count(None) - len(ledger.stopped), len(ledger.errors), count)
    return with_parts(ledger, tasks, parts_of(run_state))
