"""Where a journal is kept, and the connections to it."""

import errno
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, Engine, create_engine, event, func, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool, StaticPool

from procession._model.secret import masked
from procession._model.text import sketch
from procession.errors import JournalError
from procession.journal import access, forks, schema

Durability = Literal["process", "power"]

BUSY_S = 30.0
"""How long a write waits for another program that has locked an SQLite database."""

VALUE_LIMIT = 100_000_000
"""Bytes of a value that SQLite reads to be shown, at most: it reads all of it, however much is asked for."""

MEMORY = ":memory:"


_PATIENCE = {"connect_timeout": "10", "keepalives_idle": "10", "keepalives_interval": "5", "tcp_user_timeout": "30000"}
"""How PostgreSQL's client library is to notice a server that is gone without a word, unless a URL says otherwise."""


class Channel:
    """One connection, which several threads use in turn, and only those of the process that made it.

    If a server drops the connection, what is asked of it then fails with a `JournalError` that has the `errno`
    ECONNRESET, and what is asked next is asked of a new one.
    """

    def __init__(
        self,
        connect: Callable[[], Connection],
        where: str,
        begin: Sequence[str],
        leave: Callable[[], object],
        path: Path | None,
    ) -> None:
        self._connect = connect
        self._connection = connection = connect()
        self._driver = connection.connection.dbapi_connection
        self._dropped = False
        self._path = path
        self._file: tuple[int, int] | None = None
        self._leave = leave
        self._where = where
        self._begin = begin
        self._lock = threading.Lock()
        self._process = os.getpid()
        # The driver is used directly, too.
        self._errors = (SQLAlchemyError, connection.dialect.loaded_dbapi.Error)

    @contextmanager
    def open(self) -> Generator[Connection]:
        """Hand out the connection to one thread at a time. Each statement is a transaction of its own."""
        if os.getpid() != self._process:
            # The lock may be held for ever in a forked child, and the database knows of one client, not of two.
            raise JournalError(f"the journal {self._where} was opened by another process: open it again in this one")
        try:
            forks.hold_off()
            with self._lock, failing_plainly(self._where, self._errors, self._is_dropped):
                if self._dropped or self._connection.invalidated:
                    self._connect_again()
                yield self._connection
        finally:
            forks.let_go()

    @contextmanager
    def transaction(self) -> Generator[Connection]:
        """Open a connection with a transaction: it is committed at the end, or rolled back after any exception.

        Raises `JournalError` with the `errno` ENOENT if the file is no longer the one that the first transaction found.
        """
        with self.open() as connection:
            try:
                for statement in self._begin:
                    connection.exec_driver_sql(statement)
                self._check_file()
                yield connection
                connection.exec_driver_sql("COMMIT")
            except BaseException:
                # There may be nothing to roll back any more, or not yet. What went wrong before is what matters.
                with suppress(*self._errors):
                    connection.exec_driver_sql("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the connection. In a forked child that is not its business."""
        if os.getpid() != self._process:
            return
        try:
            forks.hold_off()
            with failing_plainly(self._where):
                self._connection.close()
        finally:
            forks.let_go()
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
        try:
            status = self._path.stat()
        except FileNotFoundError:
            file = None
        else:
            file = status.st_dev, status.st_ino
            self._file = self._file or file
        if file is None or file != self._file:
            error = JournalError(
                f"the journal {self._where} was deleted, moved or replaced while it was in use; what was recorded went "
                "with its file"
            )
            error.errno = errno.ENOENT
            raise error


class Database:
    """A database that journals are kept in: an SQLite file, one in memory, or a server."""

    def __init__(self, where: str | os.PathLike[str], durability: Durability) -> None:
        if durability not in ("process", "power"):
            raise ValueError(f"unknown durability {durability!r}; known are 'process' and 'power'")
        self.url = _url(where)
        self.where = masked(self.url.render_as_string(hide_password=True))
        self.busy_s = BUSY_S
        self.clock: Callable[[], float] = time.time
        self._durability: Durability = durability
        self._path: Path | None = None
        self._shared: Channel | None = None
        self._ready = set[bool]()
        self._lock = threading.Lock()
        self._process = os.getpid()
        self.backend = self.url.get_backend_name()
        self.sqlite = self.backend == "sqlite"
        self._memory = self.sqlite and self.url.database in (None, "", MEMORY)
        if self._memory:
            self.where = "in memory"
        elif self.sqlite:
            named = Path(os.path.abspath(str(self.url.database)))  # noqa: PTH100  # as it is called, links and all
            self.where = repr(str(named))
            self._path = access.resolved(named)
            self.url = self.url.set(database=str(self._path))
        self._engine = self._made()

    @contextmanager
    def reading(self) -> Generator[Connection]:
        """Hand out a connection to a journal that is there; `JournalError` if there is none."""
        channel = self.channel(create=False, looking=True)
        try:
            with channel.open() as connection:
                if self.sqlite:
                    # A byte that is wrong in a damaged text must not hide all the rest.
                    driver: Any = connection.connection.driver_connection
                    driver.text_factory = _replacing
                    if self._path is not None:  # one in memory is also written to by this connection
                        driver.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, VALUE_LIMIT)
                yield connection
        finally:
            self.release(channel)

    @contextmanager
    def writing(self) -> Generator[Connection]:
        """Hand out a connection to a journal that is there, in a transaction."""
        channel = self.channel(create=False)
        try:
            with channel.transaction() as connection:
                yield connection
        finally:
            self.release(channel)

    def channel(self, *, create: bool, looking: bool = False) -> Channel:
        """Return a channel to the journal, making one where there is none if `create` says so.

        One that is only for `looking` neither changes anything nor reads values.
        """
        if os.getpid() != self._process:
            self._leave_behind()
        # Who is going to write meets what the database says of that.
        read_only = not create and self._path is not None and access.is_read_only(self._path)
        with self._lock:
            channel = self._shared or self._connected(create=create, read_only=read_only)
            if self._memory:
                self._shared = channel
        try:
            if self._path is not None:
                access.check(self._path)
            # A file may have been replaced since.
            if self._path is not None or looking not in self._ready:
                self._prepare(channel, create=create, read_only=read_only, looking=looking)
        except BaseException:
            self.release(channel)
            raise
        return channel

    def release(self, channel: Channel) -> None:
        """Close a channel that is no longer needed, unless it is the only one there can be."""
        if channel is not self._shared:
            channel.close()

    def now(self, connection: Connection) -> float:
        """Return the time in seconds since the epoch: a server's, as its clients may differ, and else this system's."""
        if connection.dialect.name == "postgresql":
            return float(connection.execute(select(func.extract("epoch", func.clock_timestamp()))).scalar_one())
        return self.clock()

    def last_commit(self) -> object:
        """Return the size and time of the files, which each commit changes; `None` of a server."""
        if self._path is None:
            return None
        written = (Path(f"{self._path}{companion}") for companion in ("", "-wal"))
        return [(file.stat().st_mtime_ns, file.stat().st_size) for file in written if file.exists()]

    def close(self) -> None:
        """Close what is open. A database in memory is gone then."""
        with self._lock:
            if self._shared is not None:
                self._shared.close()
            self._engine.dispose()
            self._shared = None
            self._ready.clear()

    def _leave_behind(self) -> None:
        """Start afresh in a forked child: connections, and a lock that may be held for ever, are its parent's."""
        if self._shared is not None:
            raise JournalError("a journal in memory belongs to the process that opened it, and this is a child of that")
        self._lock = threading.Lock()
        self._process = os.getpid()

    def _connected(self, *, create: bool, read_only: bool) -> Channel:
        leave = _nothing
        if self._path is not None:
            leave = partial(access.leave, access.enter(self._path, create=create))
        try:
            forks.hold_off()
            with failing_plainly(self.where):
                # SQLAlchemy is told to leave transactions alone: a single statement is one already, and for the
                # others the channel says how they begin.
                connect = (self._looking if read_only else self._engine).connect
                return Channel(connect, self.where, self._begin, leave, self._path)
        except BaseException:
            leave()
            raise
        finally:
            forks.let_go()

    def _made(self) -> Engine:
        try:
            if not self.sqlite:
                arguments = self._arguments()
                engine = create_engine(
                    self.url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args=arguments
                )
            else:
                arguments = {"timeout": self.busy_s, "check_same_thread": False}
                pool = NullPool if self._path is not None else StaticPool
                engine = create_engine(self.url, poolclass=pool, isolation_level="AUTOCOMMIT", connect_args=arguments)
        except (ArgumentError, NoSuchModuleError) as error:
            raise ValueError(f"the journal {self.where} cannot be opened: {masked(str(error))}") from None
        except ImportError as error:
            raise ImportError(
                f"the journal {self.where} needs a driver that is not installed ({error}); that for PostgreSQL comes "
                'with pip install "procession[journal]"'
            ) from error
        event.listen(engine, "connect", self._connected_anew)
        return engine

    @cached_property
    def _looking(self) -> Engine:
        """What looks at a file that cannot be written to, or whose folder cannot."""

        def connect() -> sqlite3.Connection:
            assert self._path is not None
            # Without a write-ahead log nobody has it open; and SQLite would have to make one here, even to read. But
            # beside one that is there, somebody may write.
            still = "" if Path(f"{self._path}-wal").exists() else "&immutable=1"
            address = f"{self._path.as_uri()}?mode=ro{still}"
            return sqlite3.connect(address, self.busy_s, check_same_thread=False, uri=True)

        engine = create_engine("sqlite://", creator=connect, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        event.listen(engine, "connect", self._connected_anew)
        return engine

    def _connected_anew(self, driver_connection: Any, _record: object) -> None:
        cursor = driver_connection.cursor()
        for statement in self._settings():
            cursor.execute(statement)
        cursor.close()

    def _settings(self) -> list[str]:
        power = self._durability == "power"
        if self.sqlite:
            # In WAL mode NORMAL syncs at checkpoints only: the death of a process loses nothing, and that of the
            # system may lose the last commits, but no more than those.
            return [
                f"PRAGMA busy_timeout={self.busy_s * 1000:.0f}",
                f"PRAGMA synchronous={'FULL' if power else 'NORMAL'}",
                f"PRAGMA fullfsync={int(power)}",
                "PRAGMA trusted_schema=OFF",  # nor functions with effects, should a file's own schema call any
            ]
        return []  # what is said to a server's session, a pooler may hand on to another program

    @property
    def synchronous_commit(self) -> str:
        """What PostgreSQL is to be told in each transaction that writes."""
        return "on" if self._durability == "power" else "off"

    @property
    def _begin(self) -> Sequence[str]:
        """What begins a transaction."""
        if self.sqlite:
            return ("BEGIN IMMEDIATE",)
        if self.backend == "postgresql":
            return "BEGIN", f"SET LOCAL synchronous_commit TO {self.synchronous_commit}"
        return ("BEGIN",)

    def _arguments(self) -> dict[str, Any]:
        """Return the options for a server's driver to connect with."""
        if self.url.get_driver_name() != "psycopg":
            return {}
        # A statement that was prepared lasts as long as the connection, behind which a pooler changes the session.
        return {"prepare_threshold": None} | {
            name: _PATIENCE[name] for name in _PATIENCE.keys() - self.url.query.keys()
        }

    def _prepare(self, channel: Channel, *, create: bool, read_only: bool, looking: bool) -> None:
        version = self._version(channel, looking=looking)
        if version is None and not create and not self._memory:
            raise JournalError(f"there is no journal in {self.where}")
        if read_only:
            if version != schema.VERSION:
                raise JournalError(
                    f"the journal {self.where} was written by an older version of Procession, and it, or its folder, "
                    "is read-only: look at a copy that can be written to, which is then brought up to date"
                )
            return
        if self._path is not None:
            self._use_wal(channel)
        if version != schema.VERSION:
            self._create(channel)
            self._version(channel, looking=looking)
        self._ready.add(looking)

    def _version(self, channel: Channel, *, looking: bool) -> int | None:
        """Return the version of the tables there are, `None` if there are none; see `schema.version_of`."""
        with channel.open() as connection:
            if connection.dialect.name == "postgresql":
                schema.check_owner(connection, looking=looking)
            return schema.version_of(connection)

    def _create(self, channel: Channel) -> None:
        try:
            with channel.transaction() as connection:
                if connection.dialect.name == "postgresql":
                    # Somebody may be at the same tables, and not end.
                    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {self.busy_s * 1000:.0f}")
                schema.create(connection)
        except JournalError:
            # Another may have made them at the same time.
            if self.sqlite or self._version(channel, looking=True) != schema.VERSION:
                raise

    def _use_wal(self, channel: Channel) -> None:
        # The switch needs the file for itself and does not wait for it as other statements do.
        until = time.monotonic() + self.busy_s
        while True:
            try:
                with channel.open() as connection:
                    connection.exec_driver_sql("PRAGMA journal_mode=WAL")
                return
            except JournalError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.01)


