"""The run state of one run, wherever its tasks run: its ledger, what is recorded and told of it, who asks it to stop.

    engine ──finished, raised──▶ RunState ──▶ ledger
                                   ├──▶ journal, if there is one: a task counts as ended once its record is committed
                                   └──▶ those who watch

An engine claims tasks from the ledger, has them run, and says here how they ended.
"""

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple, Protocol, cast

from procession._engine.call_context import CURRENT_CALL, CallContext
from procession._engine.commit import Recorder
from procession._engine.decimals import base_context
from procession._engine.latch import Latch
from procession._engine.ledger import Ledger
from procession._engine.recording import CallRecording
from procession._engine.tracebacks import annotate, stripped
from procession._engine.unawaited import awaited, is_coroutine, unawaited, unawaited_in
from procession._model.event import Event, EventName
from procession._model.log import Log
from procession._model.map_share import MapShare
from procession._model.progress import Progress
from procession._model.record import WHOLE, Recorded
from procession._model.states import OnError
from procession._model.task import PLAIN, Call, MapFunction, Options, name_of
from procession._model.text import shown
from procession._plan.plan import Plan
from procession._plan.wiring import bound
from procession.errors import TaskCancelled


class Part(Protocol):
    """A task that counts as several in the progress of a run."""

    @property
    def progress(self) -> Progress:
        """How far it has come."""
        ...


class Driver(Protocol):
    """What a run state tells the engine that drives a stage, from whatever thread."""

    def recruit(self, count: int) -> None:
        """See to it that up to `count` more workers come: so many tasks became ready."""
        ...

    def commit(self) -> bool:
        """Have what was recorded committed, as suits the engine; return whether the calling worker may go on."""
        ...

    def on_halt(self) -> None:
        """Take note that nothing new may start in this run."""
        ...


class _Ended(NamedTuple):
    progress: Progress


