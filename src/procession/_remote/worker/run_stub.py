"""What a task can learn of its run in a process where the run itself is not."""

import os
import threading
import time
from typing import TYPE_CHECKING, Any

from procession._engine.call_context import CallContext, CallsWithin
from procession._engine.latch import Latch
from procession._model.batched import is_batched
from procession._model.log import Logs
from procession._model.record import WHOLE
from procession._model.task import MapFunction, name_of
from procession._model.text import shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from procession._engine.calls_of_run import RunCalls
    from procession._remote.wire.call_requests import CallLink


class RunStub:
    """Stands for a run in a worker process. It learns of a cancel only where the backend can tell it."""

    def __init__(self, process_name: str, run_id: str) -> None:
        self.process_name = process_name
        self.run_id = run_id
        self.halted = False
        self.children: dict[object, Callable[[], object]] = {}
        self.function: Callable[..., Any] = RunStub
        self.element = WHOLE
        self.kept = Logs()
        self.logs: Logs | None = None
        self.stop_listening: Callable[[], object] | None = None
        """Sets up logging as it was before, where something of it was set up for the run."""
        self.open_elements: dict[tuple[int, int], bytes] = {}
        """None: the coordinator has the digests of elements."""
        self.refusals: dict[tuple[int, int], BaseException] = {}
        """How tasks and elements end, whatever they return."""
        self.verbose = False
        """Whether somebody is to be told of each start and end."""
        self.is_recorded = False
        """Whether the run has a journal."""
        self.allow_changes = False
        """Whether calls that are other ones than those it has are made."""
        self.encodes = False
        """Whether values become the bytes of the journal here."""
        self.link: CallLink | None = None
        """The way to its journal, where there is one from here."""
        self.max_workers = min(32, (os.cpu_count() or 1) + 4)
        """How many calls a task makes at once, at most."""
        self._calls: RunCalls | None = None
        self._cancelled = Latch()

    @property
    def around(self) -> None:
        """Return `None`: the task in which the run itself is executed is not here."""

    @property
    def cancelled(self) -> bool:
        """Whether the run was cancelled, as far as is known here."""
        return self._cancelled.is_open

    def halt(self, *, cancelled: bool) -> None:
        """Halt: nothing new may start; with `cancelled`, tasks, and their runs here, are to stop, too."""
        self.halted = True
        if cancelled:
            self._cancelled.open()
            for cancel_child in list(self.children.values()):
                cancel_child()

    def name(self, index: int) -> str:  # noqa: ARG002
        """Return the name of the task, which is the one that runs."""
        return name_of(self.function if self.element == WHOLE else MapFunction(self.function))

    def wait_cancelled(self, seconds: float) -> bool:
        """Wait until the run is cancelled, at most this long; return whether it is."""
        return self._cancelled.wait(seconds)

    def moment(self, reading: float) -> float:
        """Return the seconds since the epoch that a reading of the clock stands for."""
        return time.time() + reading - time.perf_counter()

    def interrupt(self, error: BaseException) -> None:  # noqa: ARG002 - as for a run
        """Stop the run, as far as it is here."""
        self.halt(cancelled=True)

    def gets_lists(self, index: int) -> bool:  # noqa: ARG002
        """Return whether the call that runs gets several elements."""
        return is_batched(self.function)

    def calls_of(self, call_context: CallContext) -> CallsWithin:
        """Return the maker of the calls that the attempt of a call context makes itself."""
        from procession._engine.calls_of_run import RunCalls  # few tasks need them
        from procession._engine.recorded_calls import RecordedCalls
        from procession._remote.wire.call_requests import LinkedRecorder

        if self.is_recorded and self.link is None:
            error = RuntimeError(
                f"process {shown(self.process_name)!r}, task {call_context.index} ({shown(self.name(0))}): a call "
                "cannot be recorded, nor can the task wait, from where it runs, as the journal is out of reach there. "
                'Tasks that make recorded calls or wait run with executor="threads" or "processes"'
            )
            self.refusals[call_context.index, call_context.element] = error  # if the task catches it
            raise error
        if self._calls is None:
            recorder = None
            if self.is_recorded and self.link is not None:
                recorder = LinkedRecorder(self.link, allow_changes=self.allow_changes, here=self.encodes)
            self._calls = RunCalls(self, recorder, {}, None, _nothing, self._is_task_of)
        calls, attempt = call_context.calls, (call_context.index, call_context.element, call_context.attempt)
        if calls is None or calls.attempt != attempt:
            calls = call_context.calls = RecordedCalls(self._calls, call_context)
        return calls

    def _is_task_of(self, _worker: str) -> bool:
        """Return whether the calling thread is that of the task: in our own worker processes, that is the main one."""
        return self.link is None or threading.current_thread() is threading.main_thread()

    def wait_halted(self, seconds: float) -> bool:
        """Wait until nothing new may start, as far as is known here, at most so long; return whether that is so."""
        return self.halted or self._cancelled.wait(seconds)

    def report(self, *_: object, **__: object) -> None:
        """Do nothing: nobody listens here."""


def _nothing(_: object) -> None:
    pass
