"""What is under way under one limit, and what waits for it. Pure: whoever asks says what time it is, and has the lock.

    a call that comes ──there is room, and nobody waits─▶ reserve ──▶ begin: it is counted
           │                                                    ▲            │
           └─ else ──▶ Ticket, in the line of each of its limits           │ it ends
                          │ first in all of them, and all have room│            ▼
                          └────────────────────────────────────────┘     give_back ──▶ the next

What a call costs is counted from the moment it begins, for `per` seconds. So what was admitted and has not begun yet is
reserved: it counts, but its `per` seconds have not begun.

Calls that cost 1 need no lock while there is room and nobody waits: room is reserved for some of them at a time, and
each takes one of the `permits`, and notes in `starts` and `ends` that it has begun and ended. Taking from a list and
appending to it are atomic. Whoever has the lock and looks at the room counts that first, and takes back what permits
are left: so they keep no room from anybody.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Final

_TURNS: Final = count()

_PERMITS: Final = 64
"""For how many calls room is reserved at a time, at most."""

_GRAIN: Final = 1 / 1024
"""What part of `per` the starts of calls may lie apart that are counted together, from the last of them on."""


class Bucket:
    """What is under way under one limit, in this program."""

    __slots__ = (
        "__weakref__",
        "_before",
        "_begun",
        "_grain",
        "_known",
        "_let_through",
        "_spent",
        "at_once",
        "careful",
        "closed_until",
        "ends",
        "in_use",
        "is_new",
        "lines",
        "per",
        "permits",
        "rate",
        "starts",
        "users",
    )

    def __init__(self, *, at_once: int | None, rate: float | None, per: float) -> None:
        self.at_once = inf if at_once is None else at_once
        self.rate = inf if rate is None else rate
        self.per = per
        self.users: set[object] = set()
        """The admissions of the runs that have the limit."""
        self.clear()

    def clear(self) -> None:
        """Begin anew, as if there had been no call."""
        self.is_new = True
        """Whether no call has been admitted yet."""
        self.in_use = 0
        """How many calls are under way, or are about to begin."""
        self.closed_until = -inf
        """Until when nothing begins, as the service has asked for."""
        self.careful = inf
        """How many calls may be under way that began since a service asked for a pause: one more for each that ends."""
        self._before = 0
        """How many are under way that began before that."""
        self._known = inf
        """How many more may begin until there are as many as the service let through last time."""
        self._let_through = 0
        """How many it has let through since the last pause."""
        self._begun: deque[Beginning] = deque()
        """When each call of the last `per` seconds began, and what it cost."""
        self._spent: float = 0.0
        """What these cost together, and those for which room is reserved."""
        self._grain: tuple[Beginning, float] | None = None
        """The last of these where it counts several calls, and when the first of them began."""
        self.lines: dict[Line, list[tuple[Place, Ticket]]] = {}
        """The calls of each run that wait."""
        self.permits: list[None] = []
        """For each call of cost 1 for which room is reserved and that has not begun, one."""
        self.starts: list[float] = []
        """When calls began that have taken such a permit and are not counted yet."""
        self.ends: list[None] = []
        """For each such call that has ended and is not counted yet, one."""

    def wait_s(self, cost: float, now: float) -> float:
        """Return in how many seconds there is room for a call: 0.0 for now, `inf` if another has to end first."""
        self.count_noted(now)
        if self._known <= 0:  # from here on nothing is known: again one call alone
            self.careful, self._before, self._known = 1, self.in_use, inf
        if self.in_use >= self.at_once or self.in_use - self._before >= self.careful:
            return inf
        closed_s = max(self.closed_until - now, 0.0)
        if self.rate == inf:
            return closed_s
        begun, per = self._begun, self.per
        while begun and begun[0][0] + per <= now:
            self._spent -= begun.popleft()[1]
        if not begun:
            self._grain = None
            if not self.in_use:
                self._spent = 0.0  # of numbers that are not whole, something may be left
        over = self._spent + cost - self.rate
        if over <= 0:
            return closed_s
        for start, spent in begun:
            over -= spent
            if over <= 0:
                return max(start + per - now, closed_s)
        return inf

    def exhaust(self, now: float) -> None:
        """Count as if all that is allowed had begun now: nobody knows what a program has begun that is gone."""
        if self.is_new and self.rate != inf:
            self.is_new = False
            self._spent += self.rate
            self._begun.append([now, self.rate])

    def lay_out(self, now: float) -> bool:
        """Reserve room for some calls of cost 1, and take it for one; return whether it has any and nobody waits."""
        if not self.is_free(1.0, now):
            return False
        count = max(int(min(self.room, _PERMITS)), 1)
        self.reserve(count, count)
        self.permits.extend([None] * (count - 1))
        return True

    @property
    def room(self) -> float:
        """How many more calls of cost 1 may begin."""
        careful = min(self.careful - self.in_use + self._before, self._known)
        return min(self.at_once - self.in_use, careful, self.rate - self._spent)

    def count_noted(self, now: float) -> None:
        """Count what calls have noted that took a permit, and take back the permits that are left."""
        permits, ended = self.permits, len(self.ends)
        while permits:
            try:
                permits.pop()
            except IndexError:  # a call was faster
                break
            self.withdraw(1.0)
        if self.starts:
            self._count_starts()
        if ended:
            del self.ends[:ended]
            self.give_back(now, ended)

    def _count_starts(self) -> int:
        """Count the calls that have noted when they began, together those that began at about the same time."""
        starts = self.starts[:]
        noted = len(starts)
        del self.starts[:noted]
        starts.sort()
        while starts:
            if self._grain is None or starts[0] - self._grain[1] > self.per * _GRAIN:
                self._grain = [starts[0], 0.0], starts[0]
                self._begun.append(self._grain[0])
            beginning, first = self._grain
            count = bisect_right(starts, first + self.per * _GRAIN)
            beginning[0] = max(beginning[0], starts[count - 1])
            beginning[1] += count
            del starts[:count]
        return noted

    def reserve(self, cost: float, count: int = 1) -> None:
        """Keep room for a call, or for several that cost so much together."""
        self.is_new = False
        self.in_use += count
        self._known -= count
        self._spent += cost

    def begin(self, cost: float, now: float) -> "Beginning":
        """Count a call that begins now, for which room was reserved."""
        beginning = [now, cost]
        if self.rate != inf:
            if self.starts:
                self._count_starts()
            self._grain = None
            self._begun.append(beginning)
        return beginning

    def is_free(self, cost: float, now: float) -> bool:
        """Return whether there is room for a call that comes now, and nobody waits."""
        return not self.lines and self.wait_s(cost, now) == 0

    def give_back(self, now: float, count: int = 1) -> None:
        """Take note that a call has ended, or several."""
        self.in_use -= count
        old = min(self._before, count)
        self._before -= old
        if now >= self.closed_until:
            self.careful += count - old
            self._let_through += count
        else:
            self._known += count

    @property
    def has_waiting(self) -> bool:
        """Whether a call waits."""
        return bool(self.lines)

    def withdraw(self, cost: float) -> None:
        """Take note that a call for which room was reserved will not begin."""
        self.in_use -= 1
        self._known += 1
        self._spent -= cost

    def close(self, until: float, now: float) -> None:
        """Let nothing begin for a while, as the service has asked for, and then one call alone, to see what it says.

        Each that ends makes room for one more, until there were as many as the service has let through before. Then it
        begins with one alone again. So a service that lets so many through in a while refuses one call each time.
        """
        self.count_noted(now)
        if now >= self.closed_until:
            self._known, self._let_through = self._let_through, 0
        self._known -= 1  # the call that was told so, as it ends, too
        self.closed_until = max(self.closed_until, until)
        self.careful, self._before = 1, self.in_use

    # Those who wait

    def put(self, ticket: "Ticket") -> None:
        """Put a call into the line of its run."""
        waiting = self.lines.get(ticket.line)
        if waiting is None:
            self.lines[ticket.line] = [(ticket.place, ticket)]
        else:
            heappush(waiting, (ticket.place, ticket))
        ticket.line.buckets.add(self)

    def first(self) -> "Ticket | None":
        """Return the call whose turn it is: the first of the run whose turn it is."""
        if not self.lines:
            return None
        line = min(self.lines, key=_turn) if len(self.lines) > 1 else next(iter(self.lines))
        return self.lines[line][0][1]

    def pull(self, ticket: "Ticket") -> None:
        """Take a call out of its line, if it is in it: an error may have kept it from that."""
        waiting, entry = self.lines.get(ticket.line, []), (ticket.place, ticket)
        if waiting and waiting[0][1] is ticket:
            heappop(waiting)
        elif entry in waiting:
            waiting.remove(entry)
            waiting.sort()  # a sorted list is a heap
        if not waiting:
            self.lines.pop(ticket.line, None)
            ticket.line.buckets.discard(self)


Beginning = list[float]
"""When a call began, and what it cost. The first is put off where it is learnt later that it began later."""

Place = tuple[int, int]
"""Of a call: the place of its task, and of its element."""

Claims = Sequence[tuple[Bucket, float]]
"""What a call takes of each of its limits."""


class Line:
    """The calls of one run that wait. Runs that wait for the same limit take turns."""

    __slots__ = ("alarm", "buckets", "look_at", "turn")

    def __init__(self, look_at: Callable[[float], object]) -> None:
        self.look_at = look_at
        """Has the run look again when the clock reads so much."""
        self.alarm = inf
        """When it will look next."""
        self.turn = next(_TURNS)
        self.buckets: set[Bucket] = set()
        """Those in which a call of the run waits."""


def _turn(line: Line) -> int:
    return line.turn


class Ticket:
    """A call that waits, or has been admitted and is about to begin."""

    __slots__ = ("admitted", "claims", "limit", "line", "place", "since", "wake")

    def __init__(
        self, line: Line, place: Place, claims: Claims, limit: str, since: float, wake: Callable[[], object]
    ) -> None:
        self.line = line
        self.place = place
        self.claims = claims
        self.limit = limit
        """The name of the limit that holds it back, the first if there are several."""
        self.since = since
        """Since when it waits, as a reading of the clock."""
        self.wake = wake
        """What is to be called once it is admitted."""
        self.admitted = False

    def __lt__(self, other: "Ticket") -> bool:
        return self.place < other.place


def reserve(claims: Claims, now: float) -> bool:
    """Keep room for a call that comes now, if all of its limits have it and nobody waits; return whether that is so."""
    for bucket, cost in claims:
        if not bucket.is_free(cost, now):
            return False
    for bucket, cost in claims:
        bucket.reserve(cost)
    return True


def admit(buckets: Iterable[Bucket], now: float) -> tuple[list[Ticket], list[Line]]:
    """Admit what waits and has room. Return that, and the runs that have to look again sooner than they know.

    A call is admitted if it is the first in the lines of all of its limits and all have room. The first call of the run
    whose turn it is among all that wait is first in all of its lines. So none waits for ever.
    """
    admitted: list[Ticket] = []
    sooner: list[Line] = []
    pending = list(buckets)
    while pending:
        ticket = pending.pop().first()
        if ticket is None or any(bucket.first() is not ticket for bucket, _ in ticket.claims):
            continue
        wait_s = max(bucket.wait_s(cost, now) for bucket, cost in ticket.claims)
        if wait_s > 0:
            if now + wait_s < ticket.line.alarm:
                ticket.line.alarm = now + wait_s
                sooner.append(ticket.line)
            continue
        for bucket, cost in ticket.claims:
            bucket.pull(ticket)
            bucket.reserve(cost)
            pending.append(bucket)
        ticket.admitted = True
        ticket.line.turn = next(_TURNS)
        pending += ticket.line.buckets  # in which it is the turn of another run now
        admitted.append(ticket)
    return admitted, sooner
