"""One call to have made elsewhere, and everything that is known of it while it is under way."""

import threading
from collections.abc import Callable, Sequence
from typing import Any, overload

from procession._engine.bucket import Beginning, Claims
from procession._engine.retry import RetryState
from procession._model.batched import inside
from procession._model.limit import Limits
from procession._model.record import WHOLE
from procession._model.task import PLAIN, Call, Options
from procession._remote.map import RemoteMap
from procession._remote.wire.result import Result
from procession._remote.wire.wrapped import Awaited, WithRemoteSetup


class PendingCall:
    """The call of a task, or of an element of a map.

    `stays` says that the call is made in this process, wherever others are made: the callable is a `Process`, whose
    tasks run where its own executor says.
    """

    # What few calls have is an attribute of the class until a call has it: 100,000 of them are made.
    element = WHOLE
    job: RemoteMap | None = None
    digest = b""
    timeout: float | None = None
    again: RetryState | None = None
    alone = False
    """Whether no other call may travel with it."""
    follows = False
    """Whether it was sent together with the one call that it waits for, before the ledger said that it may start."""
    attempt = 1
    start: float | None = None
    """When its first attempt began."""
    told = False
    """Whether observers were told that it starts."""
    last: Result | None = None
    """How the attempt before ended, of a call that is to be made again."""
    hung: threading.Thread | bool = False
    """The thread in which the attempt before still goes on, or whether there is one."""
    remote_setup: Callable[[], object] | None = None
    limits: Limits = ()
    claims: Claims | None = None
    """What it takes of its limits, while it is under way."""
    beginnings: Sequence[Beginning] = ()
    """Since when it counts there: since it was sent, until it is known when it began."""

    def __init__(self, index: int, call: Call, options: Options, *, stays: bool) -> None:
        self.index = index
        self.call = call
        self.stays = stays
        if options is not PLAIN:
            self.timeout = options.timeout
            self.limits = options.limit
            # Behind others it would begin later than it was admitted, and hold its place meanwhile.
            self.alone = options.timeout is not None or bool(options.limit)
            self.again = None if options.retries == 0 else RetryState(options, _of_the_task(call))

    @classmethod
    def of(cls, job: RemoteMap, place: int, call: Call, digest: bytes, *, stays: bool) -> "PendingCall":
        """Return the call of an element of a map."""
        pending_call = cls(job.index, call, job.state.options, stays=stays)
        pending_call.job = job
        pending_call.element = place
        pending_call.digest = digest
        return pending_call

    @property
    def with_setup(self) -> Call:
        """The call, with what observers send along."""
        remote_setup = self.remote_setup if self.job is None else self.job.remote_setup
        return self.call if remote_setup is None else (WithRemoteSetup(remote_setup, self.call[0]), *self.call[1:])

    @property
    def hangs(self) -> bool:
        """Whether the attempt before still goes on, so that no other may be made beside it."""
        return self.hung.is_alive() if isinstance(self.hung, threading.Thread) else self.hung


class PlainCalls(Sequence[PendingCall]):
    """Tasks without options, kept by index. A `PendingCall` is made when somebody looks at one, which is seldom."""

    __slots__ = ("_calls", "indexes")

    def __init__(self, calls: Sequence[Call], indexes: Sequence[int]) -> None:
        self._calls = calls
        self.indexes = indexes

    @overload
    def __getitem__(self, place: int) -> PendingCall: ...
    @overload
    def __getitem__(self, place: slice) -> list[PendingCall]: ...
    def __getitem__(self, place: int | slice) -> PendingCall | list[PendingCall]:
        if isinstance(place, slice):
            return [self._pending_call(index) for index in self.indexes[place]]
        return self._pending_call(self.indexes[place])

    def __len__(self) -> int:
        return len(self.indexes)

    def _pending_call(self, index: int) -> PendingCall:
        return PendingCall(index, self._calls[index], PLAIN, stays=False)


def _of_the_task(call: Call) -> Call:
    """Return a call as the callbacks of a `Retrying` see it: with the task's own function."""
    function: Callable[..., Any] = call[0]
    return (inside(function.function if isinstance(function, Awaited) else function), *call[1:])
