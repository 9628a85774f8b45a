"""The engine for threads: stages in order in the caller's thread, stages at once on a pool that draws from the ledger.

    caller ──▶ drive ──┬─ in order ──▶ _work ─┐
                       └─ at once ──▶ n workers, each _work ─┴──▶ pop an index, call, note the time, settle

No Future a task: a pool's thread gets one call of `_work` and keeps drawing until nothing is ready. A worker that
makes several tasks ready takes one itself and recruits others for the rest, up to `max_workers`. A worker whose call
takes longer than its timeout is left behind with it, and another has its place. A task that pauses between two attempts
has no worker.
"""

import contextvars
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from procession._engine.call_context import CURRENT_CALL, CallContext
from procession._engine.calls import LeaveTask, TaskCalls
from procession._engine.latch import Latch
from procession._engine.map import ThreadMaps
from procession._engine.retry import Abandoned
from procession._engine.run_state import RunState
from procession._engine.watcher import Deadline, Watcher
from procession._model.strategy import Stage
from procession._model.task import MapFunction
from procession._model.text import shown
from procession.errors import WorkersUnavailableError

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

_ANY_NUMBER = 1 << 30


class Worker:
    """The place of a thread among the `max_workers`. One that is `alone` has nothing else to do while a task pauses."""

    __slots__ = ("_engine", "alone", "call_context", "deadline", "ended", "has_place", "thread")

    def __init__(self, engine: "ThreadEngine", call_context: CallContext, *, alone: bool) -> None:
        self._engine = engine
        self.call_context = call_context
        self.alone = alone
        self.has_place = True
        self.ended = False
        self.deadline: Deadline | None = None
        self.thread = threading.current_thread()

    def abandon(self, resume: Callable[[], object]) -> None:
        """Leave the thread behind with its call, and have `resume` make what follows ready for another worker."""
        self._engine.abandon(self, resume)


