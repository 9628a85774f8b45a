"""One connection to a journal's database, and what its errors mean."""

import errno
import os
import selectors
import sqlite3
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from procession.errors import JournalError
from procession.journal import forks


class Channel:
    """One connection, which several threads use in turn, and only those of the process that made it.

    If a server drops the connection, what is asked of it then fails with a `JournalError` that has the `errno`
    ECONNRESET, and what is asked next is asked of a new one. `users` is how many runs share it.
    """

    def __init__(
        self,
        connect: Callable[[], Connection],
        where: str,
        begin: str,
        leave: Callable[[], object],
        path: Path | None,
        file: tuple[int, int] | None,
    ) -> None:
        self.users = 0
        self._connect = connect
        self._connection = connection = connect()
        self._driver = connection.connection.dbapi_connection
        self._dropped = False
        self._path = None if path is None else str(path)
        self._file = file
        self._leave = leave
        self._where = where
        self._begin = begin
        self._lock = threading.Lock()
        self._process = os.getpid()
        # The driver is used directly, too.
        self._errors = (SQLAlchemyError, connection.dialect.loaded_dbapi.Error)

    @property
    def is_own(self) -> bool:
        """Whether this process made it, and not one of which it is a forked child."""
        return os.getpid() == self._process

    @contextmanager
    def open(self) -> Generator[Connection]:
        """Hand out the connection to one thread at a time. Each statement is a transaction of its own."""
        if not self.is_own:
            # The lock may be held for ever in a forked child, and the database knows of one client, not of two.
            raise JournalError(f"the journal {self._where} was opened by another process: open it again in this one")
        try:
            forks.hold_off()
            with self._lock:
                try:
                    if self._dropped or self._connection.invalidated:
                        self._connect_again()
                    yield self._connection
                except self._errors as error:
                    failure = plainly(self._where, error)
                    if self._is_dropped(error):
                        failure.errno = errno.ECONNRESET
                    raise failure from error
                except JournalError as error:
                    raise _placed(error, self._where) from error.__cause__
        finally:
            forks.let_go()

    @contextmanager
    def transaction(self) -> Generator[Connection]:
        """Open a connection with a transaction: it is committed at the end, or rolled back after any exception.

        Raises `JournalError` with the `errno` ENOENT if the path no longer leads to the file that was opened.
        """
        with self.open() as connection:
            cursor = connection.connection.cursor()
            try:
                cursor.execute(self._begin)
                self._check_file()
                yield connection
                cursor.execute("COMMIT")
            except BaseException:
                # There may be nothing to roll back any more, or not yet. What went wrong before is what matters.
                with suppress(*self._errors):
                    cursor.execute("ROLLBACK")
                raise
            finally:
                cursor.close()

    def is_sound(self) -> bool:
        """Return whether the connection still leads to the journal: the file is the same, no server has closed it."""
        if self._path is not None:
            return self._file == _file_at(self._path)
        # A server sends nothing unasked, but why it closes the connection.
        return self.users > 0 or not hasattr(self._driver, "fileno") or not _is_readable(self._driver)

    def close(self) -> None:
        """Close the connection. In a forked child that is not its business."""
        if not self.is_own:
            return
        try:
            forks.hold_off()
            self.close_before_fork()
        finally:
            forks.let_go()

    def close_before_fork(self) -> None:
        """Close the connection, in a thread that forks when no other one is in a database."""
        try:
            with failing_plainly(self._where):
                self._connection.close()
        finally:
            self._leave()

    def _is_dropped(self, error: Exception) -> bool:
        """Return whether there is no connection any more."""
        said: Any = getattr(error, "orig", None) or error
        self._dropped = self._dropped or self._connection.dialect.is_disconnect(said, self._driver, None)
        return self._dropped

    def _connect_again(self) -> None:
        self._dropped = True
        with suppress(*self._errors):
            self._connection.close()
        self._connection = self._connect()
        self._driver = self._connection.connection.dbapi_connection
        self._dropped = False

    def _check_file(self) -> None:
        # SQLite goes on writing to a file that has lost its name, where nobody finds it again.
        if self._path is None:
            return
        if self._file != _file_at(self._path):
            error = JournalError(
                f"the journal {self._where} was deleted, moved or replaced while it was in use; what was recorded went "
                "with its file"
            )
            error.errno = errno.ENOENT
            raise error


@contextmanager
def failing_plainly(where: str) -> Generator[None]:
    """Raise what a database says as `JournalError`."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise plainly(where, error) from error
    except JournalError as error:
        raise _placed(error, where) from error.__cause__


def _placed(error: JournalError, where: str) -> JournalError:
    """Return the error, in which the journal is named."""
    return error if where in str(error) else JournalError(f"the journal {where} cannot be used: {error}")


def is_in_use(error: JournalError) -> bool:
    """Return whether another connection is at the file, which passes: no room, or an unreadable file, does not."""
    said = getattr(error.__cause__, "orig", None)
    return str(getattr(said, "sqlite_errorname", "")).startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL"))


def plainly(where: str, error: Exception) -> JournalError:
    """Return the text of a database error, with the advice that goes with it."""
    said = getattr(error, "orig", None) or error
    code = str(getattr(said, "sqlite_errorname", ""))
    for start, meaning in _MEANINGS.items():
        if code.startswith(start):
            return JournalError(f"the journal {where}: {meaning} ({said})")
    return JournalError(f"the journal {where} cannot be used: {' '.join(str(said).split())}")


_MEANINGS = {
    "SQLITE_FULL": "there is no room left on its disk; what was recorded so far is safe",
    "SQLITE_IOERR": "it cannot be written or read; its disk may be full, or a limit reached",
    "SQLITE_READONLY": "it, or its folder, is read-only",
    "SQLITE_CANTOPEN": "it cannot be opened; SQLite writes to its folder, too",
    "SQLITE_BUSY": "another program has locked it for longer than we wait",
    "SQLITE_LOCKED": "another program has locked it for longer than we wait",
    "SQLITE_NOTADB": "it is not a database, or damaged",
    "SQLITE_CONSTRAINT": "a call that it has a record of was recorded again",
    "SQLITE_TOOBIG": "it is damaged, or holds a value that is larger than any that can be shown",
    "SQLITE_CORRUPT": "it is damaged or cut short; put back a copy, or use another file",
}


def _file_at(path: str) -> tuple[int, int] | None:
    """Return the device and number of a file, `None` if there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116  # at every transaction
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _is_readable(driver: Any) -> bool:
    """Return whether something has arrived that nobody has read."""
    if driver.closed:
        return True
    with selectors.DefaultSelector() as selector:
        selector.register(driver, selectors.EVENT_READ)
        return bool(selector.select(0))
