"""How a run is carried out: it begins, an engine drives it, and it is finished. Plan, engine and observers meet here.

    begin ──▶ drive: the engine claims tasks and calls them ──▶ finish ──▶ let go
    │                                                           │          └─ the process and all waiters are told
    └─ observers, heartbeat of the journal                      └─ run settled, end recorded and told, results

The sync and the async way differ only in who drives, and in the thread that finishes.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from procession._engine.awaited_thread import leave_behind, start_awaited
from procession._engine.call_context import CURRENT_CALL
from procession._engine.latch import Latch
from procession._engine.parts import whole_progress
from procession._engine.run_deadline import RunDeadline, bounded
from procession._engine.run_error import absent, error_of
from procession._engine.run_state import RunState
from procession._engine.tracebacks import let_go
from procession._engine.watcher import Watcher
from procession._executor import ends_workers, engine_of, placed
from procession._model.event import Event, EventName
from procession._model.observer import Observer
from procession._model.outcome import NotKept
from procession._model.progress import Progress
from procession._model.record import WHOLE
from procession._model.states import OnError, RunStatus
from procession._model.task import MapFunction, callee_of
from procession._model.text import shown
from procession._plan.pipelines import elements_come_here, pipelined, refuse_retries
from procession._plan.plan import Plan
from procession._recording import recording_of
from procession.errors import WorkersUnavailableError
from procession.observe.audience import audience_of
from procession.observe.log import log_trouble, texts_wanted
from procession.observe.stopping import say_stopping

if TYPE_CHECKING:
    from procession._model.where import ExecutorLike
    from procession._remote.task_executors import TaskExecutors
    from procession.journal import Journal


_ENDS: Final[dict[RunStatus, EventName]] = {
    "completed": "run_completed",
    "cancelled": "run_cancelled",
    "suspended": "run_suspended",
}


class Execution:
    """Carries out one run of a plan. `on_end` is called with whether the run completed, before waiters wake up."""

    __slots__ = (
        "_audience",
        "_cpu",
        "_cpu_with_children",
        "_driver",
        "_executors",
        "_on_end",
        "_parent",
        "_place",
        "_recording",
        "_watcher",
        "ended",
        "engine",
        "notice",
        "over",
        "plan",
        "results",
        "run_state",
    )

    def __init__(
        self,
        plan: Plan,
        *,
        process_name: str,
        max_workers: int,
        on_error: OnError,
        observers: Sequence[Observer],
        progress: bool,
        executor: "ExecutorLike",
        run_id: str | None,
        journal: "Journal | str | os.PathLike[str] | None",
        allow_changes: bool,
        timeout: float | None,
        nested: bool,
        on_end: Callable[[bool], object],
        followed: AbstractSet[int] = frozenset(),
    ) -> None:
        call_context = CURRENT_CALL.get(None)
        self._parent = None if call_context is None else call_context.run
        self._place = call_context.index if nested and call_context is not None else None
        self._on_end: Callable[[bool], object] | None = on_end
        self._audience = audience_of(observers, progress=progress)
        self.plan = plan
        self._executors: TaskExecutors | None = None
        deadline = None if timeout is None else RunDeadline(timeout)
        self._watcher: Watcher | None = None
        self._driver: threading.Thread | None = None
        self.over = Latch()
        self.notice: Callable[[], object] | None = None
        """What is called once when all is over; whatever it raises is logged."""
        self.results: list[Any] | None = None
        self.ended: float | None = None
        """When the run was finished, as a reading of the clock."""
        self._recording = recording_of(
            plan, process_name, run_id, journal, task=call_context if nested else None, allow_changes=allow_changes
        )
        try:  # at once, as what was begun of the recording has to be ended
            self._cpu = time.process_time()
            self._cpu_with_children = sum(os.times()[:4])
            recorder, elsewhere = self._recording.recorder, executor
            # Not where changes are allowed: what follows from a map may hold when that has ended.
            if recorder is None or not recorder.allow_changes:
                plan = pipelined(plan, followed)
                if recorder is None:
                    refuse_retries(plan)
                if elements_come_here(plan):
                    executor = "threads"
            if deadline is not None and not ends_workers(executor):
                plan = bounded(plan, deadline)
            if executor == "threads":
                plan, self._executors = placed(plan, elsewhere)
            self.plan = plan
            self.run_state = RunState(
                plan,
                process_name=process_name,
                run_id=self._recording.run_id,
                max_workers=max_workers,
                on_error=on_error,
                tell=self._audience.tell,
                verbose=self._audience.verbose,
                recorder=recorder,
                deadline=deadline,
                note_drawn=None if self._recording.watch is None else self._recording.watch.note_drawn,
                # Progress says it, too; and where the command line shows none, it writes nothing but JSON lines.
                on_ctrl_c=None if progress or self._parent is not None or texts_wanted() else say_stopping,
            )
            self._begin_limits()
            if self._executors is not None:
                self._executors.begin(self.run_state)
            self.engine = engine_of(executor, self.run_state)
        except BaseException as error:
            # What was recorded cannot be read back, or Ctrl-C came meanwhile.
            self._recording.abandon(error)
            raise

    # Carrying it out

    def drive(self) -> None:
        """Run all tasks, in this thread as far as their strategy says so. Raises nothing of a task."""
        completed = False
        try:
            try:  # here, as a call may fail before it begins: at the limit of recursion, or with no memory left
                self._begin()
                self.engine.drive()
            except BaseException as error:
                self.run_state.interrupt(error)
                raise
            finally:
                self._finish()
            completed = self.status == "completed"
        except BaseException as error:
            self.run_state.interrupt(error)
            raise
        finally:
            try:
                self._let_go(completed=completed)
            except BaseException:
                self._let_go(completed=False)  # or who waits would do so without end
                raise
            del self  # what a task raised keeps this frame, and the run keeps what was raised

    async def drive_async(self) -> None:
        """Run all tasks, coroutines in the running loop. Raises nothing of a task."""
        completed = False
        try:
            try:  # as in `drive`
                from procession._loop.coroutines import drive_async  # asyncio: see `engine_of`

                self._begin()
                await drive_async(self.engine)
            except GeneratorExit:
                self._finish()  # nothing can be awaited any more
                raise
            except BaseException as error:
                if not self.run_state.cancelled:
                    self.run_state.interrupt(error)
                await self._finish_async()
                raise
            await self._finish_async()
            completed = self.status == "completed"
        except BaseException as error:
            if not self.run_state.cancelled:
                self.run_state.interrupt(error)
            raise
        finally:
            try:
                self._let_go(completed=completed)
            except BaseException:
                self._let_go(completed=False)  # or who waits would do so without end
                raise
            del self  # as in `drive`

    def start(self) -> None:
        """Run all tasks in a thread of their own. Raises what keeps that from being started."""
        try:
            name = f"procession-{shown(self.run_state.process_name, 40)}"
            self._driver = threading.Thread(target=self.drive, name=name)
            start_awaited(self._driver)
        except BaseException as error:
            self.give_up(error)
            raise

    def give_up(self, error: BaseException) -> None:
        """End a run that was not begun, as an error has kept it from that."""
        self.run_state.interrupt(error)
        try:
            self._close_books()
        finally:
            self._let_go(completed=False)

    def stop_by_key(self) -> None:
        """Cancel a run that was started, as Ctrl-C came where it is waited for, and wait; a second one leaves it."""
        self.run_state.cancel(by_key=True)
        self.run_state.say_stopping()
        try:
            self.over.wait()
        except BaseException:
            if self._driver is not None:
                leave_behind(self._driver)
            engine = getattr(self, "engine", None)  # gone if the run has ended just now
            if engine is not None:
                engine.leave_behind()
            raise

    def take(self) -> list[Any]:
        """Hand the results over to the caller, without keeping them, or raise what ended the run."""
        try:
            self.check()
        except BaseException:
            del self  # the exception keeps this frame, and the run keeps the exception
            raise
        results = self.results
        assert results is not None
        self.results = None
        ledger = self.run_state.ledger
        values = ledger.release(self.plan.handled)
        return results if ledger.errors else values

    # How it stands

    @property
    def status(self) -> RunStatus:
        """How the run stands."""
        ledger = self.run_state.ledger
        if not ledger.over:
            return "running"
        if ledger.cancelled and (ledger.failure is None or isinstance(ledger.failure, KeyboardInterrupt)):
            return "cancelled"
        if ledger.failure is not None or (ledger.errors and ledger.on_error != "return"):
            return "failed"
        if ledger.is_suspended:
            return "suspended"
        return "completed"

    @property
    def duration(self) -> float:
        """How long the run took, in seconds; until it ends, how long it has been running."""
        return (self.ended or time.perf_counter()) - self.run_state.began

    @property
    def cpu(self) -> float | None:
        """How many seconds of processor time this process used meanwhile, once the run has ended."""
        return None if self.ended is None else self._cpu

    @property
    def cores_used(self) -> float | None:
        """How many processors this process and its children kept busy on average, once the run has ended."""
        return None if self.ended is None else self._cpu_with_children / self.duration

    def check(self) -> None:
        """Raise what ended the run, if anything did."""
        error = error_of(self.run_state, self.status, nested=self._recording.is_nested)
        try:
            if error is not None:
                raise error
        finally:
            # The frame is part of the traceback, and the run holds the error: no cycle may stay.
            del self, error

    def absent(self, index: int) -> Exception:
        """Return the exception for a task that has no value, as it did not end."""
        return absent(self.run_state, self.status, index)

    # Begin, drive, finish

    def _begin(self) -> None:
        run_state, parent = self.run_state, self._parent
        if parent is not None:
            # A nested run is cancelled with the run around it.
            parent.children[run_state.run_id] = run_state.cancel
            if parent.cancelled:
                run_state.cancel()
            if self._place is not None and isinstance(parent, RunState):
                parent.nested[self._place] = partial(whole_progress, run_state)
            if self._recording.is_nested and isinstance(parent, RunState):
                parent.nested_runs[run_state.run_id] = run_state
        # What observers set in the context, the tasks see, and the caller does not.
        if self._audience.hears("run_started"):
            run_state.context.run(self._audience.begin, run_state, self._event("run_started", self._progress()))
        if run_state.deadline is not None:
            name = f"procession-{shown(run_state.process_name, 40)}-deadline"
            self._watcher = Watcher(name, run_state.break_down_driver)
            self._watcher.at(run_state.deadline.left, partial(run_state.deadline.come, run_state))
        self._recording.follow(run_state)

    def _finish(self) -> None:
        """Settle and record the run, then tell the observers how it ended."""
        try:
            self._close_books()
        except BaseException as error:
            self.run_state.interrupt(error)
            raise
        finally:
            name = _ENDS.get(self.status, "run_failed")
            if self._audience.hears(name):
                progress = None
                try:
                    progress = self._progress()
                finally:
                    self.run_state.context.run(self._audience.end, self._event(name, progress))

    async def _finish_async(self) -> None:
        """Do the same without holding up the loop: databases and observers may take their time."""
        admission = self.run_state.admission
        shares = admission is not None and bool(admission.keepers)
        waits = self._audience.waits or self._executors is not None
        if self._recording.recorder is None and not waits and not shares:
            self._finish()
        else:
            from procession._loop.side_threads import in_thread

            try:
                await in_thread(self._finish)
            except WorkersUnavailableError:
                self._finish()

    def _close_books(self) -> None:
        """Settle how the run ended, and record it."""
        run_state = self.run_state
        if self._watcher is not None:
            self._watcher.close()
        if self._parent is not None:
            self._parent.children.pop(run_state.run_id, None)
            if isinstance(self._parent, RunState):
                self._parent.nested_runs.pop(run_state.run_id, None)
            if self._place is not None and isinstance(self._parent, RunState):
                progress = whole_progress(run_state)
                self._parent.nested[self._place] = lambda: progress
            self._parent = None  # or a nested process would keep alive whatever was around it
        try:
            if self._executors is not None:
                self._executors.close()
            run_state.close()
        except BaseException as error:
            run_state.interrupt(error)
            raise
        finally:
            try:
                self._recording.close(run_state, self.status)
            finally:
                self._keep_results()
                self._cpu = time.process_time() - self._cpu
                # Child processes count once they have ended.
                self._cpu_with_children = sum(os.times()[:4]) - self._cpu_with_children
                self.ended = time.perf_counter()

    def _let_go(self, *, completed: bool) -> None:
        """Say to the process, and to those who wait, that the run is over; empty what only failures would keep."""
        if self._on_end is not None:
            self._on_end(completed)
            self._on_end = None
        with suppress(AttributeError):  # let go before
            del self.engine  # whose threads, locks and lists nobody needs any more
        for error in self.run_state.ledger.errors.values():
            let_go(error)
        self.over.open()
        self.run_state.notify(None)
        notice, self.notice = self.notice, None
        if notice is not None:
            try:
                notice()
            except Exception as error:
                log_trouble("on_end_failed", self._event("run_completed", None), "on_end", error=error)

    # Inside

    def _begin_limits(self) -> None:
        """Tell observers of calls that limits hold back, and keep shared limits by their databases."""
        admission = self.run_state.admission
        if admission is None:
            return
        if self._audience.hears("task_held_back"):
            admission.tell_held = self._tell_held
        if any(limit.shared is not None for limit in admission.limits):
            from procession._engine.keeper import keep  # only those who share need it, and what it imports
            from procession.journal.limits import LimitCount  # needs the extra `journal`

            try:
                keep(admission, LimitCount)
            except BaseException:
                admission.close()
                raise

    def _tell_held(self, place: tuple[int, int], limit: str, seconds: float) -> None:
        run_state, (index, element) = self.run_state, place
        run_state.tell(
            Event(
                "task_held_back",
                run_state.process_name,
                run_state.run_id,
                at=run_state.moment(time.perf_counter()),
                task_name=run_state.name(index),
                index=index,
                element=None if element == WHOLE else element,
                duration=seconds,
                limit=limit,
            )
        )

    def _progress(self) -> Progress | None:
        return self.run_state.progress() if self._audience.observed else None

    def _event(self, name: EventName, progress: Progress | None) -> Event:
        run_state, ended = self.run_state, self.ended
        return Event(
            name,
            run_state.process_name,
            run_state.run_id,
            at=run_state.moment(run_state.began if ended is None else ended),
            duration=None if ended is None else ended - run_state.began,
            error=run_state.ledger.failure,
            progress=progress,
        )

    def _keep_results(self) -> None:
        ledger = self.run_state.ledger
        if self.status != "completed":
            return
        if self.run_state.unkept is not None:
            self.run_state.unkept.end()
        assert isinstance(ledger.values, list)
        self.results = ledger.values
        if ledger.on_error == "return" and ledger.errors:
            self.results = [self._in_place(index, value) for index, value in enumerate(ledger.values)]

    def _in_place(self, index: int, value: object) -> object:
        """Return the result of a task with `on_error="return"`: its value, or the exception in its place."""
        ledger = self.run_state.ledger
        if index in ledger.errors:
            # The list of a map has the exceptions of its elements; a map that is not kept has no list.
            is_map = isinstance(self.plan.calls[index][0], MapFunction)
            return value if is_map and not isinstance(value, NotKept | None) else ledger.errors[index]
        return self.absent(index) if ledger.ends[index] is None else value


def is_being_called(process: object) -> bool:
    """Return whether the call that is being made here is this process, as a task of another one."""
    call_context = CURRENT_CALL.get(None)
    if call_context is None or call_context.index < 0:
        return False
    if call_context.callee is not None:  # the call is one that a task makes itself
        return callee_of(call_context.callee) is process
    run_state = call_context.run
    return isinstance(run_state, RunState) and callee_of(run_state.plan.calls[call_context.index][0]) is process
