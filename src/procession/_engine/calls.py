"""The calls of a run's tasks in threads of this process: with handles bound, watched, made again after a failure.

    claimed ──▶ calls[index] ──returns──▶ run state
                    │ raises
                    ▼
                  failed ──▶ run state, or paused ──Watcher──▶ ready again

A plain task is in the list as it is, and so is one with retries: until it fails, they cost nothing. What has more to it
is in the list as a method, which finds out from the context which task it is to make.
"""

import contextvars
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from procession._engine.admission import Admitted, PutOff, await_admission
from procession._engine.bucket import Claims
from procession._engine.call_context import CURRENT_CALL, CallContext
from procession._engine.decimals import own_decimals
from procession._engine.elements import ElementIterator, Inputs, iterators_of
from procession._engine.gate import NotBegun, gated_calls, passes_gate
from procession._engine.retry import GiveUp, Held, Late, Retry
from procession._engine.run_deadline import within
from procession._engine.run_state import RunState
from procession._engine.timed_call import TimedCall, too_long
from procession._engine.unawaited import awaited
from procession._engine.unfinished import Unfinished
from procession._engine.watched_call import watched
from procession._engine.watcher import Straggler
from procession._engine.workers import GiveWay, LeaveTask, Worker, Workers
from procession._model.record import WHOLE
from procession._model.task import PLAIN, Call, MapFunction, Options
from procession._plan.wiring import NO_STREAMS
from procession.errors import TaskCancelled, TaskSuspended