class RunState:
    """One run of a plan. `tell` is called with each event; `verbose` says whether it wants each start and end too."""

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
    ) -> None:
        self.plan = plan
        self.process_name = process_name
        self.run_id = run_id
        self.max_workers = max_workers
        self.tell = tell
        self.verbose = verbose
        self.recorder = recorder
        self.recorded: Mapping[int, Recorded] = {} if recorder is None else recorder.recorded
        count = len(plan.calls)
        edges = plan.edges
        if self.recorded and edges:
            left = {
                index: tuple(need for need in needed if need not in self.recorded)
                for index, needed in edges.items()
                if index not in self.recorded
            }
            edges = {index: needed for index, needed in left.items() if needed}
        self.edges = edges
        self.ledger = Ledger(count, edges, on_error, done=self.recorded)
        self.attempts: dict[int | tuple[int, int], int] = {}
        self.workers: list[str | None] = [None] * count
        self.call_contexts: set[CallContext] = set()
        self.maps: dict[int, Part] = {}
        self.map_shares: list[MapShare] = []
        self.children: dict[object, Callable[[], object]] = {}
        self.context, self.decimals = base_context()
        self.epoch = time.time()
        self.began = time.perf_counter()
        self.loop_thread: int | None = None
        self.recording = None if recorder is None else CallRecording(recorder, self)
        self.logs = None if self.recording is None else self.recording.logs
        self._driver: Driver | None = None
        self._named: tuple[object, str] = None, ""
        self._watchers: list[Callable[[int | None], None]] = []
        # Not empty when there is more to do after a task than to note its end. One list, so that one test of
        # its truth is all that a task pays where nothing depends on anything and nobody watches.
        self.attentive: list[object] = [edges] if edges else []
        self._halted = Latch()
        self._cancelled = Latch()
        self._lock = threading.Lock()
        for index, recorded in self.recorded.items():
            self.ledger.values[index] = self._recall(index, recorded)
            self.ledger.ends[index] = self.began
            self.attempts[index] = recorded.attempts
            self.workers[index] = recorded.worker

    # What engines say

    def call_context(self, worker: str) -> CallContext:
        """Return the call context of a worker that joins."""
        call_context = CallContext(self, worker)
        self.call_contexts.add(call_context)
        return call_context

    def leave(self, call_context: CallContext) -> None:
        """Take note that a worker has left."""
        self.call_contexts.discard(call_context)

    def attach(self, driver: "Driver") -> None:
        """Have the driver of the stage that begins told what it has to see to, in place of the one before."""
        self._driver = driver

    def detach(self) -> None:
        """Tell nobody any more: the stage, or the run, is over."""
        self._driver = None

    def recruit(self, count: int) -> None:
        """Say that so many tasks became ready for which no worker has come yet."""
        if self._driver is not None:
            self._driver.recruit(count)

    def ended(self, index: int) -> None:
        """Go on from a task that has ended well, in the worker that goes on with one of those it made ready."""
        freed = self.ledger.settle(index)
        if freed > 1:
            self.recruit(freed - 1)
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
        # The elements of a map are recorded by themselves, and the map has their number.
        is_map = isinstance(self.plan.calls[index][0], MapFunction)
        recording.record(
            index,
            WHOLE,
            self.attempts.get(index, 1),
            self.ledger.starts[index],
            end,
            value=len(cast("list[object]", value)) if is_map else awaited(value),
            encoded=None if is_map else encoded,
            then=partial(self._committed, index, value, end),
        )

    def element_finished(
        self,
        index: int,
        element: int,
        digest: bytes,
        value: object,
        start: float,
        attempts: int,
        encoded: bytes | None = None,
    ) -> None:
        """Record that an element of a map returned. `encoded` is as for `finished`."""
        if self.recording is not None:
            end = time.perf_counter()
            self.recording.record(index, element, attempts, start, end, value=value, encoded=encoded, digest=digest)

    def element_raised(self, index: int, element: int, error: BaseException, start: float, attempts: int) -> None:
        """Record that an element of a map raised."""
        if self.recording is not None:
            self.recording.record(index, element, attempts, start, time.perf_counter(), error=error)

    def commit(self) -> bool:
        """Have what was recorded so far committed, as the engine sees fit; return whether the worker may go on."""
        if self.recording is None:
            return True
        if self._driver is not None:
            return self._driver.commit()
        self.offer()
        return True

    def offer(self) -> None:
        """Commit what was recorded so far, unless another thread is at it: then that thread will."""
        if self.recording is not None:
            self.recording.commits.offer()

    def took_part(self, map_share: MapShare) -> None:
        """Note that a worker was on a map, unless it came too late for any element."""
        if map_share.elements:
            self.map_shares.append(map_share)

    @property
    def uncommitted(self) -> bool:
        """Whether something was recorded that nobody has begun to commit."""
        return self.recording is not None and self.recording.commits.pending

    @property
    def commit_waits(self) -> bool:
        """Whether something was recorded and nobody is committing."""
        return self.recording is not None and self.recording.commits.waits

    @property
    def behind(self) -> bool:
        """Whether so much has ended and is not committed that no other call may begin."""
        return self.recording is not None and self.recording.commits.behind

    def flush(self) -> None:
        """Return when all that was recorded so far is committed."""
        if self.recording is not None:
            self.recording.commits.flush()

    def logged(self, call: tuple[int, int], log: Log) -> None:
        """Take note of what a call has logged elsewhere."""
        if self.logs is not None:
            self.logs.extend(call, log)

    def raised(self, index: int, error: BaseException, *, in_order: bool, end: float | None = None) -> None:
        """Record that a task raised; it ended now, unless `end` says when."""
        BaseException.with_traceback(error, stripped(error.__traceback__))
        now = time.perf_counter() if end is None else end
        start = self.ledger.starts[index]
        if isinstance(error, TaskCancelled) and self.ledger.halted:
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
        self.notify(index)

    def fail_early(self, index: int, error: BaseException, *, in_order: bool) -> None:
        """Record a failure inside a task that is still being worked on by others."""
        self.ledger.fail(index, error, in_order=in_order)
        self._note_halt()

    def interrupt(self, error: BaseException) -> None:
        """Record what stopped the run from outside of any task."""
        self.ledger.interrupt(error)
        self._note_halt()
        for cancel_child in list(self.children.values()):
            cancel_child()

    def close(self) -> None:
        """Close the books, once, when the engine has ended: whatever has not started by now never will."""
        try:
            if self.recording is not None:
                self.recording.commits.close()
            self._fail_unawaited()
        finally:
            self.ledger.finish()
            self.maps = {index: _Ended(part.progress) for index, part in self.maps.items()}
            self._driver = None  # no cycle may stay: it would keep what failed until the collector comes

    # What the caller's side asks

    def cancel(self) -> bool:
        """Let nothing new start, here and in the runs that tasks of this one have started."""
        changed = self.ledger.cancel()
        self._cancelled.open()
        self._note_halted()
        for cancel_child in list(self.children.values()):
            cancel_child()
        return changed

    def progress(self) -> Progress:
        """Return how far the run has come."""
        ends = self.ledger.ends
        # Counting takes 14 ns a task, which at the end of a run of trivial ones is too much.
        left = 0 if self.ledger.over and self.ledger.well else ends.count(None)
        ended, failed, total = len(ends) - left, len(self.ledger.errors), len(ends)
        for index, job in list(self.maps.items()):
            part = job.progress
            over = ends[index] is not None
            ended += part.ended - over
            failed += part.failed - (index in self.ledger.errors) if part.failed else 0
            total += part.total - 1
        return Progress(ended, failed, total)

    def snapshot(self) -> tuple[Progress, list[tuple[int, str, str, float]]]:
        """Return how far the run has come, and what runs now: task, name, worker, start in seconds since the epoch."""
        starts, ends = self.ledger.starts, self.ledger.ends
        running: list[tuple[int, str, str, float]] = []
        for call_context in list(self.call_contexts):
            index = call_context.index
            start = starts[index] if index >= 0 and ends[index] is None else None
            if start is not None:
                running.append((index, self.name(index), call_context.worker, self.epoch + start - self.began))
        return self.progress(), running

    def watch(self, watcher: Callable[[int | None], None]) -> None:
        """Have `watcher` called, in the worker, with the index of each task that ends from now on."""
        with self._lock:
            self._watchers.append(watcher)
            self.attentive.append(watcher)

    def unwatch(self, watcher: Callable[[int | None], None]) -> None:
        """End what `watch` began."""
        with self._lock:
            self._watchers.remove(watcher)
            self.attentive.remove(watcher)

    def notify(self, index: int | None) -> None:
        """Tell those who watch that a task has ended, or, with `None`, that the run has."""
        for watcher in list(self._watchers):
            watcher(index)

    # What a recording asks

    def worker_at(self, index: int) -> str:
        """Return which worker is at a task just here: many are, at the elements of a map."""
        call_context = CURRENT_CALL.get(None)
        if call_context is not None and call_context.run is self and call_context.index == index:
            return call_context.worker
        return self.workers[index] or ""

    def lose(self, index: int, error: BaseException) -> None:
        """Fail a task of which nobody can know any more that it ended well."""
        self.ledger.fail(index, error)
        self.ledger.ends[index] = time.perf_counter()
        self.notify(index)

    # What tasks may know

    @property
    def around(self) -> CallContext | None:
        """Where the run itself is executed, if that is in a task."""
        return self.context.get(CURRENT_CALL)

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

    def moment(self, reading: float) -> float:
        """Return the seconds since the epoch that a reading of the clock stands for."""
        return self.epoch + reading - self.began

    def wait_cancelled(self, seconds: float) -> bool:
        """Wait until the run is cancelled, at most this long; return whether it is."""
        return self._cancelled.wait(seconds)

    def wait_halted(self, seconds: float) -> bool:
        """Wait until nothing new may start, at most this long; return whether that is so."""
        return self._halted.wait(seconds)

    # What engines ask

    def call(self, index: int) -> tuple[Call, Options]:
        """Return a task's call with values in place of handles, and its options."""
        function, args, kwargs = self.plan.calls[index]
        if index in self.plan.needs:
            values = self.ledger.values
            for source in self.plan.needs[index]:
                if is_coroutine(type(values[source])):
                    name = shown(self.name(source))
                    raise unawaited(values[source], f"task {source} ({name}), whose value it takes,")
            args, kwargs = bound(args, kwargs, values)
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
    ) -> None:
        """Tell of something that happened to a task."""
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
            )
        )

    # Inside

    def _fail_unawaited(self) -> None:
        """Fail tasks that returned a coroutine: a look at each value as it comes would cost plain tasks too much."""
        values = self.ledger.values
        for index in unawaited_in(values) if isinstance(values, list) else ():
            error, values[index] = unawaited(values[index]), None
            self.raised(index, error, in_order=False)

    def _recall(self, index: int, recorded: Recorded) -> object:
        """Return the value that was recorded of a task."""
        if self.recorder is None or not isinstance(self.plan.calls[index][0], MapFunction):
            return recorded.value
        elements = self.recorder.elements(index)
        self.maps[index] = _Ended(Progress(len(elements), 0, len(elements)))
        return [elements[place].value for place in range(len(elements))]

    def _committed(self, index: int, value: object, end: float) -> None:
        self.ledger.values[index] = value
        self.ledger.ends[index] = end
        # Who commits may be busy with the next group for a while: all that became ready is for others.
        freed = self.ledger.settle(index)
        if freed:
            self.recruit(freed)
        self.notify(index)

    def _note_halt(self) -> None:
        """Wake whoever waits for what the ledger has come to."""
        if self.ledger.cancelled:
            self._cancelled.open()
        if self.ledger.halted:
            self._note_halted()

    def _note_halted(self) -> None:
        self._halted.open()
        if self._driver is not None:
            self._driver.on_halt()
