"""Events as records of the standard library's logger `procession`.

The message is the event's name; the fields are attributes of the record: `process_name`, `run_id`, and for a task
`task_name`, `index`, `attempt`, `duration_s`, `error_type`, `element` for one of a map, `limit` for a call that a limit
held back, and `call` and `call_name` for a call that a task makes itself. No record holds an argument, a value or the
text of a task's error; only the command line, which shows that text in any case, asks for it. What goes wrong with an
observer is told here too: `observer_failed`, with its traceback.
The root of the library has a `NullHandler`: nothing is shown until an application asks for it.
"""

import logging
import traceback
from collections.abc import Generator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Final

from procession._model.event import Event, EventName
from procession._model.text import in_a_line, shown

_LOGGER = logging.getLogger("procession")
_LOGGER.addHandler(logging.NullHandler())

LEVELS: Final[dict[EventName, int]] = {
    "run_started": logging.INFO,
    "run_completed": logging.INFO,
    "run_failed": logging.ERROR,
    "run_cancelled": logging.WARNING,
    "run_suspended": logging.INFO,
    "task_started": logging.DEBUG,
    "task_progressed": logging.DEBUG,
    "task_completed": logging.DEBUG,
    "task_failed": logging.ERROR,
    "task_cancelled": logging.DEBUG,
    "task_suspended": logging.INFO,
    "task_retrying": logging.WARNING,
    "task_held_back": logging.DEBUG,
    "task_abandoned_ended": logging.WARNING,
    "element_started": logging.DEBUG,
    "element_completed": logging.DEBUG,
    "call_started": logging.DEBUG,
    "call_completed": logging.DEBUG,
    "call_failed": logging.DEBUG,
}

DEBUG_EVENTS: Final = frozenset(name for name, level in LEVELS.items() if level == logging.DEBUG)
"""Events that are logged only at the level `DEBUG`."""


_TEXTS: ContextVar[bool] = ContextVar("procession_log_texts", default=False)


@contextmanager
def texts_logged() -> Generator[None]:
    """Log the text of what a task raises with runs that begin within the block, as field `error`."""
    token = _TEXTS.set(True)
    try:
        yield
    finally:
        _TEXTS.reset(token)


def texts_wanted() -> bool:
    """Return whether the log of a run that begins now has the text of errors: whether the command line reads it."""
    return _TEXTS.get()


def verbose() -> bool:
    """Return whether the start and end of each task is wanted. Asked once a run, for tasks are many."""
    return _LOGGER.isEnabledFor(logging.DEBUG)


def is_logged(name: EventName) -> bool:
    """Return whether events of this name are logged."""
    return _LOGGER.isEnabledFor(LEVELS[name])


def log(event: Event) -> None:
    """Log an event. An error in logging itself is printed on the standard error stream and never reaches the run."""
    if not is_logged(event.name):
        return
    fields: dict[str, object] = {"process_name": shown(event.process_name), "run_id": event.run_id}
    if event.task_name is not None:
        fields |= {"task_name": shown(event.task_name), "index": event.index, "attempt": event.attempt}
    if event.element is not None:
        fields["element"] = event.element
    if event.call is not None and event.call_name is not None:
        fields |= {"call": event.call, "call_name": shown(event.call_name)}
    if event.duration is not None:
        fields["duration_s"] = event.duration
    if event.limit is not None:
        fields["limit"] = shown(event.limit)
    if event.error is not None:
        fields["error_type"] = shown(type(event.error).__name__)
        if _TEXTS.get():
            fields["error"] = in_a_line(event.error)
    _emit(LEVELS[event.name], event.name, fields)


def log_trouble(name: str, event: Event, observer: str, **more: object) -> None:
    """Log that an observer has failed or fallen behind; `event` was passed to it last. `more` may hold an `error`."""
    if not _LOGGER.isEnabledFor(logging.WARNING):
        return
    error = more.pop("error", None)
    fields = {"process_name": shown(event.process_name), "run_id": event.run_id, "observer": shown(observer), **more}
    _emit(logging.WARNING, name, fields, error if isinstance(error, BaseException) else None)


def _emit(level: int, name: str, fields: dict[str, object], error: BaseException | None = None) -> None:
    trace = None if error is None else (type(error), error, error.__traceback__)
    try:
        record = _LOGGER.makeRecord(_LOGGER.name, level, __file__, 0, name, (), trace, log.__name__)
        # Not as `extra`, which refuses a record whose factory has given it a field of the same name.
        record.__dict__.update(fields)
        _LOGGER.handle(record)
    except Exception:
        # Past logging's own guard: a filter, say, or a handler that overrides too much. Told as logging tells it.
        if logging.raiseExceptions:
            with suppress(Exception):
                traceback.print_exc()
