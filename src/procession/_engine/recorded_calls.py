"""Recorded calls: a task makes them as it goes, and each is recorded by itself.

    task ──call──▶ RecordedCalls ── in its record? ──▶ what it returned then; nothing is called
                        │ no
                        ▼
                   CallAttempts ──value──▶ CallRecord ──▶ RunCalls, which commits it ──▶ the task goes on

A call is known by its place among the calls of its task, by its name and by its arguments. Nothing else of a task is
recorded: what is no recorded call is done again when the task is called again.
"""

import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from procession._engine.call_attempts import CallAttempts
from procession._engine.call_context import LONG_S, CallContext, InnerCallContext
from procession._engine.calls_of_run import CallsRecorder, RunCalls
from procession._engine.inside_call import InsideCall
from procession._engine.recording import error_text
from procession._engine.suspension import check_wait, is_in_loop, until
from procession._engine.tracebacks import stripped
from procession._engine.unawaited import awaited
from procession._model.record import WHOLE, CallRecord, WaitKind, WaitRecord
from procession._model.task import Call, is_coroutine_function, name_of, options_of
from procession._model.text import shown, sketch
from procession._plan.digest import Refused, check_order, combined
from procession._plan.identity import called, digest_call, identity, is_fixed, moved
from procession.errors import (
    DigestError,
    PlanChangedError,
    ResultError,
    TaskCancelled,
    TaskSuspended,
    TaskTimeoutError,
)

E = TypeVar("E", bound=BaseException)

_DECIDED: Final = "What decides which calls a task makes has to be a recorded call itself"


class Begun(NamedTuple):
    """A call that has its place."""

    place: int
    seen: int
    name: str
    digest: bytes
    failed: tuple[int, ...] = ()
    """The places of calls that had failed by then, and that `seen` does not cover: one before them had not ended."""
    recalled: tuple[bool, Any] | None = None
    """Whether it returned, and the value or exception, where it is not made again."""
    replaces: bool = False


