"""No fork while a thread is in a database.

SQLite, the drivers and SQLAlchemy guard what all connections share by locks of their own. A child that is forked while
another thread holds one of them inherits it held, and nobody there will ever give it up: the child's first use of
SQLite, be it of quite another file, waits for ever. The journal is used by threads that a task knows nothing of, while
pools fork their workers. So a fork waits until they are out of the database, and has them wait until it is done.
"""

import os
import threading
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

_PATIENCE_S = 1.0
"""How long a fork waits at most: who waits for a locked database, or for a server that is gone, holds no such lock."""

_changed = threading.Condition()
_inside: Counter[int] = Counter()
"""How deep each thread is in databases, by the thread's number."""
_forking: set[int] = set()
"""The threads that fork, or wait for that."""


@contextmanager
def held_off() -> Generator[None]:
    """Hold forks off, those of other threads, while a database is used."""
    thread = threading.get_ident()
    try:
        with _changed:
            _forking.discard(thread)  # it is there still if Ctrl-C came just when it had forked
            if _forking and thread not in _inside:
                _changed.wait_for(lambda: not _forking, 5 * _PATIENCE_S)  # a fork of much memory takes a while
            _inside[thread] += 1
        yield
    finally:
        with _changed:
            _inside[thread] -= 1
            if _inside[thread] <= 0:  # less if Ctrl-C came before it was counted
                del _inside[thread]
                if _forking:
                    _changed.notify_all()


def _fork_begins() -> None:
    thread = threading.get_ident()
    with _changed:
        _forking.add(thread)
        _changed.wait_for(lambda: not _inside.keys() - {thread}, _PATIENCE_S)


def _fork_ends() -> None:
    with _changed:
        _forking.discard(threading.get_ident())
        _changed.notify_all()


def _forked() -> None:
    global _changed  # noqa: PLW0603
    _changed = threading.Condition()  # its lock may be another thread's, for ever
    _forking.clear()
    for thread in _inside.keys() - {threading.get_ident()}:
        del _inside[thread]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_fork_begins, after_in_parent=_fork_ends, after_in_child=_forked)
