"""The calls of a run's tasks in threads of this process: with handles bound, watched, made again after a failure.

    claimed ──▶ calls[index] ──returns──▶ run state
                    │ raises
                    ▼
                  failed ──▶ run state, or paused ──Watcher──▶ ready again

A plain task is in the list as it is, and so is one with retries: until it fails, they cost nothing. What has more to it
is in the list as `call`, which finds out from the context which task it is to make.
"""

import contextvars
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from procession._engine.call_context import CURRENT_CALL, CallContext
from procession._engine.decimals import own_decimals
from procession._engine.retry import Abandoned, GiveUp, Late, Retry
from procession._engine.run_state import RunState
from procession._engine.timed_call import TimedCall, too_long
from procession._engine.unawaited import awaited
from procession._engine.watcher import Deadline, Straggler
from procession._model.record import WHOLE
from procession._model.task import PLAIN, Call, MapFunction, Options
from procession.errors import TaskCancelled


class LeaveTask(BaseException):
    """The worker leaves a task that has not ended: others are at it, or it pauses until its next attempt."""


class Worker(Protocol):
    """The calling worker."""

    alone: bool
    """Whether there is nothing else to do while a task pauses."""
    deadline: Deadline | None
    """The slot that holds until when its call may take; `None` where it cannot be left behind with a call."""

    def abandon(self, resume: Callable[[], object]) -> None:
        """Leave the thread behind with its call, and have `resume` make what follows ready for another worker."""
        ...


class Workers(Protocol):
    """What the calls need of the engine that makes them."""

    @property
    def worker(self) -> Worker:
        """The calling worker."""
        ...

    def pause(self, seconds: float, resume: Callable[[], object]) -> None:
        """Have `resume` make something ready in so many seconds. Until then the stage does not end."""
        ...

    def work_on_map(self, index: int, map_function: MapFunction) -> list[Any]:
        """Work on a map; return its results in the last worker on it, else raise `LeaveTask`."""
        ...


