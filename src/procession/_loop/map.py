"""A `map` of a coroutine function: as in `each`, with coroutines that draw and await in place of threads."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextvars import Context
from functools import partial
from typing import Any, Protocol

from procession._engine.call_context import CURRENT_CALL, CallContext
from procession._engine.decimals import own_decimals
from procession._engine.map import MapJob
from procession._engine.run_state import RunState
from procession._loop.attempt import (
    PATIENCE_S,
    attempted,
    contexts_equal,
    current,
    discard_cancellation,
    in_own_task,
    yield_to_loop,
)
from procession._model.map_share import MapShare
from procession._model.record import WHOLE
from procession._model.task import MapFunction, Options
from procession.errors import TaskCancelled


class Shift(Protocol):
    """What a map needs to know of the worker that is on it."""

    call_context: CallContext
    context: Context


class Engine(Protocol):
    """What a map needs of the engine that runs it."""

    @property
    def shift(self) -> Shift:
        """The worker that the calling coroutine belongs to."""
        ...

    async def in_side_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        """Have a call made in a thread."""
        ...

    async def committed(self, *, wait: bool) -> None:
        """Have what was recorded committed, and wait for that if asked to."""
        ...

    def pause(self, seconds: float) -> Awaitable[bool]:
        """Wait so many seconds; return early, with True, once nothing new may start."""
        ...


class CoroutineMap(MapJob):
    """The call of one map task, whose elements any number of coroutines await; the last to leave has its value."""

    __slots__ = ("_engine", "_turn")

    def __init__(
        self,
        run_state: RunState,
        index: int,
        map_function: MapFunction,
        options: Options,
        *,
        in_order: bool,
        engine: Engine,
    ) -> None:
        super().__init__(run_state, index, map_function, options, in_order=in_order)
        self._engine = engine
        self._turn = asyncio.Lock()

    async def join_async(self) -> list[Any]:
        """Work on the map; return its results if this is the last worker on it, else raise `Left`."""
        self._come()
        shift, task = self._engine.shift, current()
        # Of the one who began: what was set at the start of the map, all of its elements see.
        context = self._context.copy()
        context.run(CURRENT_CALL.set, shift.call_context)
        since = time.perf_counter()
        map_share = MapShare(self._index, shift.call_context.worker, since)
        try:
            while (drawn := await self._next_async()) is not None:
                own = self._own_context(shift.call_context, drawn[0])
                if own is not shift.call_context:
                    CURRENT_CALL.set(own)
                    context.run(CURRENT_CALL.set, own)
                await self._call_async(shift.context, context, map_share, *drawn)
                own.over = own is not shift.call_context
                shift.call_context.element = WHOLE
                del drawn
                if self._run_state.recorder is not None:
                    await self._engine.committed(wait=False)
                if task.cancelling() and not self._run_state.ledger.halted:
                    await discard_cancellation(task)
                if time.perf_counter() - since > PATIENCE_S and not self._run_state.ledger.halted:
                    await yield_to_loop()
                    since = time.perf_counter()
        except BaseException as error:  # not from an element: somebody else cancelled the worker
            with self._lock:
                self._fail(error)
        self._took_part(map_share)
        self._leave()
        return self._concluded()

    async def _next_async(self) -> tuple[int, tuple[Any, ...]] | None:
        ledger = self._run_state.ledger
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
                        more = bool(self._window) or await self._engine.in_side_thread(self._refilled)
                except asyncio.CancelledError:
                    if not ledger.cancelled:
                        raise
                    return None
            if not more:
                return None
        return None

    async def _call_async(
        self, here: Context, clean: Context, map_share: MapShare, place: int, element: tuple[Any, ...]
    ) -> None:
        run_state, function = self._run_state, self._map_function.function
        start, recalled, failed = time.perf_counter(), False, False
        try:
            digest = self._recall(place, element)
            recalled = digest is None
            if digest is not None:
                call = partial(
                    attempted, run_state, self._engine.pause, self._index, self._options, function, element, {}, place
                )
                # Once an element has changed the context of this shift, the next ones get one each.
                if contexts_equal(here, clean):
                    value = await call()
                else:
                    one = clean.copy()
                    one.run(own_decimals, run_state.decimals)
                    value = await in_own_task(one, call)
                self._keep(place, digest, value, start)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and run_state.ledger.cancelled:
                error = TaskCancelled("the coroutine was cancelled with its run")
            failed = True
            self._raised(place, error, start)
        if not recalled:
            map_share.note(start, time.perf_counter())
            map_share.count(failed=failed)
        self._count(place)
