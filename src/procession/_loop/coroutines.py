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

from procession._engine.course import Course
from procession._engine.current import SEAT, Seat
from procession._engine.decimals import own_decimals
from procession._engine.each import Left
from procession._engine.threads import ThreadEngine
from procession._loop.aside import Aside, patiently
from procession._loop.awaited import PATIENCE_S, alike, attempted, breathe, current
from procession._loop.each_awaited import AwaitedMap
from procession._loop.own_loop import OwnLoop, own_loop
from procession._model.strategy import Stage
from procession._model.task import PLAIN, Call, Each
from procession._model.text import shown
from procession._plan.plan import segments
from procession.errors import TaskCancelled, WorkersUnavailableError


class Worker:
    """A place for one task at a time. It draws in shifts: each an asyncio task, in a context that is still clean."""

    __slots__ = ("base", "context", "seat")

    def __init__(self, seat: Seat, base: contextvars.Context) -> None:
        self.seat = seat
        self.base = base
        self.context = base
        base.run(SEAT.set, seat)


class AnyEngine(Protocol):
    """What drives a run for those who wait."""

    course: Course

    def drive(self) -> None:
        """Run every stage."""
        ...


async def drive_async(engine: AnyEngine) -> None:
    """Have an engine drive its run without holding up the running loop.

    A cancellation stops the run, and leaves as itself when what runs has ended; a second one leaves at once.
    """
    course = engine.course
    course.loop_thread = threading.get_ident()
    aside = Aside(_name(course))
    try:
        if isinstance(engine, CoroutineEngine):
            await engine.drive_async()
        else:
            await patiently(aside.call(engine.drive), course.cancel)
    except asyncio.CancelledError:
        course.cancel()
        raise
    except BaseException as error:
        course.interrupt(error)
        raise
    finally:
        course.loop_thread = None
        aside.close()


def _name(course: Course) -> str:
    return f"procession-{shown(course.process_name, 40)}"


