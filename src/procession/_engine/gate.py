"""A function behind its limit: while that has room, a call costs little more than without.

    gated(function) ──a permit is left, or the bucket lays out more──▶ the call
                   └──no room, or others wait────────────────────────▶ NotBegun: the engine asks the admission instead

A call that has room waits for nobody and needs no object of its own, and threads do not meet at the admission's lock.
"""

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any

from procession._engine.admission import Admission
from procession._model.limit import Limits
from procession._model.task import Call, MapFunction, Options, is_coroutine_function

if TYPE_CHECKING:
    from procession._engine.run_state import RunState


class NotBegun(BaseException):
    """A call was not made: its limit has no room for it, others wait, or the run was stopped before."""


def passes_gate(options: Options) -> bool:
    """Return whether calls need nothing beside the call, until one has failed, or one limit that weighs all alike."""
    return (
        options.timeout is None
        and isinstance(options.retries, int)
        and (not options.limit or (len(options.limit) == 1 and options.limit[0].cost is None))
    )


def gated(  # noqa: C901, PLR0915 - the same twice
    function: Callable[..., Any], limits: Limits, admission: Admission | None
) -> Callable[..., Any]:
    """Wrap a function so that it is called, or awaited, only if its one limit has room, and else raises `NotBegun`.

    Where the service asks for a pause, it raises `PutOff` in place of the function's error.
    """
    if not limits:
        return function
    assert admission is not None
    bucket, judge, look_into = admission.bucket(limits[0]), admission.judge, admission.look_into
    take, begun, ended, lines = bucket.permits.pop, bucket.starts.append, bucket.ends.append, bucket.lines
    is_timed, clock, break_down = bucket.rate != inf, admission.clock, admission.break_down

    def take_more() -> None:
        if not admission.lay_out(bucket):
            raise NotBegun from None

    # Twice the same, and nothing is called that could stand here: that would cost as much as all the rest.

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            take()
        except IndexError:
            take_more()
        try:
            if is_timed:
                begun(clock())
            if lines:
                look_into(bucket)
            return function(*args, **kwargs) if kwargs else function(*args)
        except BaseException as error:
            judge(limits, error)
            raise
        finally:
            try:
                ended(None)
                if lines:
                    look_into(bucket)
            except BaseException as error:  # or it would count for ever
                break_down(error)
                raise

    async def call_awaited(*args: Any, **kwargs: Any) -> Any:
        try:
            take()
        except IndexError:
            take_more()
        try:
            if is_timed:
                begun(clock())
            if lines:
                look_into(bucket)
            return await (function(*args, **kwargs) if kwargs else function(*args))
        except BaseException as error:
            judge(limits, error)
            raise
        finally:
            try:
                ended(None)
                if lines:
                    look_into(bucket)
            except BaseException as error:  # or it would count for ever
                break_down(error)
                raise

    return call_awaited if is_coroutine_function(function) else call


def gated_calls(run_state: "RunState") -> list[Call]:
    """Return the calls of a plan, with a gate before those that need nothing else. The caller may change the list."""
    plan, admission = run_state.plan, run_state.admission
    if admission is None:
        return list(plan.calls)
    if admission.gated_calls is None:
        admission.gated_calls = prepared = list(plan.calls)
        last, gate = object(), None
        for index, options in plan.options.items():
            function, args, kwargs = prepared[index]
            if function is not last:  # the same function over and over is looked at once
                last, gate = function, None
                if options.limit and passes_gate(options) and not isinstance(function, MapFunction):
                    gate = gated(function, options.limit, admission)
            if gate is not None:
                prepared[index] = gate, args, kwargs
    return list(admission.gated_calls)
