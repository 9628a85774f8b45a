"""The run state of one run, wherever its tasks run: its ledger, what is recorded and told of it, and its end.

    engine ──finished, raised──▶ RunState ──▶ ledger
                                   ├──▶ journal, if there is one: a task counts as ended once its record is committed
                                   └──▶ those who watch

An engine claims tasks from the ledger, has them run, and says here how they ended.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING

from procession._engine.admission import admission_of
from procession._engine.call_context import CURRENT_CALL, CallContext, CallsWithin
from procession._engine.commit import CommitThread, GroupCommit, NoCommits, Recorder
from procession._engine.decimals import base_context
from procession._engine.driver import Driver
from procession._engine.endings import end_unfinished, fail_unawaited, stop_begun
from procession._engine.failed_attempts import FailedAttempts
from procession._engine.labels import labels_of
from procession._engine.latch import Latch
from procession._engine.ledger import Ledger
from procession._engine.recheck import recheck_of
from procession._engine.recording import CallRecording
from procession._engine.restored import edges_left, recall_kept, restore_all
from procession._engine.run_deadline import RunDeadline, ended_early
from procession._engine.run_progress import Ended, Part, progress_of, snapshot_of
from procession._engine.run_streams import Streams
from procession._engine.suspended_elements import SuspendedElements
from procession._engine.suspension import suspend
from procession._engine.tracebacks import annotate, stripped
from procession._engine.unawaited import awaited, is_coroutine, unawaited
from procession._engine.unfinished import Unfinished
from procession._engine.unkept import Unkept, count_of
from procession._engine.whereabouts import Whereabouts
from procession._model.event import Event, EventName
from procession._model.log import Log
from procession._model.progress import Progress, Snapshot
from procession._model.record import WHOLE, Record, Recorded
from procession._model.states import OnError
from procession._model.task import PLAIN, Call, MapFunction, Options, name_of
from procession._model.text import shown
from procession._plan.plan import Plan
from procession._plan.wiring import NO_STREAMS, bound
from procession.errors import TaskCancelled, TaskSuspended

if TYPE_CHECKING:
    from procession._engine.calls_of_run import RunCalls
    from procession._model.map_share import MapShare


class RunState:
    """One run of a plan. `tell` is called with each event; `verbose` says whether it wants each start and end too."""

    __slots__ = (
        "__weakref__",
        "_cancelled",
        "_driver",
        "_halted",
        "_lock",
        "_named",
        "_watchers",
        "admission",
        "attempts",
        "attentive",
        "began",
        "by_key",
        "call_contexts",
        "calls",
        "children",
        "commits",
        "context",
        "deadline",
        "decimals",
        "edges",
        "epoch",
        "failed_attempts",
        "is_broken",
        "labels",
        "ledger",
        "logs",
        "loop_thread",
        "map_shares",
        "maps",
        "max_workers",
        "nested",
        "nested_runs",
        "note_drawn",
        "on_ctrl_c",
        "open_elements",
        "plan",
        "process_name",
        "recheck",
        "recorded",
        "recorder",
        "recording",
        "refusals",
        "run_id",
        "streams",
        "suspended",
        "suspended_elements",
        "tell",
        "unkept",
        "verbose",
        "waking",
        "whereabouts",
        "workers",
    )

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
        recorder: Recorder | None = None,
        deadline: RunDeadline | None = None,
        note_drawn: Callable[[int, tuple[object, ...]], object] | None = None,
        on_ctrl_c: "Callable[[RunState], None] | None" = None,
    ) -> None:
        self.plan, self.deadline = plan, deadline
        self.process_name, self.run_id = process_name, run_id
        self.max_workers = max_workers
        self.tell, self.verbose, self.on_ctrl_c, self.by_key = tell, verbose, on_ctrl_c, False
        self.recorder, self.note_drawn = recorder, note_drawn
        """What is told of each element of a map, with its index, before it is called; `None` in a run without a
        journal."""
        resumed = recorder is not None and recorder.executions > 1
        self.recorded: dict[int, Recorded] = dict(recorder.recorded) if recorder is not None and resumed else {}
        self.recheck = recheck_of(plan, self.recorded) if recorder is not None and recorder.allow_changes else None
        count = len(plan.calls)
        self.edges = edges = edges_left(plan.edges, self.recorded)
        recall = None if self.recheck is None else partial(recall_kept, self)
        self.ledger = Ledger(
            count, edges, on_error, done=self.recorded, first=set[int]().union(*plan.unkept.values()), recall=recall
        )
        self.labels = labels_of(plan, self.ledger)
        self.attempts: dict[int | tuple[int, int], int] = {}
        self.failed_attempts = FailedAttempts(elements=recorder is not None)
        self.suspended, self.suspended_elements = dict[int, str](), dict[int, SuspendedElements]()
        """What tasks wait for that were left for that, in words; and for each map, the elements that were."""
        # Both by task and element: see `RunOfCalls`.
        self.open_elements, self.refusals = dict[tuple[int, int], bytes](), dict[tuple[int, int], BaseException]()
        self.workers: list[str | None] = [None] * count
        self.call_contexts: set[CallContext] = set()
        self.whereabouts = Whereabouts()
        self.calls: RunCalls | None = None
        """What the calls share that tasks make themselves; made when the first one is."""
        self.maps: dict[int, Part] = {}
        self.map_shares: list[MapShare] = []
        self.nested, self.nested_runs = dict[int, Callable[[], Progress]](), dict[str, RunState]()
        """What says how far the runs have come that tasks of this run are; and by id, those that go on and are recorded
        with this one."""
        self.children: dict[object, Callable[[], object]] = {}
        self.context, self.decimals = base_context()
        self.epoch = time.time()
        self.began = time.perf_counter()
        self.loop_thread: int | None = None
        self.recording = None if recorder is None else CallRecording(recorder, self)
        self.commits: GroupCommit[Record] | NoCommits = (
            NoCommits() if self.recording is None else self.recording.commits
        )
        self.logs = None if self.recording is None else self.recording.logs
        self.is_broken = False  # whether an engine was hit outside of any call: see break_down
        self._driver: Driver | None = None
        limits = {options.limit for options in plan.options.values()}
        self.admission = admission_of(
            (limit for some in limits for limit in some),
            self._later,
            self.break_down_driver,
            resumed=resumed,
        )
        """What says which calls may begin; `None` where no task has a limit."""
        self.streams = Streams(plan, max_workers, self.break_down_driver) if plan.outlets else None
        self.unkept = Unkept(plan, self.ledger) if plan.unkept else None
        self._named: tuple[object, str] = None, ""
        self._watchers: list[Callable[[int | None], None]] = []
        # Not empty when there is more to do after a task than to note its end. One list, so that a task pays for one
        # test of its truth where no task depends on another and nobody watches.
        self.attentive: list[object] = [attended for attended in (edges, self.unkept) if attended]
        self._halted = Latch()
        self._cancelled = Latch()
        self._lock, self.waking = threading.Lock(), threading.Lock()  # the second: while it is looked what is answered
        restore_all(self)

    # For engines: how calls end

    def call_context(self, worker: str) -> CallContext:
        """Return the call context of a worker that joins."""
        call_context = CallContext(self, worker)
        self.call_contexts.add(call_context)
        self.whereabouts.threads[worker] = threading.get_ident()
        return call_context

    def leave(self, call_context: CallContext) -> None:
        """Remove the call context of a worker that has left."""
        self.call_contexts.discard(call_context)

    def attach(self, driver: Driver) -> None:
        """Set the driver of the stage that begins, in place of the one before."""
        self._driver = driver

    def detach(self) -> None:
        """Remove the driver: the stage, or the run, is over."""
        self._driver = None

    def recruit(self, count: int) -> None:
        """Ask the driver for workers for so many tasks that became ready."""
        if self._driver is not None:
            self._driver.recruit(count)

    def ended(self, index: int) -> None:
        """Settle a task that has succeeded, and recruit workers for the tasks that it made ready, but for one."""
        freed = self.ledger.settle(index)
        if freed > 1:
            self.recruit(freed - 1)
        if self.streams is not None:
            self.streams.end_taking(index)
        if self.unkept is not None:
            self.unkept.ended(index)
        if self._watchers:
            self.notify(index)

    def finished(self, index: int, value: object, end: float, encoded: bytes | None = None) -> None:
        """Record that a task returned; it has ended, for the ledger and everyone else, when that is committed.

        `encoded` is the value as it is to be recorded, if that is known. Raises for a value that cannot be recorded.
        """
        recording = self.recording
        if recording is None:
            self.ledger.values[index] = value
            self.ledger.ends[index] = end
            if self.attentive:
                self.ended(index)
            return
        if self.recheck is not None and self.recheck.holds(index, recording.recorder):
            self.recorded[index] = self.recheck.kept[index]
            self._committed(index, value, end)
            return
        if self.streams is not None:
            self.streams.end_taking(index)
        # The elements of a map are recorded by themselves, and the map has their number.
        is_map = isinstance(self.plan.calls[index][0], MapFunction)
        recording.record(
            index,
            WHOLE,
            self.attempts.get(index, 1),
            self.ledger.starts[index],
            end,
            value=count_of(value) if is_map else awaited(value),
            encoded=None if is_map else encoded,
            then=partial(self._committed, index, value, end),
        )

    def look(self) -> None:
        """See whether anything is left to do, as somebody waits for elements."""
        if self._driver is not None and self.suspended_elements:
            self._driver.look()

    def commit(self) -> bool:
        """Commit what was recorded so far, as suits the engine; return whether the calling worker may go on."""
        if self.recording is None:
            return True
        if self._driver is not None:
            return self._driver.commit()
        self.commits.offer()
        return True

    @property
    def waits_for_caller(self) -> bool:
        """Whether a map waits for the caller of the run to take elements."""
        return self.streams is not None and not self.ledger.halted and self.streams.wait_for_caller

    def commit_thread(self) -> CommitThread | None:
        """Return a thread for an engine that must not wait for commits; `None` if there are none."""
        if self.recording is None:
            return None
        name = f"procession-{shown(self.process_name, 40)}-commits"
        return CommitThread(name, self.recording.commits, self.break_down)

    def logged(self, call: tuple[int, int], log: Log) -> None:
        """Keep the log of a call that was made elsewhere."""
        if self.logs is not None:
            self.logs.extend(call, log)

    def element_raised(self, index: int, places: Sequence[int]) -> None:
        """Let go of what is kept while elements of a map are called: they have failed together, or are left."""
        for place in places:
            self.open_elements.pop((index, place), None)
            self.refusals.pop((index, place), None)

    def raised(self, index: int, error: BaseException, *, in_order: bool, end: float | None = None) -> None:
        """Record that a task raised; it ended now, unless `end` says when."""
        error = ended_early(self, error)
        self.refusals.pop((index, WHOLE), None)
        BaseException.with_traceback(error, stripped(error.__traceback__))
        now = time.perf_counter() if end is None else end
        start = self.ledger.starts[index]
        if isinstance(error, TaskSuspended) and self.recorder is not None:
            if self.streams is not None:
                self.streams.end_taking(index)  # first, as it may be woken at once
            suspend(self, index, error, in_order=in_order)
            self._note_halt()
            return
        if isinstance(error, Unfinished):
            end_unfinished(self, index, error, now)
        elif isinstance(error, TaskCancelled) and self.ledger.halted:
            self.ledger.stop(index)
            self.ledger.ends[index] = now
            if self.verbose:
                self.report(
                    "task_cancelled", index, self.attempts.get(index, 1), None if start is None else now - start
                )
        else:
            attempt = self.attempts.get(index, 1)
            annotate(error, self.process_name, index, self.name(index), attempt)
            self.ledger.fail(index, error, in_order=in_order)
            self.ledger.ends[index] = now
            self._note_halt()
            self.report("task_failed", index, attempt, None if start is None else now - start, error)
            if self.recording is not None:
                self.recording.record(index, WHOLE, attempt, start, now, error=error)
        if self.streams is not None:
            self.streams.fail(index)
        if self.unkept is not None:
            self.unkept.ended(index)
        self.notify(index)

    def fail_early(self, index: int, error: BaseException, *, in_order: bool) -> None:
        """Record a failure inside a task that is still being worked on by others."""
        self.ledger.fail(index, error, in_order=in_order)
        self._note_halt()

    def interrupt(self, error: BaseException) -> None:
        """Record what stopped the run from outside of any task."""
        self.by_key = self.by_key or isinstance(error, KeyboardInterrupt)
        self.ledger.interrupt(error)
        self._note_halt()
        for cancel_child in list(self.children.values()):
            cancel_child()
        if isinstance(error, KeyboardInterrupt):
            self.say_stopping()

    def break_down(self, error: BaseException) -> None:
        """Record what hit the engine outside of any call: it may not know any more how each call ended."""
        self.is_broken = True
        self.interrupt(error)

    def break_down_driver(self, error: BaseException) -> None:
        """End the stage that goes on with an error that is not from any call; from whatever thread."""
        (self if self._driver is None else self._driver).break_down(error)

    def close(self) -> None:
        """Settle the run, once, when the engine has ended: a task that has not started by now never will."""
        try:
            if self.admission is not None:
                self.admission.close(broken=self.is_broken)
            if self.calls is not None:
                self.calls.close()
            if self.streams is not None:
                self.streams.close()
            self.commits.close()
            if self.ledger.failure is not None:
                stop_begun(self)
            fail_unawaited(self)
        finally:
            self.ledger.finish()
            self.maps = {index: Ended(part.progress) for index, part in self.maps.items()}
            for elements in self.suspended_elements.values():
                elements.close()
            self.suspended_elements.clear()
            self._driver = None  # no cycle may stay: it would keep what failed until the collector comes

    # For the run's caller

    def cancel(self, *, by_key: bool = False) -> bool:
        """Cancel the run, and the runs that its tasks have started; return whether that changes anything.

        `by_key` says that Ctrl-C came, and that a second one is raised where the run is waited for.
        """
        self.by_key = self.by_key or by_key
        changed = self.ledger.cancel()
        self._cancelled.open()
        self._note_halted()
        for cancel_child in list(self.children.values()):
            cancel_child()
        return changed

    def say_stopping(self) -> None:
        """Say what the run still waits for, once: Ctrl-C came."""
        on_ctrl_c, self.on_ctrl_c = self.on_ctrl_c, None
        if on_ctrl_c is not None:
            on_ctrl_c(self)

    def progress(self) -> Progress:
        """Return how far the run has come."""
        return progress_of(self.ledger, self.maps)

    def snapshot(self) -> Snapshot:
        """Return how far the run has come, and what runs now."""
        return snapshot_of(self)

    def watch(self, watcher: Callable[[int | None], None]) -> None:
        """Call `watcher` with the index of each task that ends from now on, in the thread that settles it."""
        with self._lock:
            self._watchers.append(watcher)
            self.attentive.append(watcher)

    def unwatch(self, watcher: Callable[[int | None], None]) -> None:
        """End what `watch` began."""
        with self._lock:
            self._watchers.remove(watcher)
            self.attentive.remove(watcher)

    def notify(self, index: int | None) -> None:
        """Call all watchers with the index of a task that has ended, or with `None` if the run has ended."""
        for watcher in list(self._watchers):
            watcher(index)

    # For the recording

    def worker_at(self, index: int) -> str:
        """Return the worker that is making a call of a task in this thread; a map has several."""
        call_context = CURRENT_CALL.get(None)
        if call_context is not None and call_context.run is self and call_context.index == index:
            return call_context.worker
        return self.workers[index] or ""

    def lose(self, index: int, error: BaseException) -> None:
        """Fail a task that has succeeded, but whose record could not be committed."""
        self.ledger.fail(index, error)
        self.ledger.ends[index] = time.perf_counter()
        self.notify(index)

    # For running tasks

    @property
    def around(self) -> CallContext | None:
        """The call context of the task that executes this run, if a task does."""
        return self.context.get(CURRENT_CALL)

    @property
    def is_recorded(self) -> bool:
        """Whether the run has a journal."""
        return self.recorder is not None

    @property
    def cancelled(self) -> bool:
        """Whether the run was cancelled."""
        return self.ledger.cancelled

    def name(self, index: int) -> str:
        """Return a task's name."""
        function = self.plan.calls[index][0]
        # Tasks that follow each other are often of one function, and a recorded run asks for each.
        last, name = self._named
        if last is not function:
            name = name_of(function)
            self._named = function, name
        return name

    def label(self, index: int, element: int = WHOLE) -> str | None:
        """Return the label of a call: its name with its arguments filled in; `None` if the name is no template."""
        if self.labels is None:
            return None
        return self.labels.of_task(index) if element == WHOLE else self.labels.of_element(index, element)

    def moment(self, reading: float) -> float:
        """Return the seconds since the epoch that a reading of the clock stands for."""
        return self.epoch + reading - self.began

    def wait_cancelled(self, seconds: float) -> bool:
        """Wait until the run is cancelled, at most this long; return whether it is."""
        return self._cancelled.wait(seconds)

    def wait_halted(self, seconds: float) -> bool:
        """Wait until nothing new may start, at most this long; return whether that is so."""
        return self._halted.wait(seconds)

    def gets_lists(self, index: int) -> bool:
        """Return whether the calls of a task get several elements each."""
        function = self.plan.calls[index][0]
        return isinstance(function, MapFunction) and function.batch is not None

    def calls_of(self, call_context: CallContext) -> CallsWithin:
        """Return the object through which an attempt makes recorded calls."""
        calls = call_context.calls
        attempt = call_context.index, call_context.element, call_context.attempt
        if calls is None or calls.attempt != attempt:
            from procession._engine.recorded_calls import RecordedCalls  # few runs need it

            calls = call_context.calls = RecordedCalls(self.run_calls(), call_context)
        return calls

    def run_calls(self) -> "RunCalls":
        """Return the state that all recorded calls of this run share."""
        with self._lock:
            if self.calls is None:
                from procession._engine.calls_of_run import RunCalls

                options = self.plan.options
                self.calls = RunCalls(self, self.recorder, options, self._later, self.break_down_driver)
            return self.calls

    # For engines: calls

    def call(self, index: int, streams: Mapping[int, Iterator[object]] = NO_STREAMS) -> tuple[Call, Options]:
        """Return a task's call with values in place of handles, and its options.

        `streams` is as for `bound`. Rules for retries, and costs, are asked before there are any.
        """
        function, args, kwargs = self.plan.calls[index]
        if index in self.plan.needs:
            values = self.ledger.values
            for source in self.plan.needs[index]:
                if is_coroutine(type(values[source])):
                    name = shown(self.name(source))
                    raise unawaited(values[source], f"task {source} ({name}), whose value it takes,")
            if not streams and index in self.plan.streams:
                streams = {source: repeat(()) for source in self.plan.streams[index]}
            args, kwargs = bound(args, kwargs, values, streams, awaited=index in self.plan.coroutines)
        return (function, args, kwargs), self.plan.options.get(index, PLAIN)

    # Events

    def report(
        self,
        name: EventName,
        index: int,
        attempt: int,
        duration: float | None,
        error: BaseException | None = None,
        element: int | None = None,
        call: tuple[int, str] | None = None,
    ) -> None:
        """Tell of something that happened to a task, or to a `call` that it makes itself, by its place and name."""
        self.tell(
            Event(
                name,
                self.process_name,
                self.run_id,
                at=self.moment(time.perf_counter()),
                task_name=self.name(index),
                index=index,
                element=element,
                attempt=attempt,
                worker=self.workers[index],
                duration=duration,
                error=error,
                call=None if call is None else call[0],
                call_name=None if call is None else call[1],
            )
        )

    def retrying(
        self,
        index: int,
        attempt: int,
        error: BaseException | None,
        start: float,
        element: int,
        end: float | None = None,
    ) -> None:
        """Tell that an attempt failed and another follows. `start` and `end` are as for `FailedAttempts.add`."""
        self.failed_attempts.add(index, element, start, error, end)
        self.report("task_retrying", index, attempt, None, error, None if element == WHOLE else element)

    # Inside

    def _later(self, seconds: float, then: Callable[[], object]) -> None:
        if self._driver is not None:
            self._driver.at(seconds, then)

    def _committed(self, index: int, value: object, end: float) -> None:
        self.ledger.values[index] = value
        self.ledger.ends[index] = end
        # The committing thread may be busy with the next group for a while: all that became ready is for others.
        freed = self.ledger.settle(index)
        if freed:
            self.recruit(freed)
        if self.unkept is not None:
            self.unkept.ended(index)
        self.notify(index)

    def _note_halt(self) -> None:
        """Wake all threads that wait for the run to be cancelled or halted, if it is."""
        if self.ledger.cancelled:
            self._cancelled.open()
        if self.ledger.halted:
            self._note_halted()

    def _note_halted(self) -> None:
        self._halted.open()
        if self.streams is not None:
            self.streams.halt()
        if self._driver is not None:
            self._driver.on_halt()
