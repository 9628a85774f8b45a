"""The engine for coroutines: its workers are tasks of an event loop, which draw from the ledger as threads do.

    execute ───────▶ drive ────────┬─ only plain functions ──▶ ThreadEngine, from this thread
                                   └─ coroutines ────────────▶ a loop of its own ──┐
    execute_async ─▶ drive_async ──┬─ coroutines ────────────▶ the caller's loop ──┴──▶ n workers, each _draw
                                   └─ only plain functions ──▶ ThreadEngine, from a thread aside

A coroutine is awaited by the worker itself, with no asyncio task of its own. A worker that comes upon a plain function
gives its place to a thread until the next coroutine, so that all of them together are never more than `max_workers`.
Whatever changes in here changes in the loop's thread, so there is no lock; what comes from other threads comes through
`call_soon_threadsafe`.
"""

import asyncio
import contextvars
import threading
import time
from contextlib import suppress
from typing import Any, Protocol

from procession._engine.call_context import CURRENT_CALL, CallContext
from procession._engine.decimals import own_decimals
from procession._engine.map import LeaveMap
from procession._engine.run_state import RunState
from procession._engine.threads import ThreadEngine
from procession._loop.attempt import PATIENCE_S, attempted, contexts_equal, current, yield_to_loop
from procession._loop.map import CoroutineMap
from procession._loop.own_loop import OwnLoop, own_loop
from procession._loop.side_threads import SideThreads, shield_once
from procession._model.strategy import Stage
from procession._model.task import PLAIN, Call, MapFunction
from procession._model.text import shown
from procession._plan.plan import segments
from procession.errors import TaskCancelled, WorkersUnavailableError


class Worker:
    """A place for one task at a time. It draws in shifts: each an asyncio task, in a context that is still clean."""

    __slots__ = ("base", "call_context", "context")

    def __init__(self, call_context: CallContext, base: contextvars.Context) -> None:
        self.call_context = call_context
        self.base = base
        self.context = base
        base.run(CURRENT_CALL.set, call_context)


class AnyEngine(Protocol):
    """What drives a run for those who wait."""

    run_state: RunState

    def drive(self) -> None:
        """Run every stage."""
        ...


async def drive_async(engine: AnyEngine) -> None:
    """Have an engine drive its run without holding up the running loop.

    A cancellation stops the run, and leaves as itself when what runs has ended; a second one leaves at once.
    """
    run_state = engine.run_state
    run_state.loop_thread = threading.get_ident()
    side_threads = SideThreads(_name(run_state))
    try:
        if isinstance(engine, CoroutineEngine):
            await engine.drive_async()
        else:
            await shield_once(side_threads.call(engine.drive), run_state.cancel)
    except asyncio.CancelledError:
        run_state.cancel()
        raise
    except BaseException as error:
        run_state.interrupt(error)
        raise
    finally:
        run_state.loop_thread = None
        side_threads.close()


def _name(run_state: RunState) -> str:
    return f"procession-{shown(run_state.process_name, 40)}"


