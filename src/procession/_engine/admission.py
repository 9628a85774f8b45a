"""Admission of the calls of one run: which may begin, as the limits of their tasks allow it.

    engine ──ask──▶ Admission ──▶ claims: the call may begin
      ▲                 │    └──▶ None: it is parked, and takes no worker
      │                 ▼
      │            Bucket, one for each limit of the program, with a line for each run
      │                 │
      ├──wake───────────┘ once it is its turn and there is room: another call has ended, or an alarm rings
      └──end────────▶ with its error, if it raised one: the service may ask for a pause

The ledger knows only that a task is parked. Buckets decide, under one lock for all of the program (`buckets`). No code
of the user runs under it.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from functools import partial, wraps
from math import inf
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar

from procession._engine import buckets
from procession._engine.bucket import Beginning, Bucket, Claims, Line, Place, Ticket, reserve
from procession._engine.callbacks import breaks_down
from procession._engine.holding import Holding
from procession._engine.latch import SLICE_S, Latch
from procession._model.held_back import HeldBack, in_ranges
from procession._model.limit import Limit, Limits, checked_cost, checked_seconds
from procession._model.outcome import Away
from procession.errors import RetryAfter

if TYPE_CHECKING:
    from procession._model.task import Call

_TOLD = 10_000
"""Calls that wait and are looked at to say of which tasks they are, at most."""
_RANGES = 100
"""Ranges of tasks that are named for each limit, at most."""


class Leaves(Protocol):
    """What has to know when a run has ended."""

    def leave(self) -> None:
        """Take note that the run has ended."""
        ...


class PutOff(BaseException):
    """The service has asked for a pause: the call is to be made again after it, as the same attempt."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


P = ParamSpec("P")
T = TypeVar("T")


