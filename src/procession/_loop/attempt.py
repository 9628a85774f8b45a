"""Attempts of a coroutine: each in an asyncio task of its own, with pauses between them that hold no slot.

owner.begin ──▶ attempt ──▶ what follows? ──┬─ nothing ──▶ returned, or raised
                   ▲                        └─ another ──▶ the engine parks the call
                   └────────────────────────────────────── and comes back with it
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator
from collections.abc import Set as AbstractSet
from contextvars import Context, copy_context
from inspect import isawaitable
from types import coroutine
from typing import TYPE_CHECKING, Any, Protocol

from procession._engine.admission import PutOff
from procession._engine.call_context import CURRENT_CALL, CallContext
from procession._engine.decimals import own_decimals
from procession._engine.gate import NotBegun, passes_gate
from procession._engine.retry import GiveUp, Verdict, pause, retrying, untie
from procession._engine.run_state import RunState
from procession._engine.tracebacks import stripped
from procession._engine.unawaited import awaited
from procession._model.batched import inside
from procession._model.record import WHOLE
from procession._model.task import MapFunction, Options
from procession._model.text import shown
from procession._plan.plan import Plan
from procession.errors import TaskCancelled, TaskTimeoutError

if TYPE_CHECKING:
    from procession._engine.bucket import Claims

_RULES = (
    "stop",
    "wait",
    "retry",
    "before",
    "after",
    "before_sleep",
    "reraise",
    "retry_error_cls",
    "retry_error_callback",
)


@coroutine
def starting() -> Generator[None, None, None]:
    """Wait for the first step of the asyncio task that will run the calling coroutine.

    A coroutine that was sent this far by hand hears of a cancellation even if that comes before its first step. One
    that has not begun would be dropped without a word, and its slot with it.
    """
    yield


class Owner(Protocol):
    """What a call belongs to: the engine for the call of a task, a map for the call of an element."""

    def note_start(self, call: "PendingCall") -> None:
        """Take note that the first attempt begins."""
        ...

    def begin(self, call: "PendingCall") -> None:
        """Prepare the first attempt, in the context of its asyncio task."""
        ...

    def returned(self, call: "PendingCall", value: object) -> None:
        """Settle the call, which returned. Raises for a value that cannot be recorded."""
        ...

    def raised(self, call: "PendingCall", error: BaseException) -> None:
        """Settle the call, which raised."""
        ...

    def drop(self, call: "PendingCall") -> None:
        """Take note that a call will not be made that was held back."""
        ...


class PendingCall:
    """A call of a coroutine function that may take several attempts, or that has options, or is followed closely."""

    __slots__ = (
        "args",
        "began",
        "claims",
        "context",
        "digest",
        "element",
        "ended",
        "error",
        "function",
        "index",
        "kwargs",
        "made",
        "options",
        "owner",
        "put_off",
        "rules",
        "start",
        "timer",
        "worker",
    )

    def __init__(
        self,
        owner: Owner,
        index: int,
        function: Callable[..., Awaitable[Any]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options,
        element: int = WHOLE,
    ) -> None:
        self.owner = owner
        self.index = index
        self.element = element
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.options = options
        self.context: Context | None = None
        """What each attempt runs in a copy of; `None` where that is the owner's context."""
        self.digest = b""
        self.made = 0
        """How many attempts have begun."""
        self.start = 0.0
        """When the first attempt began, as a reading of the clock."""
        self.began = 0.0
        """When the last attempt began."""
        self.ended: float | None = None
        """When the last attempt ended, where a pause follows it."""
        self.worker = ""
        """Who made the last attempt."""
        self.error: BaseException | None = None
        """What the last attempt raised."""
        self.rules: RetryRules | None = None
        self.timer: asyncio.TimerHandle | None = None
        """What ends the pause that the call is in."""
        self.claims: Claims | None = None
        """What the call takes of its limits, while it is made."""
        self.put_off = False
        """Whether the last attempt is made again, as a service has put it off."""

    async def attempt(self, run_state: RunState, call_context: CallContext) -> float | None:
        """Make an attempt; return in how many seconds another is to follow, or `None` where the call has ended."""
        goes_on, self.put_off = self.put_off, False
        self.made += not goes_on
        self.ended = None
        self.worker = call_context.worker
        self.began = time.perf_counter()
        value: Any = None
        try:
            await starting()
            CURRENT_CALL.set(call_context)
            if run_state.decimals is not None:
                own_decimals(run_state.decimals)
            self.began = time.perf_counter()
            if not goes_on:
                await self._begin(run_state)
            if self.claims is not None and run_state.admission is not None:
                run_state.admission.begin(self.claims)
        except BaseException as error:
            self._withdraw(run_state)
            self._end(returned=False, value=error)
            return None
        try:
            returned, value = True, await (self._called() if self.options.timeout is None else self._in_time())
            self.end_admission(run_state)
        except BaseException as error:
            returned, value = False, self.end_admission(run_state, error)
        return await self.followed(run_state, returned=returned, value=value)

    async def followed(self, run_state: RunState, *, returned: bool, value: Any) -> float | None:
        """Return in how many seconds another attempt follows one that ended so, or `None` where the call has ended."""
        options = self.options
        seconds: float | None = None
        if isinstance(value, GiveUp):
            self._end(returned=False, value=value.error)
            return None
        if isinstance(value, NotBegun):  # it has not begun
            self.made = 0
            if self.element == WHOLE:
                run_state.ledger.starts[self.index] = None
            return 0.0
        if isinstance(value, PutOff):
            self.put_off, self.error, self.ended = True, value.error, time.perf_counter()
            return 0.0
        if self.rules is not None or (options.retries and not returned and isinstance(value, Exception)):
            try:
                if self.rules is None:
                    self.rules = self._new_rules()
                    await self.rules.begin()
                seconds, returned, value = await self.rules.verdict(returned=returned, value=value)
            except BaseException as error:
                seconds, returned, value = None, False, error
        if seconds is None:
            self._end(returned=returned, value=value)
            return None
        self.error = None if returned else value
        self.ended = time.perf_counter()
        run_state.retrying(self.index, self.made, self.error, self.start, self.element)
        return seconds

    def end_pause(self) -> None:
        """Keep the retry rules from making another attempt."""
        if self.timer is not None:
            self.timer.cancel()

    def admit(self, run_state: RunState, hold: Callable[[], Callable[[], object]]) -> bool:
        """Return whether the next attempt may begin, else have it held back, as `Admission.ask` does.

        Raises for a call whose cost is no number, or can never be paid.
        """
        assert run_state.admission is not None
        if not self.made and self.element == WHOLE:
            (_, self.args, self.kwargs), _ = run_state.call(self.index)
        place = self.index, self.element
        self.claims = run_state.admission.ask(place, self.options.limit, self.args, self.kwargs, hold)
        return self.claims is not None

    def end_admission(self, run_state: RunState, error: BaseException | None = None) -> BaseException | None:
        """Give back what the call has taken of its limits; return the error that stands."""
        claims, admission = self.claims, run_state.admission
        if claims is None or admission is None:
            return error
        error, self.claims = admission.end(self.options.limit, claims, error), None
        return error

    def _withdraw(self, run_state: RunState) -> None:
        claims, self.claims = self.claims, None
        if claims is not None and run_state.admission is not None:
            run_state.admission.withdraw(claims)

    def fail(self, error: BaseException, worker: str) -> None:
        """End with an error that keeps the next attempt from beginning."""
        self.ended, self.began = None, time.perf_counter()
        if not self.made:
            self.made, self.worker, self.start = 1, worker, self.began
            self.owner.note_start(self)
        self._end(returned=False, value=error)

    def give_up(self) -> None:
        """End as the last attempt did, as no other will be made. A call that was never made has not begun."""
        if not self.made:
            self.owner.drop(self)
            return
        stopped = TaskCancelled("the run was stopped before the next attempt")
        self._end(returned=False, value=stopped if self.error is None else self.error)

    def _end(self, *, returned: bool, value: Any) -> None:
        try:
            if returned:
                try:
                    self.owner.returned(self, awaited(value))
                except BaseException as error:
                    self.owner.raised(self, error)
            else:
                self.owner.raised(self, value)
        finally:
            # No cycle may stay, which would keep what was raised until the collector comes.
            if self.rules is not None:
                self.rules.forget()
            value = self.error = None

    async def _begin(self, run_state: RunState) -> None:
        if self.made == 1:
            self.start = self.began
            self.owner.begin(self)
            if self.options.retries or self.options.limit:
                self.context = copy_context()
                own_decimals(run_state.decimals)  # that of the copy stays as it is
        else:
            run_state.failed_attempts.begin(self.index, self.element)
            if self.element == WHOLE:
                run_state.attempts[self.index] = self.made
        if self.rules is None and not isinstance(self.options.retries, int):
            self.rules = self._new_rules()
        if self.rules is not None:
            await self.rules.begin()

    def _new_rules(self) -> "RetryRules":
        return RetryRules(self.options, inside(self.function), self.args, self.kwargs)

    async def _called(self) -> Any:
        return await self.function(*self.args, **self.kwargs)

    async def _in_time(self) -> Any:
        timeout = self.options.timeout
        assert timeout is not None
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                return await self.function(*self.args, **self.kwargs)
        except TimeoutError as error:
            if not limit.expired():
                raise
            error.__traceback__ = stripped(error.__traceback__)
            cancelled = error.__cause__
            if cancelled is not None:
                cancelled.__traceback__ = stripped(cancelled.__traceback__)
            name = shown(CURRENT_CALL.get().run.name(self.index))
            raise TaskTimeoutError(
                f"task {self.index} ({name}) took longer than its timeout of {timeout:g} s"
            ) from cancelled


