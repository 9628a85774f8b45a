"""Plain functions in a stage with coroutines: a side thread calls them in the place of a slot."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from procession._engine.call_context import CURRENT_CALL, CallContext
from procession._engine.calls import LeaveTask, TaskCalls, Worker
from procession._engine.map import ThreadMaps
from procession._engine.run_state import RunState
from procession._model.task import MapFunction

if TYPE_CHECKING:
    from procession._engine.watcher import Deadline

TURN_S = 0.005
"""How long a thread goes on with other plain functions while something else waits for its slot."""


class Slots(Protocol):
    """What plain functions need of the stage that they are in."""

    def others_wait(self) -> bool:
        """Return whether something else waits for the slot of a thread."""
        ...

    def pause(self, seconds: float, resume: Callable[[], object]) -> None:
        """Have `resume` make something ready in so many seconds. Called in a side thread."""
        ...


class Pauses:
    """The pauses of plain functions between two attempts: timers of the loop, in whose thread all is called."""

    def __init__(self, run_state: RunState, fill: Callable[[], None]) -> None:
        self._run_state = run_state
        self._fill = fill
        self._timers: set[asyncio.TimerHandle] = set()

    def __len__(self) -> int:
        return len(self._timers)

    def begin(self, seconds: float, resume: Callable[[], object]) -> None:
        """Have `resume` make something ready in so many seconds, and then the free slots filled."""

        def end() -> None:
            self._timers.discard(timer)
            resume()
            self._fill()

        if not self._run_state.ledger.halted:
            timer = asyncio.get_running_loop().call_later(seconds, end)
            self._timers.add(timer)

    def clear(self) -> None:
        """Make nothing ready any more."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()


class SideThread:
    """The calling worker: a side thread, which cannot be left behind with a call. See `procession._engine.calls`."""

    __slots__ = ("alone", "deadline")

    def __init__(self, *, alone: bool) -> None:
        self.alone = alone
        self.deadline: Deadline | None = None

    def abandon(self, resume: Callable[[], object]) -> None:
        """Raise, as no call of a side thread has a deadline: one with a timeout is made in a thread of its own."""
        raise NotImplementedError


class PlainCalls:
    """Makes the calls of plain functions. Its methods are called in side threads."""

    def __init__(self, run_state: RunState, slots: Slots, *, in_order: bool) -> None:
        self._run_state = run_state
        self._in_order = in_order
        self._slots = slots
        self._maps = ThreadMaps(run_state)
        self.worker: Worker = SideThread(alone=in_order)
        self._calls = TaskCalls(run_state, self)
        self._calls.in_order = in_order

    def serve(self, index: int | None) -> None:
        """Run a task that was claimed, and others as long as plain ones are next in line."""
        call_context = self._run_state.call_context(threading.current_thread().name)
        since = time.perf_counter()
        try:
            while index is not None:
                self._run(call_context, index)
                late = time.perf_counter() - since > TURN_S
                index = None if late and self._slots.others_wait() else self._next()
        finally:
            self._run_state.leave(call_context)

    def _next(self) -> int | None:
        ledger = self._run_state.ledger
        try:
            index = ledger.claim()
        except IndexError:
            return None
        if index not in self._run_state.plan.coroutines:
            return index
        ledger.put_back(index)  # for the slot that this thread holds
        return None

    def _run(self, call_context: CallContext, index: int) -> None:
        run_state = self._run_state
        context = run_state.context.copy()
        call_context.index = index
        own = call_context.own(index)
        context.run(CURRENT_CALL.set, own)
        run_state.workers[index] = call_context.worker
        run_state.ledger.starts[index] = time.perf_counter()
        try:
            function, args, kwargs = self._calls.calls[index]
            value = context.run(function, *args, **kwargs)
            own.over = True
            run_state.finished(index, value, time.perf_counter())
        except LeaveTask:
            pass
        except BaseException as error:
            own.over = True
            self._calls.failed(index, error)
        run_state.commit()

    def pause(self, seconds: float, resume: Callable[[], object]) -> None:
        """Have `resume` make something ready in so many seconds."""
        self._slots.pause(seconds, resume)

    def work_on_map(self, index: int, map_function: MapFunction) -> list[Any]:
        """Work on a map; return its results in the last thread on it, else raise `LeaveTask`."""
        return self._maps.join(self, index, map_function, in_order=self._in_order)

    def end(self) -> None:
        """End what all threads have left before its end, as nothing new may start, and let go of all that is held."""
        self._calls.end_paused()
        self._maps.end_left()
        self._maps.close()
        self._calls.close()