class TaskCalls:
    """Makes the calls of tasks for the workers of an engine."""

    def __init__(self, run_state: RunState, workers: Workers) -> None:
        self.run_state = run_state
        self.in_order = True
        self._workers = workers
        self._retries: dict[int, Retry] = {}
        self._late: dict[int, Late] = {}
        self.calls = self._prepared()

    def _prepared(self) -> list[Call]:
        """Return the calls that workers make: those of the plan, or `call` where there is more to a task."""
        plan = self.run_state.plan
        if self.run_state.verbose or self.run_state.decimals is not None:
            return [self._special] * len(plan.calls)
        if not plan.needs and not plan.options:
            return plan.calls
        prepared = list(plan.calls)
        for index in plan.needs:
            prepared[index] = self._special
        for index, options in plan.options.items():
            if isinstance(plan.calls[index][0], MapFunction) or options.timeout or not isinstance(options.retries, int):
                prepared[index] = self._special
        return prepared

    @property
    def _special(self) -> Call:
        return self.call, (), {}

    def close(self) -> None:
        """Let go of the calls and the workers: a cycle would keep what failed until it is collected."""
        del self._workers
        if self.calls is not self.run_state.plan.calls:
            self.calls = []

    # A call

    def call(self) -> Any:
        """Make the call of the task that the context names. Raises `LeaveTask` where it ends neither well nor badly."""
        run_state = self.run_state
        if run_state.decimals is not None:
            own_decimals(run_state.decimals)
        call_context = CURRENT_CALL.get()
        index = call_context.index
        function = run_state.plan.calls[index][0]
        if isinstance(function, MapFunction):
            return self._workers.work_on_map(index, function)
        if index in self._late:
            self._tell_late(index, self._late.pop(index))
        (function, args, kwargs), options = run_state.call(index)
        retry = self._retries.get(index)
        if retry is None:
            if run_state.verbose or options.retries:
                retry = self._begin(index, options)
        else:
            self._begin_again(index, retry, call_context)
            if retry.context is not None:
                function, args = self._in_context(retry.context, call_context), (function, *args)
        try:
            if options.timeout is None:
                value = function(*args, **kwargs)
            else:
                value = self._within(options.timeout, call_context, function, args, kwargs)
        finally:
            call_context.attempt = 1
        if retry is not None:
            value = self._judged(index, retry, value)
        if run_state.verbose:
            awaited(value)
            took = time.perf_counter() - (run_state.ledger.starts[index] or 0.0)
            run_state.report("task_completed", index, run_state.attempts.get(index, 1), took)
        return value

    def _begin(self, index: int, options: Options) -> Retry | None:
        """Begin a first attempt; return the state of the retries where something depends on it from the start."""
        if self.run_state.verbose:
            self.run_state.report("task_started", index, 1, None)
        if isinstance(options.retries, int) and not (options.retries and self.run_state.verbose):
            return None
        # Rules of the user's own see each attempt; and what observers have left in the context is for all attempts.
        retry = self._retry(index)
        retry.context = contextvars.copy_context()
        retry.context.run(own_decimals, self.run_state.decimals)
        return retry

    def _in_context(self, context: contextvars.Context, call_context: CallContext) -> Callable[..., Any]:
        """Return what makes a call in a copy of the context in which the first attempt was made."""
        context = context.copy()
        context.run(CURRENT_CALL.set, call_context)
        context.run(own_decimals, self.run_state.decimals)
        return context.run

    def _retry(self, index: int) -> Retry:
        """Return the state of the retries of a task, made when it is first needed."""
        retry = self._retries.get(index)
        if retry is None:
            call, options = self.run_state.call(index)
            retry = self._retries[index] = Retry(options, call, self.run_state.ledger.starts[index] or 0.0)
        return retry

    def _begin_again(self, index: int, retry: Retry, call_context: CallContext) -> None:
        run_state = self.run_state
        run_state.ledger.starts[index] = retry.start
        if run_state.ledger.halted and retry.error is not None:
            raise GiveUp(retry.error)
        retry.begin()
        call_context.attempt = run_state.attempts[index] = retry.made

    def _judged(self, index: int, retry: Retry, value: Any) -> Any:
        """Return the value that stands if the rules of a task like what it returned, else have it pause."""
        seconds, returned, value = retry.judge(returned=True, value=value)
        if seconds is not None:
            self._pause(index, retry, seconds)
            raise LeaveTask
        if not returned:
            raise GiveUp(value)
        self._forget(index)
        return value

    def failed(self, index: int, error: BaseException) -> None:
        """See to what follows from a call that raised: another attempt, or the end of the task."""
        run_state = self.run_state
        options = run_state.plan.options.get(index, PLAIN)
        if isinstance(error, GiveUp):
            error = error.error
        elif options.retries and not isinstance(run_state.plan.calls[index][0], MapFunction):  # those of its elements
            retry = self._retry(index)
            seconds, returned, value = retry.judge(returned=False, value=error)
            if seconds is not None:
                self._pause(index, retry, seconds)
                return
            if returned:
                self._forget(index)
                self._finish(index, value)
                return
            error = value
        self._forget(index)
        run_state.raised(index, error, in_order=self.in_order)

    def _finish(self, index: int, value: Any) -> None:
        """End a task well with the value that its rules give in place of an error."""
        try:
            self.run_state.finished(index, awaited(value), time.perf_counter())
        except BaseException as error:  # it cannot be recorded
            self.run_state.raised(index, error, in_order=self.in_order)

    def _forget(self, index: int) -> None:
        retry = self._retries.pop(index, None)
        if retry is not None:
            retry.state.forget()
            retry.error = None

    # Timeouts

    def _within(
        self,
        seconds: float,
        call_context: CallContext,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        index, worker = call_context.index, self._workers.worker
        if worker.deadline is None:
            return self._elsewhere(seconds, call_context, function, args, kwargs)
        worker.deadline.begin(seconds, self._give_up, index, seconds, call_context, worker)
        return watched(worker.deadline, call_context, function, args, kwargs)

    def _elsewhere(
        self,
        seconds: float,
        call_context: CallContext,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Make a call in a thread of its own, where the calling one cannot be left behind."""
        index = call_context.index
        timed = TimedCall(self.run_state, index, call_context.attempt)
        try:
            return timed.make(seconds, function, args, kwargs)
        except BaseException:
            if timed.hung is not None and self.run_state.plan.options[index].retries:
                self._retry(index).hung = timed.hung
            raise

    def _give_up(
        self, index: int, seconds: float, call_context: CallContext, worker: Worker, straggler: Straggler
    ) -> None:
        """Give up a call that takes too long. In the watcher's thread, which runs nothing of the user's."""
        call_context.abandoned = call_context.over = True
        run_state = self.run_state
        error = too_long(run_state, index, seconds)
        start = run_state.ledger.starts[index] or 0.0
        self._late[index] = Late(error, start, call_context.worker, straggler)
        worker.abandon(partial(run_state.ledger.put_back, index))

    def _tell_late(self, index: int, late: Late) -> None:
        """Raise that a call took too long, in the worker that sees to what follows."""
        run_state = self.run_state
        run_state.ledger.starts[index] = late.start
        run_state.workers[index] = late.worker
        if run_state.plan.options[index].retries:
            self._retry(index).hung = late.straggler
        raise late.error

    # Pauses

    def _pause(self, index: int, retry: Retry, seconds: float) -> None:
        """Have a task attempted again in so many seconds, or once nothing new may start, end as it last did."""
        run_state = self.run_state
        run_state.report("task_retrying", index, retry.made, None, retry.error)
        self.calls[index] = self._special
        if seconds <= 0:
            run_state.ledger.put_back(index)
            return
        if not self._workers.worker.alone:
            self._workers.pause(seconds, partial(run_state.ledger.put_back, index))
            return
        try:
            run_state.wait_halted(seconds)
        except BaseException as interruption:  # Ctrl-C
            self._forget(index)
            run_state.raised(index, interruption, in_order=self.in_order)
            return
        if run_state.ledger.halted:
            self._end_paused(index)
        else:
            run_state.ledger.put_back(index)

    def end_paused(self) -> None:
        """End what has not ended, though all workers have left: each as it last did."""
        for index, late in list(self._late.items()):
            del self._late[index]
            self.run_state.raised(index, late.error, in_order=self.in_order)
        for index in list(self._retries):
            self._end_paused(index)

    def _end_paused(self, index: int) -> None:
        """End a task as its last attempt did, as no other will be made."""
        retry, run_state = self._retries[index], self.run_state
        error = retry.error or TaskCancelled("the run was stopped before the next attempt")
        self._forget(index)
        if run_state.ledger.ends[index] is None:
            run_state.ledger.starts[index] = retry.start
            run_state.raised(index, error, in_order=self.in_order)


def watched(
    deadline: Deadline,
    call_context: CallContext,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Make a call whose deadline has begun; return its value or raise its error, if it ends in time.

    Raises `Abandoned` when a call that was given up has ended after all: nobody waits for its value any more.
    """
    failure: BaseException | None = None
    try:
        value = function(*args, **kwargs)
        if deadline.end():
            return value
    except BaseException as error:
        if deadline.end():
            raise
        failure = error
    deadline.end_late()
    told, index, attempt = call_context.run, call_context.index, call_context.attempt
    assert isinstance(told, RunState)
    element = None if call_context.element == WHOLE else call_context.element
    told.report("task_abandoned_ended", index, attempt, None, failure, element)
    failure = None
    raise Abandoned
