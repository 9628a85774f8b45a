"""Checks of the arguments of a process and of its runs. `where` names the process in messages."""

import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast, get_args

from procession._model.observer import Observer
from procession._model.states import OnError
from procession._model.strategy import Strategy, strategy_of
from procession._model.task import is_coroutine_function, takes
from procession._model.text import sketch
from procession._model.where import check_executor

if TYPE_CHECKING:
    from types import FrameType

_DEFINITION: Final = {"procession._process", "procession._definition", "procession._arguments"}
_POLICIES: Final[tuple[str, ...]] = get_args(OnError)


def check_definition(
    where: str, strategy: object, max_workers: object, on_error: object, executor: object, journal: object
) -> Strategy:
    """Check the arguments of a process; return the strategy as an object."""
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


def check_execution(
    where: str, run_id: object, journal: object, *, allow_changes: object, progress: object, timeout: object
) -> None:
    """Check the arguments of one execution."""
    check_journal(where, journal)
    if run_id is not None and not isinstance(run_id, str):
        raise TypeError(f"{where}: run_id is a str; got {sketch(run_id)}")
    for name, switch in ("allow_changes", allow_changes), ("progress", progress):
        if not isinstance(switch, bool):
            raise TypeError(f"{where}: {name} is True or False; got {sketch(switch)}")
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float)):
        raise TypeError(f"{where}: timeout is a number of seconds, or None; got {sketch(timeout)}")
    if timeout is not None and not (0 < timeout <= threading.TIMEOUT_MAX):
        raise ValueError(f"{where}: timeout is a finite number of seconds above 0; got {sketch(timeout)}")


def check_journal(where: str, journal: object) -> None:
    """Raise `TypeError` for what is neither a journal nor the path or URL of one."""
    known: Any = getattr(sys.modules.get("procession.journal"), "Journal", ())  # imported by a caller who has one
    if journal is not None and not isinstance(journal, str | os.PathLike) and not isinstance(journal, known):
        raise TypeError(f"{where}: journal is a path, a URL or a procession.journal.Journal; got {sketch(journal)}")


def check_on_end(where: str, on_end: object) -> None:
    """Raise `TypeError` for what cannot be called when a run has ended."""
    if on_end is not None and (not callable(on_end) or is_coroutine_function(on_end)):
        raise TypeError(f"{where}: on_end takes a plain function of one argument, the run; got {sketch(on_end)}")


def observers_in(where: str, observers: object) -> list[Observer]:
    """Return the observers as a list. Raises `TypeError` for an object that is no observer."""
    if not isinstance(observers, Iterable):
        raise TypeError(f"{where}: observers takes a list of observers; got {sketch(observers)}")
    return [_observer(where, observer) for observer in cast("Iterable[object]", observers)]


def warn_of_thread(where: str) -> None:
    """Warn the caller of `Process` of a task in order that is called in a thread of its own, as it has a timeout."""
    _warn(
        f"{where}: tasks in order are called in the caller's thread, but one with a timeout is called in a thread of "
        "its own, where sqlite3's connections, signal.signal and the like fail; if it has to be the caller's, leave "
        "the timeout out and give what it waits for one, else take strategy='parallel' with max_workers=1, a coroutine "
        "function, or executor='processes', which ends it at its timeout"
    )


def warn_of_workers(where: str, max_workers: int) -> None:
    """Warn the caller of `Process` that several workers have nothing to do where tasks run one after another."""
    _warn(
        f"{where}: max_workers={max_workers} means nothing with the strategy 'sequential', under which one task "
        "runs at a time; for tasks at the same time take strategy='parallel'"
    )


def _warn(text: str) -> None:
    frame: FrameType | None = sys._getframe(1)  # inspect takes long to import
    stacklevel = 2
    while frame is not None and frame.f_globals.get("__name__") in _DEFINITION:
        frame, stacklevel = frame.f_back, stacklevel + 1
    warnings.warn(text, RuntimeWarning, stacklevel=stacklevel)


def _observer(where: str, observer: object) -> Observer:
    if isinstance(observer, type) or not isinstance(observer, Observer):
        raise TypeError(f"{where}: an observer has a method on_event(event); got {sketch(observer)}")
    if is_coroutine_function(observer.on_event):
        raise TypeError(
            f"{where}: on_event of {sketch(observer)} is a coroutine function, and nobody here would await what it "
            "gives; make it a plain one"
        )
    return observer


def checked_constants(where: str, function: Callable[..., Any], constants: Any) -> dict[str, Any]:
    """Return the keyword arguments of every call of a map. Raises `TypeError` for what the function cannot take."""
    if constants is None:
        return {}
    given: dict[Any, Any] | None = dict(constants) if issubclass(type(constants), Mapping) else None
    if given is None or not all(isinstance(name, str) for name in given):
        raise TypeError(f"{where}: map(constants=...) takes a mapping from names to values; got {sketch(constants)}")
    for name in given:
        if not takes(function, name):
            raise TypeError(f"{where}: the function takes no argument {name!r}, which is among the constants")
    return given