class CoroutineEngine:
    """Drives the run state of one run in which there is something to await."""

    def __init__(self, run_state: RunState) -> None:
        self.run_state = run_state
        self._name = _name(run_state)
        self._threads = ThreadEngine(run_state)
        self._calls = self._prepared()
        self._side_threads = SideThreads(self._name)
        self._in_order = True
        self._limit = 1
        self._shifts: dict[asyncio.Task[None], Worker] = {}
        self._off: list[Worker] = []
        self._workers = 0
        self._pauses: set[asyncio.Future[None]] = set()
        self._told = False
        self._forsaken = False
        self._committing = False
        self._maps: dict[int, CoroutineMap] = {}

    def drive(self) -> None:
        """Run every stage: coroutines in a loop of their own, plain functions as ever.

        Never raises what a task raised; raises the second `KeyboardInterrupt` at once, with workers still busy.
        """
        run_state = self.run_state
        loop: OwnLoop | None = None
        try:
            for stage, awaited in segments(run_state.plan):
                if not run_state.ledger.well:
                    break
                if awaited:
                    loop = own_loop(self._name, run_state.interrupt) if loop is None else loop
                    self._drive_in(loop, stage)
                else:
                    self._threads.drive_stage(stage)
        except BaseException as error:
            run_state.interrupt(error)
            raise
        finally:
            try:
                if loop is not None:
                    loop.close(hurried=self._busy)
            finally:
                self._close()

    async def drive_async(self) -> None:
        """Run every stage in the running loop, and what only needs threads aside: see the function of that name."""
        run_state = self.run_state
        try:
            for stage, awaited in segments(run_state.plan):
                if not run_state.ledger.well:
                    break
                if awaited:
                    await self._stage(stage)
                else:
                    await shield_once(self._side_threads.call(self._threads.drive_stage, stage), run_state.cancel)
        finally:
            self._close()

    # A stage

    def _drive_in(self, loop: OwnLoop, stage: Stage) -> None:
        try:
            loop.run(self._stage(stage))
        except BaseException as error:
            self.run_state.interrupt(error)
            if self._busy:
                raise  # the second Ctrl-C

    async def _stage(self, stage: Stage) -> None:
        run_state = self.run_state
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._vacant = self._loop.create_future()
        self._in_order = self._threads._in_order = not stage.at_once
        self._limit = run_state.max_workers if stage.at_once else 1
        self._forsaken = False
        run_state.attach(self)
        outer, run_state.loop_thread = run_state.loop_thread, self._thread
        try:
            run_state.ledger.open(stage)
            self.recruit(1)
            self._note_vacancy()
            await shield_once(self._vacant, run_state.cancel)
        finally:
            run_state.detach()
            run_state.loop_thread = outer
            self._forsaken = True
            for shift in list(self._shifts):  # none, unless in a hurry
                shift.cancel()

    @property
    def _busy(self) -> bool:
        return bool(self._shifts)

    def _note_vacancy(self) -> None:
        """End the stage if its last worker has left and all is committed."""
        if not self._shifts and not self._committing and not self._vacant.done():
            self._vacant.set_result(None)

    def _close(self) -> None:
        self._side_threads.close()

    # Workers

    def recruit(self, count: int) -> None:
        """Have up to `count` more workers come, while there is something ready for them and room."""
        if threading.get_ident() != self._thread:
            with suppress(RuntimeError):  # the loop is closed: it was left in a hurry
                self._loop.call_soon_threadsafe(self.recruit, count)
            return
        ready = self.run_state.ledger.ready
        for _ in range(count):
            if not ready or len(self._shifts) >= self._limit:
                break
            if self._off:
                worker = self._off.pop()
                self.run_state.call_contexts.add(worker.call_context)
            else:
                call_context = self.run_state.call_context(f"{self._name}-coroutine_{self._workers}")
                worker = Worker(call_context, self.run_state.context.copy())
                self._workers += 1
            self._begin_shift(worker)

    def _begin_shift(self, worker: Worker) -> None:
        worker.context = worker.base.copy()
        # Not by the loop's factory, which may be an eager one: then each would begin inside the one that made it.
        shift = asyncio.Task(
            self._draw(worker), loop=self._loop, name=worker.call_context.worker, context=worker.context
        )
        self._shifts[shift] = worker
        shift.add_done_callback(self._end_shift)

    def _end_shift(self, shift: "asyncio.Task[None]") -> None:
        worker = self._shifts.pop(shift)
        if not shift.cancelled() and (error := shift.exception()) is not None:
            self.run_state.interrupt(error)
        # Whoever makes tasks ready is on a shift and comes by here, so none is left lying.
        if self.run_state.ledger.ready:
            self._begin_shift(worker)
        else:
            self._off.append(worker)
            self.run_state.leave(worker.call_context)
            self._note_vacancy()

    async def _draw(self, worker: Worker) -> None:
        """Run ready tasks until there are none, or until one has left its mark: on the context, or as a cancellation.

        The hot path, laid out as in `ThreadEngine`.
        """
        # Each that comes brings two more: all are there soon, but quick work is over before many have come.
        self.recruit(2)
        if self.run_state.recorder is not None:
            await self._draw_recorded(worker)
            return
        run_state, call_context, context, base, clock = (
            self.run_state,
            worker.call_context,
            worker.context,
            worker.base,
            time.perf_counter,
        )
        ledger, workers, attentive, calls = run_state.ledger, run_state.workers, run_state.attentive, self._calls
        values, starts, ends, claim = ledger.values, ledger.starts, ledger.ends, ledger.claim
        coroutines = run_state.plan.coroutines
        cancelling = current().cancelling
        since = now = clock()
        while True:
            try:
                index = claim()
            except IndexError:
                return
            if index not in coroutines:
                await self._lend(index)
                since = now = clock()
                continue
            call_context.index = index
            workers[index] = call_context.worker
            starts[index] = now
            try:
                function, args, kwargs = calls[index]
                value = await function(*args, **kwargs)
                now = clock()
                values[index] = value
                ends[index] = now
                del value
                if attentive:
                    run_state.ended(index)
                if context != base or cancelling():
                    return
            except BaseException as error:
                self._raised(index, error)
                if not contexts_equal(context, base) or cancelling():
                    return
                now = clock()
            if now - since > PATIENCE_S and ledger.ready:
                await yield_to_loop()
                since = now = clock()

    async def _draw_recorded(self, worker: Worker) -> None:
        """Do the same in a run with a journal, in which a task has ended only when that is committed."""
        run_state, clock = self.run_state, time.perf_counter
        ledger, claim, cancelling = run_state.ledger, run_state.ledger.claim, current().cancelling
        since = clock()
        while True:
            try:
                index = claim()
            except IndexError:
                return
            if index not in run_state.plan.coroutines:
                await self._lend(index)
                since = clock()
                continue
            worker.call_context.index = index
            run_state.workers[index] = worker.call_context.worker
            ledger.starts[index] = clock()
            try:
                run_state.finished(index, await self._call_recorded(worker, index), clock())
            except BaseException as error:
                self._raised(index, error)
            await self.committed(wait=self._in_order)
            if not contexts_equal(worker.context, worker.base) or cancelling():
                return
            if clock() - since > PATIENCE_S and ledger.ready:
                await yield_to_loop()
                since = clock()

    async def _call_recorded(self, worker: Worker, index: int) -> Any:
        own = worker.call_context.own(index)
        CURRENT_CALL.set(own)
        worker.base.run(CURRENT_CALL.set, own)
        function, args, kwargs = self._calls[index]
        try:
            return await function(*args, **kwargs)
        finally:
            own.over = True

    def _raised(self, index: int, error: BaseException) -> None:
        if isinstance(error, LeaveMap) or self.run_state.ledger.ends[index] is not None:
            return
        if isinstance(error, asyncio.CancelledError) and self.run_state.ledger.cancelled:
            error = TaskCancelled("the coroutine was cancelled with its run")
        self.run_state.raised(index, error, in_order=self._in_order)

    # Plain functions

    async def _lend(self, index: int) -> None:
        """Have a thread run a plain task, and others as long as they come, in the place of the worker that calls."""
        try:
            await self.in_side_thread(self._serve_plain, index)
        except WorkersUnavailableError as error:
            self.run_state.interrupt(error)

    async def in_side_thread(self, function: Any, *args: Any) -> Any:
        """Have a call made in a thread, which cannot be cancelled: wait for it even if the worker is."""
        call = self._side_threads.call(function, *args)
        while not call.done():
            try:
                await asyncio.wait((call,))
            except asyncio.CancelledError:
                if self._forsaken:
                    raise
        return call.result()

    def _serve_plain(self, index: int | None) -> None:
        call_context = self.run_state.call_context(threading.current_thread().name)
        try:
            while index is not None:
                self._call_plain(call_context, index)
                index = self._next_plain()
        finally:
            self.run_state.leave(call_context)

    def _call_plain(self, call_context: CallContext, index: int) -> None:
        run_state = self.run_state
        context = run_state.context.copy()
        call_context.index = index
        own = call_context.own(index)
        context.run(CURRENT_CALL.set, own)
        run_state.workers[index] = call_context.worker
        run_state.ledger.starts[index] = time.perf_counter()
        try:
            function, args, kwargs = self._threads._calls.calls[index]
            value = context.run(function, *args, **kwargs)
            own.over = True
            run_state.finished(index, value, time.perf_counter())
        except LeaveMap:
            pass
        except BaseException as error:
            own.over = True
            run_state.raised(index, error, in_order=False)
        run_state.commit()

    def _next_plain(self) -> int | None:
        ledger = self.run_state.ledger
        try:
            index = ledger.claim()
        except IndexError:
            return None
        if index not in self.run_state.plan.coroutines:
            return index
        ledger.put_back(index)  # for the worker whose place this is
        return None

    # Calls with more to them than a call

    def _prepared(self) -> list[Call]:
        plan, calls = self.run_state.plan, self._threads._calls.calls
        special: Call = (self._await_specially, (), {})
        for index in plan.coroutines:
            if calls[index] is not plan.calls[index]:  # special to threads, too
                calls[index] = special
        return calls

    async def _await_specially(self) -> object:
        """Await the call of a task with handles among its arguments, or options, or someone who follows each step."""
        run_state = self.run_state
        if run_state.decimals is not None:
            own_decimals(run_state.decimals)
        index = CURRENT_CALL.get().index
        function = run_state.plan.calls[index][0]
        if isinstance(function, MapFunction):
            return await self._map(index, function).join_async()
        (function, args, kwargs), options = run_state.call(index)
        if not run_state.verbose:
            return await attempted(run_state, self.pause, index, options, function, args, kwargs)
        start = time.perf_counter()
        run_state.report("task_started", index, 1, None)
        value = await attempted(run_state, self.pause, index, options, function, args, kwargs)
        run_state.report("task_completed", index, run_state.attempts.get(index, 1), time.perf_counter() - start)
        return value

    def _map(self, index: int, map_function: MapFunction) -> CoroutineMap:
        job = self._maps.get(index)
        if job is None:
            run_state = self.run_state
            options = run_state.plan.options.get(index, PLAIN)
            job = CoroutineMap(run_state, index, map_function, options, in_order=self._in_order, engine=self)
            self._maps[index] = run_state.maps[index] = job
        return job

    @property
    def shift(self) -> Worker:
        """The worker on whose shift the calling coroutine is."""
        return self._shifts[current()]

    # The journal

    async def committed(self, *, wait: bool) -> None:
        """Have what was recorded committed; wait for that if asked to, and where too much is not committed."""
        run_state = self.run_state
        if wait or run_state.behind:
            await self.in_side_thread(run_state.flush)
        else:
            run_state.commit()

    def commit(self) -> bool:
        """Have what was recorded committed, by a thread aside."""
        run_state = self.run_state
        if threading.get_ident() == self._thread:
            self._commit_aside()
        elif run_state.behind or self._in_order:
            run_state.flush()
        elif run_state.uncommitted and not self._committing:
            with suppress(RuntimeError):  # the loop is closed: it was left in a hurry
                self._loop.call_soon_threadsafe(self._commit_aside)
        return True

    def _commit_aside(self) -> None:
        if self.run_state.uncommitted and not self._committing:
            try:
                commit = self._side_threads.call(self.run_state.offer)
            except WorkersUnavailableError:
                self.run_state.offer()
            else:
                self._committing = True
                commit.add_done_callback(self._end_commit)

    def _end_commit(self, commit: "asyncio.Future[None]") -> None:
        self._committing = False
        if not commit.cancelled() and (error := commit.exception()) is not None:
            self.run_state.interrupt(error)
        self._commit_aside()
        self._note_vacancy()

    # A run that is halted

    def on_halt(self) -> None:
        """End what waits, from whatever thread this comes."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._look)

    def _look(self) -> None:
        """End what waits for another attempt once nothing new may start, and what runs once the run is cancelled."""
        for pause in self._pauses:
            _end(pause)
        if self.run_state.ledger.cancelled and not self._told:
            self._told = True
            for shift in self._shifts:
                shift.cancel()

    async def pause(self, seconds: float) -> bool:
        """Wait so many seconds, but no longer than until nothing new may start; return whether that is so."""
        if not self.run_state.ledger.halted:
            pause: asyncio.Future[None] = self._loop.create_future()
            timer = self._loop.call_later(seconds, _end, pause)
            self._pauses.add(pause)
            try:
                await pause
            except asyncio.CancelledError:
                if not self.run_state.ledger.cancelled:
                    raise
            finally:
                timer.cancel()
                self._pauses.discard(pause)
        return self.run_state.ledger.halted


def _end(pause: "asyncio.Future[None]") -> None:
    if not pause.done():
        pause.set_result(None)
