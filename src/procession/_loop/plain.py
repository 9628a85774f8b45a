"""Plain functions in a stage with coroutines: a side thread calls them in the place of a slot."""

import asyncio
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from procession._engine.call_context import CURRENT_CALL, CallContext
from procession._engine.callbacks import breaks_down
from procession._engine.calls import TaskCalls
from procession._engine.elements import Lend
from procession._engine.maps import ThreadMaps
from procession._engine.run_state import RunState
from procession._engine.workers import LeaveTask, Worker
from procession._loop.side_threads import hand_over
from procession._loop.slots import Slots
from procession._model.task import MapFunction

if TYPE_CHECKING:
    from procession._engine.watcher import Deadline
    from procession._model.outcome import NotKept

TURN_S = 0.005
"""How long a thread goes on with other plain functions while something else waits for its slot."""


class PlainStage(Protocol):
    """What plain functions need of the stage that they are in."""

    def fill(self) -> None:
        """Fill the free slots: something was made ready."""
        ...

    def break_down(self, error: BaseException) -> None:
        """End the stage with an error of its own."""
        ...

    def others_wait(self) -> bool:
        """Return whether something else waits for the slot of a thread."""
        ...


class Pauses:
    """The pauses of plain functions: timers of the loop, and calls that their limits hold back."""

    def __init__(self, run_state: RunState, slots: PlainStage) -> None:
        self._run_state = run_state
        self._slots = slots
        self._loop = asyncio.get_running_loop()
        self._timers: dict[object, asyncio.TimerHandle] = {}
        self._held: set[object] = set()
        """For each call that its limits hold back, what stands for it."""

    def __len__(self) -> int:
        return len(self._timers) + len(self._held)

    def pause(self, seconds: float, resume: Callable[[], object]) -> None:
        """Schedule `resume`, which makes a call ready again, after a pause in seconds. From a side thread."""
        hand_over(self._loop, self._begin, seconds, resume)

    def hold(self, resume: Callable[[], object]) -> Callable[[], object]:
        """Count a call that is held back; return a function that calls `resume` in the loop. From a side thread."""
        held = object()
        hand_over(self._loop, self._hold, held)
        return partial(hand_over, self._loop, self._resume, held, resume)

    def clear(self) -> None:
        """Make nothing ready any more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._held.clear()

    def break_down(self, error: BaseException) -> None:
        """End the stage with an error of its own."""
        self._slots.break_down(error)

    @breaks_down
    def _begin(self, seconds: float, resume: Callable[[], object]) -> None:
        if not self._run_state.ledger.halted:
            key = object()
            self._timers[key] = self._loop.call_later(seconds, self._end, key, resume)

    @breaks_down
    def _hold(self, held: object) -> None:
        if not self._run_state.ledger.halted:
            self._held.add(held)

    @breaks_down
    def _resume(self, held: object, resume: Callable[[], object]) -> None:
        if held in self._held:
            self._held.discard(held)
            resume()
            self._slots.fill()

    @breaks_down
    def _end(self, key: object, resume: Callable[[], object]) -> None:
        del self._timers[key]
        resume()
        self._slots.fill()


class SideThread:
    """The calling worker: a side thread, which cannot be left behind with a call. See `procession._engine.workers`."""

    __slots__ = ("alone", "deadline")

    def __init__(self, *, alone: bool) -> None:
        self.alone = alone
        self.deadline: Deadline | None = None

    def abandon(self, resume: Callable[[], object]) -> None:
        """Raise, as no call of a side thread has a deadline: one with a timeout is made in a thread of its own."""
        raise NotImplementedError


class PlainCalls:
    """Makes the calls of plain functions. Its methods are called in side threads."""

    def __init__(
        self, run_state: RunState, slots: PlainStage, pauses: Pauses, lendable: Slots, *, in_order: bool
    ) -> None:
        self._run_state = run_state
        self._in_order = in_order
        self._slots = slots
        self._pauses = pauses
        self._lend = lendable.lend
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
            if run_state.ledger.ends[index] is not None:
                raise  # not from the call
            self._calls.failed(index, error)
        run_state.commit()

    def pause(self, seconds: float, resume: Callable[[], object]) -> None:
        """Call `resume` after so many seconds, to make a call ready again."""
        self._pauses.pause(seconds, resume)

    def break_down(self, error: BaseException) -> None:
        """End the stage with an error that is not from any call."""
        self._slots.break_down(error)

    def hold(self, resume: Callable[[], object]) -> Callable[[], object]:
        """Count a call that is held back, so that the stage waits; return what calls `resume` to make it ready."""
        return self._pauses.hold(resume)

    @property
    def lend(self) -> Lend:
        """What makes a call that waits, from any thread, and has others use the slot of the calling thread."""
        return self._lend

    @property
    def others_wait(self) -> bool:
        """Whether something else than a ready task waits for the slot of a thread."""
        return self._slots.others_wait()

    @property
    def alone(self) -> bool:
        """Whether the calling worker has nothing else to do while a task waits."""
        return self._in_order

    def work_on_map(self, index: int, map_function: MapFunction) -> "list[Any] | NotKept":
        """Work on a map; return its results in the last thread on it, else raise `LeaveTask`."""
        return self._maps.join(self, index, map_function, in_order=self._in_order)

    def end(self) -> None:
        """End what all threads have left before its end, as nothing new may start, and let go of all that is held."""
        self._calls.end_paused()
        self._maps.end_left()
        self._maps.close()
        self._calls.close()
