"""Calls that go to a worker together: one object to send and one report back, for as many calls as are worth it.

coordinator                                 worker
Batch(calls) ──────── as it is ──────────▶ run_batch ──▶ Report(ended)          threads: nothing is pickled
     └──pickled──▶ bytes ──▶ Batch(bytes) ──▶ run_batch ──▶ Report ──▶ bytes     other processes
"""

import contextvars
import multiprocessing
import os
import pickle
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from procession._engine.attempt import Attempt
from procession._engine.call_context import CURRENT_CALL, CallContext
from procession._engine.decimals import base_context, own_decimals
from procession._engine.ledger import Ledger
from procession._engine.run_state import RunState
from procession._engine.task_logs import WantedLogs, listen
from procession._engine.unawaited import awaited
from procession._model.task import Options
from procession._model.text import described
from procession._remote.wire.crash_file import CrashFile
from procession._remote.wire.previous_value import with_previous_value
from procession._remote.wire.serialize import Call, Ended, encode_calls, encode_ended
from procession._remote.worker.run_stub import RunStub

if TYPE_CHECKING:
    from procession._model.log import Log

WITHIN: contextvars.ContextVar[tuple[object, ...]] = contextvars.ContextVar("procession_within", default=())
"""The executors one of whose workers waits for the calling code to end."""


