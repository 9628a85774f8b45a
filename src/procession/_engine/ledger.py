"""The ledger: the state of one run, and the only place that changes it. No thread, no clock, no I/O.

    ready      tasks that may start now: whoever pops an index from it owns that task
    values     what each task returned; written by its owner alone
    starts     clock reading when the task was first called, or None; written by its owner alone
    ends       clock reading when it ended, or None; written by its owner alone
    errors     task → what it raised
    skipped    tasks that will never start, because one they wait for failed while the run went on
    stopped    tasks that started and were told to stop before they could end
    suspended  tasks that were left, as they wait, and have not ended since; those that are `woken` are called again

    waiting ──open──▶ ready ──claim──▶ running ──settle──▶ completed ──▶ those that waited only for it: ready
                        │                 └─────fail─────▶ failed    ──▶ those that wait for it: skipped
                        │                 └────suspend────▶ suspended ──wake──▶ ready
                        └──halt──▶ skipped, or cancelled

Claiming is `ready.popleft`: one atomic step on every build of CPython, so that each task has exactly one owner
without a lock and, as each slot of a column is written by one owner only, neither have the columns. What several
workers could change at the same time (failures, halting) is guarded by the one lock.

A task that ends makes others ready without the lock, for there all workers would meet. So one may be appended while
another thread halts the run. Whoever appends looks at `halted` again and, if it is set, takes everything back; whoever
claims looks at it, too, and gives up the task, which then has never started; and a halt clears what was appended just
before. Each operation on the deque is atomic and so orders the looks around it: an append that the halt's `clear` did
not catch comes after it, and then both who appended and who claims see the halt.
"""

import threading
from collections import deque
from collections.abc import Callable, Collection, Container, Iterable, Mapping

from procession._model.states import OnError, TaskState
from procession._model.strategy import Stage


