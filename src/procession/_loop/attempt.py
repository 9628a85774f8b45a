"""Attempts of a coroutine: as in `attempt`, but awaited, cancelled for real, and with pauses that take no thread."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context
from inspect import isawaitable
from typing import Any

from procession._engine.attempt import Attempts, Scene, stripped
from procession._engine.retry_state import retrying, untie
from procession._engine.unawaited import awaited
from procession._model.record import WHOLE
from procession._model.task import Options

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

PATIENCE_S = 0.005
"""How long coroutines that never wait may keep the loop from all else."""


async def attempted(
    scene: Scene,
    pause: Callable[[float], Awaitable[bool]],
    index: int,
    options: Options,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    element: int = WHOLE,
) -> Any:
    """Await a call as its options say; return its value, or raise what the last attempt raised.

    `pause` waits so many seconds, but no longer than until nothing new may start, and returns whether that is so.
    """
    if options.retries == 0 and options.timeout is None:
        return awaited(await function(*args, **kwargs))
    attempts = Attempts(scene, index, options, function, args, kwargs, element)
    if options.retries == 0:
        return awaited(await _one(attempts))

    import tenacity  # in use only where there are retries: see `retrying`

    rules = retrying(options)
    if not getattr(rules, "enabled", True):
        return awaited(await _one(attempts))
    # Its class for coroutines, as the callbacks may be some; not called, so that they see the task's own function.
    again = tenacity.AsyncRetrying(**{rule: getattr(rules, rule) for rule in _RULES})
    state = tenacity.RetryCallState(again, function, args, kwargs)
    again.begin()
    try:
        while True:
            what: Any = again.iter(state)
            what = await what if isawaitable(what) else what  # older ones decide at once
            if isinstance(what, tenacity.DoAttempt):
                try:
                    state.set_result(await _one(attempts))
                except BaseException as error:
                    state.set_exception((type(error), error, error.__traceback__))
            elif isinstance(what, tenacity.DoSleep):
                state.prepare_for_next_attempt()
                attempts.report_retry()
                if await pause(float(what)) and attempts.error is not None:
                    raise attempts.error
            else:
                return awaited(what)
    finally:
        # As in `attempt`: no cycle may stay.
        untie(again, state)
        attempts.error = None


def current() -> "asyncio.Task[Any]":
    """Return the asyncio task that runs."""
    task = asyncio.current_task()
    assert task is not None
    return task


async def discard_cancellation(task: "asyncio.Task[Any]") -> None:
    """Forget a cancellation of the running task that was meant for a coroutine which has ended."""
    while task.cancelling():
        await yield_to_loop()
        task.uncancel()


async def yield_to_loop() -> None:
    """Let others have the loop. What runs next looks by itself whether it may, so no cancellation is needed here."""
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)


def contexts_equal(one: Context, other: Context) -> bool:
    """Return whether two contexts hold the same. Almost for nothing where one is a copy that nobody has changed."""
    try:
        return one == other
    except Exception:
        return False  # comparing what a task put into it failed: it is not the same


async def in_own_task(context: Context, function: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
    """Await a call in another context: as a task of its own, which is cancelled with the one that waits for it."""
    value, error = await asyncio.Task(_boxed(function, args, kwargs), context=context)
    if error is not None:
        try:
            raise error
        finally:
            error = None
    return value


async def _boxed(
    function: Callable[..., Awaitable[Any]], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, BaseException | None]:
    try:
        return await function(*args, **kwargs), None
    except (KeyboardInterrupt, SystemExit) as error:
        return None, error  # raised by a task of its own, these would end the loop


async def _one(attempts: Attempts) -> Any:
    call_context, context = attempts.begin()
    timeout = attempts.options.timeout
    limit = asyncio.timeout(timeout)
    try:
        try:
            async with limit:
                return await in_own_task(context, attempts.function, *attempts.args, **attempts.kwargs)
        except TimeoutError as error:
            if timeout is None or not limit.expired():
                raise
            cancelled = error.__cause__
            if cancelled is not None:
                cancelled.__traceback__ = stripped(cancelled.__traceback__)
            raise attempts.too_long(timeout) from cancelled
    except BaseException as error:
        attempts.error = error
        raise
    finally:
        call_context.over = True
