"""One stage in an event loop: each call of a coroutine is an asyncio task of its own, in one of `max_workers` slots.

    a slot is free ──▶ a call whose pause is over, else a ready task or an element of a map in turn ──▶ asyncio task
           ▲                                                                                               │
           └──────────────────────────── it ends: value, error, or a pause ────────────────────────────────┘

No coroutine waits for work: whatever frees a slot or makes something ready fills the slots. A plain function has a slot
as well, and a side thread calls it. All of this happens in the loop's thread, so there is no lock; what other threads
say comes through `call_soon_threadsafe`.
"""

import asyncio
import threading
from asyncio import Task
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from functools import partial
from time import perf_counter

from procession._engine.call_context import CURRENT_CALL, CallContext
from procession._engine.map_state import MapState
from procession._engine.run_state import RunState
from procession._loop.attempt import PendingCall, simple_tasks, starting
from procession._loop.map import CoroutineMap, SideDraws
from procession._loop.plain import Pauses, PlainCalls
from procession._loop.side_threads import SideThreads, shield_once
from procession._model.strategy import Stage
from procession._model.task import PLAIN, MapFunction
from procession.errors import TaskCancelled, WorkersUnavailableError

_BATCH = 32
"""Calls that start one after the other, at most. Where they end at once, no more of them are there at any time."""

_TURN = 16
"""Calls of one map, or tasks, that start before others have their turn."""


