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
from collections.abc import Callable, Coroutine
from contextvars import Context
from functools import partial
from time import perf_counter

from procession._engine.call_context import CURRENT_CALL, CallContext
from procession._engine.callbacks import breaks_down
from procession._engine.commit import CommitThread
from procession._engine.gate import gated_calls
from procession._engine.map_state import MapState
from procession._engine.run_state import RunState
from procession._engine.suspension import is_stuck, look_again, may_go_on
from procession._loop.attempt import PendingCall, simple_tasks, starting
from procession._loop.map import CoroutineMap, SideDraws
from procession._loop.parked_calls import ParkedCalls
from procession._loop.plain import Pauses, PlainCalls
from procession._loop.side_threads import SideThreads, hand_over, shield_once
from procession._loop.slots import Slots
from procession._loop.stop import stop
from procession._loop.tasks import CoroutineTasks
from procession._loop.turns import Turns
from procession._model.strategy import Stage
from procession._model.task import PLAIN, MapFunction
from procession.errors import TaskSuspended, WorkersUnavailableError

_BATCH = 32
"""Calls that start one after the other, at most. Where they end at once, no more of them are there at any time."""


class StageInLoop:
    """Drives the run state of a run through one stage in the running loop."""

    def __init__(
        self,
        run_state: RunState,
        stage: Stage,
        name: str,
        side_threads: SideThreads,
        commit_thread: CommitThread | None,
    ) -> None:
        self.run_state = run_state
        self._stage = stage
        self._side_threads = side_threads
        self._loop = asyncio.get_running_loop()
        self._slots = Slots(self, name, run_state.max_workers if stage.at_once else 1, side_threads)
        self._tasks = CoroutineTasks(run_state, self._slots, in_order=not stage.at_once)
        self._pauses = Pauses(run_state, self)
        self._plain_calls = PlainCalls(run_state, self, self._pauses, self._slots, in_order=not stage.at_once)
        self._thread = threading.get_ident()
        self._vacant: asyncio.Future[None] = self._loop.create_future()
        """Done when the stage is over."""
        self._in_order = not stage.at_once
        self._claim = run_state.ledger.claim
        self._context = run_state.context
        self._call_contexts = run_state.call_contexts
        self._recorded = run_state.recorder is not None
        self._commit_thread = commit_thread
        if commit_thread is not None:
            commit_thread.committed = partial(hand_over, self._loop, self.fill)
        self._simple = simple_tasks(run_state)
        self._calls = gated_calls(run_state) if self._simple else run_state.plan.calls
        self._running: dict[str, Task[None]] = {}
        run_state.whereabouts.coroutines = self._running
        """Worker → the asyncio task in its slot."""
        self.parked = ParkedCalls(run_state, self)
        self._maps: set[CoroutineMap] = set()
        """Maps that have begun and not ended."""
        self._left: dict[int, CoroutineMap] = {}
        """Maps that were left, as elements of them wait."""
        self._turns = Turns()
        self.side_draws = SideDraws(side_threads, self._slots.limit)
        self._batch_left = _BATCH
        self._batch_follows = False
        self._closed = False
        """Whether no slot is to be filled any more: the stage was left in a hurry."""
        self._filling = False
        self._fill_again = False
        """Whether something was made ready while the slots were being filled."""
        self._cancelled = False
        self._broken = False

    async def drive(self) -> None:
        """Run the stage. A cancellation is raised once what runs has ended, a second one at once."""
        run_state = self.run_state
        run_state.attach(self)
        try:
            try:
                run_state.ledger.open(self._stage)
                self.fill()
                await shield_once(self._vacant, partial(stop, run_state))
                while not self._broken and may_go_on(run_state) and await self._looks_again():
                    self._vacant = self._loop.create_future()
                    self.fill()
                    await shield_once(self._vacant, partial(stop, run_state))
            except Exception as error:
                self.break_down(error)
            if self._broken:
                await self._end_broken()
        finally:
            run_state.detach()
            self._closed = True
            self._left.clear()
            self.parked.end_pauses()  # there are none, unless in a hurry; nor any task that runs
            self._pauses.clear()
            for running in list(self._running.values()):
                running.cancel()
            if not self._slots.used:
                self._plain_calls.end()

    @property
    def busy(self) -> bool:
        """Whether the stage was left with something still going on."""
        return bool(
            self._slots.busy or self.parked.waiting or self._pauses or self._maps or self.run_state.waits_for_caller
        )

    async def _looks_again(self) -> bool:
        """Return whether the stage goes on: something that waits has just been answered, or is due."""
        try:
            looked = self._side_threads.call(look_again, self.run_state)
        except WorkersUnavailableError:
            return look_again(self.run_state)
        return await shield_once(looked, self.run_state.cancel)

    @property
    def _is_stuck(self) -> bool:
        """Whether all that goes on waits for elements that can only come when others wait no longer."""
        slots, parked = self._slots, self.parked
        if slots.used or slots.wanted or parked.waiting or parked.due or self._pauses:
            return False
        return is_stuck(self.run_state, slots.lent) and not any(each.is_busy for each in self._maps)

    def look(self) -> None:
        """See whether anything is left to do in the stage. From any thread."""
        self.recruit(0)

    def break_down(self, error: BaseException) -> None:
        """End the stage with an error that is not from any call, once all that runs has ended. From any thread."""
        if threading.get_ident() != self._thread:
            hand_over(self._loop, self.break_down, error)
            return
        self._broken = True
        self._slots.release()
        self.run_state.break_down(error)
        if not self._vacant.done():
            self._vacant.set_result(None)

    async def _end_broken(self) -> None:
        """Wait for what runs, and end what is left. What was being noted when the stage broke down is in no count."""
        self._look()
        while rest := {*self._side_threads.calls, *(task for task in self._running.values() if not task.done())}:
            await asyncio.wait(rest)
        self._maps.clear()
        self._slots.used = 0

    # Slots

    def recruit(self, count: int) -> None:  # noqa: ARG002 - as many as there is room for
        """Fill the slots that are free: tasks became ready."""
        if threading.get_ident() == self._thread:
            self.fill()
        else:
            hand_over(self._loop, self.fill)

    def fill(self) -> None:
        """Give each free slot something to do, as long as there is something; end the stage if nothing is left."""
        if self._filling:
            self._fill_again = True
            return
        try:
            if self._closed or (self._vacant.done() and not self._broken):  # a task that was woken came too late
                return
            self._filling = self._fill_again = True
            try:
                committing = False
                while self._fill_again:
                    self._fill_again = False
                    # Each time, since a map of which every element is recorded ends as its turn comes.
                    committing = self._commit_beside()  # before it starts calls: a commit makes others ready
                    if committing and (self._in_order or self.run_state.commits.behind):
                        return
                    self._start_all()
            finally:
                self._filling = False
            busy = (self.busy and not self._is_stuck) or committing or self._batch_follows or self._commit_beside()
            if not busy and not self._vacant.done():
                self._vacant.set_result(None)
        except BaseException as error:
            self.break_down(error)
            if not isinstance(error, Exception):
                raise

    def _start_all(self) -> None:
        """Start calls as long as a slot is free and there is something to start."""
        slots = self._slots
        while slots.used < slots.limit:
            if slots.wanted:
                slots.give()
                continue
            if not self._batch_left:
                if not self._batch_follows:
                    self._batch_follows = True
                    self._loop.call_soon(self._next_batch)
                return
            if not (self._start_next() if self._maps or self.parked.due or self.parked.waiting else self._start_task()):
                return
            self._batch_left -= 1

    @breaks_down
    def _next_batch(self) -> None:
        self._batch_left, self._batch_follows = _BATCH, False
        self.fill()

    def _start_next(self) -> bool:
        """Start a call whose pause is over, else what is next in turn; return whether there was something."""
        if self._in_order and self.parked.waiting:
            return False  # nothing else may start meanwhile
        if self.parked.due:
            call, worker, run_state = self.parked.due.popleft(), self._slots.take(), self.run_state
            attempt = call.made + (not call.put_off)
            call_context = CallContext(run_state, worker, call.index, attempt, call.element)
            context = self._context if call.context is None else call.context
            if not self.start_attempt(call, call_context, context.copy()):
                self._slots.give_back(worker)
            return True
        for _ in range(len(self._turns)):
            turn = self._turns.take()
            if turn is not None:
                if self._start_element(turn):
                    return True
                if self._fill_again:  # it has ended: nothing may follow before it is recorded
                    return False
            elif (not self._in_order or not self._maps) and self._start_task():
                return True
            else:
                self._turns.pass_on()
        return False

    def _start_task(self) -> bool:
        """Start the next ready task; return whether there is one."""
        run_state = self.run_state
        try:
            index = self._claim()
        except IndexError:
            return False
        run_state.workers[index] = worker = self._slots.take()
        if index in self._simple:
            self._start_simple(worker, index)
        elif index not in run_state.plan.coroutines:
            self._lend(worker, index)
        elif isinstance(run_state.plan.calls[index][0], MapFunction):
            self._open_map(worker, index)
            self._slots.give_back(worker)
            return True
        else:
            call = self._tasks.pending(index)
            if not self.start_attempt(call, CallContext(run_state, worker, index), self._context.copy()):
                self._slots.give_back(worker)
                return True
        for coroutine_map in self._maps:
            coroutine_map.leave(worker)
        return True

    def start(self, coroutine: Coroutine[None, None, None], call_context: CallContext, context: Context) -> None:
        """Run a coroutine in the slot of a worker, as an asyncio task of its own, until it calls `end`."""
        self._call_contexts.add(call_context)
        try:
            coroutine.send(None)  # see `starting`
        except StopIteration:
            return  # the call has ended with what kept it from being begun
        worker = call_context.worker
        # Not by the loop's factory, which may be an eager one: then each would begin inside the one that made it.
        self._running[worker] = Task(coroutine, loop=self._loop, name=worker, context=context)

    def start_attempt(self, call: PendingCall, call_context: CallContext, context: Context) -> bool:
        """Make an attempt in the slot of a worker; return `False` where it is held back, or has failed."""
        if call.options.limit:
            try:
                if not call.admit(self.run_state, partial(self.parked.hold, call)):
                    return False
            except Exception as error:
                self.parked.waiting.discard(call)
                call.fail(error, call_context.worker)
                return False
        self.start(self._attempt(call, call_context), call_context, context)
        return True

    def at(self, seconds: float, then: Callable[[], object]) -> None:
        """Call `then` in so many seconds, in the loop's thread. From any thread."""
        hand_over(self._loop, self._set_timer, seconds, then)

    @breaks_down
    def _set_timer(self, seconds: float, then: Callable[[], object]) -> None:
        self._loop.call_later(seconds, then)

    def end(self, call_context: CallContext) -> None:
        """Free the slot of a worker."""
        call_context.over = True
        self._call_contexts.discard(call_context)
        worker = call_context.worker
        if not self._batch_left or not self._go_on(worker):
            self._running.pop(worker, None)
            self._slots.give_back(worker)
            self.fill()

    def _go_on(self, worker: str) -> bool:
        """Start the next simple task or element in the slot of a call that has ended, if nothing else may be next."""
        if (
            self._closed
            or self._filling
            or self._recorded
            or self.parked.due
            or self.parked.waiting
            or self._slots.wanted
        ):
            return False
        if self._maps:
            return self._go_on_with_maps(worker)
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

    def _go_on_with_maps(self, worker: str) -> bool:
        for _ in range(len(self._turns)):
            turn = self._turns.take(follows=True)
            if turn is not None:
                if turn.take(worker):
                    self._batch_left -= 1
                    return True
                self._turns.remove(turn)
            elif self.run_state.ledger.ready and not self._in_order:
                return False
            else:
                self._turns.pass_on()
        return False

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
                function, args, kwargs = self._calls[index]
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
            self.end(call_context)
        except BaseException as error:  # not from the call
            self.break_down(error)
        finally:
            failure = None

    async def _failed(self, call_context: CallContext, index: int, error: BaseException) -> None:
        """Go on from a simple task that failed: with another attempt, if its options allow one."""
        run_state = self.run_state
        if run_state.ledger.ends[index] is not None:
            raise error  # not from the call
        call = self._tasks.pending(index)
        start = run_state.ledger.starts[index]
        call.made, call.worker, call.start = 1, call_context.worker, 0.0 if start is None else start
        seconds = await call.followed(run_state, returned=False, value=error)
        if seconds is not None:
            self.parked.park(call, seconds)

    async def _attempt(self, call: PendingCall, call_context: CallContext) -> None:
        try:
            if call.made and call.owner is self._tasks:
                self._tasks.open_again(call, call_context)
            seconds = await call.attempt(self.run_state, call_context)
            if seconds is not None:
                self.parked.park(call, seconds)
            self.end(call_context)
        except BaseException as error:  # not from the call
            self.break_down(error)

    # Maps

    def _open_map(self, worker: str, index: int) -> None:
        run_state = self.run_state
        left = self._left.pop(index, None)
        if left is not None:
            left.take_up()
            self._maps.add(left)
            self._turns.put_first(left)
            return
        map_function = run_state.plan.calls[index][0]
        assert isinstance(map_function, MapFunction)
        start = run_state.ledger.starts[index] = perf_counter()
        try:
            options = run_state.plan.options.get(index, PLAIN)
            state = MapState(run_state, index, map_function, options, in_order=self._in_order)
            coroutine_map = CoroutineMap(self, state, CallContext(run_state, worker, index))
            run_state.maps[index] = state
            coroutine_map.open(start)
        except BaseException as error:
            self._tasks.end_badly(index, error)
        else:
            self._maps.add(coroutine_map)
            # Those who take its elements begin first.
            (self._turns.put_first if state.outlet is None else self._turns.put)(coroutine_map)

    def _start_element(self, coroutine_map: CoroutineMap) -> bool:
        """Start the next element of a map; where it has none, it has no turn any more."""
        worker = self._slots.take()
        if coroutine_map.take(worker):
            return True
        self._slots.give_back(worker)
        self._turns.remove(coroutine_map)
        return False

    def wake(self, coroutine_map: CoroutineMap, *, first: bool = False) -> None:
        """Let a map have its turn: it may have elements."""
        (self._turns.put_soon if first else self._turns.put)(coroutine_map)
        self.fill()

    def finish_map(self, coroutine_map: CoroutineMap) -> None:
        """End a map, of which no element is left."""
        self._maps.discard(coroutine_map)
        self._turns.remove(coroutine_map)
        index = coroutine_map.index
        try:
            self.run_state.finished(index, coroutine_map.conclude(), perf_counter())
        except BaseException as error:
            if isinstance(error, TaskSuspended):
                self._left[index] = coroutine_map
            self._tasks.end_badly(index, error)
        self.fill()

    # Plain functions

    def others_wait(self) -> bool:
        """Return whether something else waits for the slot of a thread."""
        return bool(self.parked.due or self._maps or self._slots.wanted)

    def _lend(self, worker: str, index: int) -> None:
        """Run a plain task in a side thread, and others as long as they come, in the slot of a worker."""
        try:
            served = self._side_threads.call(self._plain_calls.serve, index)
        except WorkersUnavailableError as error:
            self._slots.give_back(worker)
            self.run_state.interrupt(error)
        else:
            served.add_done_callback(partial(self._end_loan, worker))

    @breaks_down
    def _end_loan(self, worker: str, served: "asyncio.Future[None]") -> None:
        if not served.cancelled() and (error := served.exception()) is not None:
            self.run_state.interrupt(error)
        self._slots.give_back(worker)
        self.fill()

    # The journal

    def commit(self) -> bool:
        """Commit what was recorded: in the commit thread or, if no other call may start before, in this one."""
        if threading.get_ident() != self._thread and (self.run_state.commits.behind or self._in_order):
            self.run_state.commits.flush()
        else:
            self._commit_beside()
        return True

    def _commit_beside(self) -> bool:
        """Ask the commit thread to commit what was recorded; return whether it is still busy."""
        if self._commit_thread is None:
            return False
        self._commit_thread.commit()
        return self.run_state.commits.busy

    # A run that is halted

    def on_halt(self) -> None:
        """End what waits, from whatever thread this comes."""
        hand_over(self._loop, self._look)

    @breaks_down
    def _look(self) -> None:
        """End what waits for another attempt once nothing new may start, and what runs once the run is cancelled."""
        if self.run_state.admission is not None and self.run_state.ledger.halted:
            self.run_state.admission.drop_all()
        self._pauses.clear()
        self.parked.give_up()
        if self.run_state.ledger.cancelled and not self._cancelled:
            self._cancelled = True
            for running in self._running.values():
                running.cancel()
        for coroutine_map in list(self._maps):
            coroutine_map.look()
        self.fill()