def _breaks_down(
    method: "Callable[Concatenate[Admission, P], T]",
) -> "Callable[Concatenate[Admission, P], T]":
    """Return a method that ends the run of its admission with what it raises: calls would wait without end."""

    @wraps(method)
    def called(self: "Admission", /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(self, *args, **kwargs)
        except BaseException as error:
            self.break_down(error)
            raise

    return called


class Admission:
    """Admits the calls of one run.

    `later(seconds, then)` has something called in so many seconds, and `break_down` ends the run with an error that is
    not from any call. `resumed` says that another program may have called the services a moment ago.
    """

    def __init__(
        self,
        limits: Iterable[Limit],
        later: Callable[[float, Callable[[], object]], object],
        break_down: Callable[[BaseException], object],
        clock: Callable[[], float] = time.perf_counter,
        *,
        resumed: bool = False,
    ) -> None:
        self._end_run = break_down
        self._is_broken = False
        self.gated_calls: list[Call] | None = None
        """The calls of the run with the gates that they may pass, once they were made: for all of its engines."""
        self.keepers: list[Leaves] = []
        """What keeps the limits that are shared with other programs."""
        self._resumed = resumed
        self._buckets: dict[Limit, Bucket] = {}
        self._whole: dict[Limits, Claims] = {}
        self._later = later
        self.clock = clock
        self._line = Line(self._look_at)
        self._tickets: dict[Place, Ticket] = {}
        self._holding: dict[str, Holding] = {}
        self.tell_held: Callable[[Place, str, float], object] | None = None
        """Is called with each call that was held back and may begin now, with the limit, and for how many seconds."""
        self.include(limits)

    def include(self, limits: Iterable[Limit]) -> None:
        """Admit calls under these limits, too, which may become known only while the run goes on."""
        for limit in limits:
            if limit not in self._buckets:
                self._buckets[limit] = bucket = buckets.bucket_of(limit)
                with buckets.lock:
                    bucket.users.add(self)
                    if self._resumed:
                        bucket.exhaust(self.clock())

    # For the engine that makes the calls

    def ask(
        self,
        place: Place,
        limits: Limits,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        hold: Callable[[], Callable[[], object]],
    ) -> Claims | None:
        """Claim room for a call under its limits if it may start now; then the caller calls `begin` and `end`.

        Else return `None`, after `hold` was called. What `hold` returns is called, in any thread, once the call is
        admitted: then ask again. Raises for a call whose cost is no number, or can never be paid.
        """
        if self._tickets and (ticket := self._tickets.pop(place, None)) is not None:
            return self._held(place, ticket)
        return self._reserved(place, limits, self._claims(limits, args, kwargs), hold)

    @_breaks_down
    def _held(self, place: Place, ticket: Ticket) -> Claims | None:
        if not ticket.admitted:
            self._tickets[place] = ticket  # too early
            return None
        seconds = self._let_go(ticket)
        if self.tell_held is not None:
            self.tell_held(place, ticket.limit, seconds)
        return ticket.claims

    @_breaks_down
    def _reserved(
        self, place: Place, limits: Limits, claims: Claims, hold: Callable[[], Callable[[], object]]
    ) -> Claims | None:
        now = self.clock()
        with buckets.lock:
            if reserve(claims, now):
                return claims
            full = (
                limit for limit, (bucket, cost) in zip(limits, claims, strict=True) if not bucket.is_free(cost, now)
            )
            name = next(full, limits[0]).name  # by now, none may be: then the call is admitted as soon as it waits
            self._holding.setdefault(name, Holding()).begin(now)
        ticket = Ticket(self._line, place, claims, name, now, partial(self._wake, hold()))
        self._tickets[place] = ticket
        with buckets.lock:
            for bucket, _ in claims:
                bucket.put(ticket)
        self._look(claims)
        return None

    @_breaks_down
    def begin(self, claims: Claims) -> list[Beginning]:
        """Take note that a call begins now that was admitted."""
        now, waiting = self.clock(), False
        with buckets.lock:
            beginnings = [bucket.begin(cost, now) for bucket, cost in claims]
            for bucket, _ in claims:
                waiting = waiting or bucket.has_waiting
        if waiting:
            self._look(claims)
        return beginnings

    def end(self, limits: Limits, claims: Claims, error: BaseException | None = None) -> BaseException | None:
        """Take note that a call has ended, and return the error that stands: `PutOff` where it is to be made again."""
        try:
            return None if error is None else self.judged(limits, error)
        finally:
            self._give_back(claims)

    @_breaks_down
    def _give_back(self, claims: Claims) -> None:
        now, waiting = self.clock(), False
        with buckets.lock:
            for bucket, _ in claims:
                bucket.give_back(now)
                waiting = waiting or bucket.has_waiting
        if waiting:
            self._look(claims)

    @_breaks_down
    def withdraw(self, claims: Claims) -> None:
        """Take note that a call that was admitted will not begin."""
        with buckets.lock:
            for bucket, cost in claims:
                bucket.withdraw(cost)
        self._look(claims)

    def call(
        self,
        limits: Limits,
        claims: Claims,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Any:
        """Make a call that was admitted, and take note of its end in the thread in which it really ends."""
        try:
            self.begin(claims)
        except BaseException as error:  # or it would be under way for ever
            self.break_down(error)
            raise
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            self.judge(limits, error)
            raise
        finally:
            try:
                self._give_back(claims)
            except BaseException as error:  # or it would be under way for ever
                self.break_down(error)
                raise

    @_breaks_down
    def drop(self, place: Place) -> None:
        """Take note that a call that waits, or was admitted and has not begun, will not be made."""
        ticket = self._tickets.pop(place, None)
        if ticket is None:
            return
        self._let_go(ticket)
        with buckets.lock:
            for bucket, cost in ticket.claims:
                if ticket.admitted:
                    bucket.withdraw(cost)
                else:
                    bucket.pull(ticket)
        self._look(ticket.claims)
        if not ticket.admitted:
            ticket.wake()

    def drop_all(self) -> None:
        """Take note that nothing that waits will be made any more."""
        for place in list(self._tickets):
            self.drop(place)

    def close(self, *, broken: bool = False) -> None:
        """Take note that the run has ended: nothing that waits will be made any more.

        Of one that has broken down, calls may count that never began.
        """
        self.drop_all()
        with buckets.lock:
            for limit, bucket in self._buckets.items():
                bucket.users.discard(self)
                if (broken or self._is_broken) and not bucket.users:
                    buckets.begin_anew(limit, bucket, self.clock())
        for keeper in self.keepers:
            keeper.leave()
        self._later = self._end_run = _nobody  # no cycle may stay
        self.gated_calls = None

    def break_down(self, error: BaseException) -> None:
        """End the run with an error that is not from any call."""
        self._is_broken = True
        self._end_run(error)

    def look(self) -> None:
        """See whether something may begin that waits: for an engine that is told nothing, as it looks in any case."""
        if self._tickets and self.clock() >= self._line.alarm:
            self._ring(self._line.alarm)

    @property
    def held_back(self) -> list[HeldBack]:
        """What each limit holds back, and has held back so far, of those that have held anything back."""
        now = self.clock()
        with buckets.lock:
            return [holding.told(name, now) for name, holding in self._holding.items()]

    def held_tasks(self) -> list[HeldBack]:
        """Return what each limit holds back, with the tasks: as many as are found in a moment, those of old first."""
        tasks: dict[str, set[int]] = {}
        for ticket in list(self._tickets.values())[:_TOLD]:
            if not ticket.admitted:
                tasks.setdefault(ticket.limit, set()).add(ticket.place[0])
        return [one._replace(tasks=in_ranges(tasks.get(one.limit, ()))[:_RANGES]) for one in self.held_back]

    @property
    def pause(self) -> float | None:
        """In how many seconds it is worth to look again; `None` where only the end of another call changes anything."""
        return None if self._line.alarm == inf else max(self._line.alarm - self.clock(), 0.0)

    # For calls that need not wait

    @property
    def limits(self) -> Collection[Limit]:
        """The limits of the run."""
        return self._buckets

    def bucket(self, limit: Limit) -> Bucket:
        """Return the bucket that counts the calls under a limit."""
        return self._buckets[limit]

    @_breaks_down
    def lay_out(self, bucket: Bucket) -> bool:
        """Reserve room for some calls, and take it for one; return whether it may begin."""
        now = self.clock()
        with buckets.lock:
            return bucket.lay_out(now)

    def look_into(self, bucket: Bucket) -> None:
        """Admit what may begin, as a call under this limit has begun or ended."""
        self._look([(bucket, 0.0)])

    def judge(self, limits: Limits, error: BaseException) -> None:
        """Raise what stands in place of an error, if anything does: see `judged`."""
        standing = self.judged(limits, error)
        try:
            if standing is not error:
                raise standing
        finally:
            del standing, error  # no cycle may stay

    # Inside

    def _let_go(self, ticket: Ticket) -> float:
        """Take note that a call is not held back any more; return for how many seconds it was."""
        now = self.clock()
        with buckets.lock:
            self._holding[ticket.limit].end(now)
        return now - ticket.since

    def _claims(self, limits: Limits, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Claims:
        """Return the cost of a call for the bucket of each of its limits."""
        whole = self._whole.get(limits)
        if whole is not None:
            return whole
        if all(limit.cost is None for limit in limits):
            self._whole[limits] = whole = [(self._buckets[limit], 1.0) for limit in limits]
            return whole
        if any(isinstance(value, Away) for value in args):
            args = tuple(value.fetch() if isinstance(value, Away) else value for value in args)
        claims: list[tuple[Bucket, float]] = []
        for limit in limits:
            cost = 1.0 if limit.cost is None else checked_cost(limit, limit.cost(*args, **kwargs))
            if limit.rate is not None and cost > limit.rate:
                raise ValueError(
                    f"the call costs {cost:g}, and {limit!r} never admits more than {limit.rate:g} in {limit.per:g} s"
                )
            claims.append((self._buckets[limit], cost))
        return claims

    @_breaks_down
    def _look(self, claims: Claims) -> None:
        """Admit what may begin, of any run."""
        buckets.look_into([bucket for bucket, _ in claims], self.clock())

    # These are called by the admission of another run, too, or by a loop: an error in them is none of theirs.

    @breaks_down
    def _look_at(self, reading: float) -> None:
        self._later(max(reading - self.clock(), 0.0), partial(self._ring, reading))

    @breaks_down
    def _wake(self, wake: Callable[[], object]) -> None:
        wake()

    @breaks_down
    def _ring(self, reading: float) -> None:
        """See whether something may begin that waits, as it is time to."""
        if self._line.alarm == reading:
            self._line.alarm = inf
        self._look([(bucket, 0.0) for bucket in self._buckets.values()])

    def judged(self, limits: Limits, error: BaseException) -> BaseException:
        """Return the error that stands: `PutOff` where the service asks for a pause that is not too long."""
        if not isinstance(error, Exception):
            return error
        try:
            asked = [(limit, _asked_s(limit, error)) for limit in limits]
        except Exception as failure:
            return failure
        pauses = [(limit, seconds) for limit, seconds in asked if seconds is not None]
        for limit, seconds in pauses:
            if seconds > limit.patience:
                error.add_note(f"{limit!r} waits {limit.patience:g} s at most, and the service asks for {seconds:g} s")
                return error
        now = self.clock()
        with buckets.lock:
            for limit, seconds in pauses:
                self._buckets[limit].close(now + seconds, now)
        return PutOff(error) if pauses else error


class Admitted:
    """Makes a call that was admitted. Of one that never begins, `withdraw` gives back what it takes of its limits."""

    __slots__ = ("_admission", "_claims", "_limits")

    def __init__(self, admission: Admission, limits: Limits, claims: Claims) -> None:
        self._admission = admission
        self._limits = limits
        # Who pops them sees to them: a thread that was started for the call, or who gives the call up.
        self._claims = [claims]

    def __call__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Make the call."""
        return self._admission.call(self._limits, self._claims.pop(), function, args, kwargs)

    def withdraw(self) -> None:
        """Take note that the call will not begin, if it has not."""
        with suppress(IndexError):
            self._admission.withdraw(self._claims.pop())


def await_admission(
    admission: Admission,
    place: Place,
    limits: Limits,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    stopped: Callable[[], bool],
) -> Claims | None:
    """Wait until a call may begin, in its place, and return what it takes of its limits.

    Returns `None` where nothing may begin any more.
    """
    while True:
        due = Latch()
        if (claims := admission.ask(place, limits, args, kwargs, partial(_opens, due))) is not None:
            return claims
        try:
            while not due.wait(SLICE_S):
                if stopped():
                    admission.drop(place)
                    return None
        except BaseException:  # Ctrl-C
            admission.drop(place)
            raise


def admission_of(
    limits: Iterable[Limit],
    later: Callable[[float, Callable[[], object]], object],
    break_down: Callable[[BaseException], object],
    *,
    resumed: bool,
) -> Admission | None:
    """Return the admission of a run whose tasks have these limits; `None` where there is no limit."""
    known = dict.fromkeys(limits)
    return Admission(known, later, break_down, resumed=resumed) if known else None


def _nobody(*_: object) -> None:
    pass


def _opens(due: Latch) -> Callable[[], object]:
    return due.open


def _asked_s(limit: Limit, error: Exception) -> float | None:
    """Return for how many seconds a service asks to be left alone, if it does."""
    if isinstance(error, RetryAfter):
        return error.seconds
    seconds = None if limit.retry_after is None else limit.retry_after(error)
    return None if seconds is None else checked_seconds(f"the pause that {limit!r} reads off an exception", seconds)