class RetryRules:
    """Applies the retry rules of one call to its attempts, like `RetryState`. The callbacks may be coroutines."""

    __slots__ = ("_again", "_enabled", "_state")

    def __init__(
        self, options: Options, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        import tenacity  # in use only where there are retries: see `retrying`

        rules = retrying(options)
        self._enabled = bool(getattr(rules, "enabled", True))
        # Its class for coroutines, as the callbacks may be some; not called, so that they see the task's own function.
        self._again = tenacity.AsyncRetrying(**{rule: getattr(rules, rule) for rule in _RULES})
        self._state = tenacity.RetryCallState(self._again, function, args, kwargs)
        self._again.begin()

    async def begin(self) -> None:
        """Tell the retry rules that an attempt begins."""
        if self._enabled:
            await self._next()

    async def verdict(self, *, returned: bool, value: Any) -> Verdict:
        """Return whether there is another attempt, and when, after one that returned the value, or raised it."""
        from tenacity import DoSleep

        if not self._enabled:
            return Verdict(None, returned, value)
        try:
            if returned:
                self._state.set_result(value)
            else:
                error: BaseException = value
                self._state.set_exception((type(error), error, error.__traceback__))
            what = await self._next()
        except BaseException as final:
            return Verdict(None, returned=False, value=final)
        if not isinstance(what, DoSleep):
            return Verdict(None, returned=True, value=what)
        self._state.prepare_for_next_attempt()
        return Verdict(pause(what), returned, value)

    def forget(self) -> None:
        """Drop the references to the value or error of the last attempt."""
        untie(self._again, self._state)

    async def _next(self) -> Any:
        what: Any = self._again.iter(self._state)
        return await what if isawaitable(what) else what  # older ones decide at once


def simple_tasks(run_state: RunState) -> AbstractSet[int]:
    """Return the coroutines of which nothing is to be known but how they end, and that need nothing beside the call."""
    if run_state.verbose or run_state.recorder is not None or run_state.decimals is not None:
        return frozenset()
    special = {*run_state.plan.needs, *_special(run_state.plan)}
    return run_state.plan.coroutines - special if special else run_state.plan.coroutines


def _special(plan: Plan) -> "list[int]":
    """Return the tasks whose options count before an attempt has failed, and maps."""
    special: list[int] = []
    last: object = None
    simple = True
    for index, options in plan.options.items():
        if options is not last:  # the same ones over and over are looked at once
            last, simple = options, passes_gate(options)
        if not simple or isinstance(plan.calls[index][0], MapFunction):
            special.append(index)
    return special
