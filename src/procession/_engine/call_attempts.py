"""The attempts of a call that a task makes itself: within its limits and its timeout, and again after a failure.

In a thread, the attempts are made one after another by the task's own thread, which waits between them. A coroutine
awaits the same steps.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from procession._engine.admission import Admission, Admitted, PutOff, await_admission
from procession._engine.bucket import Claims
from procession._engine.call_context import InnerCallContext
from procession._engine.retry import GiveUp, Retry
from procession._engine.timed_call import TellingRun, TimedCall
from procession._model.limit import Limits
from procession._model.task import PLAIN, Call, Options
from procession.errors import TaskCancelled, TaskTimeoutError

SLICE_S = 0.1
"""How long a coroutine that waits for its next attempt sleeps before it looks whether the run goes on."""


class AttemptingRun(TellingRun, Protocol):
    """What attempts need of the run."""

    def wait_halted(self, seconds: float) -> bool:
        """Wait until nothing new may start, at most this long; return whether that is so."""
        ...


class CallAttempts:
    """Makes one call that has options. `place` is unlike that of any other call that waits for the same limits."""

    __slots__ = ("_admission", "_call", "_context", "_follows", "_options", "_place", "_retry", "_run", "_where")

    def __init__(
        self,
        run: AttemptingRun,
        context: InnerCallContext,
        call: Call,
        options: Options,
        admission: Admission | None,
        place: tuple[int, int],
        where: str,
    ) -> None:
        self._run = run
        self._context = context
        self._call = call
        self._options = options
        self._admission = admission
        self._place = place
        self._where = where
        self._follows = False
        """Whether the next attempt is another one, and not the one before that was put off."""
        self._retry: Retry | None = None
        if not isinstance(options.retries, int):  # such rules see each attempt
            self._retry = Retry(options, call, time.perf_counter())

    # In a thread

    def make(self) -> Any:
        """Make the call; return its value, or raise what its last attempt raised."""
        value: Any = None
        try:
            while True:
                try:
                    self._begin()
                    returned, value = True, self._attempt()
                except PutOff:
                    continue
                except BaseException as error:
                    returned, value = False, error
                seconds, returned, value = self._judged(returned=returned, value=value)
                if seconds is None or self._run.wait_halted(seconds):
                    return self._ended(returned=returned, value=value)
                self._follows = True
        finally:
            value = None  # no cycle may stay

    def _attempt(self) -> Any:
        options, admission = self._options, self._admission
        function, args, kwargs = self._call
        if admission is None:
            return self._within(options.timeout, function, args, kwargs)
        claims = await_admission(admission, self._place, options.limit, args, kwargs, lambda: self._run.cancelled)
        if claims is None:
            raise self._stopped()
        try:
            admitted = Admitted(admission, options.limit, claims)
        except BaseException:
            admission.withdraw(claims)
            raise
        try:
            return self._within(options.timeout, admitted, (function, args, kwargs), {})
        except BaseException:
            admitted.withdraw()
            raise

    def _within(
        self, timeout: float | None, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Make the call within its timeout, if it has one."""
        if timeout is None:
            return function(*args, **kwargs)
        timed = TimedCall(self._run, self._context.index, self._context.attempt, call_context=self._context)
        try:
            return timed.make(timeout, function, args, kwargs)
        except TaskTimeoutError:
            if timed.hung is None:
                raise
            if self._options.retries:
                self._retried().hung = timed.hung
            raise self._too_long(timeout) from None

    # In a coroutine

    async def make_in_loop(self) -> Any:
        """Do the same for a coroutine function."""
        value: Any = None
        try:
            while True:
                try:
                    self._begin()
                    returned, value = True, await self._attempt_in_loop()
                except PutOff:
                    continue
                except BaseException as error:
                    returned, value = False, error
                seconds, returned, value = self._judged(returned=returned, value=value)
                if seconds is None or await self._halted_within(seconds):
                    return self._ended(returned=returned, value=value)
                self._follows = True
        finally:
            value = None

    async def _attempt_in_loop(self) -> Any:
        admission, limits = self._admission, self._options.limit
        if admission is None:
            return await self._called_in_loop()
        claims = await self._admitted(admission, limits)
        admission.begin(claims)
        standing: BaseException | None = None
        try:
            value = await self._called_in_loop()
        except BaseException as error:
            standing = admission.end(limits, claims, error)
            if standing is error:
                raise
        else:
            admission.end(limits, claims)
            return value
        try:
            assert standing is not None
            raise standing
        finally:
            standing = None

    async def _called_in_loop(self) -> Any:
        (function, args, kwargs), timeout = self._call, self._options.timeout
        if timeout is None:
            return await function(*args, **kwargs)
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                return await function(*args, **kwargs)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise self._too_long(timeout) from error.__cause__

    async def _admitted(self, admission: Admission, limits: Limits) -> Claims:
        """Wait until the call may begin; return what it takes of its limits."""
        loop = asyncio.get_running_loop()
        _, args, kwargs = self._call
        while True:
            due = asyncio.Event()
            claims = admission.ask(self._place, limits, args, kwargs, partial(_wakes, loop, due))
            if claims is not None:
                return claims
            try:
                await due.wait()
            except BaseException:
                admission.drop(self._place)
                raise

    async def _halted_within(self, seconds: float) -> bool:
        """Wait until nothing new may start, at most this long; return whether that is so."""
        until = time.monotonic() + seconds
        while not self._run.wait_halted(0):
            left = until - time.monotonic()
            if left <= 0:
                return False
            await asyncio.sleep(min(left, SLICE_S))
        return True

    # In both

    def _begin(self) -> None:
        """Begin another attempt, unless it is the first, or the one that was put off. Raises where it must not be."""
        if self._follows and self._retry is not None:
            self._follows = False
            self._retry.begin()
            self._context.attempt = self._retry.made

    def _judged(self, *, returned: bool, value: Any) -> tuple[float | None, bool, Any]:
        """Return in how many seconds another attempt follows, or `None`, and the value or the error that stands."""
        if isinstance(value, GiveUp):
            return None, False, value.error
        if self._retry is None and (returned or not self._options.retries):
            return None, returned, value
        return self._retried().judge(returned=returned, value=value)

    def _retried(self) -> Retry:
        if self._retry is None:
            self._retry = Retry(self._options, self._call, time.perf_counter())
        return self._retry

    def _ended(self, *, returned: bool, value: Any) -> Any:
        """Return the value that stands, or raise the error."""
        if self._retry is not None:
            self._retry.state.forget()
            self._retry.error = None
        if returned:
            return value
        try:
            raise value
        finally:
            value = None  # no cycle may stay

    def _too_long(self, seconds: float) -> TaskTimeoutError:
        return TaskTimeoutError(f"{self._where} took longer than its timeout of {seconds:g} s")

    def _stopped(self) -> TaskCancelled:
        return TaskCancelled(f"the run was cancelled before {self._where} could begin")


def _wakes(loop: asyncio.AbstractEventLoop, due: asyncio.Event) -> Callable[[], object]:
    return partial(loop.call_soon_threadsafe, due.set)


def limits_held(limits: Limits, options: Mapping[int, Options], index: int) -> Limits:
    """Return those of the limits that the task itself is under: a call of it would wait for its own task."""
    held = {limit.key for limit in options.get(index, PLAIN).limit}
    return tuple(limit for limit in limits if limit.key in held)
