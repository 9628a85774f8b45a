"""Whether a journal's file can be trusted: pickles in it can run code, so nobody else may have written to it."""

import os
import stat
from pathlib import Path

from procession.errors import JournalError

_MAGIC = b"SQLite format 3\x00"
_COMPANIONS = ("", "-wal", "-shm", "-journal")


def create(path: Path) -> None:
    """Create the file, readable and writable by its owner alone, unless it is there."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        pass
    except FileNotFoundError as error:
        raise JournalError(f"the folder {str(path.parent)!r} of the journal does not exist; create it first") from error
    except OSError as error:
        raise JournalError(f"the journal {str(path)!r} cannot be created: {error.strerror}") from error


def check(path: Path) -> None:
    """Raise `JournalError` unless the file, if it is there, is a database that only this user can write to.

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
    _check_magic(path)


def _check_owner(file: str, status: os.stat_result) -> None:
    trust = "and values in it can run code when they are read"
    if status.st_uid != os.geteuid():
        raise JournalError(f"the journal {file!r} belongs to user {status.st_uid} and not to you, {trust}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise JournalError(f"others can write to the journal {file!r}, {trust}: chmod 600 it if you trust what it has")


def _check_magic(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(len(_MAGIC))
    except FileNotFoundError:
        return
    except OSError as error:
        raise JournalError(f"the journal {str(path)!r} cannot be read: {error.strerror}") from error
    if start and start != _MAGIC:
        raise JournalError(f"{str(path)!r} is no journal: it is not an SQLite database")