@contextmanager
def failing_plainly(
    where: str,
    errors: tuple[type[Exception], ...] = (SQLAlchemyError,),
    dropped: Callable[[Exception], bool] = lambda _: False,
) -> Generator[None]:
    """Raise what a database says as `JournalError`: one of `errno` ECONNRESET where it is that of a `dropped` one."""
    try:
        yield
    except errors as error:
        failure = plainly(where, error)
        if dropped(error):
            failure.errno = errno.ECONNRESET
        raise failure from error
    except JournalError as error:
        if where in str(error):
            raise
        raise JournalError(f"the journal {where} cannot be used: {error}") from error.__cause__


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


def _replacing(text: bytes) -> str:
    return text.decode(errors="replace")


def _nothing() -> None:
    pass


def _url(where: str | os.PathLike[str]) -> URL:
    text: object = os.fspath(where) if isinstance(where, str | os.PathLike) else where
    if not isinstance(text, str):
        raise TypeError(f"a journal is kept at a path or a URL, which is a str; got {sketch(text)}")
    if not isinstance(where, str) or "://" not in text:
        if not text:
            raise ValueError("a journal needs a path or a URL, and not an empty string")
        return URL.create("sqlite", database=text)
    try:
        url: URL | None = make_url(text)
    except (ArgumentError, ValueError):  # which may quote what nobody is to see
        url = None
    if url is None or "@" in (url.host or ""):
        raise ValueError(
            "the journal's URL cannot be understood; one looks like postgresql://user@host/name, and in a password "
            "@ is written %40, / %2F, : %3A, ? %3F and # %23"
        )
    # The driver that the extra installs, whatever this version of SQLAlchemy prefers.
    return url.set(drivername="postgresql+psycopg") if url.drivername in ("postgresql", "postgres") else url
