"""The engine for threads: stages in order in the caller's thread, stages at once on a pool that draws from the ledger.

    caller ──▶ drive ──┬─ in order ──▶ CallLoop.work ────────────────┐
                       └─ at once ──▶ n workers, each CallLoop.work ─┴──▶ pop an index, call, note the time, settle

No Future a task: a pool's thread gets one call of `_serve` and keeps drawing until nothing is ready; then it sleeps
until it is recruited again, or the stage is over. A worker that makes several tasks ready takes one itself and recruits
others for the rest, up to `max_workers`. A worker whose call takes longer than its timeout is left behind with it, and
another has its place. A task that pauses between two attempts has no worker.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from operator import call
from typing import TYPE_CHECKING, Any

from procession._engine.awaited_thread import is_awaited_now
from procession._engine.call_loop import CallLoop
from procession._engine.callbacks import breaks_down
from procession._engine.calls import TaskCalls
from procession._engine.idle_thread import IdleThread
from procession._engine.latch import SLICE_S, Latch
from procession._engine.maps import ThreadMaps
from procession._engine.pauses import Pauses
from procession._engine.places import Places
from procession._engine.pools import forget, no_workers
from procession._engine.retry import Abandoned
from procession._engine.run_state import RunState
from procession._engine.suspension import is_stuck, look_again, may_go_on
from procession._engine.worker import Worker
from procession._model.strategy import Stage
from procession._model.task import MapFunction
from procession._model.text import shown
from procession.errors import WorkersUnavailableError

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from procession._model.outcome import NotKept

_ANY_NUMBER = 1 << 30
"""A thread that is left behind, or waits for elements, has its place in a pool still; `recruit` keeps the bound."""


class ThreadEngine:
    """Drives the stages of one run over threads."""

    def __init__(self, run_state: RunState) -> None:
        self.run_state = run_state
        self._places = Places(run_state.max_workers)
        self._lock = self._places.lock
        self._at: dict[int, Worker] = {}  # by the identifier of its thread
        self._opening = False
        self._ticket = [True]
        """The thread that pops it ends the opening: the one that recruits the first workers, or that failed to."""
        self._alone = False
        self._vacant = Latch()
        self._starter: threading.Thread | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._idle: list[IdleThread] = []
        self._unfilled = 0
        """How many places no thread has taken yet: of those that were started or woken for them, any may."""
        self._left_behind: set[threading.Thread] = set()
        self._in_order = True
        self._is_over = False
        """Whether nothing that waits in the stage has been answered, where nothing else is left to do."""
        self._maps = ThreadMaps(run_state)
        self._interruption: BaseException | None = None
        name = f"procession-{shown(run_state.process_name, 40)}-watcher"
        self._pauses = Pauses(self._lock, name, self._resume, self._note_vacancy, self.break_down)
        self._calls = TaskCalls(run_state, self)
        self._call_loop = CallLoop(run_state, self._calls)

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
        self._pauses.close()
        self._maps.close()
        self._calls.close()

    def leave_behind(self) -> None:
        """Keep the interpreter's exit from waiting for the workers: nobody waits for this run any more."""
        pool = self._pool
        for thread in [] if pool is None else list(pool._threads):
            forget(thread)

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
        here = threading.get_ident()
        self._at[here] = Worker(self, call_context, alone=True)
        try:
            self._call_loop.work(call_context)
        except BaseException as error:
            self.run_state.break_down(error)
        finally:
            self.run_state.leave(call_context)
            del self._at[here]
            if self._interruption is not None:
                self.run_state.break_down(self._interruption)

    def _drive_at_once(self, ready: int) -> None:
        try:
            # Not at the top: at exit it cannot be imported any more, and tasks in order can be run still.
            from concurrent.futures import ThreadPoolExecutor
        except RuntimeError:
            self._do_without()
            return
        self._pool = pool = ThreadPoolExecutor(
            _ANY_NUMBER, thread_name_prefix=f"procession-{shown(self.run_state.process_name, 40)}"
        )
        self._vacant = Latch()
        self._opening, self._ticket = True, [True]
        try:
            begin = partial(self._recruit_from_daemon, min(ready, self.run_state.max_workers))
            self._vacant.wait_through(self._interrupted, begin)
            while self._interruption is None and not self._alone and may_go_on(self.run_state):
                self._vacant = Latch()
                self._vacant.wait_through(self._interrupted, self._look_again)
                if self._is_over:
                    break
            if self._interruption is not None:
                self.run_state.break_down(self._interruption)
        finally:
            self._shut_down(pool)
        if self._alone and self.run_state.ledger.ready:  # else another worker could be started later
            self._do_without()

    def _shut_down(self, pool: "ThreadPoolExecutor") -> None:
        """End the threads of a pool and wait for them, but for those that are left behind."""
        with self._lock:
            self._pool = None
            idle_threads, self._idle = self._idle, []
        for idle in idle_threads:
            idle.wake()
        over = self._vacant.is_open
        if over and not self._left_behind:
            pool.shutdown(wait=True)
            return
        pool.shutdown(wait=False, cancel_futures=True)
        for thread in list(pool._threads):
            if over and thread not in self._left_behind:
                thread.join()
            else:
                forget(thread)

    def _end_left(self) -> None:
        """End the tasks and maps that all workers have left, as nothing new may start."""
        self._calls.end_paused()
        self._maps.end_left()

    def _do_without(self) -> None:
        """Go on where there is no worker: in this thread if the interpreter waits for it before it exits, else fail."""
        self._alone = False
        if is_awaited_now(threading.current_thread()):
            self._drive_in_order()
        else:
            self.run_state.interrupt(no_workers(self.run_state.process_name))

    def _recruit_from_daemon(self, count: int) -> None:
        # A pool's threads are daemons if the thread that makes them is one, and only daemons can be left behind
        # when Ctrl-C comes a second time. Later recruits are made by these workers, and so are daemons too.
        if threading.current_thread().daemon:
            self._open(count)
            return
        # Kept, because a signal that comes while a thread object is taken apart is lost in a weak reference's callback.
        self._starter = threading.Thread(target=self._open, args=(count,), daemon=True, name="procession-starter")
        self._starter.start()
        self._starter.join()

    def _open(self, count: int) -> None:
        """Recruit the first workers, unless that was given up."""
        try:
            with suppress(IndexError):
                self._ticket.pop()
                self.recruit(count)
                self._end_opening()
        except BaseException as error:
            self.break_down(error)

    def _interrupted(self, error: BaseException) -> None:
        """Take note of what came while the calling thread waits, or had the first workers recruited."""
        opening = False
        with suppress(IndexError):
            self._ticket.pop()
            opening = True
        self._alone = opening and isinstance(error, RuntimeError)  # no thread could be started
        if not self._alone:
            self.run_state.interrupt(error)
        if opening:
            self._end_opening()
        else:
            self.look()

    def _look_again(self) -> None:
        """See whether the stage, in which nothing was left to do, goes on: what waits may be answered, or be due."""
        self._is_over = not look_again(self.run_state, self._looks_idle)
        self.look()

    def _looks_idle(self) -> bool:
        with self._lock:
            return self._is_idle

    def _end_opening(self) -> None:
        with self._lock:
            self._opening = False
            self._note_vacancy()

    def break_down(self, error: BaseException) -> None:
        """End the stage with an error that is not from any call, from whatever thread: the counts may be wrong now.

        What runs is waited for when the pool is shut down.
        """
        self._interruption = self._interruption or error
        self.run_state.ledger.interrupt(error)
        self._vacant.open()

    def _note_vacancy(self) -> None:
        """End the stage if its last worker has left. With the lock held."""
        if self._is_idle:
            self._vacant.open()

    @property
    def _is_idle(self) -> bool:
        """Whether nothing is left to do, unless an answer comes. With the lock held."""
        places, run_state = self._places, self.run_state
        if places.active or self._opening or (self._pauses.count and not run_state.ledger.halted):
            return False
        return not (places.displaced or run_state.waits_for_caller) or is_stuck(run_state, places.displaced)

    def recruit(self, count: int) -> None:
        """Start up to `count` more workers, while there is something ready for them and room among `max_workers`."""
        if not (self._opening or threading.current_thread().daemon):  # then they would be none, either
            with suppress(WorkersUnavailableError):  # the workers there are go on
                self._pauses.pause(0.0, partial(self.recruit, count))
            return
        for _ in range(count):
            with self._lock:
                if self._places.is_full or self._unfilled >= len(self.run_state.ledger.ready) or self._pool is None:
                    break  # those on their way take what is ready
                pool, idle = self._pool, self._idle.pop() if self._idle else None
                self._places.active += 1
                self._unfilled += 1
            try:
                if idle is None:
                    pool.submit(self._serve)
                else:
                    idle.wake()
            except RuntimeError:
                # Out of threads, or the interpreter is shutting down: go on with the workers there are.
                with self._lock:
                    if self._unfilled:  # else one of them has it
                        self._unfilled -= 1
                        self._places.vacate()
                    self._alone = self._places.active + self._places.displaced == 0
                break
            except BaseException as error:
                self.break_down(error)
                raise

    def _serve(self) -> None:
        """Work as one thread of the pool until the stage is over."""
        try:
            here, name = threading.get_ident(), threading.current_thread().name
            with self._lock:
                idle = self._fill_place()
            while True:
                while idle is not None:
                    idle.wait()
                    with self._lock:
                        if self._pool is None:
                            return
                        idle = self._fill_place()
                self._at[here] = worker = Worker(self, self.run_state.call_context(name), alone=False)
                try:
                    idle = self._serve_as(worker)
                finally:
                    del self._at[here]  # no cycle may stay
                    self.run_state.leave(worker.call_context)
                    if worker.deadline is not None:
                        self._pauses.watcher.forget(worker.deadline)
        except BaseException as error:  # not from a task: the loop itself was hit
            self.break_down(error)

    def _serve_as(self, worker: Worker) -> IdleThread | None:
        """Work until there is nothing ready, or until another has this worker's place; then do as `_fill_place`."""
        while True:
            try:
                self._call_loop.work(worker.call_context)
            except Abandoned:
                return self._come_back(worker)
            with self._lock:
                # A worker that makes tasks ready is active and passes here, so no ready task is left without a worker.
                if not self._places.regain(worker) or not self.run_state.ledger.ready or self._places.wanted:
                    self._places.leave(worker)
                    self._note_vacancy()
                    return self._fill_place()

    def _fill_place(self) -> IdleThread | None:
        """Give the calling thread a place that is unfilled; if there is none, return where it waits. With the lock."""
        if self._unfilled and self._pool is not None:
            self._unfilled -= 1
            return None
        idle = IdleThread()
        if self._pool is None:
            idle.wake()
        else:
            self._idle.append(idle)
        return idle

    def commit(self) -> bool:
        """Commit what was recorded, unless another thread does; return whether this worker still has its place.

        In order, all is committed when this returns. At once, other calls are made in this worker's place meanwhile.
        It has it back if there is room then.
        """
        run_state = self.run_state
        if self._in_order:
            run_state.commits.flush()
            return True
        worker = self._at[threading.get_ident()]
        if run_state.commits.waits:
            with self._lock:
                self._places.lend(worker)
            try:
                self.recruit(1)
                run_state.commits.offer()
            finally:
                with self._lock:
                    self._places.regain(worker)
        if run_state.commits.behind:
            run_state.commits.flush()
        return worker.has_place

    def on_halt(self) -> None:
        """End the stage even if tasks pause. Workers check before each call whether the run is halted."""
        self._pauses.look(self._look)

    def _look(self) -> None:
        if self.run_state.admission is not None and self.run_state.ledger.halted:
            self.run_state.admission.drop_all()
        self.look()

    def look(self) -> None:
        """See whether anything is left to do in the stage."""
        with self._lock:
            self._note_vacancy()

    @property
    def lend(self) -> Callable[[Callable[[], object]], object]:
        """What makes a call that waits, from any thread, and has others make calls in the calling worker's place."""
        worker = self._at[threading.get_ident()]
        return call if worker.alone else partial(self._lend, worker)

    @breaks_down
    def _lend(self, worker: Worker, wait: Callable[[], object]) -> None:
        with self._lock:
            self._places.lend(worker)
        try:
            self.recruit(1)
            wait()
        finally:
            self._return(worker)

    def _return(self, worker: Worker) -> None:
        """Wait until a worker that has lent its place has one again, unless it was abandoned meanwhile."""
        with self._lock:
            if worker.abandoned or self._places.regain(worker):
                return
            granted = self._places.await_place(worker)
        self._calls.ask_for_place(worker.call_context.index)
        while not (granted.wait(SLICE_S) or self._interruption is not None):
            pass

    # Pauses and timeouts

    @property
    def worker(self) -> Worker:
        """The worker whose thread this is. Where calls may time out, it has a slot for its deadline."""
        worker = self._at[threading.get_ident()]
        if worker.deadline is None and not worker.alone:
            worker.deadline = self._pauses.watcher.deadline()
        return worker

    @property
    def alone(self) -> bool:
        """Whether the calling worker has nothing else to do while a task waits."""
        return self._at[threading.get_ident()].alone

    @property
    def others_wait(self) -> bool:
        """Whether a call that has lent its place waits for one."""
        return self._places.wanted

    def pause(self, seconds: float, resume: Callable[[], object]) -> None:
        """Call `resume` after so many seconds, to make a call ready again. The stage does not end before."""
        self._pauses.pause(seconds, resume)

    def hold(self, resume: Callable[[], object]) -> Callable[[], object]:
        """Count a call that is held back, so that the stage waits; return what calls `resume` to make it ready."""
        return self._pauses.hold(resume)

    def at(self, seconds: float, then: Callable[[], object]) -> None:
        """Call `then` in so many seconds, in the watcher's thread."""
        self._pauses.watcher.at(seconds, then)

    def _resume(self, resume: Callable[[], object]) -> None:
        resume()
        self.recruit(1)

    def abandon(self, worker: Worker, resume: Callable[[], object]) -> None:
        """Give the place of a worker, whose call takes too long, to another. In the watcher's thread."""
        self.run_state.leave(worker.call_context)
        with self._lock:
            if not worker.ended:
                self._left_behind.add(worker.thread)
                worker.thread.name += "-abandoned"
                forget(worker.thread)
        resume()
        with self._lock:
            self._places.give_up(worker)
            self._places.leave(worker)
        self.recruit(1)
        self._look()

    def _come_back(self, worker: Worker) -> IdleThread | None:
        """Make an abandoned thread one of the pool's again: its late call has ended, and it may get another."""
        with self._lock:
            worker.ended = True
            if worker.thread in self._left_behind:
                self._left_behind.remove(worker.thread)
                worker.thread.name = worker.thread.name.removesuffix("-abandoned")
            return self._fill_place()

    def work_on_map(self, index: int, map_function: MapFunction) -> "list[Any] | NotKept":
        """Work on a map; return its results in the last worker on it, else raise `LeaveTask`."""
        return self._maps.join(self, index, map_function, in_order=self._in_order)
