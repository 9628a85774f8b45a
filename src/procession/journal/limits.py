"""Limits that several programs share, counted in a database: a row for each limit, and for each program that has it.

    Wish ──▶ exchange: one transaction, which counts what began and ended, and then grants room ──▶ Grant

    procession_limits         name → what it allows, and what its service has asked for
    procession_limit_users    limit, program → its calls under way, its calls that wait, its last sign of life
    procession_limit_starts   limit, program, number → when calls began, and what they cost

What a program held that is dead is let go of: at once on its own system, elsewhere once it has given no sign of life
for as long as a lease holds. The time is a server's own. For an SQLite file it is that of the clock that counts from
the start of the machine, which all programs see alike and nobody sets; after a restart all counts as begun just then.
"""

import time
from collections.abc import Iterable
from math import inf
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Column, Connection, Double, MetaData, Table, Text

from procession._model.limit import Limit
from procession._model.shared_limit import Grant, Wish
from procession.errors import JournalError
from procession.journal import lease
from procession.journal.channel import Channel
from procession.journal.database import Database
from procession.journal.lease import Holder
from procession.journal.schema import LIMIT_TABLES

_SIGN_S = 0.5
"""Who waits gives a sign of life more often than this. Others are asked for by their process, or by their lease."""

_TURN_S = 0.1
"""After how long without room a program that waits gets its part before others get more."""

_POLL_S = 0.01
"""After how long a program asks again that waits for the end of a call of another."""

_LATER_S = 0.2
"""After how long a program asks again at the latest: it may get room that others give back."""

_SPARE = 8
"""Of the room that is left, one part of so many is granted ahead of the calls."""

_TRUSTING = 1000
"""So many calls may be under way after a pause when it is forgotten."""

_tables = MetaData()

Table(
    LIMIT_TABLES[0],
    _tables,
    Column("name", Text, primary_key=True),
    Column("at_once", BigInteger),
    Column("rate", Double),
    Column("per", Double, nullable=False),
    Column("system", Text, nullable=False),  # whose clock the times are of, of an SQLite file
    Column("closed_until", Double, nullable=False),
    Column("careful", Double),  # how many calls may be under way since the service wanted to be left alone
)

