"""The engine for threads: stages in order in the caller's thread, stages at once on a pool that draws from the ledger.

    caller ──▶ drive ──┬─ in order ──▶ _work ─┐
                       └─ at once ──▶ n workers, each _work ─┴──▶ pop an index, call, note the time, settle

No Future a task: a pool's thread gets one call of `_work` and keeps drawing until nothing is ready. A worker that
makes several tasks ready takes one itself and recruits others for the rest, up to `max_workers`.
"""

import contextvars
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from procession._engine.attempt import attempted
from procession._engine.course import Course
from procession._engine.current import SEAT, Seat
from procession._engine.decimals import own_decimals
from procession._engine.each import Left, MapJob
from procession._engine.latch import Latch
from procession._model.strategy import Stage
from procession._model.task import PLAIN, Call, Each
from procession._model.text import shown
from procession.errors import WorkersUnavailableError

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor


class ThreadEngine:
    """Drives the course of one run over threads."""

    def __init__(self, course: Course) -> None:
        self.course = course
        self._lock = threading.Lock()
        self._active = 0
        self._displaced = 0
        self._here = threading.local()
        self._opening = False
        self._alone = False
        self._vacant = Latch()
        self._starter: threading.Thread | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._in_order = True
        self._maps: dict[int, MapJob] = {}
        self._interruption: BaseException | None = None
        self._calls = self._prepared()

    def drive(self) -> None:
        """Run every stage, in the calling thread or on a pool that it waits for. Never raises what a task raised.

        Raises the second `KeyboardInterrupt` at once, with workers still busy.
        """
        course = self.course
        try:
            for stage in course.plan.stages:
                if not course.ledger.well:
                    break
                self.drive_stage(stage)
        except BaseException as error:
            course.interrupt(error)
            raise
        finally:
            course.close()
            # No cycle may stay: it would keep what failed, and its frames, until the collector comes.
            course.staffed_by(lambda _: None)
            course.unlooped()
            self._maps = {}
            if self._calls is not course.plan.calls:
                self._calls = []

    def drive_stage(self, stage: Stage) -> None:
        """Run one stage."""
        self._in_order = not stage.at_once
        self.course.staffed_by(self._recruit)
        self.course.commits_by(self._commit)
        ready = self.course.ledger.open(stage)
        if not stage.at_once:
            self._drive_in_order()
        elif ready:
            self._drive_at_once(ready)

    # The loops

    def _drive_in_order(self) -> None:
        seat = self.course.seat(threading.current_thread().name)
        try:
            self.course.context.copy().run(self._work, seat)
        except BaseException as error:
            self.course.interrupt(error)
        finally:
            self.course.leave(seat)

    def _drive_at_once(self, ready: int) -> None:
        try:
            # Not at the top: at exit it cannot be imported any more, and tasks in order can be run still.
            from concurrent.futures import ThreadPoolExecutor
        except RuntimeError:
            self._do_without()
            return
        # One more where there is a journal: the one who commits has given its place to another.
        self._pool = pool = ThreadPoolExecutor(
            self.course.max_workers + (self.course.recorder is not None),
            thread_name_prefix=f"procession-{shown(self.course.process_name, 40)}",
        )
        self._vacant = Latch()
        self._opening = True
        try:
            try:
                self._recruit_from_daemon(min(ready, self.course.max_workers))
                self._vacant.wait()
            except BaseException as error:
                self.course.interrupt(error)
                self._vacant.wait()  # a second Ctrl-C is raised from here
            if self._interruption is not None:
                self.course.interrupt(self._interruption)
        finally:
            if self._vacant.is_open:
                pool.shutdown(wait=True)
            else:
                pool.shutdown(wait=False, cancel_futures=True)
                # The interpreter joins the threads of every pool when it exits. These were left on purpose.
                for thread in pool._threads:
                    _pools()._threads_queues.pop(thread, None)
            self._pool = None
        if self._alone:
            self._do_without()

    def _do_without(self) -> None:
        """Go on where there is no worker: in this thread if the interpreter waits for it before it exits, else fail."""
        self._alone = False
        here, main = threading.current_thread(), threading.main_thread()
        if here is main or here.daemon or main.is_alive():
            self.course.interrupt(self._no_workers())
        else:
            self._here.placed = True
            self._drive_in_order()

    def _recruit_from_daemon(self, count: int) -> None:
        # A pool's threads are daemons if the thread that makes them is one, and only daemons can be left behind
        # when Ctrl-C comes a second time. Later recruits are made by these workers, and so are daemons too.
        if threading.current_thread().daemon:
            self._recruit(count)
            self._end_opening()
            return
        # Whoever pops the ticket ends the opening: the starter, or who failed to start it.
        ticket = [True]

        def begin() -> None:
            try:
                ticket.pop()
            except IndexError:
                return
            self._recruit(count)
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
                    self.course.interrupt(error)
                self._end_opening()
                return
            raise

    def _end_opening(self) -> None:
        with self._lock:
            self._opening = False
            self._note_vacancy()

    def _note_vacancy(self) -> None:
        """End the stage if its last worker has left. With the lock held."""
        if self._active == 0 and not self._displaced and not self._opening:
            self._vacant.open()

    def _recruit(self, count: int) -> None:
        """Start up to `count` more workers, while there is something ready for them and room among `max_workers`."""
        for _ in range(count):
            with self._lock:
                if self._active >= self.course.max_workers or not self.course.ledger.ready or self._pool is None:
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
            f"process {shown(self.course.process_name)!r}: no worker thread could be started: {why}"
        )

    def _serve(self, ticket: list[bool]) -> None:
        """Work as one thread of the pool until there is nothing ready, or until another has this one's place.

        Without a ticket, it is not yet counted.
        """
        with self._lock:
            if not ticket:
                if not self.course.ledger.ready or self._active >= self.course.max_workers:
                    return
                self._active += 1
        self._here.placed = True
        seat = self.course.seat(threading.current_thread().name)
        while True:
            try:
                self.course.context.copy().run(self._work, seat)
            except BaseException as error:  # not from a task: the loop itself was hit
                self._interruption = error
                self.course.ledger.interrupt(error)
            with self._lock:
                # Whoever makes tasks ready is active and comes by here, so none is left lying.
                if not self._regain() or not self.course.ledger.ready:
                    self.course.leave(seat)
                    if self._here.placed:
                        self._active -= 1
                    else:
                        self._displaced -= 1
                    self._note_vacancy()
                    return

    def _work(self, seat: Seat) -> None:
        base = contextvars.copy_context()
        base.run(SEAT.set, seat)
        draw = self._draw_plain if self.course.recorder is None else self._draw_recorded
        while True:
            context = base.copy()
            if not context.run(draw, seat, context, base) and (not self.course.ledger.ready or not self._in_order):
                return

    def _commit(self) -> bool:
        """Commit what was recorded, as far as nobody is at it; return whether this worker still has its place.

        In order, all is committed when this returns. At once, other calls are made in this worker's place meanwhile.
        It has it back if there is room then.
        """
        course = self.course
        if self._in_order:
            course.flush()
            return True
        here = self._here
        if course.commit_waits:
            with self._lock:
                if here.placed:
                    here.placed = False
                    self._active -= 1
                    self._displaced += 1
            try:
                self._recruit(1)
                course.offer()
            finally:
                with self._lock:
                    self._regain()
        if course.behind:
            course.flush()
        return bool(here.placed)

    def _regain(self) -> bool:
        """Have the calling worker take a place again, if it has none; return whether it has one. With the lock held."""
        here = self._here
        if not here.placed and self._active < self.course.max_workers:
            here.placed = True
            self._active += 1
            self._displaced -= 1
        return bool(here.placed)

    def _draw_plain(self, seat: Seat, context: contextvars.Context, base: contextvars.Context) -> bool:
        """Run ready tasks until there are none; return early, with True, when the context is used up.

        The hot path. Measured on 3.13, of some 0.18 µs a task (a bare loop over the calls: 0.055): drawing 0.02,
        clock 0.04, leaving out an empty `**kwargs` saves 0.02, `context != base` 0.01 where a copied and entered
        context for each task costs 0.15. A task that changed its context makes it unequal, and the next one gets a
        fresh copy.
        """
        course = self.course
        ledger = course.ledger
        values, starts, ends = ledger.values, ledger.starts, ledger.ends
        calls, workers, attentive, clock = self._calls, course.workers, course.attentive, time.perf_counter
        index, worker = -1, seat.worker
        now = clock()
        try:
            for index in iter(ledger.ready.popleft, None):
                seat.index = index
                workers[index] = worker
                starts[index] = clock() if attentive else now  # what it waited for may have ended since
                function, args, kwargs = calls[index]
                values[index] = function(*args, **kwargs) if kwargs else function(*args)
                ends[index] = now = clock()
                if attentive:
                    course.ended(index)
                if context != base:
                    return True
        except BaseException as error:
            return self._went_wrong(index, error)
        raise AssertionError("unreachable")

    def _draw_recorded(self, seat: Seat, context: contextvars.Context, base: contextvars.Context) -> bool:
        """Do the same in a run with a journal, in which a task has ended only when that is committed."""
        course, ready, clock = self.course, self.course.ledger.ready, time.perf_counter
        index = -1
        try:
            while course.commit():
                index = ready.popleft()
                seat.index = index
                own = seat.own(index)
                SEAT.set(own)
                base.run(SEAT.set, own)
                course.workers[index] = seat.worker
                course.ledger.starts[index] = clock()
                function, args, kwargs = self._calls[index]
                try:
                    value = function(*args, **kwargs)
                finally:
                    own.over = True
                course.finished(index, value, clock())
                del value
                index = -1  # its end is noted by whoever commits it
                if context != base:
                    return True
        except BaseException as error:
            return self._went_wrong(index, error)
        return False  # another has its place

    def _went_wrong(self, index: int, error: BaseException) -> bool:
        """Say what ended a loop; return whether to go on with another."""
        ends = self.course.ledger.ends
        if index >= 0 and ends[index] is None:
            if not isinstance(error, Left):
                self.course.raised(index, error, in_order=self._in_order)
            return True
        if isinstance(error, IndexError):
            return False  # `ready` is empty
        if isinstance(error, Exception):
            return True  # comparing what a task put into its context failed: it is not the same
        raise error

    # Calls with more to them than a call

    def _prepared(self) -> list[Call]:
        """Return the calls that the loop makes: the plan's own, or `_call_specially` where there is more to one."""
        plan = self.course.plan
        special: Call = (self._call_specially, (), {})
        if self.course.verbose or self.course.decimals is not None:
            return [special] * len(plan.calls)
        if not plan.needs and not plan.options:
            return plan.calls
        prepared = list(plan.calls)
        for indexes in plan.needs, plan.options:
            for index in indexes:
                prepared[index] = special
        return prepared

    def _call_specially(self) -> object:
        """Make the call of a task with handles among its arguments, or options, or someone who follows each step."""
        course = self.course
        if course.decimals is not None:
            own_decimals(course.decimals)
        index = SEAT.get().index
        function = course.plan.calls[index][0]
        if isinstance(function, Each):
            return self._map(index, function).join()
        (function, args, kwargs), options = course.call(index)
        if not course.verbose:
            return attempted(course, index, options, function, args, kwargs)
        start = time.perf_counter()
        course.report("task_started", index, 1, None)
        value = attempted(course, index, options, function, args, kwargs)
        course.report("task_completed", index, course.attempts.get(index, 1), time.perf_counter() - start)
        return value

    def _map(self, index: int, each: Each) -> MapJob:
        course = self.course
        with self._lock:
            job = self._maps.get(index)
            if job is None:
                options = course.plan.options.get(index, PLAIN)
                job = MapJob(course, index, each, options, in_order=self._in_order)
                self._maps[index] = course.maps[index] = job
        return job


def _pools() -> Any:
    """Return the module of the pools; `None` if it cannot be imported any more."""
    return sys.modules.get("concurrent.futures.thread")