class Batch:
    """Calls to be made one after another. The first ones that fit into `budget` seconds are, the others come back.

    `stops` says that none follows one that failed, `halts` that none of the run does, either. `kills` says that
    whoever sent it ends a worker at a timeout. In the process it was made in, `run_state` is there and the calls are
    as they were given; elsewhere, they arrive as `data`, which `loads` reads. `chained` says that each call but the
    first takes the value of the one before. `whole` says that functions go by value, and `size` is how many bytes
    it took. `shared` says that one of several calls notes each end where its sender sees it, who may recall it: in
    `ended`, or, if it goes to another process, in a `crash_file` that is made then. `within` is the executor that makes
    the calls, if that may be asked to make others that they wait for.
    `wanted` says what is to be done with what the calls log.
    """

    __slots__ = (
        "_data",
        "_found",
        "_loads",
        "_names",
        "_within",
        "begun",
        "budget",
        "calls",
        "chained",
        "crash_file",
        "ended",
        "halts",
        "hung",
        "kills",
        "recalled",
        "run_state",
        "shared",
        "size",
        "stops",
        "travelled",
        "wanted_logs",
        "whole",
    )

    def __init__(
        self,
        calls: Sequence[Call],
        run_state: RunState | None,
        names: tuple[str, str],
        *,
        budget: float,
        stops: bool,
        halts: bool = False,
        kills: bool = False,
        whole: bool = False,
        chained: bool = False,
        wanted_logs: WantedLogs | None = None,
        data: bytes | None = None,
        loads: Callable[[bytes], Sequence[Call]] = pickle.loads,
        within: object = None,
        found: tuple[str, bytes] | None = None,
    ) -> None:
        self.calls = calls
        self.run_state = run_state
        self.budget = budget
        self.stops = stops
        self.halts = halts
        self.kills = kills
        self.whole = whole
        self.chained = chained
        self.wanted_logs = wanted_logs
        self.size = 0
        self.hung: threading.Thread | None = None
        self._names = names
        self._data = data
        self._loads = loads
        self._within = within
        self._found = found
        self.ended: list[Ended | bytes] = []
        self.begun = self.recalled = self.shared = self.travelled = False
        self.crash_file: CrashFile | None = None

    def __reduce__(self) -> tuple[Callable[..., "Batch"], tuple[Any, ...]]:
        # One that has arrived may go on to another process, as it came.
        data = encode_calls(self.calls, whole=self.whole) if self._data is None else self._data
        self.size = len(data)
        self.travelled = True
        if self.shared and self.crash_file is None and len(self.calls) > 1:
            with suppress(OSError):
                self.crash_file = CrashFile.made()
        found = self._found if self.crash_file is None else (self.crash_file.path, self.crash_file.token)
        how = self.budget, self.stops, self.halts, self.kills, self.chained, self.wanted_logs, found
        return _arrived, (data, self._names, *how)

    def run(self, note: Callable[[Ended], object], run_stub: RunStub | None = None) -> BaseException | None:
        """Make the calls and have each end noted, until `note` says that no other is to be begun.

        Returns why they could not be read, if so: then none was made.
        """
        run: RunState | RunStub
        halting: Ledger | RunStub
        if self.run_state is not None:
            run, halting = self.run_state, self.run_state.ledger
        else:
            run = halting = RunStub(*self._names) if run_stub is None else run_stub
            run.logs = run.kept if self.wanted_logs is not None and self.wanted_logs.kept else None
            if self.wanted_logs is not None and self.wanted_logs.show is not None:
                self.wanted_logs.show()  # before modules of the calls are imported, which may log
        if self._data is not None:
            try:
                self.calls = self._loads(self._data)
            except BaseException as error:
                return error
            self._data = None
        if self.run_state is not None:
            base, decimals = self.run_state.context, self.run_state.decimals
        else:
            # Now that the modules of the calls are there, which may have set something, or set up logging.
            base, decimals = base_context()
            if self.wanted_logs is not None:
                listen(self.wanted_logs)
        failed = self._make(note, run, halting, base, decimals)
        if failed and self.halts and isinstance(run, RunStub):
            run.halted = True  # and so the batch that lies ready here comes back as it is
        return None

    def noted(self, run_stub: RunStub | None) -> BaseException | None:
        """Make the calls, and note each end in `ended`, and where the sender sees it."""
        self.begun = True
        crash_file = None if self._found is None else CrashFile.found(*self._found)
        if crash_file is None:
            return self.run(self._note, run_stub)
        try:
            crash_file.begin(1, 0)
            return None if crash_file.is_recalled(1) else self.run(partial(self._note_in, crash_file), run_stub)
        finally:
            crash_file.release()

    def _note(self, ended: Ended) -> bool:
        self.ended.append(ended)
        return self.recalled

    def _note_in(self, crash_file: CrashFile, ended: Ended) -> bool:
        data = encode_ended(ended)
        self.ended.append(data)
        # What does not fit is noted to have ended, and comes with the report.
        return not (crash_file.note(data) or crash_file.note(b"")) or crash_file.is_recalled(1)

    def ended_so_far(self) -> tuple[Sequence[Ended | bytes], int]:
        """Return how the first calls have ended, as far as is seen here, and how many have ended in all."""
        seen = list(self.ended) if self.crash_file is None else self.crash_file.read(1, 0)
        return seen[: seen.index(b"")] if b"" in seen else seen, len(seen)

    def _make(
        self,
        note: Callable[[Ended], object],
        run: RunState | RunStub,
        halting: Ledger | RunStub,
        base: contextvars.Context,
        decimals: "contextvars.ContextVar[Any] | None",
    ) -> bool:
        """Return whether a call failed after which none may follow."""
        # The calls share a call context and, until one of them changes it, a context: saving a third of a call.
        clock, chained, call_context = time.perf_counter, self.chained, CallContext(run, here(self.run_state is None))
        pristine = self._own_context(base, call_context)
        context = _clean(pristine.copy(), pristine, decimals)
        start = clock()
        until = start + self.budget
        value: Any = None
        recalled: object = False
        # What a call has logged goes back with how it ended. In its run's own process it lies there.
        run_stub = run if isinstance(run, RunStub) else None
        logs = None if run_stub is None else run_stub.logs
        for index, element, attempt, timeout, function, args, kwargs in self.calls:
            if recalled or halting.halted or start > until:
                return False
            if run_stub is not None:
                run_stub.function, run_stub.element = function, element
            if run.logs is not None:
                call_context = call_context.own(index)
                context.run(CURRENT_CALL.set, call_context)
                pristine.run(CURRENT_CALL.set, call_context)
            call_context.index, call_context.element, call_context.attempt = index, element, attempt
            if chained:
                args, kwargs = with_previous_value(args, kwargs, value)  # noqa: PLW2901
            try:
                if timeout is None or self.kills:
                    value = awaited(context.run(function, *args, **kwargs))
                else:
                    one = Attempt(run, index, Options(timeout=timeout), function, args, kwargs, element)
                    value = awaited(context.run(self._bounded, one, attempt))
            except BaseException as error:
                call_context.over = True
                recalled = note((False, start, clock(), error, logs.take((index, element)) if logs else None))
                if self.stops or not isinstance(error, Exception):
                    return True
                end = clock()
            else:
                call_context.over = True
                end = clock()
                recalled = note((True, start, end, value, logs.take((index, element)) if logs else None))
                value = value if chained else None
            start = end
            context = _clean(context, pristine, decimals)
        return False

    def _own_context(self, base: contextvars.Context, call_context: CallContext) -> contextvars.Context:
        context = base.copy()
        context.run(CURRENT_CALL.set, call_context)
        if self._within is not None:
            context.run(WITHIN.set, (*context.run(WITHIN.get), self._within))
        return context

    def _bounded(self, one: Attempt, attempt: int) -> Any:
        one.made = attempt - 1
        try:
            return one()
        finally:
            self.hung = one.hung


