"""Where a journal is kept, and the connections to it."""

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, Engine, create_engine, func, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import NullPool

from procession._model.secret import masked
from procession._model.text import sketch
from procession.errors import JournalError
from procession.journal import access, forks, schema
from procession.journal.channel import Channel, failing_plainly, is_in_use

Durability = Literal["process", "power"]
"""What a committed record survives: that the `"process"` dies, or also that the system does, as without `"power"`."""

BUSY_S = 30.0
"""How long a write waits for another program that has locked an SQLite database."""

VALUE_LIMIT = 100_000_000
"""Bytes of a value that SQLite reads to be shown, at most: it reads all of it, however much is asked for."""

CONNECTIONS = 8
"""Connections that the runs of one journal share, at most: to SQLite one, as it has one writer at a time."""

_MUCH = 4
"""Deleted rows give back their space if it is one part in so many of the file, whose rest is written anew for that."""

MEMORY = ":memory:"

_PATIENCE = {"connect_timeout": "10", "keepalives_idle": "10", "keepalives_interval": "5", "tcp_user_timeout": "30000"}
"""How PostgreSQL's client library is to notice a server that is gone without a word, unless a URL says otherwise."""


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
        self._kept = list[Channel]()
        """The connections that runs share, and that stay until the journal is closed."""
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
        self._most = 1 if self.sqlite else CONNECTIONS
        self._engine = self._made()
        _databases.add(self)
        weakref.finalize(self, _close_unused, self._kept)

    @contextmanager
    def reading(self) -> Generator[Connection]:
        """Hand out a connection of its own to a journal that is there; `JournalError` if there is none."""
        channel = self.join(create=False) if self._memory else self._opened(create=False, looking=True)
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
            if self._memory:
                self.part(channel)
            else:
                channel.close()

    @contextmanager
    def writing(self) -> Generator[Connection]:
        """Hand out a connection to a journal that is there, in a transaction."""
        channel = self.join(create=False)
        try:
            with channel.transaction() as connection:
                yield connection
        finally:
            self.part(channel)

    def join(self, *, create: bool) -> Channel:
        """Return a connection that others may use, too, until `part`, making a journal where there is none if `create`.

        A few connections serve any number of runs: each statement or transaction has one of them to itself.
        """
        if os.getpid() != self._process:
            self._leave_behind()
        with self._lock:
            for kept in self._kept[:]:
                if not kept.is_sound():
                    self._kept.remove(kept)
                    _close_unused([kept])
            channel = min(self._kept, key=_users, default=None)
            if channel is None or (channel.users and len(self._kept) < self._most):
                channel = self._opened(create=create, looking=False)
                self._kept.append(channel)
            channel.users += 1
        return channel

    def part(self, channel: Channel) -> None:
        """Use a connection of `join` no longer. It stays open for the next run, unless the journal was closed."""
        if os.getpid() != self._process:
            return
        with self._lock:
            channel.users -= 1
            over = not channel.users and channel not in self._kept
        if over:
            channel.close()

    def now(self, connection: Connection) -> float:
        """Return the time in seconds since the epoch: a server's, as its clients may differ, and else this system's."""
        if connection.dialect.name == "postgresql":
            return float(connection.execute(select(func.extract("epoch", func.clock_timestamp()))).scalar_one())
        return self.clock()

    def give_space_back(self) -> None:
        """Give the space of what was deleted to others, if it is much and nobody else uses the database just now."""
        channel = self.join(create=False)
        try:
            with suppress(JournalError), channel.open() as connection:
                cursor = connection.connection.cursor()
                if self.backend == "postgresql":
                    cursor.execute(f"VACUUM {', '.join(table.name for table in schema.metadata.sorted_tables)}")
                elif self.sqlite:
                    free, pages = (
                        cursor.execute(f"PRAGMA {what}").fetchone()[0] for what in ("freelist_count", "page_count")
                    )
                    if free * _MUCH >= pages:
                        cursor.execute("PRAGMA busy_timeout=0")
                        try:
                            cursor.execute("VACUUM")
                            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                        finally:
                            cursor.execute(self._busy_timeout)
        finally:
            self.part(channel)

    @property
    def _busy_timeout(self) -> str:
        """The statement that says how long SQLite waits for others."""
        return f"PRAGMA busy_timeout={self.busy_s * 1000:.0f}"

    def last_commit(self) -> object:
        """Return the size and time of the files, which each commit changes; `None` of a server."""
        if self._path is None:
            return None
        written = (Path(f"{self._path}{companion}") for companion in ("", "-wal"))
        return [(file.stat().st_mtime_ns, file.stat().st_size) for file in written if file.exists()]

    def close(self) -> None:
        """Close what is open and not in use by a run. A database in memory is gone then."""
        if os.getpid() != self._process:
            return
        with self._lock:
            kept = self._kept[:]
            self._kept.clear()
            self._ready.clear()
            _close_unused(kept)

    def close_before_fork(self) -> None:
        """Close what no run uses: an SQLite file that is open cannot be used in the child."""
        if os.getpid() == self._process and self._lock.acquire(blocking=False):
            try:
                unused = [channel for channel in self._kept if not channel.users]
                for channel in unused:
                    self._kept.remove(channel)
                    with suppress(JournalError):
                        channel.close_before_fork()
            finally:
                self._lock.release()

    def _leave_behind(self) -> None:
        """Start afresh in a forked child: connections, and a lock that may be held for ever, are its parent's."""
        if self._memory and self._kept:
            raise JournalError("a journal in memory belongs to the process that opened it, and this is a child of that")
        _parents.extend(self._kept)
        self._kept.clear()
        self._lock = threading.Lock()
        self._process = os.getpid()

    def _opened(self, *, create: bool, looking: bool) -> Channel:
        """Return a new connection. One that is only for `looking` neither changes anything nor reads values."""
        if os.getpid() != self._process:
            self._leave_behind()
        # Who is going to write meets what the database says of that.
        read_only = not create and self._path is not None and access.is_read_only(self._path)
        channel = self._connected(create=create, read_only=read_only)
        try:
            if self._path is not None:
                access.check(self._path)
            # A file may have been replaced since.
            if self._path is not None or looking not in self._ready:
                self._prepare(channel, create=create, read_only=read_only, looking=looking)
        except BaseException:
            channel.close()
            raise
        return channel

    def _connected(self, *, create: bool, read_only: bool) -> Channel:
        file, leave = None, _nothing
        if self._path is not None:
            file = access.enter(self._path, create=create)
            leave = partial(access.leave, file)
        try:
            forks.hold_off()
            with failing_plainly(self.where):
                # SQLAlchemy is told to leave transactions alone: a single statement is one already, and for the
                # others the channel says how they begin.
                connect = partial(_connect, self._looking if read_only else self._engine, self._settings())
                return Channel(connect, self.where, self._begin, leave, self._path, file)
        except BaseException:
            leave()
            raise
        finally:
            forks.let_go()

    def _made(self) -> Engine:
        try:
            return _engine(self.url, frozenset(self._arguments().items()))
        except (ArgumentError, NoSuchModuleError) as error:
            raise ValueError(f"the journal {self.where} cannot be opened: {masked(str(error))}") from None
        except ImportError as error:
            raise ImportError(
                f"the journal {self.where} needs a driver that is not installed ({error}); that for PostgreSQL comes "
                'with pip install "procession[journal]"'
            ) from error

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

        return create_engine("sqlite://", creator=connect, poolclass=NullPool, isolation_level="AUTOCOMMIT")

    def _settings(self) -> list[str]:
        power = self._durability == "power"
        if self.sqlite:
            # In WAL mode NORMAL syncs at checkpoints only: the death of a process loses nothing, and that of the
            # system may lose the last commits, but no more than those.
            return [
                self._busy_timeout,
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
    def _begin(self) -> str:
        """What begins a transaction."""
        if self.sqlite:
            return "BEGIN IMMEDIATE"
        if self.backend == "postgresql":
            return f"BEGIN; SET LOCAL synchronous_commit TO {self.synchronous_commit}"  # in one way there and back
        return "BEGIN"

    def _arguments(self) -> dict[str, Any]:
        """Return the options for the driver to connect with."""
        if self.sqlite:
            return {"check_same_thread": False}
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
            except JournalError as error:
                if time.monotonic() > until or not is_in_use(error):
                    raise
                time.sleep(0.01)


@lru_cache(32)
def _engine(url: URL, arguments: frozenset[tuple[str, Any]]) -> Engine:
    """Return the engine that connects to an address, and keeps nothing. Making one takes longer than opening a file."""
    # Nothing is open when a connection is closed. To roll back all the same fails, and logs that, where it was dropped.
    return create_engine(
        url, poolclass=NullPool, pool_reset_on_return=None, isolation_level="AUTOCOMMIT", connect_args=dict(arguments)
    )


def _connect(engine: Engine, settings: Sequence[str]) -> Connection:
    connection = engine.connect()
    try:
        driver: Any = connection.connection.dbapi_connection
        for statement in settings:
            driver.execute(statement)
    except BaseException:
        connection.close()
        raise
    return connection


_databases = weakref.WeakSet[Database]()
_parents = list[Channel]()
"""Connections that the parent of this process had when it was forked: to let go of them here would close them."""


def _close_before_fork() -> None:
    for database in list(_databases):
        database.close_before_fork()


forks.before_each(_close_before_fork)


def _close_unused(channels: Iterable[Channel]) -> None:
    """Close the connections that no run uses. The others are closed when their last run ends."""
    for channel in channels:
        if not channel.is_own:
            _parents.append(channel)
        elif not channel.users:
            channel.close()


def _users(channel: Channel) -> int:
    return channel.users


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
