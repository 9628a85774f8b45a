"""Logs of tasks, kept with their records in the journal.

    logger ──▶ TaskLogHandler ──call context──▶ the logs of the run ──when the call has ended──▶ its record
                                                       ▲
    in a worker process: the same ──▶ logs of a batch ─┘ sent back with the result of the call

Where no logger has the handler, each call costs one look at an empty dictionary.
"""

import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from procession._engine.call_context import CURRENT_CALL, CallContext
from procession._model.log import harmless
from procession._model.shared_handler import SharedHandler


class WantedLogs(NamedTuple):
    """What another process has to do with the log records of the calls that it makes."""

    kept: tuple[tuple[str, int, int], ...]
    """The loggers that have a `TaskLogHandler`: name, level of the handler, effective level of the logger."""
    show: Callable[[], object] | None
    """A function that shows logs there as they are shown here; `None` if that cannot be done."""


_OURS = "procession"
"""The library's own logger: its records of a task are left out, since the record of the task has their content."""

_LOCK: Final = threading.RLock()
_seen: Final = weakref.WeakSet[logging.LogRecord]()
_added: Final[dict[str, "TaskLogHandler"]] = {}
"""The handlers that `listen` has added in this process, by the name of their logger."""


class TaskLogHandler(logging.Handler):
    """A logging handler that keeps the log of each task with the record of the task in the journal.

    Add it to a logger, as any handler. Of each call (a task, or an element of a `map`) about the last 16,000 characters
    are kept, each entry with its time (UTC), level and logger, unless a formatter of your own is set. They can be read
    when the call has ended: on the page, by `procession show --failed`, and as `TaskInfo.log`. Outside of the tasks of
    a recorded run the handler does nothing.

    While a recorded run goes on, the loggers of worker processes and cluster workers get a handler of the same level
    where they have one here. Your filters and formatter do not go there. Where logging is not set up there, the loggers
    get the effective level that they have here.

    Args:
        level: The lowest level of the records that are kept; all, by default.

    Example:
        >>> import logging
        >>> from procession import Process
        >>> from procession.journal import Journal
        >>> logger = logging.getLogger("shop")
        >>> logger.addHandler(TaskLogHandler())
        >>> process = Process("orders")
        >>> process.add_task(logger.warning, "%d are late", 3)
        >>> with Journal(":memory:") as journal:
        ...     _ = process.execute(run_id="today", journal=journal)
        ...     print(journal.tasks("today")[0].log)
        2...Z WARNING shop: 3 are late

    """

    def __init__(self, level: int | str = logging.NOTSET) -> None:
        super().__init__(level)
        formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s")
        formatter.default_time_format, formatter.default_msec_format = "%Y-%m-%dT%H:%M:%S", ""
        formatter.converter = time.gmtime
        self.setFormatter(formatter)

    def createLock(self) -> None:  # noqa: N802  # the name that logging calls
        """Share one lock between all handlers, since the threads of a call may log by several into the same log."""
        super().createLock()
        self.lock = _LOCK  # type: ignore[assignment,unused-ignore]  # pyright: ignore[reportAttributeAccessIssue]

    def emit(self, record: logging.LogRecord) -> None:
        """Add a log record to the log of the call that it belongs to, if there is one."""
        call_context = _keeping(CURRENT_CALL.get(None))
        if call_context is None or record.name.partition(".")[0] == _OURS:
            return
        logs = call_context.run.logs
        assert logs is not None
        try:
            if record not in _seen:  # a logger and a parent of it may both have such a handler
                _seen.add(record)
                logs.add(
                    (call_context.index, call_context.element), call_context.attempt, harmless(self.format(record))
                )
        except Exception:
            self.handleError(record)


def wanted_logs(*, recorded: bool) -> WantedLogs | None:
    """Return the instructions for worker processes about log records; `None` if there are none."""
    kept = _wanted_kept() if recorded else ()
    show = next((one.elsewhere() for one in logging.root.handlers if isinstance(one, SharedHandler)), None)
    return WantedLogs(kept, show) if kept or show is not None else None


def _wanted_kept() -> tuple[tuple[str, int, int], ...]:
    known = list(logging.root.manager.loggerDict.values())
    loggers = [logging.root, *(logger for logger in known if isinstance(logger, logging.Logger))]
    ours = [[handler.level for handler in one.handlers if isinstance(handler, TaskLogHandler)] for one in loggers]
    return tuple(
        (logger.name, min(levels), logger.getEffectiveLevel())
        for logger, levels in zip(loggers, ours, strict=True)
        if levels
    )


_before: Final[dict[str, int]] = {}
"""The levels that these loggers had before."""


def listen(wanted_logs: WantedLogs) -> None:
    """Set up the loggers of this worker process as the process wants it that has sent the calls."""
    for name, kept, logged in wanted_logs.kept:
        logger = logging.getLogger(name)
        if all(_is_ours(handler) for handler in _handlers(logger)):
            _before.setdefault(name, logger.level)
            logger.setLevel(logged)
            if logging.lastResort is not None and not logger.hasHandlers():
                logger.addHandler(logging.lastResort)  # so that warnings still go to standard error
        if not any(isinstance(handler, TaskLogHandler) for handler in logger.handlers):
            logger.addHandler(_added.setdefault(name, TaskLogHandler()))
        if name in _added:
            _added[name].setLevel(kept)


def stop_listening() -> None:
    """Set up the loggers of this worker process as they were before `listen`."""
    for name, handler in _added.items():
        logger = logging.getLogger(name)
        logger.removeHandler(handler)
        if name in _before and logging.lastResort is not None:
            logger.removeHandler(logging.lastResort)
    for name, level in _before.items():
        logging.getLogger(name).setLevel(level)
    _added.clear()
    _before.clear()


def _is_ours(handler: logging.Handler) -> bool:
    return handler is logging.lastResort or handler in _added.values() or isinstance(handler, SharedHandler)


def _handlers(logger: logging.Logger | None) -> Iterator[logging.Handler]:
    """Yield all handlers that the records of a logger come to, those of its parents included."""
    while logger is not None:
        yield from logger.handlers
        logger = logger.parent if logger.propagate else None


def _keeping(call_context: CallContext | None) -> CallContext | None:
    """Return the call whose record owns the log entries of this call; `None` if no record does.

    The calls of an unrecorded run belong to the task that executes the run.
    """
    while call_context is not None and call_context.run.logs is None:
        call_context = call_context.run.around
    return None if call_context is None or call_context.index < 0 or call_context.over else call_context