class StageInLoop:
    """Drives the run state of a run through one stage in the running loop."""

    def __init__(self, run_state: RunState, stage: Stage, name: str, side_threads: SideThreads) -> None:
        self.run_state = run_state
        self._stage = stage
        self._name = name
        self._side_threads = side_threads
        self._plain_calls = PlainCalls(run_state, self, in_order=not stage.at_once)
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._vacant: asyncio.Future[None] = self._loop.create_future()
        """Done when the stage is over."""
        self._in_order = not stage.at_once
        self._limit = run_state.max_workers if stage.at_once else 1
        self._claim = run_state.ledger.claim
        self._context = run_state.context
        self._call_contexts = run_state.call_contexts
        self._recorded = run_state.recorder is not None
        self._simple = simple_tasks(run_state)
        self._free: list[str] = []
        """Workers that have no call: the names of free slots that were in use before."""
        self._named = 0
        self._used = 0
        """How many slots are in use."""
        self._running: dict[str, Task[None]] = {}
        """Worker → the asyncio task in its slot."""
        self._parked: set[PendingCall] = set()
        """Calls between two attempts."""
        self._pauses = Pauses(run_state, self._fill)
        self._due: deque[PendingCall] = deque()
        """Calls whose pause is over."""
        self._maps: set[CoroutineMap] = set()
        """Maps that have begun and not ended."""
        self._turns: deque[CoroutineMap | None] = deque([None])
        """What may have something for a free slot: the ready tasks (`None`), and maps. The first has its turn."""
        self._turn_left = _TURN
        self.side_draws = SideDraws(side_threads, self._limit)
        self._batch_left = _BATCH
        self._batch_follows = False
        self._closed = False
        """Whether no slot is to be filled any more: the stage was left in a hurry."""
        self._filling = False
        self._fill_again = False
        """Whether something was made ready while the slots were being filled."""
        self._commits = 0
        self._flushing = False
        self._cancelled = False

    async def drive(self) -> None:
        """Run the stage. A cancellation is raised once what runs has ended, a second one at once."""
        run_state = self.run_state
        run_state.attach(self)
        try:
            run_state.ledger.open(self._stage)
            self._fill()
            await shield_once(self._vacant, run_state.cancel)
        finally:
            run_state.detach()
            self._closed = True
            for call in self._parked:  # none, unless in a hurry; nor any pause, nor any task that runs
                call.end_pause()
            self._pauses.clear()
            for running in list(self._running.values()):
                running.cancel()
            if not self._used:
                self._plain_calls.end()

    @property
    def busy(self) -> bool:
        """Whether the stage was left with something still going on."""
        return bool(self._used or self._parked or self._pauses or self._maps)

    # Slots

    def recruit(self, count: int) -> None:  # noqa: ARG002 - as many as there is room for
        """Fill the slots that are free: tasks became ready."""
        if threading.get_ident() == self._thread:
            self._fill()
        else:
            self._from_thread(self._fill)

    def _from_thread(self, function: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed: it was left in a hurry
            self._loop.call_soon_threadsafe(function)

    def _fill(self) -> None:
        """Give each free slot something to do, as long as there is something; end the stage if nothing is left."""
        if self._filling:
            self._fill_again = True
            return
        if self._closed or (self._recorded and self._commit_first()):
            return
        self._filling = self._fill_again = True
        try:
            while self._fill_again:
                self._fill_again = False
                self._start_all()
        finally:
            self._filling = False
        busy = self.busy or self._commits or self._batch_follows
        if not busy and not self._vacant.done():
            self._vacant.set_result(None)

    def _start_all(self) -> None:
        """Start calls as long as a slot is free and there is something to start."""
        while self._used < self._limit:
            if not self._batch_left:
                if not self._batch_follows:
                    self._batch_follows = True
                    self._loop.call_soon(self._next_batch)
                return
            if not (self._start_next() if self._maps or self._due or self._parked else self._start_task()):
                return
            self._batch_left -= 1

    def _next_batch(self) -> None:
        self._batch_left, self._batch_follows = _BATCH, False
        self._fill()

    def _start_next(self) -> bool:
        """Start a call whose pause is over, else what is next in turn; return whether there was something."""
        if self._in_order and self._parked:
            return False  # nothing else may start meanwhile
        if self._due:
            call, worker, run_state = self._due.popleft(), self._worker(), self.run_state
            call_context = CallContext(run_state, worker, call.index, call.made + 1, call.element)
            context = self._context if call.context is None else call.context
            self.start_attempt(call, call_context, context.copy())
            return True
        for _ in range(len(self._turns)):
            if not self._turn_left:
                self._pass_turn()
            turn = self._turns[0]
            self._turn_left -= 1
            if turn is not None:
                if self._start_element(turn):
                    return True
            elif (not self._in_order or not self._maps) and self._start_task():
                return True
            else:
                self._pass_turn()
        return False

    def _pass_turn(self) -> None:
        self._turns.rotate(-1)
        self._turn_left = _TURN

    def _start_task(self) -> bool:
        """Start the next ready task; return whether there is one."""
        run_state = self.run_state
        try:
            index = self._claim()
        except IndexError:
            return False
        run_state.workers[index] = worker = self._worker()
        if index in self._simple:
            self._start_simple(worker, index)
        elif index not in run_state.plan.coroutines:
            self._lend(worker, index)
        elif isinstance(run_state.plan.calls[index][0], MapFunction):
            self._open_map(worker, index)
            self._give_back(worker)
            return True
        else:
            call = self._pending(index)
            self.start_attempt(call, CallContext(run_state, worker, index), self._context.copy())
        for coroutine_map in self._maps:
            coroutine_map.leave(worker)
        return True

    def _worker(self) -> str:
        """Return the name of the worker that has a free slot from now on."""
        self._used += 1
        free = self._free
        if free:
            return free.pop()
        self._named += 1
        return f"{self._name}-coroutine_{self._named - 1}"

    def _give_back(self, worker: str) -> None:
        self._used -= 1
        self._free.append(worker)

    def start(self, coroutine: Coroutine[None, None, None], call_context: CallContext, context: Context) -> None:
        """Run a coroutine in the slot of a worker, as an asyncio task of its own, until it calls `end`."""
        self._call_contexts.add(call_context)
        coroutine.send(None)  # see `starting`
        worker = call_context.worker
        # Not by the loop's factory, which may be an eager one: then each would begin inside the one that made it.
        self._running[worker] = Task(coroutine, loop=self._loop, name=worker, context=context)

    def start_attempt(self, call: PendingCall, call_context: CallContext, context: Context) -> None:
        """Have an attempt made in the slot of a worker."""
        self.start(self._attempt(call, call_context), call_context, context)

    def end(self, call_context: CallContext) -> None:
        """Free the slot of a worker."""
        call_context.over = True
        self._call_contexts.discard(call_context)
        worker = call_context.worker
        if not self._batch_left or not self._go_on(worker):
            del self._running[worker]
            self._give_back(worker)
            self._fill()

    def _go_on(self, worker: str) -> bool:
        """Have a worker whose call has ended start the next simple task, if nothing else may be next."""
        if self._closed or self._filling or self._recorded or self._maps or self._due or self._parked:
            return False
        try:
            index = self._claim()
        except IndexError:
            return False
        if index not in self._simple:
            self.run_state.ledger.put_back(index)
            return False
        self._batch_left -= 1
        self._start_simple(worker, index)
        return True

    def _start_simple(self, worker: str, index: int) -> None:
        run_state = self.run_state
        run_state.workers[index] = worker
        call_context = CallContext(run_state, worker, index)
        self.start(self._await(call_context, index), call_context, self._context.copy())

    # Calls

    async def _await(self, call_context: CallContext, index: int) -> None:
        """Await the call of a simple task. The hot path: its asyncio task has no callbacks, and nobody waits for it."""
        run_state, failure = self.run_state, None
        try:
            try:
                await starting()
                CURRENT_CALL.set(call_context)
                ledger = run_state.ledger
                function, args, kwargs = run_state.plan.calls[index]
                ledger.starts[index] = perf_counter()
                value = await (function(*args, **kwargs) if kwargs else function(*args))
                end = perf_counter()
                ledger.values[index] = value
                ledger.ends[index] = end
                if run_state.attentive:
                    run_state.ended(index)
            except BaseException as error:
                failure = error
            if failure is not None:
                await self._failed(call_context, index, failure)
        finally:
            failure = None
            self.end(call_context)

    async def _failed(self, call_context: CallContext, index: int, error: BaseException) -> None:
        """Go on from a simple task that failed: with another attempt, if its options allow one."""
        run_state = self.run_state
        if run_state.ledger.ends[index] is None:
            call = self._pending(index)
            start = run_state.ledger.starts[index]
            call.made, call.worker, call.start = 1, call_context.worker, 0.0 if start is None else start
            seconds = await call.followed(run_state, returned=False, value=error)
            if seconds is not None:
                self.park(call, seconds)

    def _pending(self, index: int) -> PendingCall:
        plan = self.run_state.plan
        function, args, kwargs = plan.calls[index]
        return PendingCall(self, index, function, args, kwargs, plan.options.get(index, PLAIN))

    async def _attempt(self, call: PendingCall, call_context: CallContext) -> None:
        try:
            seconds = await call.attempt(self.run_state, call_context)
            if seconds is not None:
                self.park(call, seconds)
        except BaseException as error:  # not from the call
            self.run_state.interrupt(error)
        finally:
            self.end(call_context)

    def park(self, call: PendingCall, seconds: float) -> None:
        """Make another attempt after a pause."""
        if self.run_state.ledger.halted:
            call.give_up()
        else:
            self._parked.add(call)
            call.timer = self._loop.call_later(seconds, self._resume, call)

    def _resume(self, call: PendingCall) -> None:
        self._parked.discard(call)
        self._due.append(call)
        self._fill()

    # As the owner of the calls of tasks

    def begin(self, call: PendingCall) -> None:
        """Prepare the first attempt of a task."""
        run_state, index = self.run_state, call.index
        run_state.ledger.starts[index] = call.start
        (_, call.args, call.kwargs), _ = run_state.call(index)
        if run_state.verbose:
            run_state.report("task_started", index, 1, None)

    def returned(self, call: PendingCall, value: object) -> None:
        """Take note of what a task's call returned. Raises for a value that cannot be recorded."""
        run_state, end = self.run_state, perf_counter()
        if run_state.verbose:
            run_state.report("task_completed", call.index, call.made, end - call.start)
        run_state.finished(call.index, value, end)

    def raised(self, call: PendingCall, error: BaseException) -> None:
        """Take note of what a task's call raised."""
        self._raised(call.index, error, call.ended)

    def _raised(self, index: int, error: BaseException, end: float | None = None) -> None:
        run_state = self.run_state
        if run_state.ledger.ends[index] is None:
            if isinstance(error, asyncio.CancelledError) and run_state.ledger.cancelled:
                error = TaskCancelled("the coroutine was cancelled with its run")
            run_state.raised(index, error, in_order=self._in_order, end=end)

    # Maps

    def _open_map(self, worker: str, index: int) -> None:
        run_state = self.run_state
        map_function = run_state.plan.calls[index][0]
        assert isinstance(map_function, MapFunction)
        options = run_state.plan.options.get(index, PLAIN)
        run_state.maps[index] = state = MapState(run_state, index, map_function, options, in_order=self._in_order)
        start = run_state.ledger.starts[index] = perf_counter()
        coroutine_map = CoroutineMap(self, state, CallContext(run_state, worker, index))
        try:
            coroutine_map.open(start)
        except BaseException as error:
            self._raised(index, error)
        else:
            self._maps.add(coroutine_map)
            coroutine_map.listed = True
            self._turns.appendleft(coroutine_map)
            self._turn_left = _TURN

    def _start_element(self, coroutine_map: CoroutineMap) -> bool:
        """Start the next element of a map; where it has none, it has no turn any more."""
        worker = self._worker()
        if coroutine_map.take(worker):
            return True
        self._give_back(worker)
        self._unlist(coroutine_map)
        return False

    def wake(self, coroutine_map: CoroutineMap) -> None:
        """Let a map have its turn: it may have elements."""
        if not coroutine_map.listed:
            coroutine_map.listed = True
            self._turns.append(coroutine_map)
        self._fill()

    def _unlist(self, coroutine_map: CoroutineMap) -> None:
        if coroutine_map.listed:
            coroutine_map.listed = False
            self._turns.remove(coroutine_map)
            self._turn_left = _TURN

    def finish_map(self, coroutine_map: CoroutineMap) -> None:
        """Take note that nothing is left of a map: its value can be had."""
        self._maps.discard(coroutine_map)
        self._unlist(coroutine_map)
        index = coroutine_map.index
        try:
            self.run_state.finished(index, coroutine_map.conclude(), perf_counter())
        except BaseException as error:
            self._raised(index, error)
        self._fill()

    # Plain functions

    def others_wait(self) -> bool:
        """Return whether something else waits for the slot of a thread."""
        return bool(self._due or self._maps)

    def pause(self, seconds: float, resume: Callable[[], object]) -> None:
        """Have `resume` make a plain task ready again in so many seconds. From a side thread."""
        self._from_thread(partial(self._pauses.begin, seconds, resume))

    def _lend(self, worker: str, index: int) -> None:
        """Have a side thread run a plain task, and others as long as they come, in the slot of a worker."""
        try:
            served = self._side_threads.call(self._plain_calls.serve, index)
        except WorkersUnavailableError as error:
            self._give_back(worker)
            self.run_state.interrupt(error)
        else:
            served.add_done_callback(partial(self._end_loan, worker))

    def _end_loan(self, worker: str, served: "asyncio.Future[None]") -> None:
        if not served.cancelled() and (error := served.exception()) is not None:
            self.run_state.interrupt(error)
        self._give_back(worker)
        self._fill()

    # The journal

    def commit(self) -> bool:
        """Have what was recorded committed: in a side thread or, where no other call may begin before, in this one."""
        if threading.get_ident() == self._thread:
            self._commit_first()
        elif self.run_state.behind or self._in_order:
            self.run_state.flush()
        elif self.run_state.uncommitted and not self._commits:
            self._from_thread(self._fill)
        return True

    def _commit_first(self) -> bool:
        """Have what was recorded committed; return whether nothing else may begin before that is done."""
        run_state = self.run_state
        behind = run_state.behind
        if behind and not self._flushing:
            self._flushing = self._commit_aside(run_state.flush)
        elif run_state.uncommitted and not self._commits:
            self._commit_aside(run_state.offer)
        return self._commits > 0 and (behind or self._in_order)

    def _commit_aside(self, commit: Callable[[], None]) -> bool:
        """Commit in a side thread, or here if there is none; return whether it goes on."""
        try:
            committing = self._side_threads.call(commit)
        except WorkersUnavailableError:
            commit()
            return False
        self._commits += 1
        committing.add_done_callback(self._end_commit)
        return True

    def _end_commit(self, committing: "asyncio.Future[None]") -> None:
        self._commits -= 1
        self._flushing = self._flushing and self._commits > 0
        if not committing.cancelled() and (error := committing.exception()) is not None:
            self.run_state.interrupt(error)
        self._fill()

    # A run that is halted

    def on_halt(self) -> None:
        """End what waits, from whatever thread this comes."""
        self._from_thread(self._look)

    def _look(self) -> None:
        """End what waits for another attempt once nothing new may start, and what runs once the run is cancelled."""
        waiting = [*self._parked, *self._due]
        self._parked.clear()
        self._due.clear()
        self._pauses.clear()
        for call in waiting:
            call.end_pause()
            call.give_up()
        if self.run_state.ledger.cancelled and not self._cancelled:
            self._cancelled = True
            for running in self._running.values():
                running.cancel()
        for coroutine_map in list(self._maps):
            coroutine_map.look()
        self._fill()
