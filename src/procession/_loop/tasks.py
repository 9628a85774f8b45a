"""The coroutines that are tasks themselves, as the owner of their calls: how they begin, and how they end."""

import asyncio
from collections.abc import Iterator, Mapping
from time import perf_counter

from procession._engine.call_context import CURRENT_CALL, CallContext
from procession._engine.elements import Inputs
from procession._engine.run_state import RunState
from procession._loop.attempt import PendingCall
from procession._loop.elements import AsyncElements, async_elements_of
from procession._loop.slots import Slots
from procession._model.task import PLAIN
from procession._plan.pipelines import streams_in
from procession.errors import TaskCancelled


class CoroutineTasks:
    """Begins and settles the calls of tasks in one stage."""

    def __init__(self, run_state: RunState, slots: Slots, *, in_order: bool) -> None:
        self._run_state = run_state
        self._slots = slots
        self._in_order = in_order
        self._inputs: dict[int, Inputs[AsyncElements]] = {}
        """The streams of tasks that are being called."""

    def pending(self, index: int) -> PendingCall:
        """Return the call of a task, which is still to be made."""
        plan = self._run_state.plan
        function, args, kwargs = plan.calls[index]
        return PendingCall(self, index, function, args, kwargs, plan.options.get(index, PLAIN))

    def begin(self, call: PendingCall) -> None:
        """Prepare the first attempt of a task."""
        run_state, index = self._run_state, call.index
        run_state.ledger.starts[index] = call.start
        (_, call.args, call.kwargs), _ = run_state.call(index, self._open_streams(index, CURRENT_CALL.get(None)))
        self.note_start(call)

    def note_start(self, call: PendingCall) -> None:
        """Take note that the first attempt of a task begins, or that it was kept from that."""
        self._run_state.ledger.starts[call.index] = call.start
        if self._run_state.verbose:
            self._run_state.report("task_started", call.index, 1, None)

    def returned(self, call: PendingCall, value: object) -> None:
        """Settle a task whose call returned. Raises for a value that cannot be recorded."""
        run_state, end = self._run_state, perf_counter()
        if (inputs := self._close_streams(call.index)) is not None:
            inputs.check()
        if run_state.verbose:
            run_state.report("task_completed", call.index, call.made, end - call.start)
        run_state.finished(call.index, value, end)

    def raised(self, call: PendingCall, error: BaseException) -> None:
        """Settle a task whose call raised."""
        self._close_streams(call.index)
        self.end_badly(call.index, error, call.ended)

    def drop(self, call: PendingCall) -> None:
        """Do nothing: a task that was never called has not started."""

    def end_badly(self, index: int, error: BaseException, end: float | None = None) -> None:
        """Settle a task that raised, or could not be begun; it ended now, unless `end` says when."""
        run_state = self._run_state
        if run_state.ledger.ends[index] is not None:
            raise error  # not from the call
        if isinstance(error, asyncio.CancelledError) and run_state.ledger.cancelled:
            error = TaskCancelled("the coroutine was cancelled with its run")
        run_state.raised(index, error, in_order=self._in_order, end=end)

    def open_again(self, call: PendingCall, call_context: CallContext) -> None:
        """Give another attempt the streams from their beginning."""
        if streams_in(self._run_state.plan.calls[call.index]):
            (_, call.args, call.kwargs), _ = self._run_state.call(
                call.index, self._open_streams(call.index, call_context)
            )

    def _open_streams(self, index: int, call_context: CallContext | None) -> Mapping[int, Iterator[object]]:
        if index not in self._run_state.plan.streams:
            return {}
        self._close_streams(index)
        inputs = self._inputs[index] = async_elements_of(self._run_state, index, self._slots)
        inputs.begin(call_context)
        return inputs.by_source

    def _close_streams(self, index: int) -> Inputs[AsyncElements] | None:
        inputs = self._inputs.pop(index, None)
        if inputs is not None:
            inputs.close()
        return inputs
