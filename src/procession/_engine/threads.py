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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import thread as _pools
from contextlib import suppress

from procession._engine.attempt import attempted, stripped
from procession._engine.current import SEAT, Seat
from procession._engine.each import Left, MapJob
from procession._engine.latch import Latch
from procession._engine.ledger import Ledger
from procession._engine.note import annotate
from procession._model.event import Event, EventName
from procession._model.progress import Progress
from procession._model.states import OnError
from procession._model.task import PLAIN, Call, Each, name_of
from procession._model.text import shown
from procession._plan.plan import Plan
from procession._plan.wiring import bound
from procession.errors import TaskCancelled, WorkersUnavailableError


class ThreadEngine:
    """Drives one run of a plan over threads.

    `tell` is called with each event; `verbose` says whether that is wanted for each start and end of a task too.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        process_name: str,
        run_id: str,
        max_workers: int,
        on_error: OnError,
        tell: Callable[[Event], None],
        verbose: bool,
    ) -> None:
        self.plan = plan
        self.process_name = process_name
        self.run_id = run_id
        self.max_workers = max_workers
        self.tell = tell
        self.verbose = verbose
        self.ledger = Ledger(len(plan.calls), plan.edges, on_error)
        self.attempts: dict[int | tuple[int, int], int] = {}
        self.seats: list[Seat | None] = [None] * len(plan.calls)
        self.children: dict[object, Callable[[], object]] = {}
        self._watchers: list[Callable[[int | None], None]] = []
        # Not empty when a worker has more to do after a task than to note its end. One list, so that one test of
        # its truth is all that a task pays where nothing depends on anything and nobody watches.
        self._attentive: list[object] = [plan.edges] if plan.edges else []
        self._maps: dict[int, MapJob] = {}
        self._context = contextvars.copy_context()
        self._halted = Latch()
        self._cancelled = Latch()
        self._lock = threading.Lock()
        self._active = 0
        self._opening = False
        self._vacant = Latch()
        self._starter: threading.Thread | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._in_order = True
        self._interruption: BaseException | None = None
        self._calls = self._prepared(plan)

    # What the caller's side asks

    def drive(self) -> None:
        """Run every stage, in the calling thread or on a pool that it waits for. Never raises what a task raised.

        Raises the second `KeyboardInterrupt` at once, with workers still busy.
        """
        try:
            for stage in self.plan.stages:
                if not self.ledger.well:
                    break
                self._in_order = not stage.at_once
                ready = self.ledger.open(stage)
                if not stage.at_once:
                    self._drive_in_order()
                elif ready:
                    self._drive_at_once(ready)
        except BaseException as error:
            self._interrupt(error)
            raise
        finally:
            self.ledger.finish()

    def abort(self, error: BaseException) -> None:
        """End the run before it has begun."""
        self._interrupt(error)
        self.ledger.finish()

    def cancel(self) -> bool:
        """Let nothing new start, here and in the runs that tasks of this one have started."""
        changed = self.ledger.cancel()
        self._cancelled.open()
        self._halted.open()
        for cancel_child in list(self.children.values()):
            cancel_child()
        return changed

    def progress(self) -> Progress:
        """Return how far the run has come."""
        ends = self.ledger.ends
        ended, failed, total = len(ends) - ends.count(None), len(self.ledger.errors), len(ends)
        for index, job in list(self._maps.items()):
            part = job.progress
            over = ends[index] is not None
            ended += part.ended - over
            failed += part.failed - (index in self.ledger.errors) if part.failed else 0
            total += part.total - 1
        return Progress(ended, failed, total)

    def watch(self, watcher: Callable[[int | None], None]) -> None:
        """Have `watcher` called, in the worker, with the index of each task that ends from now on."""
        with self._lock:
            self._watchers.append(watcher)
            self._attentive.append(watcher)

    def unwatch(self, watcher: Callable[[int | None], None]) -> None:
        """End what `watch` began."""
        with self._lock:
            self._watchers.remove(watcher)
            self._attentive.remove(watcher)

    def notify(self, index: int | None) -> None:
        """Tell those who watch that a task has ended, or, with `None`, that the run has."""
        for watcher in list(self._watchers):
            watcher(index)

    # What tasks may know

    @property
    def cancelled(self) -> bool:
        """Whether the run was cancelled."""
        return self.ledger.cancelled

    def name(self, index: int) -> str:
        """Return a task's name."""
        return name_of(self.plan.calls[index][0])

    def wait_cancelled(self, seconds: float) -> bool:
        """Wait until the run is cancelled, at most this long; return whether it is."""
        return self._cancelled.wait(seconds)

    def wait_halted(self, seconds: float) -> bool:
        """Wait until nothing new may start, at most this long; return whether that is so."""
        return self._halted.wait(seconds)

    # Events

    def report(
        self, name: EventName, index: int, attempt: int, duration: float | None, error: BaseException | None = None
    ) -> None:
        """Tell of something that happened to a task."""
        self.tell(
            Event(
                name,
                self.process_name,
                self.run_id,
                task_name=self.name(index),
                index=index,
                attempt=attempt,
                duration_s=duration,
                error=error,
            )
        )

    # The loops

    def _drive_in_order(self) -> None:
        seat = Seat(self, threading.current_thread().name)
        try:
            self._context.copy().run(self._work, seat)
        except BaseException as error:
            self._interrupt(error)

    def _drive_at_once(self, ready: int) -> None:
        self._pool = pool = ThreadPoolExecutor(
            self.max_workers, thread_name_prefix=f"procession-{shown(self.process_name, 40)}"
        )
        self._vacant = Latch()
        self._opening = True
        try:
            try:
                self._recruit_from_daemon(1 if self.plan.edges else min(ready, self.max_workers))
                self._vacant.wait()
            except BaseException as error:
                self._interrupt(error)
                self._vacant.wait()  # a second Ctrl-C is raised from here
            if self._interruption is not None:
                self._interrupt(self._interruption)
        finally:
            if self._vacant.is_open:
                pool.shutdown(wait=True)
            else:
                pool.shutdown(wait=False, cancel_futures=True)
                # The interpreter joins the threads of every pool when it exits. These were left on purpose.
                for thread in pool._threads:
                    _pools._threads_queues.pop(thread, None)  # type: ignore[attr-defined]
            self._pool = None

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
                self._interrupt(self._no_workers() if isinstance(error, RuntimeError) else error)
                self._end_opening()
                return
            raise

    def _end_opening(self) -> None:
        with self._lock:
            self._opening = False
            self._note_vacancy()

    def _note_vacancy(self) -> None:
        """End the stage if its last worker has left. With the lock held."""
        if self._active == 0 and not self._opening:
            self._vacant.open()

    def _recruit(self, count: int) -> None:
        """Start up to `count` more workers, while there is something ready for them and room among `max_workers`."""
        for _ in range(count):
            with self._lock:
                if self._active >= self.max_workers or not self.ledger.ready or self._pool is None:
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
                    none = self._active == 0
                if none:
                    self._interrupt(self._no_workers())
                break

    def _no_workers(self) -> WorkersUnavailableError:
        why = (
            "the interpreter is shutting down"
            if sys.is_finalizing() or _pools._shutdown
            else "the system has no more threads"
        )
        return WorkersUnavailableError(f"process {self.process_name!r}: no worker thread could be started: {why}")

    def _serve(self, ticket: list[bool]) -> None:
        """Work as one thread of the pool until there is nothing ready. Without a ticket, it is not yet counted."""
        with self._lock:
            if not ticket:
                if not self.ledger.ready or self._active >= self.max_workers:
                    return
                self._active += 1
        seat = Seat(self, threading.current_thread().name)
        while True:
            try:
                self._context.copy().run(self._work, seat)
            except BaseException as error:  # not from a task: the loop itself was hit
                self._interruption = error
                self.ledger.interrupt(error)
            with self._lock:
                # Whoever makes tasks ready is active and comes by here, so none is left lying.
                if not self.ledger.ready:
                    self._active -= 1
                    self._note_vacancy()
                    return

    def _work(self, seat: Seat) -> None:
        base = contextvars.copy_context()
        base.run(SEAT.set, seat)
        while True:
            context = base.copy()
            if not context.run(self._draw, seat, context, base) and (not self.ledger.ready or not self._in_order):
                return

    def _draw(self, seat: Seat, context: contextvars.Context, base: contextvars.Context) -> bool:
        """Run ready tasks until there are none; return early, with True, when the context is used up.

        The hot path. Measured on 3.13, of some 0.18 µs a task (a bare loop over the calls: 0.055): drawing 0.02,
        clock 0.04, leaving out an empty `**kwargs` saves 0.02, `context != base` 0.01 where a copied and entered
        context for each task costs 0.15. A task that changed its context makes it unequal, and the next one gets a
        fresh copy.
        """
        ledger = self.ledger
        values, starts, ends = ledger.values, ledger.starts, ledger.ends
        calls, seats, attentive, clock = self._calls, self.seats, self._attentive, time.perf_counter
        index = -1
        now = clock()
        try:
            for index in iter(ledger.ready.popleft, None):
                seat.index = index
                seats[index] = seat
                starts[index] = now
                function, args, kwargs = calls[index]
                values[index] = function(*args, **kwargs) if kwargs else function(*args)
                ends[index] = now = clock()
                if attentive:
                    self._ended(index)
                if context != base:
                    return True
        except BaseException as error:
            if index >= 0 and ends[index] is None:
                self._raised(index, error)
                return True
            if isinstance(error, IndexError):
                return False  # `ready` is empty
            if isinstance(error, Exception):
                return True  # comparing what a task put into its context failed: it is not the same
            raise
        raise AssertionError("unreachable")

    def _ended(self, index: int) -> None:
        freed = self.ledger.settle(index)
        if freed > 1:
            self._recruit(freed - 1)
        if self._watchers:
            self.notify(index)

    def _raised(self, index: int, error: BaseException) -> None:
        if isinstance(error, Left):
            return
        error.__traceback__ = stripped(error.__traceback__)
        now = time.perf_counter()
        start = self.ledger.starts[index]
        if isinstance(error, TaskCancelled) and self.ledger.halted:
            self.ledger.stop(index)
            self.ledger.ends[index] = now
        else:
            attempt = self.attempts.get(index, 1)
            annotate(error, self.process_name, index, self.name(index), attempt)
            self.ledger.fail(index, error, in_order=self._in_order)
            self.ledger.ends[index] = now
            self._note_halt()
            self.report("task_failed", index, attempt, None if start is None else now - start, error)
        self.notify(index)

    def _note_halt(self) -> None:
        """Wake whoever waits for what the ledger has come to."""
        if self.ledger.cancelled:
            self._cancelled.open()
        if self.ledger.halted:
            self._halted.open()

    def _interrupt(self, error: BaseException) -> None:
        self.ledger.interrupt(error)
        self._note_halt()
        for cancel_child in list(self.children.values()):
            cancel_child()

    # Calls with more to them than a call

    def _prepared(self, plan: Plan) -> list[Call]:
        """Return the calls that the loop makes: the plan's own, or `_call_specially` where there is more to one."""
        special: Call = (self._call_specially, (), {})
        if self.verbose:
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
        index = SEAT.get().index
        function, args, kwargs = self.plan.calls[index]
        options = self.plan.options.get(index, PLAIN)
        if isinstance(function, Each):
            with self._lock:
                job = self._maps.get(index)
                if job is None:
                    job = self._maps[index] = MapJob(self, index, function, options)
            return job.join()
        if index in self.plan.needs:
            args, kwargs = bound(args, kwargs, self.ledger.values)
        if not self.verbose:
            return attempted(self, index, options, function, args, kwargs)
        start = time.perf_counter()
        self.report("task_started", index, 1, None)
        value = attempted(self, index, options, function, args, kwargs)
        self.report("task_completed", index, self.attempts.get(index, 1), time.perf_counter() - start)
        return value

    def invite(self, index: int) -> None:
        """Have one more worker join the task, if there is one."""
        if not self._in_order:
            self.ledger.ready.appendleft(index)
            if self.ledger.halted:
                self.ledger.ready.clear()
            self._recruit(1)

    @property
    def alone(self) -> bool:
        """Whether tasks run in order at present, so that nobody can join one."""
        return self._in_order

    def fail_early(self, index: int, error: BaseException) -> None:
        """Record a failure inside a task that is still being worked on by others."""
        self.ledger.fail(index, error, in_order=self._in_order)
        self._note_halt()
