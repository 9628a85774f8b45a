"""The loop that makes the calls of a batch, in whatever thread or process that is."""

import contextvars
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from procession._engine.call_context import CURRENT_CALL, CallContext
from procession._engine.decimals import base_context, own_decimals
from procession._engine.timed_call import TimedCall
from procession._engine.unawaited import awaited
from procession._remote.wire.batch import Batch, Report
from procession._remote.wire.crash_file import CrashFile
from procession._remote.wire.previous_value import with_previous_value
from procession._remote.wire.result import Result, encode_result, result_from
from procession._remote.worker.run_stub import RunStub
from procession.errors import TaskSuspended

if TYPE_CHECKING:
    from procession._engine.run_state import RunState

WITHIN: contextvars.ContextVar[tuple[object, ...]] = contextvars.ContextVar("procession_within", default=())
"""The executors one of whose workers waits for the calling code to end."""

Note = Callable[[Result], bool]
"""What is told of each end, at once, and returns whether no other call is to begin."""


def run_batch(batch: Batch, run_stub: RunStub | None = None) -> Report:
    """Make the calls of a batch and return how they ended: the function that executors are given to call."""
    began = time.perf_counter()
    error = _run_shared(batch, run_stub)
    worker, encode = worker_name(here=batch.run_state is not None), batch.options.encode
    return Report(worker, batch.ended, began, time.perf_counter(), error, batch.hung or False, encode)


def _run_shared(batch: Batch, run_stub: RunStub | None) -> BaseException | None:
    """Make the calls, with each end seen by the sender, if there is memory that both see."""
    batch.begun = True
    found = batch.options.found
    crash_file = None if found is None else CrashFile.found(*found)

    def note(result: Result) -> bool:
        batch.ended.append(result)
        return batch.recalled

    if crash_file is None:
        return run_calls(batch, note, run_stub)

    def note_in_file(result: Result) -> bool:
        data = encode_result(result, batch.options.encode)
        batch.ended.append(data)
        # What does not fit is noted to have ended, and comes with the report.
        return not (crash_file.note(data) or crash_file.note(b"")) or crash_file.is_recalled(1)

    try:
        crash_file.begin(1, 0)
        return None if crash_file.is_recalled(1) else run_calls(batch, note_in_file, run_stub)
    finally:
        crash_file.release()


def run_calls(batch: Batch, note: Note, run_stub: RunStub | None = None) -> BaseException | None:
    """Make the calls and have each end noted. Return why they could not be read, if so: then none was made."""
    wanted_logs, run_state = batch.options.wanted_logs, batch.run_state
    run: RunState | RunStub
    if run_state is not None:
        run = run_state
    else:
        run = RunStub(batch.options.process_name, batch.options.run_id) if run_stub is None else run_stub
        run.is_recorded = batch.options.recorded
        run.allow_changes, run.encodes = batch.options.allow_changes, batch.options.encode is not None
        run.logs = run.kept if wanted_logs is not None and wanted_logs.kept else None
        if wanted_logs is not None and wanted_logs.show is not None:
            wanted_logs.show()  # before modules of the calls are imported, which may log
    if batch.data is not None:
        try:
            batch.calls = batch.loads(batch.data)
        except BaseException as error:
            return error
        batch.data = None
    if isinstance(run, RunStub):
        # Now that the modules of the calls are there, which may have set something, or set up logging.
        base, decimals = base_context()
        if wanted_logs is not None:
            from procession._engine.task_logs import listen, stop_listening  # only now, as logging takes long to import

            listen(wanted_logs)
            run.stop_listening = stop_listening
    else:
        base, decimals = run.context, run.decimals
    failed = _make_calls(batch, note, run, base, decimals)
    if failed and batch.options.halts and isinstance(run, RunStub):
        run.halted = True  # and so the batch that lies ready here comes back as it is
    return None


def _make_calls(  # noqa: C901, PLR0912, PLR0915 - the hot path
    batch: Batch,
    note: Note,
    run: "RunState | RunStub",
    base: contextvars.Context,
    decimals: "contextvars.ContextVar[Any] | None",
) -> bool:
    """Make the calls; return whether one failed after which none may follow.

    They share a call context and, until one of them changes it, a context, which saves a third of a call.
    """
    clock, options = time.perf_counter, batch.options
    chained, worker = options.chained, worker_name(here=batch.run_state is not None)
    call_context = CallContext(run, worker)
    pristine = _own_context(base, call_context, batch.within)
    context = _fresh(pristine, decimals)
    # What a call has logged goes back with how it ended. In its run's own process it lies there.
    run_stub = run if isinstance(run, RunStub) else None
    logs = None if run_stub is None else run_stub.logs
    halting = run if isinstance(run, RunStub) else run.ledger
    kills, refusals = options.kills, run.refusals
    start = clock()
    until = start + options.budget
    value: Any = None
    last: type[object] = type(None)
    for index, element, attempt, timeout, function, args, kwargs in batch.calls:
        if halting.halted or start > until:
            return False
        if run_stub is not None:
            run_stub.function, run_stub.element = function, element
        if run.logs is not None:
            call_context = call_context.own(index)
            context.run(CURRENT_CALL.set, call_context)
            pristine.run(CURRENT_CALL.set, call_context)
        call_context.index, call_context.element, call_context.attempt = index, element, attempt
        if chained:
            args, kwargs = with_previous_value(args, kwargs, value)  # noqa: PLW2901
        returned = True
        try:
            if timeout is None or kills:
                value = context.run(function, *args, **kwargs)
                if type(value) is not last:
                    last = awaited(value).__class__
            else:
                timed = context.run(TimedCall, run, index, attempt, element)
                value = awaited(_made_within(batch, timed, context, timeout, function, args, kwargs))
        except BaseException as error:
            returned, value = False, error
        if refusals and (refusal := refusals.pop((index, element), None)) is not None and returned:
            returned, value = False, refusal
        call_context.over = True
        end = clock()
        log = logs.take((index, element)) if logs else None
        recalled = note(result_from((returned, value, start, end, worker, attempt, log, None)))
        suspended = not returned and isinstance(value, TaskSuspended)
        failed = not (returned or suspended) and (options.stops or not isinstance(value, Exception))
        value = value if chained and returned else None  # an error would keep this frame
        if failed or recalled or (suspended and options.stops):  # in order, the others wait for the suspended one
            return failed
        start = end
        try:
            clean = decimals is None and context == pristine
        except Exception:  # comparing what a call put into it failed
            clean = False
        if not clean:
            context = _fresh(pristine, decimals)
    return False


def _made_within(
    batch: Batch,
    timed: TimedCall,
    context: contextvars.Context,
    timeout: float,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> object:
    try:
        return context.run(timed.make, timeout, function, args, kwargs)
    finally:
        batch.hung = timed.hung


def _own_context(base: contextvars.Context, call_context: CallContext, within: object) -> contextvars.Context:
    context = base.copy()
    context.run(CURRENT_CALL.set, call_context)
    if within is not None:
        context.run(WITHIN.set, (*context.run(WITHIN.get), within))
    return context


def _fresh(pristine: contextvars.Context, decimals: "contextvars.ContextVar[Any] | None") -> contextvars.Context:
    """Return a context as it was before any call. Decimals are copied, as a call may change them without a trace."""
    context = pristine.copy()
    if decimals is not None:
        context.run(own_decimals, decimals)
    return context


def worker_name(*, here: bool) -> str:
    """Return the name of the worker: that of its thread in the run's own process, else that of its process."""
    if here:
        return threading.current_thread().name
    return f"{multiprocessing.current_process().name} ({os.getpid()})"
