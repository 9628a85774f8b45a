"""No fork while a thread is in a database.

SQLite, the drivers and SQLAlchemy guard what all connections share by locks of their own. A child that is forked while
another thread holds one of them inherits it held, and nobody there will ever give it up: the child's first use of
SQLite, be it of quite another file, waits for ever. The journal is used by threads that a task knows nothing of, while
pools fork their workers. So a fork waits until they are out of the database, and has them wait until it is done.
"""

import os
import threading
from collections.abc import Callable

_PATIENCE_S = 1.0
"""How long a fork waits at most: who waits for a locked database, or for a server that is gone, holds no such lock."""

_lock = threading.RLock()
_changed = threading.Condition(_lock)
_inside: dict[int, int] = {}
"""How deep each thread is in databases, by the thread's number."""
_forking: set[int] = set()
"""The threads that fork, or wait for that."""

_closing = list[Callable[[], object]]()


def hold_off() -> None:
    """Hold off forks by other threads until `let_go`, which is to be called whatever comes, even out of here."""
    thread = threading.get_ident()
    with _lock:
        if _forking:
            _forking.discard(thread)  # it is there still if Ctrl-C came just when it had forked
            if thread not in _inside:
                _changed.wait_for(lambda: not _forking, 5 * _PATIENCE_S)  # a fork of much memory takes a while
        _inside[thread] = _inside.get(thread, 0) + 1


def let_go() -> None:
    """Hold off forks no longer."""
    thread = threading.get_ident()
    with _lock:
        depth = _inside.pop(thread, 0) - 1
        if depth > 0:
            _inside[thread] = depth
        elif _forking:
            _changed.notify_all()


def before_each(close: Callable[[], object]) -> None:
    """Call `close` before each fork, when no other thread is in a database: by the thread that forks."""
    _closing.append(close)


def _fork_begins() -> None:
    thread = threading.get_ident()
    with _lock:
        _forking.add(thread)
        _changed.wait_for(lambda: not _inside.keys() - {thread}, _PATIENCE_S)
    for close in _closing:  # without the lock, for which a thread may wait that has a lock of theirs
        close()


def _fork_ends() -> None:
    with _lock:
        _forking.discard(threading.get_ident())
        _changed.notify_all()


def _forked() -> None:
    global _lock, _changed  # noqa: PLW0603
    _lock = threading.RLock()  # it may be another thread's, for ever
    _changed = threading.Condition(_lock)
    _forking.clear()
    for thread in _inside.keys() - {threading.get_ident()}:
        del _inside[thread]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_fork_begins, after_in_parent=_fork_ends, after_in_child=_forked)
