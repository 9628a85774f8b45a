"""The file of an SQLite journal: whether it can be trusted, and who in this process has it open.

Pickles in it can run code, so nobody else may have written to it. And it is opened by SQLite alone: a process that
closes a file loses all its locks on it, whoever took them, and then another process takes the journal for unused,
tidies it up, and what is recorded afterwards is lost.
"""

import os
import stat
import threading
from collections import Counter
from pathlib import Path

from procession.errors import JournalError

_COMPANIONS = ("", "-wal", "-shm", "-journal")

_lock = threading.Lock()
_open: Counter[tuple[int, int]] = Counter()
"""How many connections there are to each file, by its device and number."""
_left_behind: set[tuple[int, int]] = set()
"""The files to which a forked child has connections of its parent."""


def enter(path: Path, *, create: bool) -> tuple[int, int]:
    """Count a connection that is going to be made, and return what `leave` wants for it.

    Raises `JournalError` if the file is not there and not to be created, or if it would not be safe.
    """
    with _lock:
        if create:
            _create(path)
        elif not path.exists():
            raise JournalError(f"there is no journal {str(path)!r}")
        check(path)
        status = path.stat()
        file = status.st_dev, status.st_ino
        if file in _left_behind:
            raise JournalError(
                f"the journal {str(path)!r} was open when this process was forked, and SQLite cannot be used on both "
                "sides of a fork: start the process with 'spawn', or use another journal in it"
            )
        _open[file] += 1
    return file


def leave(file: tuple[int, int]) -> None:
    """Take note that a connection was closed."""
    with _lock:
        _open[file] -= 1
        if not _open[file]:
            del _open[file]


def check(path: Path) -> None:
    """Raise `JournalError` unless the file, if it is there, is one that only this user can write to.

    The same goes for the files that SQLite keeps beside it: what stands in them becomes part of the database.
    """
    for companion in _COMPANIONS:
        file = Path(f"{path}{companion}")
        try:
            status = file.stat()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise JournalError(f"the journal {str(file)!r} cannot be opened: {error.strerror}") from error
        if not stat.S_ISREG(status.st_mode):
            raise JournalError(f"the journal {str(file)!r} is no file")
        if os.name == "posix":
            _check_owner(str(file), status)


def is_read_only(path: Path) -> bool:
    """Return whether the file is there, and it or its folder cannot be written to: SQLite makes files beside it."""
    return path.exists() and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))


def _check_owner(file: str, status: os.stat_result) -> None:
    trust = "and values in it can run code when they are read"
    if status.st_uid != os.geteuid():
        raise JournalError(f"the journal {file!r} belongs to user {status.st_uid} and not to you, {trust}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise JournalError(f"others can write to the journal {file!r}, {trust}: chmod 600 it if you trust what it has")


def _create(path: Path) -> None:
    """Create the file, readable and writable by its owner alone, unless it is there."""
    try:
        # Not opened if it is there, and not yet open elsewhere if it is not: see above.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        pass
    except FileNotFoundError as error:
        raise JournalError(f"the folder {str(path.parent)!r} of the journal does not exist; create it first") from error
    except OSError as error:
        raise JournalError(f"the journal {str(path)!r} cannot be created: {error.strerror}") from error


def _forked() -> None:
    global _lock  # noqa: PLW0603  # it may be held for ever
    _lock = threading.Lock()
    _left_behind.update(_open)
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
