"""Threads that the interpreter waits for as it exits, until they are left behind."""

import threading
from typing import Final

_AWAITED: Final[set[threading.Thread]] = set()
_exiting = threading.Event()


def start_awaited(thread: threading.Thread) -> None:
    """Start a thread for whose end the interpreter waits as it exits, unless `leave_behind` is called with it."""
    if _hooked:
        thread.daemon = True  # of any other, nobody can say any more that it is not to be waited for
        _AWAITED.difference_update([one for one in _AWAITED.copy() if not one.is_alive()])
    thread.start()
    _AWAITED.add(thread)


def leave_behind(thread: threading.Thread) -> None:
    """Keep the interpreter's exit from waiting for a thread."""
    _AWAITED.discard(thread)


def is_awaited_now(thread: threading.Thread) -> bool:
    """Return whether the interpreter exits, and waits for a thread meanwhile."""
    main = threading.main_thread()
    if thread.daemon:
        return _exiting.is_set() and thread in _AWAITED
    return thread is not main and not main.is_alive()


def _wait_for_all() -> None:
    _exiting.set()
    for thread in _AWAITED.copy():
        thread.join()


def _hook() -> bool:
    """Have the interpreter wait as it exits, before it calls what the program has registered with `atexit`."""
    try:
        threading._register_atexit(_wait_for_all)  # type: ignore[attr-defined]
    except (AttributeError, RuntimeError):  # there is none, or the interpreter exits already
        return False
    return True


_hooked = _hook()
