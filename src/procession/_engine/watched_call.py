"""A call with a timeout in the thread of a worker, which is left behind with a call that is late."""

from collections.abc import Callable
from typing import Any

from procession._engine.call_context import CallContext
from procession._engine.retry import Abandoned
from procession._engine.run_state import RunState
from procession._engine.watcher import Deadline
from procession._model.record import WHOLE


def watched(
    deadline: Deadline,
    call_context: CallContext,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Make a call whose deadline has begun; return its value or raise its error, if it ends in time.

    Raises `Abandoned` when an abandoned call has ended after all: its value is not used any more.
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
