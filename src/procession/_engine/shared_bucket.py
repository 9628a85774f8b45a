"""A bucket that several programs share: what is under way in this one, within what the database has granted it.

    call ──there is granted room──▶ it begins
     │ no
     ▼
    waits ◀── Grant ── Keeper ◀──▶ the database, which counts for all programs
                         └── Wish: what has begun and ended here, and for how much room calls wait

A thread (`keeper`) asks the database, for several calls at a time, so that no call and no loop waits for it. What was
granted and has not begun counts there as well, so what is not used is given back.
"""

from itertools import islice
from math import inf
from typing import TYPE_CHECKING

from procession._engine.bucket import Beginning, Bucket, Ticket
from procession._model.shared_limit import Grant, Wish

if TYPE_CHECKING:
    from collections.abc import Callable

FRESH_S = 10.0
"""How long a grant may be used: the database holds it for longer."""

_AHEAD = 4096
"""For how many calls room is asked for that do not wait yet, at most, where as many have begun since the last time."""

_LOOKED_AT = 256
"""How many calls of a run that wait are looked at, at most."""


class SharedBucket(Bucket):
    """What is under way in this program under one limit that it shares with others."""

    __slots__ = (
        "_ended",
        "_fresh_until",
        "_number",
        "_pause_told",
        "_paused_until",
        "_places",
        "_stock",
        "_told",
        "_used",
        "contended",
        "prod",
    )

    def clear(self) -> None:
        """Begin anew, as if there had been no call."""
        super().clear()
        self.contended = False
        """Whether calls of other programs wait."""
        self.prod: Callable[[], object] = _nobody
        """Has the keeper look what there is to do."""
        self._places = 0
        """How many calls may begin that were granted."""
        self._stock = 0.0
        """What those may cost together."""
        self._fresh_until = -inf
        self._ended = 0
        self._used = 0
        """For how many calls room was taken since the last wish."""
        self._paused_until: float | None = None
        """Until when the service wants to be left alone, where the database is not told of that yet."""
        self._pause_told: float | None = None
        """The same where it is being told."""
        self._told: list[tuple[int, Beginning]] = []
        """What has begun and is being told, by its number."""
        self._number = 0

    # As for every bucket. In `_spent` is what was reserved and has not begun, in `_begun` what is to be told.

    def wait_s(self, cost: float, now: float) -> float:
        """Return in how many seconds there is room for a call: `inf` where the database has to be asked first."""
        self.count_noted(now)
        if now < self.closed_until:
            return self.closed_until - now
        return 0.0 if self._places >= 1 and self._stock >= cost and now < self._fresh_until else inf

    def exhaust(self, now: float) -> None:
        """Do nothing: the database knows what was begun by a program that is gone."""

    def lay_out(self, now: float) -> bool:
        """Do as every bucket does, but nothing where calls of other programs wait for the end of one of ours."""
        if self.contended or not super().lay_out(now):
            return False
        if self._places < self._used:
            self.prod()  # before there is none left
        return True

    @property
    def room(self) -> float:
        """How many more calls of cost 1 may begin."""
        return min(self._places, self._stock)

    def reserve(self, cost: float, count: int = 1) -> None:
        """Keep room for a call, or for several that cost so much together."""
        super().reserve(cost, count)
        self._places -= count
        self._stock -= cost
        self._used += count

    def withdraw(self, cost: float) -> None:
        """Take note that a call for which room was reserved will not begin."""
        super().withdraw(cost)
        self._places += 1
        self._stock += cost

    def begin(self, cost: float, now: float) -> Beginning:
        """Count a call that begins now, for which room was reserved."""
        self._spent -= cost
        return super().begin(cost, now)

    def _count_starts(self) -> int:
        noted = super()._count_starts()
        self._spent -= noted
        return noted

    def give_back(self, now: float, count: int = 1) -> None:
        """Take note that a call has ended, or several."""
        super().give_back(now, count)
        self._ended += count

    def close(self, until: float, now: float) -> None:
        """Let nothing begin for a while, as the service has asked for, and then one call alone, of all programs."""
        super().close(until, now)
        self._paused_until = self.closed_until
        self._places, self._stock = 0, 0.0

    @property
    def has_waiting(self) -> bool:
        """Whether a call waits, of this program or of another: then the keeper is to know of each start and end."""
        return self.contended or bool(self.lines)

    # For the keeper

    @property
    def has_stock(self) -> bool:
        """Whether room is granted that no call has taken."""
        return self._places > 0

    @property
    def is_told(self) -> bool:
        """Whether the database knows all that has begun and ended."""
        untold = self.starts or self.ends or self._begun or self._ended or self._told
        return not untold and self._paused_until is self._pause_told is None

    def wish(self, now: float, *, last: bool = False) -> Wish:
        """Return the message to the database for the next exchange. With `last`, unused room is given back."""
        self.count_noted(now)
        waiting = [] if last else self._waiting(now)
        if last or now >= self._fresh_until or self.lines or not self._used:
            self._places, self._stock = 0, 0.0  # what waits has no use for it, or nothing has had
        self._grain = None  # what is told is not added to any more
        for beginning in self._begun:
            self._number += 1
            self._told.append((self._number, beginning))
        self._begun.clear()
        if self._paused_until is not None:
            self._pause_told, self._paused_until = self._paused_until, None
        costs = [next(cost for bucket, cost in ticket.claims if bucket is self) for ticket in waiting]
        return Wish(
            places=self.in_use + self._places,
            reserved=0.0 if self.rate == inf else self._spent + self._stock,
            begun=[(number, now - start, cost) for number, (start, cost) in self._told],
            ended=self._ended,
            closed_s=None if self._pause_told is None else max(self._pause_told - now, 0.0),
            calls=len(costs),
            cost=sum(costs),
            first=costs[0] if costs else 0.0,
            ahead=0 if last else min(2 * self._used, _AHEAD),
        )

    def take(self, wish: Wish, grant: Grant, asked_at: float, now: float) -> None:
        """Take what the database has granted, and forget what was told."""
        self._told.clear()
        self._ended -= wish.ended
        self._used = 0
        self._pause_told = None
        self.contended = grant.contended
        if grant.closed_s > 0:
            self.closed_until = max(self.closed_until, now + grant.closed_s)
        if self._paused_until is None:  # else what is granted is given back
            self._places += grant.places
            self._stock = inf if self.rate == inf else self._stock + grant.cost
            self._fresh_until = asked_at + FRESH_S

    def _waiting(self, now: float) -> list[Ticket]:
        """Return the calls that wait for nothing but this limit, the one whose turn it is first."""
        first = self.first()
        if first is None:
            return []
        tickets = [first]
        for line in self.lines.values():
            tickets += (ticket for _, ticket in islice(line, _LOOKED_AT) if ticket is not first)
        return [
            ticket
            for ticket in tickets
            if all(bucket is self or bucket.wait_s(cost, now) == 0 for bucket, cost in ticket.claims)
        ]


def _nobody() -> None:
    pass