class Report:
    """What a worker made of a batch: how the calls ended that it made, of which there may be none.

    `hung` is, or says that there is, a thread in which a call goes on that was given up at its timeout. `crash_log` is,
    of a worker that is gone, a call (task and element) and what it had logged.
    """

    __slots__ = ("began", "crash_log", "ended", "error", "finished", "hung", "worker")

    def __init__(
        self,
        worker: str,
        ended: Sequence[Ended | bytes],
        began: float,
        finished: float,
        error: BaseException | None = None,
        hung: threading.Thread | bool = False,
    ) -> None:
        self.worker = worker
        self.ended = ended
        self.began = began
        self.finished = finished
        self.error = error
        self.hung = hung
        self.crash_log: tuple[tuple[int, int], Log] | None = None

    def __reduce__(self) -> tuple[type["Report"], tuple[Any, ...]]:
        ended = [one if isinstance(one, bytes) else encode_ended(one) for one in self.ended]
        error = None if self.error is None else RuntimeError(described(self.error))
        return Report, (self.worker, ended, self.began, self.finished, error, bool(self.hung))


def _clean(
    context: contextvars.Context, pristine: contextvars.Context, decimals: "contextvars.ContextVar[Any] | None"
) -> contextvars.Context:
    """Return the context if no call has changed it, else a new copy of what it was."""
    if decimals is not None:  # which a call may have changed without a trace
        context = pristine.copy()
        context.run(own_decimals, decimals)
        return context
    try:
        if context == pristine:
            return context
    except Exception:  # noqa: S110  # comparing what a call put into it failed: it is not the same
        pass
    return pristine.copy()


def run_batch(batch: Batch, run_stub: RunStub | None = None) -> Report:
    """Make the calls of a batch: what executors are given to call."""
    began = time.perf_counter()
    error = batch.noted(run_stub)
    return Report(here(batch.run_state is None), batch.ended, began, time.perf_counter(), error, batch.hung or False)


def here(elsewhere: bool) -> str:
    """Return what a worker is called."""
    if elsewhere:
        return f"{multiprocessing.current_process().name} ({os.getpid()})"
    return threading.current_thread().name


def _arrived(
    data: bytes,
    names: tuple[str, str],
    budget: float,
    stops: bool,
    halts: bool,
    kills: bool,
    chained: bool,
    wanted_logs: WantedLogs | None,
    found: tuple[str, bytes] | None,
) -> Batch:
    return Batch(
        (),
        None,
        names,
        budget=budget,
        stops=stops,
        halts=halts,
        kills=kills,
        chained=chained,
        wanted_logs=wanted_logs,
        data=data,
        found=found,
    )
