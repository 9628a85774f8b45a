"""The file of an SQLite journal: whether it can be trusted, and how many connections of this process have it open.

Pickles in it can run code, so nobody else may have written to it, nor be able to put a file beside it: SQLite takes
what stands there for a part of the database, and a look at files that come and go says nothing of the next moment.

And it is opened by SQLite alone: a process that closes a file loses all its locks on it, also SQLite's, and
then another process takes the journal for unused, tidies it up, and what is recorded afterwards is lost.
"""

import os
import stat
import sys
import threading
from collections import Counter
from pathlib import Path

from procession.errors import JournalError

_COMPANIONS = ("", "-wal", "-shm", "-journal")

_lock = threading.RLock()  # connections may be closed wherever garbage is collected
_open: Counter[tuple[int, int]] = Counter()
"""How many connections there are to each file, by its device and number."""
_left_behind: set[tuple[int, int]] = set()
"""The files to which a forked child has connections of its parent."""


def enter(path: Path, *, create: bool) -> tuple[int, int]:
    """Count a connection that is going to be made, and return what `leave` wants for it.

    Raises `JournalError` if the file is not there and not to be created, or if it would not be safe.
    """
    with _lock:
        _check_folders(path)
        if create:
            _create(path)
        elif not os.path.lexists(path):
            raise JournalError(f"there is no journal {str(path)!r}")
        _check_files(path)
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
    """Count a connection less: it was closed."""
    with _lock:
        _open[file] -= 1
        if not _open[file]:
            del _open[file]


def check(path: Path) -> None:
    """Raise `JournalError` unless the file, if it is there, is one that only this user can write to.

    The same goes for the files that SQLite keeps beside it, and for the folder.
    """
    _check_folders(path)
    _check_files(path)


def _check_files(path: Path) -> None:
    for companion in _COMPANIONS:
        file = Path(f"{path}{companion}")
        try:
            status = file.lstat()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise JournalError(f"the journal {str(file)!r} cannot be opened: {error.strerror}") from error
        if stat.S_ISLNK(status.st_mode):
            raise JournalError(f"the journal {str(file)!r} is a link that leads elsewhere, or nowhere")
        if not stat.S_ISREG(status.st_mode):
            raise JournalError(f"the journal {str(file)!r} is no file")
        _check_owner(str(file), status)


def resolved(path: Path) -> Path:
    """Return the file that is meant, which SQLite opens, and beside which its companions lie: links lead elsewhere."""
    # One that leads nowhere is refused later, and not taken for a name to make a file under.
    there = os.path.exists(path)  # noqa: PTH110  # Path.exists() raises for a name that is too long
    return Path(os.path.realpath(path)) if there else Path(os.path.realpath(path.parent)) / path.name


def is_read_only(path: Path) -> bool:
    """Return whether the file is there, and it or its folder cannot be written to: SQLite makes files beside it."""
    return os.path.lexists(path) and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))


def _check_owner(file: str, status: os.stat_result) -> None:
    if sys.platform == "win32":
        return  # there neither says who can write to it
    trust = "and values in it can run code when they are read"
    if status.st_uid != os.geteuid():
        raise JournalError(f"the journal {file!r} belongs to user {status.st_uid} and not to you, {trust}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise JournalError(f"others can write to the journal {file!r}, {trust}: chmod 600 it if you trust what it has")


def _check_folders(path: Path) -> None:
    """Raise `JournalError` if others can put a file beside this one, or another folder in place of its own.

    A sticky folder, such as /tmp, is no better: SQLite deletes and makes the files beside a journal time and again, and
    who keeps putting one there and taking it away needs seconds until it is read.
    """
    if sys.platform == "win32":
        return
    for folder in path.parents:
        try:
            status = folder.stat()
        except OSError:
            continue  # what opens the file says what is wrong
        trust = "which SQLite reads, and values in them can run code: keep the journal in a folder of your own"
        if folder == path.parent and status.st_uid not in (os.geteuid(), 0):
            raise JournalError(
                f"the folder {str(folder)!r} of the journal belongs to user {status.st_uid}, who can put files beside "
                f"it, {trust}"
            )
        if _is_shared(status) and (folder == path.parent or not status.st_mode & stat.S_ISVTX):
            raise JournalError(
                f"others can write to the folder {str(folder)!r}, and so put files beside the journal {str(path)!r}, "
                f"{trust}"
            )


def _is_shared(status: os.stat_result) -> bool:
    """Return whether others than its owner can write to a folder. A group of the owner's own is nobody else."""
    return bool(status.st_mode & stat.S_IWOTH or (status.st_mode & stat.S_IWGRP and not _is_own_group(status)))


def _is_own_group(status: os.stat_result) -> bool:
    """Return whether the group has the name of the owner, and no other member: most systems make one for each user."""
    if sys.platform == "win32":
        return True
    import grp
    import pwd

    try:
        owner, group = pwd.getpwuid(status.st_uid), grp.getgrgid(status.st_gid)
    except KeyError:
        return False
    return owner.pw_gid == group.gr_gid and owner.pw_name == group.gr_name and {*group.gr_mem} <= {owner.pw_name}


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
    _lock = threading.RLock()
    _left_behind.update(_open)
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
