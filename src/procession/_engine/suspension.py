"""Tasks that wait for an answer or until a time: how they are left, and called again while their run goes on.

a task raises TaskSuspended ──suspend──▶ the ledger: others go on as far as they can
the journal's thread ──wake_ready──▶ what it waits for is there: ready again
nothing else is left ──look_again──▶ the same once more; else those who take elements that wait are left, too

Of a map, an element is left and called again by itself (`suspended_elements`); the task is left once all else of it has
ended.
"""

import math
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, Protocol

from procession._engine.commit import Recorder
from procession._engine.ledger import Ledger
from procession._engine.run_streams import Streams
from procession._engine.suspended_elements import SuspendedElements
from procession._model.event import EventName
from procession._model.record import WHOLE
from procession._model.text import shown, sketch
from procession._plan.plan import Plan
from procession.errors import TaskSuspended

_NAME_LIMIT: Final = 200
"""Characters of the name of an answer, at most: what every database can index."""

_SHOWN: Final = 5
"""Suspended tasks that a message names, at most."""


class SuspendingRun(Protocol):
    """The run whose tasks wait."""

    plan: Plan
    ledger: Ledger
    recorder: Recorder | None
    streams: Streams | None
    suspended: dict[int, str]
    suspended_elements: dict[int, SuspendedElements]
    attempts: dict[int | tuple[int, int], int]
    waking: threading.Lock

    @property
    def nested_runs(self) -> "Mapping[str, SuspendingRun]":
        """The runs that are recorded with this one and go on, by id."""
        ...

    def recruit(self, count: int) -> None:
        """Ask the driver for workers for so many tasks that became ready."""
        ...

    def report(self, name: EventName, index: int, attempt: int, duration: float | None) -> None:
        """Tell of something that happened to a task."""
        ...


def suspend(run: SuspendingRun, index: int, signal: TaskSuspended, *, in_order: bool) -> None:
    """Leave a task that waits: it neither completes nor fails, and whatever does not wait for it goes on."""
    run.suspended[index] = str(signal)
    run.ledger.suspend(index, in_order=in_order)
    run.report("task_suspended", index, run.attempts.get(index, 1), None)


def wake_ready(run: SuspendingRun) -> None:
    """Make suspended tasks and elements ready again whose wait is over.

    So it is in the runs nested in this one that go on. One that was left itself is called again as its task is. A task
    that takes elements that are not kept is called again by the next execution: their map was cancelled as it was left.
    So are the elements of a map that was cut off from those who take them.
    """
    if run.recorder is None or run.ledger.halted:
        return
    for nested in list(run.nested_runs.values()):
        wake_ready(nested)
    with run.waking:
        _wake_ready(run, run.recorder)


def _wake_ready(run: SuspendingRun, recorder: Recorder) -> bool:
    """Make ready again what waits no longer; return whether there is any."""
    left, maps = set(run.ledger.asleep()), _waiting_maps(run)
    if run.streams is not None:
        left = {index for index in left if not (run.streams.has_lost(index) or run.streams.is_cut(index))}
        maps = {index: elements for index, elements in maps.items() if not run.streams.is_cut(index)}
    if not (left or maps):
        return False
    ready: dict[int, list[int]] = {}
    for index, element in recorder.waits.ready():
        ready.setdefault(index, []).append(element)
    goes_on = False
    for index, elements in ready.items():
        resume = partial(run.ledger.wake, index) if index in left else None
        if index in maps:
            woken = maps[index].wake(elements, resume)
        else:
            woken = resume is not None and WHOLE in elements and resume()
        goes_on = goes_on or woken
        run.recruit(1)
    return goes_on


def _waiting_maps(run: SuspendingRun) -> dict[int, SuspendedElements]:
    return {index: elements for index, elements in list(run.suspended_elements.items()) if elements}


def may_go_on(run: SuspendingRun) -> bool:
    """Return whether anything waits in a run that is not halted."""
    is_open = run.recorder is not None and not run.ledger.halted
    return is_open and (run.ledger.is_suspended or bool(_waiting_maps(run)))


def is_stuck(run: SuspendingRun, calls: int) -> bool:
    """Return whether so many calls wait for elements, with all else, that can only come when others wait no longer."""
    streams = run.streams
    if streams is None or run.ledger.halted:
        return False
    return any(not streams.is_cut(index) for index in _waiting_maps(run)) and streams.are_asleep(calls)


def look_again(run: SuspendingRun, is_idle: Callable[[], bool] = lambda: True) -> bool:
    """Return whether a stage in which nothing was left to do goes on: something has just been answered, or is due.

    Where nothing is, those are told who take elements of maps of which some wait, so that they end, too. `is_idle` says
    whether still nothing is left to do: others may have looked meanwhile.
    """
    with run.waking:
        if run.recorder is None or run.ledger.halted:
            return False
        maps = _waiting_maps(run)
        if run.ledger.ready or any(elements.is_woken for elements in maps.values()) or not is_idle():
            return True
        if _wake_ready(run, run.recorder):
            return True
        left = [index for index in maps if run.streams is not None and run.streams.leave(index)]
        return bool(left)


def waits_in_words(names: Mapping[int, str], suspended: Mapping[int, str]) -> str:
    """Return the part of a sentence that says what the suspended tasks, with these `names`, wait for."""
    said = [f"task {index} ({shown(names[index])}) {suspended[index]}" for index in sorted(suspended)]
    more = f"; and {len(said) - _SHOWN:,} more" if len(said) > _SHOWN else ""
    return "; ".join(said[:_SHOWN]) + more


def suspended_map(elements: Mapping[int, str]) -> TaskSuspended:
    """Return the signal of a map of which these elements wait; what for, is said of one of them."""
    place = min(elements)
    more = f" (and {len(elements) - 1:,} more)" if len(elements) > 1 else ""
    return TaskSuspended(f"element {place} {elements[place]}{more}")


def suspended_taker() -> TaskSuspended:
    """Return the signal of a task that takes elements of maps, and that is left, as some of them wait."""
    return TaskSuspended("takes elements of which some wait")


def check_wait(name: object, timeout: object) -> None:
    """Raise for what is no name of an answer, or no timeout."""
    if not isinstance(name, str):
        raise TypeError(f"wait_for(name) takes the name of an answer, which is a str; got {sketch(name)}")
    if not name or len(name) > _NAME_LIMIT or not name.isprintable():
        raise ValueError(
            f"the name of an answer has 1 to {_NAME_LIMIT} characters, all printable; got {shown(name, 60)!r}"
        )
    if timeout is None:
        return
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"wait_for(timeout=...) takes a number of seconds, or None; got {sketch(timeout)}")
    if not 0 < timeout < math.inf:
        raise ValueError(f"wait_for(timeout=...) takes a finite number of seconds above 0, or None; got {timeout:g}")


def until(left: float) -> str:
    """Return until when a task waits that has so many seconds left, in words; nothing if that is without end."""
    if left == math.inf:
        return ""
    return time.strftime(" until %Y-%m-%d %H:%M:%S UTC", time.gmtime(time.time() + left))


def is_in_loop() -> bool:
    """Return whether an event loop runs in this thread, which must not be held up."""
    asyncio = sys.modules.get("asyncio")
    try:
        return asyncio is not None and asyncio.get_running_loop() is not None
    except RuntimeError:
        return False
