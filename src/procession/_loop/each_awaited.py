"""A `map` of a coroutine function: as in `each`, with coroutines that draw and await in place of threads."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextvars import Context
from functools import partial
from typing import Any, Protocol

from procession._engine.course import Course
from procession._engine.current import SEAT, Seat
from procession._engine.decimals import own_decimals
from procession._engine.each import MapJob
from procession._loop.awaited import PATIENCE_S, absolve, alike, apart, attempted, breathe, current
from procession._model.record import WHOLE
from procession._model.stint import Stint
from procession._model.task import Each, Options
from procession.errors import TaskCancelled


class Shift(Protocol):
    """What a map needs to know of the worker that is on it."""

    seat: Seat
    context: Context


class Engine(Protocol):
    """What a map needs of the engine that runs it."""

    @property
    def shift(self) -> Shift:
        """The worker that the calling coroutine belongs to."""
        ...

    async def aside(self, function: Callable[..., Any], *args: Any) -> Any:
        """Have a call made in a thread."""
        ...

    async def committed(self, *, wait: bool) -> None:
        """Have what was recorded committed, and wait for that if asked to."""
        ...

    def pause(self, seconds: float) -> Awaitable[bool]:
        """Wait so many seconds; return early, with True, once nothing new may start."""
        ...


class AwaitedMap(MapJob):
    """The call of one map task, whose elements any number of coroutines await; the last to leave has its value."""

    __slots__ = ("_engine", "_turn")

    def __init__(
        self, course: Course, index: int, each: Each, options: Options, *, in_order: bool, engine: Engine
    ) -> None:
        super().__init__(course, index, each, options, in_order=in_order)
        self._engine = engine
        self._turn = asyncio.Lock()

    async def join_async(self) -> list[Any]:
        """Work on the map; return its results if this is the last worker on it, else raise `Left`."""
        self._come()
        shift, task = self._engine.shift, current()
        # Of the one who began: what was set at the start of the map, all of its elements see.
        context = self._context.copy()
        context.run(SEAT.set, shift.seat)
        since = time.perf_counter()
        stint = Stint(self._index, shift.seat.worker, since)
        try:
            while (drawn := await self._next_async()) is not None:
                own = self._seated(shift.seat, drawn[0])
                if own is not shift.seat:
                    SEAT.set(own)
                    context.run(SEAT.set, own)
                await self._call_async(shift.context, context, stint, *drawn)
                own.over = own is not shift.seat
                shift.seat.element = WHOLE
                del drawn
                if self._course.recorder is not None:
                    await self._engine.committed(wait=False)
                if task.cancelling() and not self._course.ledger.halted:
                    await absolve(task)
                if time.perf_counter() - since > PATIENCE_S and not self._course.ledger.halted:
                    await breathe()
                    since = time.perf_counter()
        except BaseException as error:  # not from an element: somebody else cancelled the worker
            with self._lock:
                self._fail(error)
        self._took_part(stint)
        self._leave()
        return self._concluded()

    async def _next_async(self) -> tuple[int, tuple[Any, ...]] | None:
        ledger = self._course.ledger
        while not ledger.halted and self._failure is None:
            try:
                return self._window.popleft()
            except IndexError:
                pass
            if self._at_hand:
                more = self._refilled()
            elif self._turn.locked():  # as in `_refilled`
                return None
            else:
                try:
                    async with self._turn:
                        more = bool(self._window) or await self._engine.aside(self._refilled)
                except asyncio.CancelledError:
                    if not ledger.cancelled:
                        raise
                    return None
            if not more:
                return None
        return None

    async def _call_async(
        self, here: Context, clean: Context, stint: Stint, place: int, element: tuple[Any, ...]
    ) -> None:
        course, function = self._course, self._each.function
        start, recalled, failed = time.perf_counter(), False, False
        try:
            digest = self._recall(place, element)
            recalled = digest is None
            if digest is not None:
                call = partial(
                    attempted, course, self._engine.pause, self._index, self._options, function, element, {}, place
                )
                # Once an element has changed the context of this shift, the next ones get one each.
                if alike(here, clean):
                    value = await call()
                else:
                    one = clean.copy()
                    one.run(own_decimals, course.decimals)
                    value = await apart(one, call)
                self._keep(place, digest, value, start)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and course.ledger.cancelled:
                error = TaskCancelled("the coroutine was cancelled with its run")
            failed = True
            self._raised(place, error, start)
        if not recalled:
            stint.note(start, time.perf_counter())
            stint.count(failed=failed)
        self._count(place)