class TaskCalls:
    """Makes the calls of tasks for the workers of an engine."""

    def __init__(self, run_state: RunState, workers: Workers) -> None:
        self.run_state = run_state
        self.in_order = True
        self._workers = workers
        self._retries: dict[int, Retry] = {}
        self._late: dict[int, Late] = {}
        self._put_off: dict[int, Held] = {}
        self._inputs: dict[int, Inputs[ElementIterator]] = {}
        """The streams of tasks that are being called, or are held back."""
        self._streaming: dict[int, tuple[float | None, str | None]] = {}
        """When tasks with streams began, and their workers."""
        self._asking: dict[int, list[None]] = {}
        """For each of these, how often it is ready only for its thread to get a place."""
        self.calls = self._prepared()

    def _prepared(self) -> list[Call]:
        """Return the calls that workers make: those of the plan, or `call` where there is more to a task."""
        plan = self.run_state.plan
        special = self._special
        if self.run_state.verbose or self.run_state.decimals is not None:
            return [special] * len(plan.calls)
        if not plan.needs and not plan.options:
            return plan.calls
        prepared = gated_calls(self.run_state)
        taking: Call = self._call_with_values, (), {}
        for index in plan.needs:
            prepared[index] = special if index in plan.options or index in plan.streams else taking
        last, passes = PLAIN, True
        for index, options in plan.options.items():
            if options is not last:  # the same ones over and over are looked at once
                last, passes = options, passes_gate(options)
            if not passes or isinstance(plan.calls[index][0], MapFunction):
                prepared[index] = special
        return prepared

    @property
    def _special(self) -> Call:
        return self.call, (), {}

    def close(self) -> None:
        """Drop the references to calls and workers: they form cycles, which would keep failures alive."""
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
        if index in run_state.plan.streams:
            self._open_streams(index)
        inputs = self._inputs.get(index)
        call, options = run_state.call(index, NO_STREAMS if inputs is None else inputs.by_source)
        if options is PLAIN and inputs is None and not run_state.verbose:
            function, args, kwargs = call
            return function(*args, **kwargs)
        value = self._attempted(index, call, options, call_context)
        if run_state.verbose:
            awaited(value)
            took = time.perf_counter() - (run_state.ledger.starts[index] or 0.0)
            run_state.report("task_completed", index, run_state.attempts.get(index, 1), took)
        return value

    def _call_with_values(self) -> Any:
        """Make the call of a task that takes values of others, and has nothing else to it."""
        (function, args, kwargs), _ = self.run_state.call(CURRENT_CALL.get().index)
        return function(*args, **kwargs)

    def _attempted(self, index: int, call: Call, options: Options, call_context: CallContext) -> Any:
        """Make an attempt; return the value that stands."""
        (function, args, kwargs), retry, admitted = self._begun(index, call, options, call_context)
        try:
            if index in self._inputs:
                value = self._streamed(index, options.timeout, call_context, function, args, kwargs)
            elif options.timeout is None:
                value = function(*args, **kwargs)
            else:
                value = self._within(options.timeout, call_context, function, args, kwargs)
        except BaseException:
            if admitted is not None:
                admitted.withdraw()
            raise
        finally:
            call_context.attempt = 1
        return value if retry is None else self._judged(index, retry, value)

    # Streams

    def _open_streams(self, index: int) -> None:
        """Open the streams of a task, unless it is being called elsewhere and needs the place of this worker."""
        run_state = self.run_state
        with suppress(IndexError):
            self._asking.get(index, []).pop()  # by now, the task may have ended
            run_state.ledger.starts[index], run_state.workers[index] = self._streaming[index]
            raise GiveWay
        inputs = self._inputs.get(index)
        if inputs is not None and inputs.begun:  # by an attempt that could not close them
            inputs.close()
            inputs = None
        if inputs is None:
            self._inputs[index] = iterators_of(run_state, index)

    def _streamed(
        self,
        index: int,
        timeout: float | None,
        call_context: CallContext,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Make the call of a task that takes elements of maps as they end."""
        run_state, inputs = self.run_state, self._inputs[index]
        self._streaming[index] = run_state.ledger.starts[index], run_state.workers[index]
        for _, stream in inputs.streams:
            stream.lend = self._workers.lend
        inputs.begin(call_context)
        try:
            if timeout is None:
                value = function(*args, **kwargs)
            else:
                value = self._within(timeout, call_context, function, args, kwargs)
        finally:
            inputs.close()
            self._inputs.pop(index, None)
        inputs.check()
        return value

    def ask_for_place(self, index: int) -> None:
        """Make a task ready that is being called: whoever claims it gives its place to the thread that calls it."""
        self._asking.setdefault(index, []).append(None)
        self.run_state.ledger.put_back(index)

    def _begun(
        self, index: int, call: Call, options: Options, call_context: CallContext
    ) -> tuple[Call, Retry | None, Admitted | None]:
        """Begin an attempt; return what makes it, the state of its retries, and what limits have admitted, if any."""
        retry = self._retries.get(index)
        if not options.limit:
            begun = self._begin_attempt(index, retry, options, call_context)
        else:
            admission = self.run_state.admission
            assert admission is not None
            claims = self._admitted(index, retry, options, call)
            try:
                if self._workers.alone:
                    self.run_state.ledger.starts[index] = time.perf_counter()  # it may have waited
                begun = self._begin_attempt(index, retry, options, call_context)
                admitted = Admitted(admission, options.limit, claims)
                return self._placed((admitted, call, {}), retry, call_context), begun, admitted
            except BaseException:
                admission.withdraw(claims)
                raise
        return self._placed(call, retry, call_context), begun, None

    def _begin_attempt(
        self, index: int, retry: Retry | None, options: Options, call_context: CallContext
    ) -> Retry | None:
        if index in self._put_off:
            self.run_state.ledger.starts[index] = self._put_off.pop(index).start
            call_context.attempt = self.run_state.attempts.get(index, 1)
        elif retry is not None:
            self._begin_again(index, retry, call_context)
        elif self.run_state.verbose or options.retries:
            return self._begin(index, options)
        return retry

    def _begin(self, index: int, options: Options) -> Retry | None:
        """Begin a first attempt; return the state of the retries where something depends on it from the start."""
        if self.run_state.verbose:
            self.run_state.report("task_started", index, 1, None)
        if isinstance(options.retries, int) and not ((options.retries or options.limit) and self.run_state.verbose):
            return None
        # Rules of the user's own see each attempt; and what observers have left in the context is for all attempts.
        retry = self._retry(index)
        retry.context = contextvars.copy_context()
        retry.context.run(own_decimals, self.run_state.decimals)
        return retry

    def _placed(self, call: Call, retry: Retry | None, call_context: CallContext) -> Call:
        """Return a call that runs in a copy of the context of its first attempt, if that was kept."""
        if retry is None or retry.context is None:
            return call
        (function, args, kwargs), context = call, retry.context.copy()
        context.run(CURRENT_CALL.set, call_context)
        context.run(own_decimals, self.run_state.decimals)
        return context.run, (function, *args), kwargs

    def _retry(self, index: int) -> Retry:
        """Return the state of the retries of a task, made when it is first needed."""
        retry = self._retries.get(index)
        if retry is None:
            inputs = self._inputs.get(index)
            call, options = self.run_state.call(index, NO_STREAMS if inputs is None else inputs.by_source)
            retry = self._retries[index] = Retry(options, call, self.run_state.ledger.starts[index] or 0.0)
        return retry

    def _begin_again(self, index: int, retry: Retry, call_context: CallContext) -> None:
        run_state = self.run_state
        run_state.ledger.starts[index] = retry.start
        if run_state.ledger.halted and retry.error is not None:
            raise GiveUp(retry.error)
        retry.begin()
        run_state.failed_attempts.begin(index, WHOLE)
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
        """Settle a call that raised: with another attempt, or the end of the task."""
        run_state = self.run_state
        options = run_state.plan.options.get(index, PLAIN)
        if isinstance(error, NotBegun | PutOff):
            if isinstance(error, PutOff):
                self._put_off[index] = Held(b"", error.error, run_state.ledger.starts[index])
            else:
                run_state.ledger.starts[index] = None
                self._forget(index)
            self.calls[index] = self._special
            run_state.ledger.put_back(index)
            return
        if isinstance(error, TaskSuspended) and index in self._retries:  # with the same attempt, if in this execution
            self._put_off[index] = Held(b"", error, run_state.ledger.starts[index])
            run_state.raised(index, error, in_order=self.in_order)
            return
        if isinstance(error, GiveUp):
            error = error.error
        elif isinstance(run_state.plan.calls[index][0], MapFunction):
            if isinstance(error, Exception):  # not from a call: it was hit as it was opened, or joined
                self._workers.break_down(error)
                return
        elif options.retries and not isinstance(error, Unfinished | TaskSuspended):
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
        if self.run_state.admission is not None:
            self.run_state.admission.drop((index, WHOLE))  # of a call that failed before it could begin
        retry = self._retries.pop(index, None)
        if retry is not None:
            retry.state.forget()
            retry.error = None

    # Limits

    def _admitted(self, index: int, retry: Retry | None, options: Options, call: Call) -> Claims:
        """Claim room for a call under its limits; raise if they hold it back, so that the task is left meanwhile."""
        run_state = self.run_state
        admission, ledger = run_state.admission, run_state.ledger
        assert admission is not None
        put_off = self._put_off.get(index)
        if retry is not None and put_off is None:
            retry.check()
        place, (_, args, kwargs) = (index, WHOLE), call
        start = retry.start if retry is not None else None if put_off is None else put_off.start

        def hold() -> Callable[[], object]:
            ledger.starts[index] = start  # at once another worker may have the task
            return self._workers.hold(partial(ledger.put_back, index))

        try:
            if not self._workers.alone:
                claims = admission.ask(place, options.limit, args, kwargs, hold)
            else:
                claims = await_admission(admission, place, options.limit, args, kwargs, lambda: ledger.halted)
        except Exception as error:  # its cost is no number
            raise GiveUp(error) from None
        if claims is None:
            ledger.starts[index] = start
            raise LeaveTask
        return claims

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
        seconds = within(self.run_state, seconds)
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
        """Attempt a task again in so many seconds; in a run that is halted, end it as its last attempt did."""
        run_state = self.run_state
        run_state.retrying(index, retry.made, retry.error, retry.start, WHOLE)
        self.calls[index] = self._special
        if seconds <= 0:
            run_state.ledger.put_back(index)
            return
        if not self._workers.alone:
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
        for index, put_off in list(self._put_off.items()):
            del self._put_off[index]
            self._forget(index)
            if isinstance(put_off.error, TaskSuspended):
                continue  # it was left as that
            self.run_state.ledger.starts[index] = put_off.start
            assert put_off.error is not None
            self.run_state.raised(index, put_off.error, in_order=self.in_order)
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
