"""Logs of tasks, kept with their records.

    logger ──▶ TaskLogHandler ──whose call context is it?──▶ the logs of its run ──when the call has ended──▶ its record
                                                            ▲
    in another process: the same ──▶ the logs of a batch ───┘ with how the call ended

Nothing is paid for it but a look at an empty dictionary, unless somebody has added the handler to a logger.
"""

import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from procession._engine.call_context import CURRENT_CALL, CallContext
from procession._model.log import harmless


class WantedLogs(NamedTuple):
    """What is to be done in another process with what calls log there."""

    kept: tuple[tuple[str, int, int], ...]
    """Which loggers have a `TaskLogHandler`, by name, from which level on that keeps what comes, and what is logged."""
    show: Callable[[], object] | None
    """Has logs shown there as they are here, if they are shown in a way that can be had there."""


_OURS = "procession"
"""What we log of a task is in its record anyway."""

_LOCK: Final = threading.RLock()
_seen: Final = weakref.WeakSet[logging.LogRecord]()
_added: Final[dict[str, "TaskLogHandler"]] = {}
"""By the loggers to which we added them, in a process that has calls made for another one."""


class SharedHandler(logging.Handler):
    """A handler of the root logger that other processes are to have, too, which make calls for this one."""

    def elsewhere(self) -> Callable[[], object]:
        """Return what sets up another one there. It travels by pickle."""
        raise NotImplementedError


class TaskLogHandler(logging.Handler):
    """Keeps what is logged in a task with the task's record in the journal. Add it to a logger, as any handler.

    Of each call, a task or an element of a `map`, the last 16,000 characters or so are kept, with the time (UTC), level
    and name of the logger, or as a formatter of your own says. They are there once the call has ended: on the page, in
    `procession show --failed`, and as `TaskInfo.log`. Outside of the tasks of a run that is recorded, it does nothing.

    In worker processes and on clusters one of the same level is added, while such a run goes on, to the loggers that
    have one here; filters and a formatter of your own do not go there. Where nobody has set up logging there, the
    loggers get the level that counts here.

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

    def createLock(self) -> None:  # noqa: N802  # it is called so
        """Share one lock: threads of a task may log by several handlers, and its log is one. Forks renew it, as any."""
        super().createLock()
        self.lock = _LOCK  # type: ignore[assignment,unused-ignore]  # pyright: ignore[reportAttributeAccessIssue]

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        call_context = _keeping(CURRENT_CALL.get(None))
        if call_context is None or record.name.partition(".")[0] == _OURS:
            return
        logs = call_context.run.logs
        assert logs is not None
        try:
            if record not in _seen:  # two loggers above each other may both have such a handler
                _seen.add(record)
                logs.add(
                    (call_context.index, call_context.element), call_context.attempt, harmless(self.format(record))
                )
        except Exception:
            self.handleError(record)


def wanted_logs(*, recorded: bool) -> WantedLogs | None:
    """Return what is to be done with what is logged in other processes, if anything is."""
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


def listen(wanted_logs: WantedLogs) -> None:
    """Have kept, in this process, what is wanted by one that has had calls made here."""
    for name, kept, logged in wanted_logs.kept:
        logger = logging.getLogger(name)
        if all(_is_ours(handler) for handler in _handlers(logger)):
            logger.setLevel(logged)
            if logging.lastResort is not None and not logger.hasHandlers():
                logger.addHandler(logging.lastResort)  # warnings go to standard error still
        if not any(isinstance(handler, TaskLogHandler) for handler in logger.handlers):
            logger.addHandler(_added.setdefault(name, TaskLogHandler()))
        if name in _added:
            _added[name].setLevel(kept)


def _is_ours(handler: logging.Handler) -> bool:
    return handler is logging.lastResort or handler in _added.values() or isinstance(handler, SharedHandler)


def _handlers(logger: logging.Logger | None) -> Iterator[logging.Handler]:
    """Return all handlers that a logger's records come to."""
    while logger is not None:
        yield from logger.handlers
        logger = logger.parent if logger.propagate else None


def _keeping(call_context: CallContext | None) -> CallContext | None:
    """Return the call context of the task to whose record something belongs that is logged at this one.

    A run that is not recorded is a part of the task that executes it.
    """
    while call_context is not None and call_context.run.logs is None:
        call_context = call_context.run.around
    return None if call_context is None or call_context.index < 0 or call_context.over else call_context
