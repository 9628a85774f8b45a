"""How each task of a run has ended, or stands: put together from the ledger and the run state when it is asked for."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from procession._engine.run_state import RunState
from procession._model.outcome import HANDED_OVER, NO_VALUE, Outcome, at_hand
from procession._model.task import MapFunction
from procession._plan.wiring import bound

if TYPE_CHECKING:
    from procession._model.states import TaskState


class TaskOutcomes:
    """The outcomes of the tasks of one run, as they are at the time."""

    __slots__ = ("_run_state",)

    def __init__(self, run_state: RunState) -> None:
        self._run_state = run_state

    def of(self, index: int) -> Outcome:
        """Return how a task stands. There may be many: what most tasks do not have is not looked up."""
        run_state, ledger = self._run_state, self._run_state.ledger
        start, end, values = ledger.starts[index], ledger.ends[index], ledger.values
        recorded = run_state.recorded.get(index) if run_state.recorded else None
        plain = end is not None and not (ledger.errors or ledger.stopped or ledger.suspended)
        state: TaskState = "completed" if plain else ledger.state(index)
        if state == "running" and index in run_state.failed_attempts.pausing:
            state = "waiting"
        duration = recorded.duration if recorded is not None else None
        if start is not None and end is not None:
            duration = end - start
        value: object = NO_VALUE
        if state == "completed":
            value = values.get(index, HANDED_OVER) if isinstance(values, dict) else values[index]
        attempts = 0 if start is None else 1
        return Outcome(
            index=index,
            name=run_state.name(index),
            state=state,
            value=value,
            error=ledger.errors.get(index),
            attempts=run_state.attempts.get(index, attempts) if run_state.attempts else attempts,
            start=None if start is None else start - run_state.began,
            duration=duration,
            recorded=recorded is not None,
            worker=run_state.workers[index],
            again=self._call_again,
            label=run_state.label(index),
        )

    def rows(self, outcome: Outcome) -> Iterable[dict[str, Any]]:
        """Return the rows of a task in a table: its own, and one for each element of a map whose values are kept."""
        from procession._model.rows import rows_of  # asked for by few

        elements, index, run_state = None, outcome.index, self._run_state
        if isinstance(run_state.plan.calls[index][0], MapFunction):
            values = run_state.ledger.values
            kept = values.get(index) if isinstance(values, dict) else values[index]
            elements = at_hand(kept) if isinstance(kept, list) else None
        return rows_of(outcome, elements, lambda element: run_state.attempts.get((index, element), 1))

    def _call_again(self, index: int) -> object:
        plan = self._run_state.plan
        function, args, kwargs = plan.calls[index]
        if index in plan.needs:
            args, kwargs = bound(args, kwargs, {need: self.of(need).value for need in plan.needs[index]})
        return function(*args, **kwargs)
