"""What a run that did not complete raises to its caller, and what stands for the value of a task that has none."""

from procession._engine.run_state import RunState
from procession._engine.suspension import waits_in_words
from procession._model.states import RunStatus
from procession._model.text import counted, described, shown
from procession.errors import (
    RunCancelledError,
    RunSuspendedError,
    RunTimeoutError,
    TaskSkippedError,
    TaskSuspended,
)


def error_of(run_state: RunState, status: RunStatus, *, nested: bool) -> BaseException | None:
    """Return the exception that a run ended with, if any; that of a suspended `nested` run suspends its task."""
    ledger = run_state.ledger
    if status == "completed":
        return None
    if ledger.failure is not None:
        return ledger.failure
    if status == "cancelled":
        return _cancelled(run_state)
    if status == "suspended":
        return _suspended(run_state, nested=nested)
    if status == "failed":
        errors = [ledger.errors[index] for index in sorted(ledger.errors)]
        process = f"process {shown(run_state.process_name)!r}"
        return BaseExceptionGroup(f"{len(errors):,} of {counted(len(ledger.ends), 'task')} of {process} failed", errors)
    return None


def absent(run_state: RunState, status: RunStatus, index: int) -> Exception:
    """Return the exception for a task that has no value, as it did not end."""
    where = f"task {index} ({shown(run_state.name(index))}) of process {shown(run_state.process_name)!r}"
    if run_state.ledger.cancelled:
        return RunCancelledError(f"{where} did not end: the run was cancelled")
    if status == "suspended":
        return RunSuspendedError(f"{where} has not ended: the run is suspended")
    return TaskSkippedError(f"{where} was skipped, because a task before it failed")


def _cancelled(run_state: RunState) -> Exception:
    """Return the error of a cancelled run: how far it had come, and whether its timeout cancelled it."""
    ledger, deadline = run_state.ledger, run_state.deadline
    process = f"process {shown(run_state.process_name)!r}"
    ended = sum(end is not None for end in ledger.ends) - len(ledger.stopped)
    how_far = (
        f"when {ended:,} of {counted(len(ledger.ends), 'task')} had ended{_failures_among(run_state)}; "
        "process.last_run.outcomes has them"
    )
    if deadline is not None and deadline.passed:
        return RunTimeoutError(
            f"run {run_state.run_id} of {process} took longer than its timeout of {deadline.seconds:g} s, and "
            f"was cancelled {how_far}"
        )
    return RunCancelledError(f"run {run_state.run_id} of {process} was cancelled {how_far}")


def _failures_among(run_state: RunState) -> str:
    """Return words for the failures of a cancelled run, other than runs that were cancelled with it."""
    errors = run_state.ledger.errors
    indexes = [index for index in sorted(errors) if not isinstance(errors[index], RunCancelledError)]
    if not indexes:
        return ""
    return f", {len(indexes):,} of them with a failure (task {indexes[0]}: {described(errors[indexes[0]])})"


def _suspended(run_state: RunState, *, nested: bool) -> BaseException:
    """Return the exception that tells the caller of a run, or the task that it is, what the run waits for."""
    ledger = run_state.ledger
    waiting = {index: words for index, words in run_state.suspended.items() if ledger.ends[index] is None}
    said = waits_in_words({index: run_state.name(index) for index in waiting}, waiting)
    if nested:
        return TaskSuspended(f"is run {shown(run_state.run_id)!r}, in which {said}")
    return RunSuspendedError(
        f"run {shown(run_state.run_id)!r} of process {shown(run_state.process_name)!r} is suspended: {said}. "
        "Execute it again once it has to wait no longer"
    )