class ThreadEngine:
    """Drives the stages of one run over threads."""

    def __init__(self, run_state: RunState) -> None:
        self.run_state = run_state
        self._lock = threading.Lock()
        self._active = 0
        self._displaced = 0
        self._pauses = 0
        self._here = threading.local()
        self._opening = False
        self._alone = False
        self._vacant = Latch()
        self._starter: threading.Thread | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._left_behind: set[threading.Thread] = set()
        self._in_order = True
        self._maps = ThreadMaps(run_state)
        self._interruption: BaseException | None = None
        self._watcher: Watcher | None = None
        self._calls = TaskCalls(run_state, self)

    def drive(self) -> None:
        """Run every stage, in the calling thread or on a pool that it waits for. Never raises what a task raised.

        Raises the second `KeyboardInterrupt` at once, with workers still busy.
        """
        run_state = self.run_state
        try:
            for stage in run_state.plan.stages:
                if not run_state.ledger.well:
                    break
                self.drive_stage(stage)
        except BaseException as error:
            run_state.interrupt(error)
            raise
        finally:
            self.close()

    def close(self) -> None:
        """End the watcher, and let go of all that makes a cycle: it would keep what failed, and its frames, alive."""
        if self._watcher is not None:
            self._watcher.close()
        self._maps.close()
        self._calls.close()

    def drive_stage(self, stage: Stage) -> None:
        """Run one stage."""
        self._in_order = self._calls.in_order = not stage.at_once
        self.run_state.attach(self)
        ready = self.run_state.ledger.open(stage)
        if not stage.at_once:
            self._drive_in_order()
        elif ready:
            self._drive_at_once(ready)
        self._end_left()

    # The loops

    def _drive_in_order(self) -> None:
        call_context = self.run_state.call_context(threading.current_thread().name)
        self._here.worker = Worker(self, call_context, alone=True)
        try:
            self.run_state.context.copy().run(self._work, call_context)
        except BaseException as error:
            self.run_state.interrupt(error)
        finally:
            self.run_state.leave(call_context)
            self._here.worker = None

    def _drive_at_once(self, ready: int) -> None:
        try:
            # Not at the top: at exit it cannot be imported any more, and tasks in order can be run still.
            from concurrent.futures import ThreadPoolExecutor
        except RuntimeError:
            self._do_without()
            return
        # One more where there is a journal: the one who commits has given its place to another. A thread that is left
        # behind keeps its place in the pool, and there may be any number of them; the bound is kept by `recruit`.
        timeouts = any(options.timeout is not None for options in self.run_state.plan.options.values())
        self._pool = pool = ThreadPoolExecutor(
            _ANY_NUMBER if timeouts else self.run_state.max_workers + (self.run_state.recorder is not None),
            thread_name_prefix=f"procession-{shown(self.run_state.process_name, 40)}",
        )
        self._vacant = Latch()
        self._opening = True
        try:
            recruit = partial(self._recruit_from_daemon, min(ready, self.run_state.max_workers))
            self._vacant.wait_through(self.run_state.interrupt, recruit)
            if self._interruption is not None:
                self.run_state.interrupt(self._interruption)
        finally:
            self._shut_down(pool)
            self._pool = None
        if self._alone and self.run_state.ledger.ready:  # else another worker could be started later
            self._do_without()

    def _shut_down(self, pool: "ThreadPoolExecutor") -> None:
        """End the threads of a pool and wait for them, but for those that are left behind."""
        over = self._vacant.is_open
        if over and not self._left_behind:
            pool.shutdown(wait=True)
            return
        pool.shutdown(wait=False, cancel_futures=True)
        for thread in list(pool._threads):
            if over and thread not in self._left_behind:
                thread.join()
            else:
                _forget(thread)

    def _end_left(self) -> None:
        """End what all workers have left before its end, as nothing new may start."""
        self._calls.end_paused()
        self._maps.end_left()

    def _do_without(self) -> None:
        """Go on where there is no worker: in this thread if the interpreter waits for it before it exits, else fail."""
        self._alone = False
        here, main = threading.current_thread(), threading.main_thread()
        if here is main or here.daemon or main.is_alive():
            self.run_state.interrupt(self._no_workers())
        else:
            self._drive_in_order()

    def _recruit_from_daemon(self, count: int) -> None:
        # A pool's threads are daemons if the thread that makes them is one, and only daemons can be left behind
        # when Ctrl-C comes a second time. Later recruits are made by these workers, and so are daemons too.
        if threading.current_thread().daemon:
            self.recruit(count)
            self._end_opening()
            return
        # Whoever pops the ticket ends the opening: the starter, or who failed to start it.
        ticket = [True]

        def begin() -> None:
            try:
                ticket.pop()
            except IndexError:
                return
            self.recruit(count)
            self._end_opening()

        # Kept, because a signal that comes while a thread object is taken apart is lost in a weak reference's callback.
        self._starter = threading.Thread(target=begin, daemon=True, name="procession-starter")
        try:
            self._starter.start()
            self._starter.join()
        except BaseException as error:
            with suppress(IndexError):
                ticket.pop()
                self._alone = isinstance(error, RuntimeError)
                if not self._alone:
                    self.run_state.interrupt(error)
                self._end_opening()
                return
            raise

    def _end_opening(self) -> None:
        with self._lock:
            self._opening = False
            self._note_vacancy()

    def _note_vacancy(self) -> None:
        """End the stage if its last worker has left. With the lock held."""
        pauses = self._pauses and not self.run_state.ledger.halted
        if self._active == 0 and not self._displaced and not self._opening and not pauses:
            self._vacant.open()

    def recruit(self, count: int) -> None:
        """Start up to `count` more workers, while there is something ready for them and room among `max_workers`."""
        for _ in range(count):
            with self._lock:
                if self._active >= self.run_state.max_workers or not self.run_state.ledger.ready or self._pool is None:
                    break
                self._active += 1
                pool = self._pool
            ticket = [True]
            try:
                pool.submit(self._serve, ticket)
            except RuntimeError:
                # Out of threads, or the interpreter is shutting down: go on with the workers there are. The pool may
                # have queued the call before it failed to start a thread for it; then it comes without a ticket.
                with self._lock:
                    ticket.clear()
                    self._active -= 1
                    self._alone = self._active + self._displaced == 0
                break

    def _no_workers(self) -> WorkersUnavailableError:
        why = (
            "the interpreter is shutting down"
            if sys.is_finalizing() or _pools() is None or _pools()._shutdown
            else "the system has no more threads"
        )
        return WorkersUnavailableError(
            f"process {shown(self.run_state.process_name)!r}: no worker thread could be started: {why}"
        )

    def _serve(self, ticket: list[bool]) -> None:
        """Work as one thread of the pool until there is nothing ready, or until another has this one's place.

        Without a ticket, it is not yet counted.
        """
        with self._lock:
            if not ticket:
                if not self.run_state.ledger.ready or self._active >= self.run_state.max_workers:
                    return
                self._active += 1
        name = threading.current_thread().name
        self._here.worker = worker = Worker(self, self.run_state.call_context(name), alone=False)
        try:
            self._serve_as(worker)
        finally:
            if worker.deadline is not None:
                self._watched().forget(worker.deadline)

    def _serve_as(self, worker: Worker) -> None:
        while True:
            try:
                self.run_state.context.copy().run(self._work, worker.call_context)
            except Abandoned:
                self._come_back(worker)
                return
            except BaseException as error:  # not from a task: the loop itself was hit
                self._interruption = error
                self.run_state.ledger.interrupt(error)
            with self._lock:
                # Whoever makes tasks ready is active and comes by here, so none is left lying.
                if not self._regain(worker) or not self.run_state.ledger.ready:
                    self.run_state.leave(worker.call_context)
                    if worker.has_place:
                        self._active -= 1
                    else:
                        self._displaced -= 1
                    self._note_vacancy()
                    return

    def _work(self, call_context: CallContext) -> None:
        base = contextvars.copy_context()
        base.run(CURRENT_CALL.set, call_context)
        draw = self._draw_plain if self.run_state.recorder is None else self._draw_recorded
        while True:
            context = base.copy()
            if not context.run(draw, call_context, context, base) and (
                not self.run_state.ledger.ready or not self._in_order
            ):
                return

    def commit(self) -> bool:
        """Commit what was recorded, as far as nobody is at it; return whether this worker still has its place.

        In order, all is committed when this returns. At once, other calls are made in this worker's place meanwhile.
        It has it back if there is room then.
        """
        run_state = self.run_state
        if self._in_order:
            run_state.flush()
            return True
        worker: Worker = self._here.worker
        if run_state.commit_waits:
            with self._lock:
                if worker.has_place:
                    worker.has_place = False
                    self._active -= 1
                    self._displaced += 1
            try:
                self.recruit(1)
                run_state.offer()
            finally:
                with self._lock:
                    self._regain(worker)
        if run_state.behind:
            run_state.flush()
        return worker.has_place

    def on_halt(self) -> None:
        """Have the stage end though tasks pause. Workers look for themselves before each call."""
        if self._pauses and self._watcher is not None:
            self._watcher.at(0.0, self._look)

    def _look(self) -> None:
        with self._lock:
            self._note_vacancy()

    def _regain(self, worker: Worker) -> bool:
        """Have a worker take a place again, if it has none; return whether it has one. With the lock held."""
        if not worker.has_place and self._active < self.run_state.max_workers:
            worker.has_place = True
            self._active += 1
            self._displaced -= 1
        return worker.has_place

    # Pauses and timeouts

    @property
    def worker(self) -> Worker:
        """The worker whose thread this is. Where calls may time out, it has a slot for its deadline."""
        worker: Worker = self._here.worker
        if worker.deadline is None and not worker.alone:
            worker.deadline = self._watched().deadline()
        return worker

    def pause(self, seconds: float, resume: Callable[[], object]) -> None:
        """Have `resume` make something ready in so many seconds. Until then the stage does not end."""
        with self._lock:
            self._pauses += 1
        self._watched().at(seconds, partial(self._resume, resume))

    def _watched(self) -> Watcher:
        with self._lock:
            if self._watcher is None:
                self._watcher = Watcher(f"procession-{shown(self.run_state.process_name, 40)}-watcher")
            return self._watcher

    def _resume(self, resume: Callable[[], object]) -> None:
        resume()
        self.recruit(1)
        with self._lock:
            self._pauses -= 1
            self._note_vacancy()

    def abandon(self, worker: Worker, resume: Callable[[], object]) -> None:
        """Give the place of a worker, whose call takes too long, to another. In the watcher's thread."""
        self.run_state.leave(worker.call_context)
        with self._lock:
            if not worker.ended:
                self._left_behind.add(worker.thread)
                worker.thread.name += "-abandoned"
                _forget(worker.thread)
        resume()
        with self._lock:
            self._active -= 1
        self.recruit(1)
        self._look()

    def _come_back(self, worker: Worker) -> None:
        """Make a thread one of the pool's again: its call, which was given up, has ended, and it may get another."""
        with self._lock:
            worker.ended = True
            if worker.thread in self._left_behind:
                self._left_behind.remove(worker.thread)
                worker.thread.name = worker.thread.name.removesuffix("-abandoned")

    def _draw_plain(self, call_context: CallContext, context: contextvars.Context, base: contextvars.Context) -> bool:
        """Run ready tasks until there are none; return early, with True, when the context is used up.

        The hot path. Measured on 3.13, of some 0.18 µs a task (a bare loop over the calls: 0.055): drawing 0.02,
        clock 0.04, leaving out an empty `**kwargs` saves 0.02, `context != base` 0.01 where a copied and entered
        context for each task costs 0.15. A task that changed its context makes it unequal, and the next one gets a
        fresh copy.
        """
        run_state = self.run_state
        ledger = run_state.ledger
        values, starts, ends = ledger.values, ledger.starts, ledger.ends
        calls, workers, attentive, clock = self._calls.calls, run_state.workers, run_state.attentive, time.perf_counter
        index, worker = -1, call_context.worker
        now = clock()
        try:
            for index in iter(ledger.ready.popleft, None):
                if attentive:
                    if ledger.halted:  # as in `ledger.claim`, without a call
                        return False
                    now = clock()  # what it waited for may have ended since
                call_context.index = index
                workers[index] = worker
                starts[index] = now
                function, args, kwargs = calls[index]
                values[index] = function(*args, **kwargs) if kwargs else function(*args)
                ends[index] = now = clock()
                if attentive:
                    run_state.ended(index)
                if context != base:
                    return True
        except BaseException as error:
            return self._went_wrong(index, error)
        raise AssertionError("unreachable")

    def _draw_recorded(
        self, call_context: CallContext, context: contextvars.Context, base: contextvars.Context
    ) -> bool:
        """Do the same in a run with a journal, in which a task has ended only when that is committed."""
        run_state, claim, clock = self.run_state, self.run_state.ledger.claim, time.perf_counter
        index = -1
        try:
            while run_state.commit():
                index = claim()
                call_context.index = index
                own = call_context.own(index)
                CURRENT_CALL.set(own)
                base.run(CURRENT_CALL.set, own)
                run_state.workers[index] = call_context.worker
                run_state.ledger.starts[index] = clock()
                function, args, kwargs = self._calls.calls[index]
                try:
                    value = function(*args, **kwargs)
                finally:
                    own.over = True
                run_state.finished(index, value, clock())
                del value
                index = -1  # its end is noted by whoever commits it
                if context != base:
                    return True
        except BaseException as error:
            return self._went_wrong(index, error)
        return False  # another has its place

    def _went_wrong(self, index: int, error: BaseException) -> bool:
        """Say what ended a loop; return whether to go on with another."""
        if isinstance(error, Abandoned):
            raise error
        if isinstance(error, LeaveTask):
            return True
        if index >= 0 and self.run_state.ledger.ends[index] is None:
            self._calls.failed(index, error)
            return True
        if isinstance(error, IndexError):
            return False  # `ready` is empty
        if isinstance(error, Exception):
            return True  # comparing what a task put into its context failed: it is not the same
        raise error

    def work_on_map(self, index: int, map_function: MapFunction) -> list[Any]:
        """Work on a map; return its results in the last worker on it, else raise `LeaveTask`."""
        return self._maps.join(self, index, map_function, in_order=self._in_order)


def _forget(thread: threading.Thread) -> None:
    """Have the interpreter not wait for a thread of a pool when it exits: it was left behind on purpose."""
    _pools()._threads_queues.pop(thread, None)


def _pools() -> Any:
    """Return the module of the pools; `None` if it cannot be imported any more."""
    return sys.modules.get("concurrent.futures.thread")