class Ledger:
    """The state of a run of `count` tasks under the failure policy `on_error`; `edges` say what each one waits for.

    Those in `first` stand first in line once they are ready: they take values that are not kept.
    Those in `done` have succeeded before the run began: they are never ready, and no edge leads from or to them.
    `recall` is asked of each task that is claimed whether it has ended after all: then nobody gets it.
    """

    __slots__ = (
        "_dependents",
        "_done",
        "_edges",
        "_first",
        "_lock",
        "_waits",
        "cancelled",
        "ends",
        "errors",
        "failure",
        "halted",
        "on_error",
        "over",
        "ready",
        "skipped",
        "starts",
        "stopped",
        "suspended",
        "values",
        "woken",
    )

    def __init__(
        self,
        count: int,
        edges: Mapping[int, tuple[int, ...]],
        on_error: OnError,
        *,
        done: Container[int] = (),
        first: Collection[int] = (),
        recall: Callable[[int], bool] | None = None,
    ) -> None:
        self.ready: deque[int] = deque() if recall is None else _Recalling(recall)
        nothing: list[object] = [None]
        self.values: list[object] | dict[int, object] = nothing * count
        self.starts: list[float | None] = [None] * count
        self.ends: list[float | None] = [None] * count
        self.errors: dict[int, BaseException] = {}
        self.skipped: set[int] = set()
        self.stopped: set[int] = set()
        self.suspended: set[int] = set()
        self.woken: set[int] = set()
        self.failure: BaseException | None = None
        self.halted = False
        self.cancelled = False
        self.over = False
        self._edges = edges
        self._done = done
        self._first = first
        self.on_error = on_error
        self._lock = threading.Lock()
        # A task that waits for n > 1 others has a list of n marks, the first one True. Each of the n pops one when
        # it ends: popping is atomic, so exactly one of them gets the True, and it is the last of them.
        self._waits: dict[int, list[bool]] = {}
        # A task with one dependent has its index, not a list: every container costs the garbage collector, and with
        # 100,000 of them that is what a run would spend most of its time on.
        self._dependents: dict[int, int | list[int]] = {}
        dependents = self._dependents
        for index, needed in edges.items():
            if len(needed) > 1:
                self._waits[index] = [True] + [False] * (len(needed) - 1)
            for need in needed:
                others = dependents.setdefault(need, index)
                if isinstance(others, list):
                    others.append(index)
                elif others != index:
                    dependents[need] = [others, index]

    def open(self, stage: Stage) -> int:
        """Make the tasks of a stage ready that wait for no other; return how many that are. None once halted."""
        with self._lock:
            if not self.halted:
                edges, done, indexes = self._edges, self._done, range(stage.start, stage.stop)
                if edges or done:
                    self.ready.extend(index for index in indexes if index not in edges and index not in done)
                else:
                    self.ready.extend(indexes)
            return len(self.ready)

    @property
    def claim(self) -> Callable[[], int]:
        """What returns the next ready task, which its caller then owns, and raises `IndexError` if there is none.

        Look it up once for many claims. Where no task waits for another, nothing becomes ready after a halt, and it is
        the deque's own method.
        """
        return self._claim if self._edges else self.ready.popleft

    def put_last(self, index: int) -> None:
        """Make a task ready that was claimed, last in line; once halted, nobody can have it any more."""
        with self._lock:
            if not self.halted:
                self.ready.append(index)

    def put_back(self, index: int) -> None:
        """Make a task ready that was claimed, first in line; once halted, nobody can have it any more."""
        with self._lock:
            if not self.halted:
                self.ready.appendleft(index)

    def sole_dependent(self, index: int) -> int | None:
        """Return the task that waits for this one and no other, if it is the only one that waits for it."""
        dependent = self._dependents.get(index)
        return dependent if isinstance(dependent, int) and dependent not in self._waits else None

    def settle(self, index: int) -> int:
        """Record that the task succeeded; return how many tasks that waited for it became ready.

        Those stand last in line. With many chains side by side all of them get on evenly, and none is left for the end,
        when it would have only one worker; with nothing else ready, a chain never leaves its thread. But those in
        `first` stand first: the sooner they have ended, the fewer of these values there are.
        """
        dependents = self._dependents.get(index)
        if dependents is None:
            return 0
        waits = self._waits
        if isinstance(dependents, int):
            if dependents in waits and not waits[dependents].pop():
                return 0
            if self.halted:
                return 0
            (self.ready.appendleft if dependents in self._first else self.ready.append)(dependents)
            freed = 1
        else:
            last = [dependent for dependent in dependents if dependent not in waits or waits[dependent].pop()]
            if self.halted:
                return 0
            freed = len(last)
            if self._first:
                self.ready.extendleft(dependent for dependent in reversed(last) if dependent in self._first)
                last = [dependent for dependent in last if dependent not in self._first]
            self.ready.extend(last)
        if self.halted:  # since the look above: see the module's docstring
            self.ready.clear()
            return 0
        return freed

    def fail(self, index: int, error: BaseException, *, in_order: bool = False) -> None:
        """Record that the task raised. What waits for it is skipped; the policy says what it means for the rest.

        In a stage that runs in order every later task waits for this one. An error that is no `Exception` stops the
        run under every policy, and Ctrl-C cancels it. The first error to stop the run is its `failure`.
        """
        with self._lock:
            if index in self.errors:
                return
            self.errors[index] = error
            self.cancelled = self.cancelled or isinstance(error, KeyboardInterrupt)
            if self.on_error == "stop" or not isinstance(error, Exception):
                if self.failure is None and (not self.cancelled or isinstance(error, KeyboardInterrupt)):
                    self.failure = error
                self._halt()
            elif in_order:
                self._halt()
            elif not self.halted:
                self._skip_dependents(index)

    def skip(self, index: int) -> None:
        """Record that a task that had started ended without its value, as what it takes has failed."""
        with self._lock:
            self.skipped.add(index)
            if not self.halted:
                self._skip_dependents(index)

    def interrupt(self, error: BaseException) -> None:
        """Record what stopped the run from outside of any task; Ctrl-C cancels it."""
        with self._lock:
            if self.failure is None:
                self.failure = error
            self.cancelled = self.cancelled or isinstance(error, KeyboardInterrupt)
            self._halt()

    def stop(self, index: int) -> None:
        """Record that a task that had started ended early because the run was halted."""
        with self._lock:
            self.stopped.add(index)

    def suspend(self, index: int, *, in_order: bool) -> None:
        """Record that the task was left, as it waits. In a stage that runs in order, every later task waits for it."""
        with self._lock:
            self.suspended.add(index)
            self.woken.discard(index)
            if in_order:
                self._halt()

    def asleep(self) -> list[int]:
        """Return the tasks that are suspended and not woken; none once halted."""
        with self._lock:
            return [] if self.halted else sorted(self.suspended - self.woken)

    def wake(self, index: int) -> bool:
        """Make a suspended task ready, last in line; return whether nothing speaks against it."""
        with self._lock:
            if self.halted or index not in self.suspended or index in self.woken:
                return False
            self.woken.add(index)
            self.ready.append(index)
            return True

    def cancel(self) -> bool:
        """Cancel the run: nothing new starts. Return whether that changes anything: not where all tasks have ended."""
        with self._lock:
            if self.over or self.cancelled or None not in self.ends:
                return False
            self.cancelled = True
            self._halt()
            return True

    def finish(self) -> None:
        """Close the books: whatever has not started by now never will."""
        with self._lock:
            self.over = True

    @property
    def well(self) -> bool:
        """Whether nothing has gone wrong so far, so that the next stage may open."""
        return not (self.halted or self.errors or self.is_suspended)

    @property
    def is_suspended(self) -> bool:
        """Whether a task waits that was left, or has begun again since and not ended."""
        return bool(self.suspended) and any(self.ends[index] is None for index in self.suspended)

    def state(self, index: int) -> TaskState:
        """Return how a task stands."""
        if index in self.stopped:
            return "cancelled"
        if index in self.errors:
            return "failed"
        if index in self.skipped:
            return "skipped"
        if self.ends[index] is not None:
            return "completed"
        if index in self.suspended and (self.over or index not in self.woken):
            return "suspended"
        if self.starts[index] is not None:
            return "running"
        if not self.over:
            return "waiting"
        if self.suspended and self.failure is None and not self.cancelled:
            return "waiting"
        return "cancelled" if self.cancelled else "skipped"

    def release(self, kept: Iterable[int]) -> list[object]:
        """Hand the values over to the caller, and keep only those of the tasks in `kept`."""
        values = self.values
        assert isinstance(values, list)
        self.values = {index: values[index] for index in kept}
        return values

    def _claim(self) -> int:
        index = self.ready.popleft()
        if self.halted:
            raise IndexError("the run is halted")
        return index

    def _halt(self) -> None:
        # In this order: who sees that the run is halted, and draws then, must find nothing.
        self.ready.clear()
        self.halted = True
        if self._edges:
            self.ready.clear()  # what was made ready between the two

    def _skip_dependents(self, index: int) -> None:
        pending = [index]
        while pending:
            dependents = self._dependents.get(pending.pop(), ())
            for dependent in (dependents,) if isinstance(dependents, int) else dependents:
                if dependent not in self.skipped:
                    self.skipped.add(dependent)
                    pending.append(dependent)


class _Recalling(deque[int]):
    """The ready tasks of a run that may find, when it claims a task, that its recorded value still holds."""

    def __init__(self, recall: Callable[[int], bool]) -> None:
        super().__init__()
        self._recall = recall

    def popleft(self) -> int:
        while self._recall(index := super().popleft()):
            pass
        return index
