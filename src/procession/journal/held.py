"""A lease that this process holds on a run, and the one connection through which the run is recorded meanwhile."""

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from sqlalchemy import ColumnElement, Connection, exists, select

from procession.errors import JournalError, RunInUseError
from procession.journal import lease
from procession.journal.channel import Channel
from procession.journal.schema import runs

T = TypeVar("T")

PAUSES_S = (0.05, 1.0)
"""How long to wait before connecting again to a server that has dropped the connection: at first, and at most."""


@dataclass
class Held:
    """A lease that this process holds: on a run, and so on all that are nested in it.

    `thread` is the system's number of the thread that stands for it, `renewed` is when it was last renewed, by the
    monotonic clock.
    """

    channel: Channel
    key: int
    token: str
    run_id: str
    thread: int | None
    renewed: float = field(default_factory=time.monotonic)

    def persist(self, attempt: Callable[[bool], T]) -> T:
        """Call `attempt` and return its result; within the lease, call it again if the server drops the connection.

        The argument is true if `attempt` was called before: then all of it may have been done, or nothing. If there is
        no connection in time, the first error is raised.
        """
        first: JournalError | None = None
        pause, longest = PAUSES_S
        while True:
            try:
                return attempt(first is not None)
            except JournalError as error:
                if error.errno != errno.ECONNRESET:
                    raise
                first = first or error
                left = self.renewed + lease.DURATION_S - time.monotonic()
                if left <= 0:
                    raise first from first.__cause__
            time.sleep(min(pause, left))
            pause = min(2 * pause, longest)

    def holding(self) -> ColumnElement[bool]:
        """Return the condition that this process still holds the lease."""
        row = runs.alias()
        return exists().where(row.c.key == self.key, row.c.token == self.token)

    def check(self, connection: Connection) -> None:
        """Raise `RunInUseError` unless this process still holds the lease; until the commit, nobody takes it over."""
        row = select(runs.c.key).where(runs.c.key == self.key, runs.c.token == self.token)
        if connection.execute(row.with_for_update()).one_or_none() is None:
            raise self.lost(connection)

    def lost(self, connection: Connection) -> RunInUseError:
        """Return the error that says who has the run now."""
        query = select(runs.c.holder, runs.c.held_since).where(runs.c.key == self.key)
        row = connection.execute(query).one_or_none()
        if row is None:
            return RunInUseError(f"run {self.run_id!r} was deleted from the journal while it was executed")
        holder = lease.Holder.read(row.holder)
        return RunInUseError(
            f"run {self.run_id!r} was taken over by process {holder.pid} on {holder.host} at "
            f"{lease.moment(row.held_since)}, because it had not been heard of; this process records it no longer"
        )