class RecordedCalls:
    """The calls that one attempt of a task, or of an element of a map, makes itself: see `CurrentTask.call`."""

    def __init__(self, shared: RunCalls, call_context: CallContext) -> None:
        self.attempt = call_context.index, call_context.element, call_context.attempt
        self._shared = shared
        self._count = 0
        self._open: set[int] = set()
        """The places of calls that have begun and not ended."""
        self._sleeps = 0
        self.refusal: BaseException | None = None
        """Why the attempt cannot go on: it has failed, or is left as it waits, whatever it makes of that."""
        self._failures: set[int] = set()
        """The places of calls that have failed in this attempt."""
        self._passed: set[tuple[WaitKind, str]] = set()
        """What was waited for in this attempt."""
        shared.run.refusals.pop((call_context.index, call_context.element), None)
        self._recorded = shared.recorded(call_context.index, call_context.element)

    def call(
        self, call_context: CallContext, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Make a call, or return what is recorded of it; of a coroutine function, return an awaitable of that."""
        self._check(call_context, "makes a recorded call")
        call = function, args, kwargs
        begun = self._begin(call)
        if is_coroutine_function(function):
            return self._await(begun, call_context, call)
        return self._make(begun, call_context, call)

    def map(self, call_context: CallContext, function: Callable[..., Any], items: Iterable[Any]) -> Any:
        """Make a call for each item, several at once; of a coroutine function, return an awaitable of the values."""
        self._check(call_context, "makes a recorded call")
        if self._shared.recorder is not None:
            check_order((items,), self._where)
        calls: list[Call] = [(function, (item,), {}) for item in items]
        # All begin before one ends. So the places do not depend on which ends first.
        each = [(self._begin(call), call_context, call) for call in calls]
        # Where the task knew that one had failed, nothing is made of the others.
        each = next(([one] for one in each if one[0].recalled is not None and not one[0].recalled[0]), each)
        places = range(self._count - len(calls), self._count)
        if is_coroutine_function(function):
            return self._await_each(each, places)
        try:
            if self._shared.run.max_workers == 1 or sum(begun.recalled is None for begun, _, _ in each) <= 1:
                return [self._make(*one) for one in each]
            return _in_threads(
                [partial(self._make, *one) for one in each], self._shared.run.max_workers, f"{call_context.worker}-call"
            )
        finally:
            self._open.difference_update(places)  # also those that were not made, as another failed

    async def _await_each(self, each: list[tuple[Begun, CallContext, Call]], places: range) -> list[Any]:
        try:
            return await _gathered([partial(self._await, *one) for one in each], self._shared.run.max_workers)
        finally:
            self._open.difference_update(places)

    # Waiting

    def wait_for(self, call_context: CallContext, name: str, timeout: float | None) -> Any:
        """Return the answer of a name. Raises `TaskSuspended` where it is not there."""
        check_wait(name, timeout)
        self._check(call_context, "waits")
        recorder = self._shared.recorder
        if recorder is None:
            raise RuntimeError(
                f"{self._where} waits for {shown(name)!r}, and its run has no journal that could have the answer: "
                "execute the process with journal=, and run_id= to go on with it"
            )
        found = self._wait(recorder, "answer", name, timeout)
        if found.value is not None:
            try:
                return recorder.decode(found.value, f"run {self._shared.run.run_id!r}, answer {shown(name)!r}")
            except ResultError as error:
                if not recorder.allow_changes:
                    self._ended_by(error)
                    raise
            index, element, _ = self.attempt
            recorder.waits.forget_answer(index, element, name)
            found = self._wait(recorder, "answer", name, timeout)
        if found.left <= 0:
            raise TaskTimeoutError(f"{self._where} has waited for {shown(name)!r} in vain until its timeout")
        raise self._ended_by(TaskSuspended(f"waits for {shown(name)!r}{until(found.left)}"))

    def slept(self, call_context: CallContext, seconds: float) -> float:
        """Return how long the task still has to sleep here, of so many seconds. Raises `TaskSuspended` if for long."""
        recorder = self._shared.recorder
        if recorder is None or not self._shared.is_worker(call_context.worker):
            return seconds
        self._check(call_context, "waits")
        place, self._sleeps = self._sleeps, self._sleeps + 1
        left = self._wait(recorder, "sleep", str(place), seconds).left
        if left > (0 if is_in_loop() else LONG_S):
            raise self._ended_by(TaskSuspended(f"sleeps{until(left)}"))
        return left

    def _wait(self, recorder: CallsRecorder, kind: WaitKind, name: str, seconds: float | None) -> WaitRecord:
        """Return how it stands with what the task waits for; the task goes on from what has failed before."""
        index, element, _ = self.attempt
        self._go_on_from(tuple(self._failures))
        self._passed.add((kind, name))
        digest = self._shared.element_digest(index, element)
        return recorder.waits.begin(index, element, kind, name, seconds, digest)

    def _go_on_from(self, failed: tuple[int, ...]) -> None:
        """Record that the task has gone on after these calls have failed."""
        index, element, _ = self.attempt
        if failed and self._shared.records is not None:
            self._shared.records.go_on_from(index, element, failed)
            self._failures.difference_update(failed)

    # Before a call

    def _check(self, call_context: CallContext, does: str) -> None:
        """Raise where the task may make no call, or wait, here and now; `does` says what it does."""
        if call_context.call != WHOLE:
            inner = f"call {call_context.call} ({shown(call_context.callee_name)})"
            raise RuntimeError(
                f"{inner} of {self._where} {does} itself, which only a task may: let the task do so, or call a process"
            )
        if self.refusal is not None:
            raise self.refusal
        if call_context.abandoned or self._shared.run.cancelled:
            raise TaskCancelled(f"{self._where} was cancelled")
        if not self._shared.is_worker(call_context.worker):
            raise RuntimeError(
                f"{self._where} {does} from another thread or coroutine than its own: its place would depend on which "
                "comes first. Make several calls at once with current_task().map(function, items)"
            )

    def _begin(self, call: Call) -> Begun:
        """Give a call its place; find what is recorded of it. Raises `PlanChangedError` where that is another call."""
        function, args, kwargs = call
        if not callable(function):
            raise TypeError(f"call(function, ...) takes a callable; got {sketch(function)}")
        place, recorder = self._count, self._shared.recorder
        seen = min(self._open, default=place)
        self._count += 1
        self._open.add(place)
        if recorder is None:
            return Begun(place, seen, "", b"")
        name = self._shared.full_name(function)
        try:
            digest = digest_call(function, args, kwargs)
        except Refused as refused:
            raise DigestError(f"{self._said(place, name)}, {refused}") from refused.__cause__
        record = self._recorded.get(place)
        if record is not None and (difference := self._difference(record, name, digest)) is not None:
            self._refuse_or_forget(place, difference, recorder)
            record = None
        failed = tuple(other for other in self._failures if other >= seen)
        if record is None:
            return Begun(place, seen, name, digest, failed)
        try:
            recalled = self._recalled(record, recorder)
        except ResultError as error:
            if not recorder.allow_changes:
                self._ended_by(error)
                raise
            self._forget(place, recorder)
            return Begun(place, seen, name, digest, failed)
        return Begun(place, seen, name, digest, failed, recalled, replaces=True)

    def _difference(self, record: CallRecord, name: str, digest: bytes) -> str | None:
        """Return how a call differs from the one that is recorded in its place, if it does."""
        if record.name != name and identity(record.name) != identity(name) and not moved(record.name, name):
            was, now = shown(called(record.name)), shown(called(name))
            was, now = (was, now) if was != now else (shown(record.name), shown(name))
            return f"call {record.call} was {was}, is {now}. {_DECIDED}"
        if record.digest == _changed(digest):
            return (
                f"call {record.call} ({shown(called(name))}) changed its arguments when it was made, which the task "
                "would not see now. Only what a call returns is recorded: have it return what is new"
            )
        if record.digest != digest:
            return (
                f"call {record.call} ({shown(called(name))}) has other arguments than those that were recorded. "
                f"{_DECIDED}"
            )
        return None

    def _refuse_or_forget(self, place: int, difference: str, recorder: CallsRecorder) -> None:
        if not recorder.allow_changes:
            run = self._shared.run
            raise self._ended_by(
                PlanChangedError(
                    f"run {shown(run.run_id)!r} of {self._where}: {difference}. Start under another run id, or with "
                    "allow_changes=True, which forgets this call and those after it"
                )
            )
        self._forget(place, recorder)

    def _ended_by(self, error: E) -> E:
        """Note an error that fails the attempt even if its code catches it, and return it to be raised."""
        index, element, _ = self.attempt
        self.refusal = self._shared.run.refusals[index, element] = error
        return error

    def _forget(self, place: int, recorder: CallsRecorder) -> None:
        """Forget the recorded calls from a place on, and what the task has waited for after them."""
        index, element, _ = self.attempt
        assert self._shared.records is not None
        self._shared.records.forget(index, element, place)
        recorder.waits.forget_but(index, element, self._passed)
        self._recorded = {at: record for at, record in self._recorded.items() if at < place}

    def _recalled(self, record: CallRecord, recorder: CallsRecorder) -> tuple[bool, Any] | None:
        """Return how a recorded call ended; `None` for one that failed and is to be made again."""
        where = f"run {self._shared.run.run_id!r}, {self._said(record.call, record.name)}"
        if record.state == "completed":
            assert record.value is not None
            return True, recorder.decode(record.value, where)
        # What the task has done since it knew of a failure follows from that.
        known = any(record.call < other.seen for other in self._recorded.values())
        if not known:
            return None
        error = None if record.value is None else recorder.decode(record.value, where)
        if not isinstance(error, Exception):
            raise ResultError(
                f"{where} had failed ({shown((record.error or '').partition(chr(10))[0])}), and the task went on after "
                "that; but its exception could not be recorded, and so cannot be raised again. Have what is called "
                "return that it failed, as a value; go on with allow_changes=True, which makes again this call and "
                "those after it"
            )
        return False, error

    # The call

    def _make(self, begun: Begun, call_context: CallContext, call: Call) -> Any:
        if begun.recalled is not None:
            return self._recall(begun)
        inner = InnerCallContext(call_context, begun.place, call[0], begun.digest)
        start = time.perf_counter()
        try:
            with InsideCall(self._shared, inner, call_context, start):
                attempts = self._attempts(begun, inner, call)
                value = awaited(call[0](*call[1], **call[2]) if attempts is None else attempts.make())
        except Exception as error:
            record = self._failed(begun, inner, call, start, error)
            if record is not None and not call_context.abandoned:
                self._shared.commit(record)
                self._failures.add(begun.place)
            raise
        record = self._returned(begun, inner, call, start, value)
        if record is not None:
            _check_abandoned(call_context)
            self._shared.commit(record)
        return value

    async def _await(self, begun: Begun, call_context: CallContext, call: Call) -> Any:
        if begun.recalled is not None:
            return self._recall(begun)
        inner = InnerCallContext(call_context, begun.place, call[0], begun.digest)
        start = time.perf_counter()
        try:
            with InsideCall(self._shared, inner, call_context, start):
                attempts = self._attempts(begun, inner, call)
                value = await (call[0](*call[1], **call[2]) if attempts is None else attempts.make_in_loop())
        except Exception as error:
            record = self._failed(begun, inner, call, start, error)
            if record is not None:
                await self._shared.commit_beside(record)
                self._failures.add(begun.place)
            raise
        except BaseException:
            self._open.discard(begun.place)  # it was cancelled
            raise
        record = self._returned(begun, inner, call, start, value)
        if record is not None:
            await self._shared.commit_beside(record)
        return value

    def _attempts(self, begun: Begun, inner: InnerCallContext, call: Call) -> CallAttempts | None:
        """Return the attempts of a call whose function has options; `None` if it has none."""
        options = options_of(call[0])
        if not (options.retries or options.limit or options.timeout is not None):
            return None
        index, element, _ = self.attempt
        where = f"call {begun.place} ({shown(name_of(call[0]))}) of {self._where}"
        admission = self._shared.admission(options.limit, index, where)
        place = index, (element + 1 << 32) + begun.place
        return CallAttempts(self._shared.run, inner, call, options, admission, place, where)

    def _recall(self, begun: Begun) -> Any:
        """Return the value that is recorded, or raise the exception."""
        assert begun.recalled is not None
        self._open.discard(begun.place)
        returned, value = begun.recalled
        if returned:
            return value
        try:
            raise value
        finally:
            del value, begun  # no cycle may stay

    # After a call

    def _returned(
        self, begun: Begun, inner: InnerCallContext, call: Call, start: float, value: object
    ) -> CallRecord | None:
        self._open.discard(begun.place)
        if self._shared.recorder is None:
            return None
        try:
            encoded = self._shared.recorder.encode(value)
        except ResultError as error:
            error.add_note(f"it is the value of {self._said(begun.place, begun.name)}")
            raise
        return self._record(begun, inner, call, start, encoded, None)

    def _failed(
        self, begun: Begun, inner: InnerCallContext, call: Call, start: float, error: Exception
    ) -> CallRecord | None:
        BaseException.with_traceback(error, stripped(error.__traceback__))
        self._open.discard(begun.place)
        if self._shared.recorder is None:
            return None
        try:
            encoded = self._shared.recorder.encode(error)
        except Exception:
            encoded = None
        return self._record(begun, inner, call, start, encoded, error)

    def _record(
        self,
        begun: Begun,
        inner: InnerCallContext,
        call: Call,
        start: float,
        value: bytes | None,
        error: Exception | None,
    ) -> CallRecord:
        if begun.failed:
            self._go_on_from(begun.failed)
        # By place, as names would take longer than all the rest of this.
        return CallRecord(
            inner.index,
            inner.element,
            begun.place,
            begun.seen,
            "completed" if error is None else "failed",
            begun.name,
            begun.digest if _is_unchanged(call, begun.digest) else _changed(begun.digest),
            value,
            None if error is None else error_text(error),
            inner.attempt,
            self._shared.run.moment(start),
            time.perf_counter() - start,
            inner.worker,
            self._shared.element_digest(inner.index, inner.element),
            begun.replaces,
        )

    # Names

    @property
    def _where(self) -> str:
        index, element, _ = self.attempt
        run = self._shared.run
        at = "" if element == WHOLE else f", element {element}"
        return f"process {shown(run.process_name)!r}, task {index} ({shown(run.name(index))}){at}"

    def _said(self, place: int, name: str) -> str:
        return f"{self._where}, call {place} ({shown(called(name))})"


def _is_unchanged(call: Call, digest: bytes) -> bool:
    """Return whether the arguments of a call that was made still have their digest."""
    try:
        return is_fixed(*call) or digest_call(*call) == digest
    except Exception:  # it may hold what has no digest now, or be changed by another thread right now
        return False


def _changed(digest: bytes) -> bytes:
    """Return the digest to record for a call that has changed its own arguments."""
    return combined(b"changed", digest)


def _check_abandoned(call_context: CallContext) -> None:
    """Raise where the attempt that made a call was given up meanwhile: nothing of it is recorded any more."""
    if call_context.abandoned:
        raise TaskCancelled("the attempt that made this call was abandoned at its timeout")


def _in_threads(calls: list[Callable[[], Any]], at_once: int, name: str) -> list[Any]:
    """Make calls in threads, so many at once; return their values, or raise the first failure by place."""
    from concurrent.futures import ThreadPoolExecutor

    waiting = deque((place, copy_context(), call) for place, call in enumerate(calls))
    values: list[Any] = [None] * len(calls)
    failures: dict[int, BaseException] = {}

    def work() -> None:
        with suppress(IndexError):
            while True:
                place, context, call = waiting.popleft()
                try:
                    values[place] = context.run(call)
                except BaseException as error:
                    failures[place] = error
                    waiting.clear()

    at_once = min(at_once, len(calls))
    # A thread for each worker from the start, since a pool may count a busy thread as idle, and then starts none.
    with ThreadPoolExecutor(at_once, thread_name_prefix=name) as pool:
        try:
            for future in [pool.submit(work) for _ in range(at_once)]:
                future.result()
        finally:
            waiting.clear()
    try:
        if failures:
            raise failures[min(failures)]
        return values
    finally:
        failures.clear()  # no cycle may stay


async def _gathered(calls: list[Callable[[], Coroutine[Any, Any, Any]]], at_once: int) -> list[Any]:
    """Await calls, so many at once; return their values, or raise the first failure and cancel the others."""
    import asyncio

    slots = asyncio.Semaphore(at_once)

    async def one(call: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        async with slots:
            return await call()

    tasks = [asyncio.create_task(one(call)) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
