"""What is given to a process and its runs, looked at before anything is made of it: `where` names the process."""

import os
import sys
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, cast, get_args

from procession._model.observer import Observer
from procession._model.states import OnError
from procession._model.strategy import Strategy, strategy_of
from procession._model.task import is_coroutine_function
from procession._model.text import sketch
from procession._model.where import check_executor

if TYPE_CHECKING:
    from types import FrameType

_POLICIES: Final[tuple[str, ...]] = get_args(OnError)


def check_definition(
    where: str, strategy: object, max_workers: object, on_error: object, executor: object, journal: object
) -> Strategy:
    """Return the strategy that is meant; raise for what cannot be."""
    try:
        known = strategy_of(strategy)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    check_executor(executor, where)
    if on_error not in _POLICIES:
        raise ValueError(f"{where}: unknown on_error {sketch(on_error)}; known are {', '.join(map(repr, _POLICIES))}")
    if isinstance(max_workers, bool) or not isinstance(max_workers, int):
        raise TypeError(f"{where}: max_workers is an int of at least 1, or None; got {sketch(max_workers)}")
    if max_workers < 1:
        raise ValueError(f"{where}: max_workers is at least 1; got {sketch(max_workers)}")
    check_journal(where, journal)
    return known


def check_execution(where: str, run_id: object, journal: object, *, allow_changes: object, progress: object) -> None:
    """Raise for what cannot be meant by the arguments of one execution; `journal` may be that of the process."""
    check_journal(where, journal)
    if run_id is not None and not isinstance(run_id, str):
        raise TypeError(f"{where}: run_id is a str; got {sketch(run_id)}")
    for name, switch in ("allow_changes", allow_changes), ("progress", progress):
        if not isinstance(switch, bool):
            raise TypeError(f"{where}: {name} is True or False; got {sketch(switch)}")


def check_journal(where: str, journal: object) -> None:
    """Raise for what is no journal and no place of one."""
    known: Any = getattr(sys.modules.get("procession.journal"), "Journal", ())  # whoever has one has imported it
    if journal is not None and not isinstance(journal, str | os.PathLike) and not isinstance(journal, known):
        raise TypeError(f"{where}: journal is a path, a URL or a procession.journal.Journal; got {sketch(journal)}")


def observers_in(where: str, observers: object) -> list[Observer]:
    """Return the observers as a list; raise for what is none."""
    if not isinstance(observers, Iterable):
        raise TypeError(f"{where}: observers takes a list of observers; got {sketch(observers)}")
    return [_observer(where, observer) for observer in cast("Iterable[object]", observers)]


def warn_of_thread(where: str) -> None:
    """Warn whoever has called into `procession._process` of a task in order that has a timeout, and so a thread."""
    frame: FrameType | None = sys._getframe(1)  # inspect takes long to import
    stacklevel = 2
    while frame is not None and frame.f_globals.get("__name__") == "procession._process":
        frame, stacklevel = frame.f_back, stacklevel + 1
    warnings.warn(
        f"{where}: tasks in order are called in the caller's thread, but one with a timeout is called in a thread of "
        "its own, where sqlite3's connections, signal.signal and the like fail; if it has to be the caller's, leave "
        "the timeout out and give what it waits for one, else take strategy='parallel' with max_workers=1, a coroutine "
        "function, or executor='processes', which ends it at its timeout",
        RuntimeWarning,
        stacklevel=stacklevel,
    )


def _observer(where: str, observer: object) -> Observer:
    if isinstance(observer, type) or not isinstance(observer, Observer):
        raise TypeError(f"{where}: an observer has a method on_event(event); got {sketch(observer)}")
    if is_coroutine_function(observer.on_event):
        raise TypeError(
            f"{where}: on_event of {sketch(observer)} is a coroutine function, and nobody here would await what it "
            "gives; make it a plain one"
        )
    return observer
