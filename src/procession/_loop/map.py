"""A `map` of a coroutine function in the event loop: each element takes a slot of its own.

iterables ──draw (in the loop, or in a side thread)──▶ window ──take, when a slot is free──▶ asyncio task
            ≤ max(64, 4 * max_workers) elements drawn and not ended, those that pause included
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Protocol

from procession._engine.call_context import CURRENT_CALL, CallContext
from procession._engine.map_state import QUICK_S, WINDOW, Element, MapState
from procession._engine.run_state import RunState
from procession._loop.attempt import PendingCall, starting
from procession._loop.side_threads import SideThreads
from procession._model.map_share import MapShare
from procession.errors import TaskCancelled, WorkersUnavailableError

TURN_S = 0.005
"""How long recorded elements are gone through before others have the loop."""


class Slots(Protocol):
    """What a map needs of the engine that runs its elements."""

    run_state: RunState
    side_draws: "SideDraws"

    def start(self, coroutine: Coroutine[None, None, None], call_context: CallContext, context: Context) -> None:
        """Run a coroutine in the slot of a worker, as an asyncio task of its own, until it calls `end`."""
        ...

    def start_attempt(self, call: PendingCall, call_context: CallContext, context: Context) -> None:
        """Have an attempt made in the slot of a worker."""
        ...

    def end(self, call_context: CallContext) -> None:
        """Free the slot of a worker."""
        ...

    def park(self, call: PendingCall, seconds: float) -> None:
        """Make another attempt after a pause."""
        ...

    def wake(self, coroutine_map: "CoroutineMap") -> None:
        """Ask a map for elements when slots are free: there may be some."""
        ...

    def finish_map(self, coroutine_map: "CoroutineMap") -> None:
        """Take note that nothing is left of a map: its value can be had."""
        ...


class SideDraws:
    """Draws from iterables that may be slow, in side threads: at most as many at once as there are slots."""

    def __init__(self, side_threads: SideThreads, limit: int) -> None:
        self._side_threads = side_threads
        self._limit = limit
        self._draws = 0
        self._waiting: deque[CoroutineMap] = deque()

    def draw(
        self, coroutine_map: "CoroutineMap", draw: Callable[[int], bool], most: int
    ) -> "asyncio.Future[bool] | None":
        """Have a map draw in a side thread; `None` where as many do as may, and it will be told to draw again."""
        if self._draws >= self._limit:
            self._waiting.append(coroutine_map)
            return None
        drawing: asyncio.Future[bool] = self._side_threads.call(draw, most)
        self._draws += 1
        drawing.add_done_callback(self._end)
        return drawing

    def _end(self, _: "asyncio.Future[bool]") -> None:
        self._draws -= 1
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._waiting.popleft().draw_again)


class CoroutineMap:
    """Drives the state of one map. All methods are called in the loop's thread."""

    __slots__ = (
        "_bound",
        "_context",
        "_drawing",
        "_drew_at",
        "_element_context",
        "_ledger",
        "_out",
        "_plain",
        "_shares",
        "_slots",
        "_state",
        "_waits_to_draw",
        "listed",
        "over",
    )

    def __init__(self, slots: Slots, state: MapState, call_context: CallContext) -> None:
        run_state = slots.run_state
        options = state.options
        self._slots = slots
        self._state = state
        self._bound = max(WINDOW, 4 * run_state.max_workers)
        self._plain = (
            options.timeout is None
            and isinstance(options.retries, int)
            and not run_state.verbose
            and run_state.recorder is None
            and run_state.decimals is None
        )
        self._ledger = run_state.ledger
        self._out = 0
        self._drawing: asyncio.Future[bool] | None = None
        self._drew_at: float | None = None
        self._waits_to_draw = False
        self._shares: dict[str, MapShare] = {}
        self.listed = False
        """Whether the engine asks the map for an element when it has a free slot."""
        self.over = False
        self._context = run_state.context.copy()
        self._context.run(CURRENT_CALL.set, call_context)
        self._element_context = self._context

    @property
    def index(self) -> int:
        """The place of the map's task in its process."""
        return self._state.index

    def open(self, start: float) -> None:
        """Begin to iterate over what the map was given. Raises for what cannot be iterated."""
        self._context.run(self._state.open, start)
        # What was set at the start of the map, all of its elements see.
        self._element_context = self._context.copy()

    def conclude(self) -> list[Any]:
        """Return the results, or raise what the map came to."""
        for worker in list(self._shares):
            self.leave(worker)
        return self._context.run(self._state.conclude)

    def leave(self, worker: str) -> None:
        """Take note that a worker does something else now."""
        share = self._shares.pop(worker, None)
        if share is not None:
            self._state.took_part(share)

    def look(self) -> None:
        """See whether the map is over, and else to it that it goes on."""
        state = self._state
        if not (self.over or self._out or state.window or state.nothing_left or self._waits_to_draw):
            self._draw(self._bound)
        if self.over or self._drawing is not None:
            return
        if not self._out and state.nothing_left:
            self.over = True
            self._slots.finish_map(self)
        elif state.window or (0 < self._out < self._bound and not state.exhausted and not self._waits_to_draw):
            self._slots.wake(self)

    def draw_again(self) -> None:
        """Draw after all: there is a thread for it now."""
        self._waits_to_draw = False
        self.look()

    def take(self, worker: str) -> bool:
        """Begin the next element in the slot of a worker; return whether there is one."""
        until: float | None = None
        while (element := self._next()) is not None:
            if self._begin(worker, *element):
                return True
            if until is None:
                until = time.perf_counter() + TURN_S
            elif time.perf_counter() > until:
                asyncio.get_running_loop().call_soon(self.look)
                return False
        if not self._out:
            self.look()
        return False

    # Elements

    def _next(self) -> Element | None:
        state = self._state
        if state.failure is not None or self._ledger.halted:
            return None
        window = state.window
        if window:
            return window.popleft()
        # With an empty window, what is drawn and has not ended is what is out.
        room = self._bound - self._out
        if room <= 0 or state.exhausted or self._drawing is not None or self._waits_to_draw:
            return None
        self._draw(room)
        return window.popleft() if window else None

    def _begin(self, worker: str, place: int, element: tuple[Any, ...]) -> bool:
        """Call an element; return `False` for one that was recorded, or cannot be called."""
        state = self._state
        call_context = CallContext(self._slots.run_state, worker, state.index, 1, place)
        context = self._element_context.copy()
        if self._plain:
            self._out += 1
            share = self._share(worker)
            self._slots.start(self._await(call_context, share, place, element), call_context, context)
            return True
        start = time.perf_counter()
        try:
            context.run(CURRENT_CALL.set, call_context)
            digest = context.run(state.digest, place, element)
        except BaseException as error:
            state.raised(place, error, start)
            self._share(worker).count(failed=True)
            return False
        if digest is None:
            return False
        call = PendingCall(self, state.index, state.function, element, {}, state.options, place)
        call.digest = digest
        self._out += 1
        self._slots.start_attempt(call, call_context, context)
        return True

    async def _await(self, call_context: CallContext, share: MapShare, place: int, element: tuple[Any, ...]) -> None:
        """Await the call of an element of which there is nothing to be known but how it ends."""
        state, clock = self._state, time.perf_counter
        start = clock()
        failure: BaseException | None = None
        try:
            try:
                await starting()
                CURRENT_CALL.set(call_context)
                start = clock()
                state.results[place] = await state.function(*element)
                end = clock()
                self._end(share, start, end, failed=False)
            except BaseException as error:
                failure = error
            if failure is not None:
                await self._failed(call_context, place, element, failure, start)
        finally:
            self._slots.end(call_context)

    async def _failed(
        self, call_context: CallContext, place: int, element: tuple[Any, ...], error: BaseException, start: float
    ) -> None:
        state = self._state
        call = PendingCall(self, state.index, state.function, element, {}, state.options, place)
        call.made, call.start, call.began, call.worker = 1, start, start, call_context.worker
        call.context = self._element_context
        seconds = await call.followed(self._slots.run_state, returned=False, value=error)
        if seconds is not None:
            self._slots.park(call, seconds)

    def _share(self, worker: str) -> MapShare:
        share = self._shares.get(worker)
        if share is None:
            share = self._shares[worker] = self._state.share(worker)
        return share

    def _end(self, share: MapShare, start: float, end: float, *, failed: bool) -> None:
        """Take note that an element has ended, in the part of the worker that made its last attempt."""
        share.note(start, end)
        share.count(failed=failed)
        self._out -= 1
        if not self.listed or not self._out:
            self.look()

    # As the owner of its calls

    def begin(self, call: PendingCall) -> None:
        """Prepare the first attempt: there is nothing to do."""

    def returned(self, call: PendingCall, value: object) -> None:
        """Take note of what an element's call returned. Raises for a value that cannot be recorded."""
        end = time.perf_counter()
        self._state.returned(call.element, call.digest, value, call.start, end, call.made)
        self._end(self._share(call.worker), call.began, end, failed=False)

    def raised(self, call: PendingCall, error: BaseException) -> None:
        """Take note of what an element's call raised."""
        if isinstance(error, asyncio.CancelledError) and self._slots.run_state.ledger.cancelled:
            error = TaskCancelled("the coroutine was cancelled with its run")
        self._state.raised(call.element, error, call.start, call.made)
        end = time.perf_counter() if call.ended is None else call.ended
        self._end(self._share(call.worker), call.began, end, failed=True)

    # Drawing

    def _draw(self, most: int) -> None:
        """Draw elements: at once where they are there already, else in a side thread."""
        state = self._state
        if self._drawing is not None:
            return
        if state.at_hand:
            state.draw(most)
            return
        try:
            drawing = self._slots.side_draws.draw(self, self._drawn, most)
        except WorkersUnavailableError as error:
            state.fail(error)
            return
        self._waits_to_draw = drawing is None
        if drawing is not None:
            self._drawing, self._drew_at = drawing, None
            drawing.add_done_callback(self._end_drawing)
            self._peek_later()

    def _drawn(self, most: int) -> bool:
        self._drew_at = time.perf_counter()
        return self._context.run(self._state.draw, most)

    def _end_drawing(self, drawing: "asyncio.Future[bool]") -> None:
        self._drawing = None
        if not drawing.cancelled() and (error := drawing.exception()) is not None:
            self._state.fail(error)
        self.look()

    def _peek_later(self) -> None:
        if self._drawing is not None:
            asyncio.get_running_loop().call_later(2 * QUICK_S, self._peek, self._drawing)

    def _peek(self, drawing: "asyncio.Future[bool]") -> None:
        """Have the elements called that a source gave before it began to keep its thread waiting."""
        if drawing is not self._drawing:
            return
        # A draw goes on to the next element only within its first moments: so a look after these sees all.
        if self._drew_at is None or time.perf_counter() - self._drew_at < QUICK_S:
            self._peek_later()
        if self._state.window:
            self._slots.wake(self)