Table(
    LIMIT_TABLES[1],
    _tables,
    Column("name", Text, primary_key=True),
    Column("token", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("places", BigInteger, nullable=False),  # these and the next four: see `Wish`
    Column("reserved", Double, nullable=False),
    Column("calls", BigInteger, nullable=False),
    Column("cost", Double, nullable=False),
    Column("first", Double, nullable=False),
    Column("served", Double, nullable=False),  # when it last got room, or began to wait for it
    Column("seen", Double, nullable=False),
)

Table(
    LIMIT_TABLES[2],
    _tables,
    Column("name", Text, primary_key=True),
    Column("token", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
    Column("cost", Double, nullable=False),
)

_LIMIT = "SELECT at_once, rate, per, system, closed_until, careful FROM procession_limits WHERE name = ?"
_USERS = (
    "SELECT token, holder, places, reserved, calls, cost, first, served, seen FROM procession_limit_users "
    "WHERE name = ?"
)
_PUT_USER = (
    "INSERT INTO procession_limit_users (places, reserved, calls, cost, first, served, seen, name, token, holder) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name, token) DO UPDATE SET places = excluded.places, "
    "reserved = excluded.reserved, calls = excluded.calls, cost = excluded.cost, first = excluded.first, "
    "served = excluded.served, seen = excluded.seen"
)
_PUT_START = (
    "INSERT INTO procession_limit_starts (name, token, number, at, cost) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (name, token, number) DO UPDATE SET at = excluded.at, cost = excluded.cost"
)


class _User(NamedTuple):
    """A program that has a limit."""

    token: str
    holder: str
    places: int
    reserved: float
    calls: int
    cost: float
    first: float
    served: float
    seen: float


class _LimitDatabase(Database):
    """A database in which limits are shared; it may be a journal as well."""

    def _prepare(self, channel: Channel, *, create: bool, read_only: bool, looking: bool) -> None:  # noqa: ARG002
        if self._path is not None:
            self._use_wal(channel)
        try:
            with channel.transaction() as connection:
                _tables.create_all(connection)
        except JournalError as error:
            if self.sqlite:
                raise
            try:
                with channel.open() as connection:  # another program may have made them at the same time
                    connection.exec_driver_sql(_LIMIT.replace("?", "%s"), ("",))
            except JournalError:
                raise error from error.__cause__


class LimitCount:
    """Counts the calls of this program under one limit, among those of others, over a connection of its own.

    Raises `ValueError` if the limit allows something else for another program that has it now, and `JournalError` if
    the database cannot be used.
    """

    def __init__(self, limit: Limit) -> None:
        assert limit.shared is not None
        self._limit = limit
        self._database = _LimitDatabase(limit.shared, "process")
        self._mark = "?" if self._database.sqlite else "%s"
        self._at_once = inf if limit.at_once is None else limit.at_once
        self._rate = inf if limit.rate is None else limit.rate
        self._holder = Holder.here()
        self._system = self._holder.system.partition(" ")[0] if self._database.sqlite else ""
        """On Linux, of an SQLite file, this start of the machine: the clock begins anew with the next."""
        self._token = lease.take()
        try:
            self._channel = self._database.join(create=True)
            try:
                with self._channel.transaction() as connection:
                    self._join(connection)
            except BaseException:
                self._database.part(self._channel)
                raise
        except BaseException:
            lease.drop(self._token)
            self._database.close()
            raise

    def exchange(self, wish: Wish) -> Grant:
        """Count what this program tells, and grant room for its calls."""
        with self._channel.transaction() as connection:
            return self._exchange(connection, wish)

    def close(self) -> None:
        """Forget this program: nothing of it is under way any more."""
        try:
            with self._channel.transaction() as connection:
                self._run(connection, "DELETE FROM procession_limit_users WHERE name = ? AND token = ?", self._token)
        finally:
            lease.drop(self._token)
            self._database.part(self._channel)
            self._database.close()

    # Joining

    def _join(self, connection: Connection) -> None:
        """Take note that this program has the limit, and see whether it is the same for others."""
        limit, row = self._limit, self._locked(connection)
        numbers = limit.at_once, limit.rate, limit.per
        now = self._now(connection)
        if row is None:
            connection.exec_driver_sql(
                self._sql("INSERT INTO procession_limits VALUES (?, ?, ?, ?, ?, ?, NULL) ON CONFLICT DO NOTHING"),
                (limit.name, *numbers, self._system, now),
            )
            row = self._locked(connection)
            assert row is not None
        if row.system != self._system:
            self._begin_anew(connection, now)
        _, others = self._alive(connection, now)
        later = "SELECT COUNT(*) FROM procession_limit_starts WHERE name = ? AND at > ?"
        if not others and self._run(connection, later, now).scalar_one():  # where nothing else tells of a new start
            self._begin_anew(connection, now)
        if (row.at_once, row.rate, row.per) != numbers:
            if others:
                other = Limit(
                    limit.name, at_once=row.at_once, rate=row.rate, **({} if row.rate is None else {"per": row.per})
                )
                holder = Holder.read(others[0].holder)
                raise ValueError(
                    f"{limit!r} is {other!r} for another program that has it now (process {holder.pid} on "
                    f"{holder.host}). Programs that share a limit give it the same numbers, or another name"
                )
            self._run(
                connection, "UPDATE procession_limits SET at_once = ?, rate = ?, per = ? WHERE name = ?", before=numbers
            )
        self._put(connection, Wish(0, 0.0, [], 0, None, 0, 0.0, 0.0, 0), Grant(0, 0.0, 0.0, None, False), now, now)

    def _begin_anew(self, connection: Connection, now: float) -> None:
        """Take all for begun just now: the machine was started anew, and so was its clock."""
        self._run(connection, "DELETE FROM procession_limit_users WHERE name = ?")
        self._run(connection, "UPDATE procession_limit_starts SET at = ? WHERE name = ?", before=(now,))
        self._run(
            connection,
            "UPDATE procession_limits SET system = ?, closed_until = ? WHERE name = ?",
            before=(self._system, now),
        )

    # Counting

    def _exchange(self, connection: Connection, wish: Wish) -> Grant:
        row = self._locked(connection)
        now = self._now(connection)
        closed_until, careful = (now, None) if row is None else (row.closed_until, row.careful)
        mine, others = self._alive(connection, now)
        if wish.closed_s is not None:
            closed_until, careful = max(closed_until, now + wish.closed_s), 1.0
        elif careful is not None and wish.ended and now >= closed_until:
            careful = careful + wish.ended if careful + wish.ended < _TRUSTING else None
        if row is not None and (closed_until, careful) != (row.closed_until, row.careful):
            self._run(
                connection,
                "UPDATE procession_limits SET closed_until = ?, careful = ? WHERE name = ?",
                before=(closed_until, careful),
            )
        places = min(self._at_once, inf if careful is None else careful) - wish.places
        places -= sum(user.places for user in others)
        cost = self._rate
        if self._rate != inf:
            cost -= self._spent(connection, wish, now) + wish.reserved + sum(user.reserved for user in others)
        closed_s = max(closed_until - now, 0.0)
        waiting = [user for user in others if user.calls and user.seen > now - _SIGN_S]
        since = now if mine is None or not mine.calls else mine.served
        grant = _granted(wish, places if not closed_s else 0, cost, waiting, (since, self._token), now)
        if grant.again_s is not None:
            again_s = closed_s or self._again_s(connection, wish, cost, now)
            grant = grant._replace(again_s=min(again_s, _LATER_S))
        grant = grant._replace(closed_s=closed_s)
        self._put(connection, wish, grant, now if grant.places else since, now)
        return grant

    def _spent(self, connection: Connection, wish: Wish, now: float) -> float:
        """Note what has begun, forget what is over, and return what all that began within the span costs."""
        rows = [(self._limit.name, self._token, number, now - ago, cost) for number, ago, cost in wish.begun]
        if rows:
            connection.exec_driver_sql(self._sql(_PUT_START), rows)
        past = now - self._limit.per
        connection.exec_driver_sql(
            self._sql("DELETE FROM procession_limit_starts WHERE name = ? AND at <= ?"), (self._limit.name, past)
        )
        spent = self._run(connection, "SELECT COALESCE(SUM(cost), 0) FROM procession_limit_starts WHERE name = ?")
        return float(spent.scalar_one())

    def _again_s(self, connection: Connection, wish: Wish, cost: float, now: float) -> float:
        """Return in how many seconds there is room for the first call that waits, as far as that is known."""
        over = wish.first - cost
        if over <= 0:
            return _POLL_S  # it waits for a place
        rows = self._run(
            connection, "SELECT at, cost FROM procession_limit_starts WHERE name = ? ORDER BY at LIMIT 1000"
        )
        for at, spent in rows:
            over -= spent
            if over <= 0:
                return max(float(at) + self._limit.per - now, 0.0)
        return _POLL_S

    def _alive(self, connection: Connection, now: float) -> tuple[_User | None, list[_User]]:
        """Return this program, if it is known, and the others; let go of what those held that are dead."""
        mine, alive = None, list[_User]()
        for row in self._run(connection, _USERS).all():
            user = _User(*row)
            if user.token == self._token:
                mine = user
                continue
            if now - _SIGN_S < user.seen <= now or lease.is_held(
                Holder.read(user.holder), user.token, user.seen + lease.DURATION_S, now
            ):
                alive.append(user)
                continue
            if user.reserved:  # it may have begun
                connection.exec_driver_sql(
                    self._sql(_PUT_START), (self._limit.name, user.token, -1, now, user.reserved)
                )
            self._run(connection, "DELETE FROM procession_limit_users WHERE name = ? AND token = ?", user.token)
        return mine, alive

    # The tables

    def _locked(self, connection: Connection) -> Any:
        """Return the row of the limit, which nobody else can change now; `None` if there is none."""
        return self._run(connection, _LIMIT if self._database.sqlite else f"{_LIMIT} FOR UPDATE").one_or_none()

    def _put(self, connection: Connection, wish: Wish, grant: Grant, served: float, now: float) -> None:
        values = (
            wish.places + grant.places,
            wish.reserved + (0.0 if self._rate == inf else grant.cost),
            max(wish.calls - grant.places, 0),
            max(wish.cost - grant.cost, 0.0),
            wish.first,
            served,
            now,
        )
        connection.exec_driver_sql(self._sql(_PUT_USER), (*values, self._limit.name, self._token, self._holder.text))

    def _now(self, connection: Connection) -> float:
        return time.monotonic() if self._database.sqlite else self._database.now(connection)

    def _run(self, connection: Connection, sql: str, *after: object, before: Iterable[object] = ()) -> Any:
        """Run a statement about the limit."""
        return connection.exec_driver_sql(self._sql(sql), (*before, self._limit.name, *after))

    def _sql(self, sql: str) -> str:
        return sql if self._mark == "?" else sql.replace("?", self._mark)


def _granted(
    wish: Wish, places: float, cost: float, waiting: list[_User], mine: tuple[float, str], now: float
) -> Grant:
    """Return the part of the room that is granted; `mine` says since when this program waits.

    Of programs that have waited for long, each gets its part, what is left over those that have waited longest, and the
    first of them at least what its first call takes: otherwise each would leave that to the others. Who has just got
    room leaves them all that they wait for: else who asks sooner again would get part after part of what is theirs.
    """
    places, cost = max(places, 0), max(cost, 0.0)
    patient = sorted((user.served, user.token, user) for user in waiting if user.served < now - _TURN_S)
    rank = sum((served, token) < mine for served, token, _ in patient)
    parts = len(patient) + 1 if mine[0] < now - _TURN_S else 1
    left, spare = places, cost
    for other, (_, _, user) in enumerate(patient):
        ahead = other + (other >= rank)
        part = user.calls if places == inf else places // parts + (ahead < places % parts)
        left -= min(user.calls, part)
        share = min(user.cost, cost / parts)
        spare -= max(share, user.first) if ahead == 0 else share
    if rank == 0:
        spare = max(spare, min(cost, wish.first))
    calls, granted = int(max(min(wish.calls, left), 0)), max(min(wish.cost, spare), 0.0)
    if not calls or granted < wish.first:
        calls, granted = 0, 0.0
    elif granted < wish.cost:  # no places for calls that cannot be paid
        calls = min(calls, max(int(wish.calls * granted / wish.cost), 1))
    waits = calls < wish.calls or granted < wish.cost
    if not waits and not waiting:
        more = int(max(min(wish.ahead, (left - calls) / _SPARE, (spare - granted) / _SPARE), 0))
        calls, granted = calls + more, granted + more
    return Grant(calls, granted, 0.0, _POLL_S if waits else None, bool(waiting))