class CoroutineEngine:
    """Drives the course of one run in which there is something to await."""

    def __init__(self, course: Course) -> None:
        self.course = course
        self._name = _name(course)
        self._threads = ThreadEngine(course)
        self._calls = self._prepared()
        self._aside = Aside(self._name)
        self._in_order = True
        self._limit = 1
        self._shifts: dict[asyncio.Task[None], Worker] = {}
        self._off: list[Worker] = []
        self._workers = 0
        self._pauses: set[asyncio.Future[None]] = set()
        self._told = False
        self._forsaken = False
        self._committing = False
        self._maps: dict[int, AwaitedMap] = {}

    def drive(self) -> None:
        """Run every stage: coroutines in a loop of their own, plain functions as ever.

        Never raises what a task raised; raises the second `KeyboardInterrupt` at once, with workers still busy.
        """
        course = self.course
        loop: OwnLoop | None = None
        try:
            for stage, awaited in segments(course.plan):
                if not course.ledger.well:
                    break
                if awaited:
                    loop = own_loop(self._name, course.interrupt) if loop is None else loop
                    self._drive_in(loop, stage)
                else:
                    self._threads.drive_stage(stage)
        except BaseException as error:
            course.interrupt(error)
            raise
        finally:
            try:
                if loop is not None:
                    loop.close(hurried=self._busy)
            finally:
                self._close()

    async def drive_async(self) -> None:
        """Run every stage in the running loop, and what only needs threads aside: see the function of that name."""
        course = self.course
        try:
            for stage, awaited in segments(course.plan):
                if not course.ledger.well:
                    break
                if awaited:
                    await self._stage(stage)
                else:
                    await patiently(self._aside.call(self._threads.drive_stage, stage), course.cancel)
        finally:
            self._close()

    # A stage

    def _drive_in(self, loop: OwnLoop, stage: Stage) -> None:
        try:
            loop.run(self._stage(stage))
        except BaseException as error:
            self.course.interrupt(error)
            if self._busy:
                raise  # the second Ctrl-C

    async def _stage(self, stage: Stage) -> None:
        course = self.course
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._vacant = self._loop.create_future()
        self._in_order = self._threads._in_order = not stage.at_once
        self._limit = course.max_workers if stage.at_once else 1
        self._forsaken = False
        course.staffed_by(self._recruit)
        course.looped_by(self._hear)
        course.commits_by(self._commit)
        outer, course.loop_thread = course.loop_thread, self._thread
        try:
            course.ledger.open(stage)
            self._recruit(1)
            self._note_vacancy()
            await patiently(self._vacant, course.cancel)
        finally:
            course.unlooped()
            course.loop_thread = outer
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
        self._aside.close()
        self.course.close()

    # Workers

    def _recruit(self, count: int) -> None:
        """Have up to `count` more workers come, while there is something ready for them and room."""
        if threading.get_ident() != self._thread:
            with suppress(RuntimeError):  # the loop is closed: it was left in a hurry
                self._loop.call_soon_threadsafe(self._recruit, count)
            return
        ready = self.course.ledger.ready
        for _ in range(count):
            if not ready or len(self._shifts) >= self._limit:
                break
            if self._off:
                worker = self._off.pop()
                self.course.crew.add(worker.seat)
            else:
                seat = self.course.seat(f"{self._name}-coroutine_{self._workers}")
                worker = Worker(seat, self.course.context.copy())
                self._workers += 1
            self._begin_shift(worker)

    def _begin_shift(self, worker: Worker) -> None:
        worker.context = worker.base.copy()
        # Not by the loop's factory, which may be an eager one: then each would begin inside the one that made it.
        shift = asyncio.Task(self._draw(worker), loop=self._loop, name=worker.seat.worker, context=worker.context)
        self._shifts[shift] = worker
        shift.add_done_callback(self._end_shift)

    def _end_shift(self, shift: "asyncio.Task[None]") -> None:
        worker = self._shifts.pop(shift)
        if not shift.cancelled() and (error := shift.exception()) is not None:
            self.course.interrupt(error)
        # Whoever makes tasks ready is on a shift and comes by here, so none is left lying.
        if self.course.ledger.ready:
            self._begin_shift(worker)
        else:
            self._off.append(worker)
            self.course.leave(worker.seat)
            self._note_vacancy()

    async def _draw(self, worker: Worker) -> None:
        """Run ready tasks until there are none, or until one has left its mark: on the context, or as a cancellation.

        The hot path, laid out as in `ThreadEngine`.
        """
        # Each that comes brings two more: all are there soon, but quick work is over before many have come.
        self._recruit(2)
        if self.course.recorder is not None:
            await self._draw_recorded(worker)
            return
        course, seat, context, base, clock = self.course, worker.seat, worker.context, worker.base, time.perf_counter
        ledger, workers, attentive, calls = course.ledger, course.workers, course.attentive, self._calls
        values, starts, ends, claim = ledger.values, ledger.starts, ledger.ends, ledger.ready.popleft
        coroutines = course.plan.coroutines
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
            seat.index = index
            workers[index] = seat.worker
            starts[index] = now
            try:
                function, args, kwargs = calls[index]
                value = await function(*args, **kwargs)
                now = clock()
                values[index] = value
                ends[index] = now
                del value
                if attentive:
                    course.ended(index)
                if context != base or cancelling():
                    return
            except BaseException as error:
                self._raised(index, error)
                if not alike(context, base) or cancelling():
                    return
                now = clock()
            if now - since > PATIENCE_S and ledger.ready:
                await breathe()
                since = now = clock()

    async def _draw_recorded(self, worker: Worker) -> None:
        """Do the same in a run with a journal, in which a task has ended only when that is committed."""
        course, clock = self.course, time.perf_counter
        ledger, claim, cancelling = course.ledger, course.ledger.ready.popleft, current().cancelling
        since = clock()
        while True:
            try:
                index = claim()
            except IndexError:
                return
            if index not in course.plan.coroutines:
                await self._lend(index)
                since = clock()
                continue
            worker.seat.index = index
            course.workers[index] = worker.seat.worker
            ledger.starts[index] = clock()
            try:
                course.finished(index, await self._call_recorded(worker, index), clock())
            except BaseException as error:
                self._raised(index, error)
            await self.committed(wait=self._in_order)
            if not alike(worker.context, worker.base) or cancelling():
                return
            if clock() - since > PATIENCE_S and ledger.ready:
                await breathe()
                since = clock()

    async def _call_recorded(self, worker: Worker, index: int) -> Any:
        own = worker.seat.own(index)
        SEAT.set(own)
        worker.base.run(SEAT.set, own)
        function, args, kwargs = self._calls[index]
        try:
            return await function(*args, **kwargs)
        finally:
            own.over = True

    def _raised(self, index: int, error: BaseException) -> None:
        if isinstance(error, Left) or self.course.ledger.ends[index] is not None:
            return
        if isinstance(error, asyncio.CancelledError) and self.course.ledger.cancelled:
            error = TaskCancelled("the coroutine was cancelled with its run")
        self.course.raised(index, error, in_order=self._in_order)

    # Plain functions

    async def _lend(self, index: int) -> None:
        """Have a thread run a plain task, and others as long as they come, in the place of the worker that calls."""
        try:
            await self.aside(self._serve_plain, index)
        except WorkersUnavailableError as error:
            self.course.interrupt(error)

    async def aside(self, function: Any, *args: Any) -> Any:
        """Have a call made in a thread, which cannot be cancelled: wait for it even if the worker is."""
        call = self._aside.call(function, *args)
        while not call.done():
            try:
                await asyncio.wait((call,))
            except asyncio.CancelledError:
                if self._forsaken:
                    raise
        return call.result()

    def _serve_plain(self, index: int | None) -> None:
        seat = self.course.seat(threading.current_thread().name)
        try:
            while index is not None:
                self._call_plain(seat, index)
                index = self._next_plain()
        finally:
            self.course.leave(seat)

    def _call_plain(self, seat: Seat, index: int) -> None:
        course = self.course
        context = course.context.copy()
        seat.index = index
        own = seat.own(index)
        context.run(SEAT.set, own)
        course.workers[index] = seat.worker
        course.ledger.starts[index] = time.perf_counter()
        try:
            function, args, kwargs = self._threads._calls[index]
            value = context.run(function, *args, **kwargs)
            own.over = True
            course.finished(index, value, time.perf_counter())
        except Left:
            pass
        except BaseException as error:
            own.over = True
            course.raised(index, error, in_order=False)
        course.commit()

    def _next_plain(self) -> int | None:
        ledger = self.course.ledger
        try:
            index = ledger.ready.popleft()
        except IndexError:
            return None
        if index not in self.course.plan.coroutines:
            return index
        ledger.put_back(index)  # for the worker whose place this is
        return None

    # Calls with more to them than a call

    def _prepared(self) -> list[Call]:
        plan, calls = self.course.plan, self._threads._calls
        special: Call = (self._await_specially, (), {})
        for index in plan.coroutines:
            if calls[index] is not plan.calls[index]:  # special to threads, too
                calls[index] = special
        return calls

    async def _await_specially(self) -> object:
        """Await the call of a task with handles among its arguments, or options, or someone who follows each step."""
        course = self.course
        if course.decimals is not None:
            own_decimals(course.decimals)
        index = SEAT.get().index
        function = course.plan.calls[index][0]
        if isinstance(function, Each):
            return await self._map(index, function).join_async()
        (function, args, kwargs), options = course.call(index)
        if not course.verbose:
            return await attempted(course, self.pause, index, options, function, args, kwargs)
        start = time.perf_counter()
        course.report("task_started", index, 1, None)
        value = await attempted(course, self.pause, index, options, function, args, kwargs)
        course.report("task_completed", index, course.attempts.get(index, 1), time.perf_counter() - start)
        return value

    def _map(self, index: int, each: Each) -> AwaitedMap:
        job = self._maps.get(index)
        if job is None:
            course = self.course
            options = course.plan.options.get(index, PLAIN)
            job = AwaitedMap(course, index, each, options, in_order=self._in_order, engine=self)
            self._maps[index] = course.maps[index] = job
        return job

    @property
    def shift(self) -> Worker:
        """The worker on whose shift the calling coroutine is."""
        return self._shifts[current()]

    # The journal

    async def committed(self, *, wait: bool) -> None:
        """Have what was recorded committed; wait for that if asked to, and where too much is not committed."""
        course = self.course
        if wait or course.behind:
            await self.aside(course.flush)
        else:
            course.commit()

    def _commit(self) -> bool:
        """Have what was recorded committed, by a thread aside."""
        course = self.course
        if threading.get_ident() == self._thread:
            self._commit_aside()
        elif course.behind or self._in_order:
            course.flush()
        elif course.uncommitted and not self._committing:
            with suppress(RuntimeError):  # the loop is closed: it was left in a hurry
                self._loop.call_soon_threadsafe(self._commit_aside)
        return True

    def _commit_aside(self) -> None:
        if self.course.uncommitted and not self._committing:
            try:
                commit = self._aside.call(self.course.offer)
            except WorkersUnavailableError:
                self.course.offer()
            else:
                self._committing = True
                commit.add_done_callback(self._end_commit)

    def _end_commit(self, commit: "asyncio.Future[None]") -> None:
        self._committing = False
        if not commit.cancelled() and (error := commit.exception()) is not None:
            self.course.interrupt(error)
        self._commit_aside()
        self._note_vacancy()

    # A run that is halted

    def _hear(self) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._look)

    def _look(self) -> None:
        """End what waits for another attempt once nothing new may start, and what runs once the run is cancelled."""
        for pause in self._pauses:
            _end(pause)
        if self.course.ledger.cancelled and not self._told:
            self._told = True
            for shift in self._shifts:
                shift.cancel()

    async def pause(self, seconds: float) -> bool:
        """Wait so many seconds, but no longer than until nothing new may start; return whether that is so."""
        if not self.course.ledger.halted:
            pause: asyncio.Future[None] = self._loop.create_future()
            timer = self._loop.call_later(seconds, _end, pause)
            self._pauses.add(pause)
            try:
                await pause
            except asyncio.CancelledError:
                if not self.course.ledger.cancelled:
                    raise
            finally:
                timer.cancel()
                self._pauses.discard(pause)
        return self.course.ledger.halted


def _end(pause: "asyncio.Future[None]") -> None:
    if not pause.done():
        pause.set_result(None)
