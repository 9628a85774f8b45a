"""Where the code of running tasks stands, looked up when somebody asks: no call pays for it."""

import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

from procession._engine.call_context import CallContext
from procession._engine.run_state import RunState
from procession._model.record import WHOLE
from procession._model.stack import Stacks, TaskStack
from procession._model.task import MapFunction

_FRAMES: Final = ("cr_frame", "gi_frame", "ag_frame")
_OURS: Final = str(Path(__file__).parents[1])


def stacks_of(run: RunState) -> Stacks:
    """Return where each running task of a run stands, by place."""
    threads = sys._current_frames()
    numbers = {thread.name: thread.ident for thread in threading.enumerate()}
    contexts = [context for context in list(run.call_contexts) if _is_running(run, context.index)]
    found = [one for context in contexts if (one := _stack_of(run, context, threads, numbers)) is not None]
    attempts = run.failed_attempts
    retried = [*attempts.pausing, *attempts.maps]
    paused = {index for index in retried if _is_running(run, index)} - {one.index for one in found}
    for index in paused:
        frames = traceback.StackSummary()
        found.append(TaskStack(index, None, run.name(index), run.workers[index] or "", "between two attempts", frames))
    return Stacks(sorted(found, key=lambda one: (one.index, WHOLE if one.element is None else one.element)))


def _is_running(run: RunState, index: int) -> bool:
    return index >= 0 and run.ledger.starts[index] is not None and run.ledger.ends[index] is None


def _stack_of(
    run: RunState, context: CallContext, threads: Mapping[int, FrameType], numbers: Mapping[str, int | None]
) -> TaskStack | None:
    """Return where a call stands; `None` where the worker has not begun it yet, or has just ended it."""
    index, worker = context.index, context.worker
    at, place = run.whereabouts.elements.get(worker, (index, context.element))
    place = place if at == index else context.element
    element = place if run.plan.is_map(index) and place != WHOLE else None
    task = run.whereabouts.coroutines.get(worker)
    coroutine = None if task is None else task.get_coro()
    if coroutine is None:
        # Where a call with a timeout has a thread of its own, its worker only waits for it.
        thread = numbers.get(f"{worker}-attempt", run.whereabouts.threads.get(worker))
    else:
        thread = run.loop_thread if getattr(coroutine, "cr_running", False) else None
    frames = list[tuple[FrameType, int]]()
    if thread is not None and thread in threads:
        frames = list(traceback.walk_stack(threads[thread]))[::-1]
    elif coroutine is not None:
        frames = list(_in_coroutine(coroutine))
    where = "in a coroutine" if coroutine is not None else "in a thread" if frames else "elsewhere"
    if where == "elsewhere" and worker.endswith(")"):  # worker processes have their number in their names
        where = "in another process"
    code = _code_of(run.plan.calls[index][0])
    if code is None:
        own = _of_the_task(traceback.StackSummary.extract(iter(frames)))
    else:
        start = next((at for at, (frame, _) in enumerate(frames) if frame.f_code is code), None)
        if frames and start is None:
            return None
        own = traceback.StackSummary.extract(iter(frames[start:]))
    return TaskStack(index, element, run.name(index), worker, where, own)


def _code_of(function: Any) -> CodeType | None:
    """Return the code of what a task calls; `None` for what is not written in Python, and for classes."""
    while isinstance(function, MapFunction | partial):
        function = function.function if isinstance(function, MapFunction) else function.func
    function = getattr(function, "__func__", function)
    found = getattr(function, "__code__", None)
    if found is None and not isinstance(function, type):
        found = getattr(type(function).__call__, "__code__", None)
    return found if isinstance(found, CodeType) else None


def _in_coroutine(awaited: Any) -> Iterator[tuple[FrameType, int]]:
    """Yield the frames of a coroutine and of what it awaits, the innermost last."""
    while awaited is not None:
        frame = next((found for name in _FRAMES if (found := getattr(awaited, name, None))), None)
        if frame is None:
            return
        yield frame, frame.f_lineno
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)


def _of_the_task(stack: traceback.StackSummary) -> traceback.StackSummary:
    """Return a stack without what has called a task: frames before those of this package, and these."""
    ours = [frame.filename.startswith(_OURS) for frame in stack]
    first = ours.index(True) if True in ours else 0
    start = next((at for at in range(first, len(ours)) if not ours[at]), first)
    return traceback.StackSummary.from_list(stack[start:])
