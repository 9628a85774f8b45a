"""A run as a table for people."""

from collections.abc import Sequence

from procession._model.outcome import Outcome
from procession._model.printable import printable
from procession._model.states import RunStatus, TaskState
from procession._model.table import lasting, table
from procession._model.text import described, shown

_HEAD = ("#", "task", "state", "attempts", "start", "took", "error")


def summary_of(
    process_name: str,
    run_id: str,
    status: RunStatus,
    took: float,
    states: Sequence[TaskState],
    failure: BaseException | None,
    worst: Sequence[Outcome],
) -> str:
    """Return how a run went, in a line, and under it those of its outcomes that are worth a look."""
    counts = {state: states.count(state) for state in dict.fromkeys(states)}
    told = ", ".join(f"{count:,} {state}" for state, count in counts.items()) or "no tasks"
    lines = [f"{shown(process_name)}: {status} in {lasting(took)} ({told}) · run {shown(run_id)}"]
    if failure is not None:
        lines.append(f"stopped by {described(failure)}")
    if worst:
        lines.append(table(_HEAD, map(_row, worst), right={"#", "attempts", "start", "took"}))
    if len(states) > len(worst):
        lines.append(f"… and {len(states) - len(worst):,} more")
    return printable("\n".join(lines))


def _row(outcome: Outcome) -> tuple[str, ...]:
    return (
        str(outcome.index),
        shown(outcome.name, 40),
        outcome.state,
        str(outcome.attempts),
        "" if outcome.start is None else lasting(outcome.start),
        "" if outcome.duration is None else lasting(outcome.duration),
        "" if outcome.error is None else described(outcome.error),
    )
