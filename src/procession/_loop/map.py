"""A `map` of a coroutine function in the event loop: each element takes a slot of its own.

iterables ──draw (in the loop, or in a side thread)──▶ window ──take, when a slot is free──▶ asyncio task
            ≤ max(64, 4 * max_workers) elements (or two batches for each worker) drawn and not ended, those that pause
            included
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from procession._engine.call_context import CURRENT_CALL, CallContext
from procession._engine.callbacks import breaks_down
from procession._engine.element_batches import Element
from procession._engine.gate import gated, passes_gate
from procession._engine.map_state import MapState
from procession._engine.placed import ElementGroup, Submitted, group_size, grouped
from procession._engine.run_state import RunState
from procession._engine.unawaited import awaited
from procession._engine.window import QUICK_S
from procession._loop.attempt import PendingCall, starting
from procession._loop.parked_calls import ParkedCalls
from procession._loop.placed import AwaitedPlacedCall
from procession._loop.side_threads import SideThreads, hand_over
from procession._model.map_share import MapShare
from procession.errors import TaskCancelled, WorkersUnavailableError

if TYPE_CHECKING:
    from procession._model.outcome import NotKept

TURN_S = 0.005
"""How long recorded elements are gone through before others have the loop."""


class Slots(Protocol):
    """What a map needs of the engine that runs its elements."""

    run_state: RunState
    parked: ParkedCalls
    side_draws: "SideDraws"

    def start(self, coroutine: Coroutine[None, None, None], call_context: CallContext, context: Context) -> None:
        """Run a coroutine in the slot of a worker, as an asyncio task of its own, until it calls `end`."""
        ...

    def start_attempt(self, call: PendingCall, call_context: CallContext, context: Context) -> bool:
        """Make an attempt in the slot of a worker; return `False` where it is held back, or has failed."""
        ...

    def end(self, call_context: CallContext) -> None:
        """Free the slot of a worker."""
        ...

    def break_down(self, error: BaseException) -> None:
        """End the stage with an error that is not from any call."""
        ...

    def wake(self, coroutine_map: "CoroutineMap", *, first: bool = False) -> None:
        """Ask a map for elements when slots are free: there may be some."""
        ...

    def finish_map(self, coroutine_map: "CoroutineMap") -> None:
        """End a map, of which no element is left."""
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
        """Draw from a map in a side thread; `None` if no thread is free for that: the map is told when to try again."""
        if self._draws >= self._limit:
            self._waiting.append(coroutine_map)
            return None
        drawing: asyncio.Future[bool] = self._side_threads.call(draw, most)
        self._draws += 1
        return drawing

    def end(self) -> None:
        """Take note that a draw has ended, and let another map draw that waits to."""
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
        "_function",
        "_ledger",
        "_loop",
        "_out",
        "_placed",
        "_plain",
        "_shares",
        "_slots",
        "_state",
        "_thread",
        "_waits_to_draw",
        "_window",
        "listed",
        "over",
    )

    def __init__(self, slots: Slots, state: MapState, call_context: CallContext) -> None:
        run_state = slots.run_state
        options = state.options
        self._slots = slots
        self._state = state
        self._window = state.window
        self._bound = self._window.most
        closely = run_state.verbose or run_state.recorder is not None or run_state.decimals is not None
        self._plain = passes_gate(options) and not (closely or state.batches is not None)
        self._function = gated(state.function, options.limit if self._plain else (), run_state.admission)
        placed = grouped(state, recorded=run_state.recorder is not None)
        self._placed = placed if isinstance(placed, AwaitedPlacedCall) else None
        self._ledger = run_state.ledger
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
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

    @property
    def is_busy(self) -> bool:
        """Whether an element is under way, or may be begun or drawn now."""
        window, draws = self._state.window, self._drawing is not None or self._waits_to_draw
        return draws or not window.asleep or bool(self._out or window.elements)

    def open(self, start: float) -> None:
        """Begin to iterate over what the map was given. Raises for what cannot be iterated."""
        try:
            self._state.wake_by(self.wake)
            self._context.run(self._state.open, start)
        except BaseException:
            self.over = True  # others may wake it still
            raise
        # What was set at the start of the map, all of its elements see.
        self._element_context = self._context.copy()

    def take_up(self) -> None:
        """Go on with a map that was left, as elements of it waited."""
        self._state.take_up()
        self.over = False
        self._ledger.starts[self.index] = self._state.began

    def conclude(self) -> "list[Any] | NotKept":
        """Return the results, or raise what the map came to."""
        for worker in list(self._shares):
            self.leave(worker)
        return self._context.run(self._state.conclude)

    def leave(self, worker: str) -> None:
        """Close the share of a worker that does something else now."""
        share = self._shares.pop(worker, None)
        if share is not None:
            self._state.shares.leave(share)

    def break_down(self, error: BaseException) -> None:
        """End the stage with an error that is not from any call."""
        self._slots.break_down(error)

    @breaks_down
    def look(self, *, first: bool = False) -> None:
        """See whether the map is over, and else to it that it goes on: `first` of all where others hand elements on."""
        window = self._window
        if not (self.over or self._out or window.elements or window.nothing_left or self._waits):
            self._draw(self._bound)
        if self.over or self._drawing is not None:
            return
        if not self._out and window.nothing_left:
            self.over = True
            self._slots.finish_map(self)
        elif window.elements or (0 < self._out < self._bound and not window.exhausted and not self._waits):
            self._slots.wake(self, first=first)

    def wake(self) -> None:
        """Continue a map that was asleep: there is something to draw, or room for it. May be called in any thread."""
        if threading.get_ident() == self._thread:
            self._rise()
        else:
            hand_over(self._loop, self._rise)

    @breaks_down
    def _rise(self) -> None:
        self._window.rise()
        self.look(first=True)

    @property
    def _waits(self) -> bool:
        """Whether drawing has to wait: for a thread, or for other maps and those who take the elements of this one."""
        return self._waits_to_draw or self._window.asleep

    @breaks_down
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
            if self._out and self._state.in_order:
                return False  # it is held back, and so are those after it
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
        window = self._window
        if self._state.failure is not None or self._ledger.halted:
            return None
        if window.elements:
            return window.pop()
        # With an empty window, what is drawn and has not ended is what is out.
        room = self._bound - self._out
        if room <= 0 or window.exhausted or self._drawing is not None or self._waits:
            return None
        self._draw(room)
        return window.pop() if window.elements else None

    def _begin(self, worker: str, place: int, element: tuple[Any, ...]) -> bool:
        """Call an element; return `False` for one that was recorded, or cannot be called."""
        state = self._state
        call_context = CallContext(self._slots.run_state, worker, state.index, 1, place)
        context = self._element_context.copy()
        if self._placed is not None:
            return self._begin_group(self._placed, (place, element), call_context, context)
        if self._plain:
            self._out += 1
            share = self._share(worker)
            self._slots.start(self._await(call_context, share, place, element), call_context, context)
            return True
        start = time.perf_counter()
        try:
            context.run(CURRENT_CALL.set, call_context)
            digest = context.run(state.begin, place, element)
        except BaseException as error:
            self._share(worker).count(state.raised(place, error, start), failed=True)
            return False
        if digest is None:
            return False
        call = PendingCall(self, state.index, state.function, element, {}, state.options, place)
        call.digest = digest
        call.context = self._element_context if state.options.limit else None
        self._out += 1
        return self._slots.start_attempt(call, call_context, context)

    def _begin_group(
        self, placed: AwaitedPlacedCall, first: Element, call_context: CallContext, context: Context
    ) -> bool:
        """Submit the next elements to their executor; return `False` if all were recorded, or cannot be called."""
        state = self._state
        context.run(CURRENT_CALL.set, call_context)
        group = ElementGroup(state, group_size(placed.place, state, more=1), first)
        submitted = context.run(group.submit, placed)
        for (place, _), error, _, start, _ in group.failed:
            self._share(call_context.worker).count(state.raised(place, error, start), failed=True)
        group.failed.clear()
        if submitted is None:
            return False
        self._out += len(group)
        self._slots.start(self._await_group(placed, call_context, group, submitted), call_context, context)
        return True

    async def _await_group(
        self, placed: AwaitedPlacedCall, call_context: CallContext, group: ElementGroup, submitted: Submitted | None
    ) -> None:
        """Await elements that are called together."""
        share = self._share(call_context.worker)
        try:
            try:
                await starting()
                CURRENT_CALL.set(call_context)
                while submitted is not None:
                    submitted = group.settle(await placed.made(submitted), partial(self._end, share, failed=False))
                    await self._settle_group(call_context, group)
            except asyncio.CancelledError as error:
                group.fail(error)
                await self._settle_group(call_context, group)
            self._slots.end(call_context)
        except BaseException as error:  # not from the calls
            self.break_down(error)

    async def _settle_group(self, call_context: CallContext, group: ElementGroup) -> None:
        state = self._state
        back, group.back = group.back, []
        for (place, args), digest in back:
            call = PendingCall(self, state.index, state.function, args, {}, state.options, place)
            call.digest = digest
            self._slots.parked.park(call, 0.0)
        failed, group.failed = group.failed, []
        for (place, args), error, digest, start, _ in failed:
            await self._failed(call_context, place, args, error, start, digest)

    async def _await(self, call_context: CallContext, share: MapShare, place: int, element: tuple[Any, ...]) -> None:
        """Await the call of an element of which there is nothing to be known but how it ends."""
        state, clock = self._state, time.perf_counter
        start = end = clock()
        failure: BaseException | None = None
        try:
            try:
                await starting()
                CURRENT_CALL.set(call_context)
                start = clock()
                value = await self._function(*element)
                end = clock()
                if state.outlet is None:
                    state.ends.results[place] = value
                else:
                    state.ends.results[place] = awaited(value)
                    state.outlet.hand_on(place)
                del value
            except BaseException as error:
                failure = error
            if failure is None:
                self._end(share, start, end, failed=False)
            else:
                await self._failed(call_context, place, element, failure, start)
            self._slots.end(call_context)
        except BaseException as error:  # not from the call
            self.break_down(error)
        finally:
            failure = None

    async def _failed(
        self,
        call_context: CallContext,
        place: int,
        element: tuple[Any, ...],
        error: BaseException,
        start: float,
        digest: bytes = b"",
    ) -> None:
        state = self._state
        call = PendingCall(self, state.index, state.function, element, {}, state.options, place)
        call.context = self._element_context
        call.digest = digest
        call.made, call.start, call.began, call.worker = 1, start, start, call_context.worker
        seconds = await call.followed(self._slots.run_state, returned=False, value=error)
        if seconds is not None:
            self._slots.parked.park(call, seconds)

    def _share(self, worker: str) -> MapShare:
        share = self._shares.get(worker)
        if share is None:
            share = self._shares[worker] = self._state.shares.join(worker)
        return share

    def _end(self, share: MapShare, start: float, end: float, count: int = 1, *, failed: bool) -> None:
        """Count the element, or elements, of a call that has ended, in the share of the worker that made it last."""
        share.note(start, end)
        share.count(count, failed=failed)
        self._out -= 1
        if not self.listed or not self._out:
            self.look()

    @breaks_down
    def _end_call(self, call: PendingCall, end: float, count: int, *, failed: bool) -> None:
        """Do the same for a call. Raises nothing, so that the call does not end a second time."""
        self._end(self._share(call.worker), call.began, end, count, failed=failed)

    # As the owner of its calls

    def note_start(self, call: PendingCall) -> None:
        """Take note that an element begins: there is nothing to do."""

    def begin(self, call: PendingCall) -> None:
        """Prepare the first attempt: there is nothing to do."""

    def returned(self, call: PendingCall, value: object) -> None:
        """Settle an element whose call returned. Raises for a value that cannot be recorded."""
        end = time.perf_counter()
        count = self._state.ends.returned(call.element, call.digest, value, call.start, end, call.made)
        self._end_call(call, end, count, failed=False)

    def raised(self, call: PendingCall, error: BaseException) -> None:
        """Settle an element whose call raised."""
        if isinstance(error, asyncio.CancelledError) and self._slots.run_state.ledger.cancelled:
            error = TaskCancelled("the coroutine was cancelled with its run")
        count = self._state.raised(call.element, error, call.start, call.made, call.args)
        end = time.perf_counter() if call.ended is None else call.ended
        self._end_call(call, end, count, failed=True)

    def drop(self, call: PendingCall) -> None:  # noqa: ARG002 - as for a task
        """Take note that an element will not be called, which was held back or has come back without a call."""
        self._state.drop()
        self._out -= 1
        if not self._out:
            self.look()

    # Drawing

    def _draw(self, most: int) -> None:
        """Draw elements: at once where they are there already, else in a side thread."""
        state = self._state
        if self._drawing is not None:
            return
        if self._window.at_hand:
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

    @breaks_down
    def _end_drawing(self, drawing: "asyncio.Future[bool]") -> None:
        self._drawing = None
        self._slots.side_draws.end()
        if not drawing.cancelled() and (error := drawing.exception()) is not None:
            self._state.fail(error)
        self.look()

    def _peek_later(self) -> None:
        if self._drawing is not None:
            asyncio.get_running_loop().call_later(2 * QUICK_S, self._peek, self._drawing)

    @breaks_down
    def _peek(self, drawing: "asyncio.Future[bool]") -> None:
        """Call the elements that a source gave before it began to keep its thread waiting."""
        if drawing is not self._drawing:
            return
        # A draw goes on to the next element only within its first moments, unless a batch is to be full: so a look
        # after these sees all.
        if self._state.batches is not None or self._drew_at is None or time.perf_counter() - self._drew_at < QUICK_S:
            self._peek_later()
        if self._window.peek():
            self._slots.wake(self)
