"""Calls of tasks that have an executor of their own: the engine makes them as ever, and they are made there.

    engine ──call, or elements of a map that travel together──▶ PlacedCall ──submit──▶ executor ┄┄▶ the function
                                  ◀──how they ended──────────────────┘

So attempts, limits, streams and records are the engine's, wherever a call is made. Its timeout alone is not: the time
begins where the call does, and a worker process of our own is ended with it.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from procession._engine.call_context import CURRENT_CALL
from procession._engine.element_batches import Element
from procession._engine.gate import NotBegun
from procession._engine.latch import Latch
from procession._engine.map_state import MapState
from procession._engine.retry import GiveUp
from procession._model.task import Call, MapFunction, name_of
from procession.errors import TaskCancelled, TaskTimeoutError, TransferError

if TYPE_CHECKING:
    from concurrent.futures import Future


class Ended(Protocol):
    """How a call ended."""

    @property
    def returned(self) -> bool: ...
    @property
    def value(self) -> Any: ...
    @property
    def start(self) -> float: ...
    @property
    def end(self) -> float: ...


class Submitted(Protocol):
    """Calls that were submitted, to be made one after another."""

    future: "Future[Made]"
    hung: threading.Thread | bool
    """The thread in which a call goes on though its time is over, or whether there is one."""


class Made(NamedTuple):
    """What became of calls that were submitted together. Those that are neither ended nor going on were not begun."""

    ended: Sequence[Ended]
    """How the first ones ended."""
    going: Submitted | None = None
    """The next ones, where they have begun and it is not known how they end."""
    others: int = 0
    """How many are going on."""


class Place(Protocol):
    """Where calls of one function are made."""

    @property
    def workers(self) -> int:
        """How many calls are made there at the same time, at most, as far as is known."""
        ...

    def size(self, left: int) -> int:
        """Return how many calls are to be submitted together, of so many that are left."""
        ...

    def submit(
        self, index: int, calls: Sequence[tuple[int, Call]], attempt: int = 1, timeout: float | None = None
    ) -> Submitted:
        """Submit calls of a task, each with its element. One of them alone may take `timeout` seconds."""
        ...

    def interrupt(self, error: BaseException) -> None:
        """Stop the run, as Ctrl-C came while a call was waited for."""
        ...


class PlacedCall:
    """Has a function called on an executor, and waits for that. `timeout` is in seconds."""

    __slots__ = ("_hung", "function", "name", "place", "timeout")

    def __init__(self, place: Place, function: Callable[..., Any], timeout: float | None) -> None:
        self.function = function
        self.name = name_of(function)
        self.place = place
        self.timeout = timeout
        self._hung: dict[tuple[int, int], tuple[threading.Thread | bool, BaseException]] = {}
        """For tasks, or elements, with an attempt that took too long and may still go on: what it failed with."""

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        submitted = self.submit(args, kwargs)
        return self.value_of(submitted, self.wait(submitted))

    def wait(self, submitted: Submitted) -> Made:
        """Wait for what was submitted; return how it ended, or raise why nothing was made of it."""
        done = Latch()
        submitted.future.add_done_callback(lambda _: done.open())
        done.wait_through(self.place.interrupt)
        return submitted.future.result()

    def submit(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Submitted:
        """Submit the call that the context names, unless the attempt before still goes on."""
        context = CURRENT_CALL.get()
        hung, error = self._hung.get((context.index, context.element), (False, None))
        if error is not None:
            if hung is True or (isinstance(hung, threading.Thread) and hung.is_alive()):
                raise GiveUp(error)
            del self._hung[context.index, context.element]
        call = context.element, (self.function, args, kwargs)
        return self.place.submit(context.index, [call], context.attempt, self.timeout)

    def value_of(self, submitted: Submitted, made: Made) -> Any:
        """Return the value of a single call that has ended, or raise its error; `NotBegun` if it was not made."""
        if not made.ended:
            if CURRENT_CALL.get().attempt > 1:
                raise GiveUp(TaskCancelled("the run was stopped before the next attempt"))
            raise NotBegun
        (ended,) = made.ended
        if ended.returned:
            return ended.value
        error: BaseException = ended.value
        try:
            if isinstance(error, TransferError):
                raise GiveUp(error)  # another attempt would fail, too
            if isinstance(error, TaskTimeoutError) and submitted.hung:
                context = CURRENT_CALL.get()
                self._hung[context.index, context.element] = submitted.hung, error
            raise error
        finally:
            del self, submitted, made, ended, error  # or what was raised would keep itself


class PlacedMap(MapFunction):
    """The callable of a map whose elements are called on an executor."""

    __slots__ = ("_call", "_original")

    def __init__(self, original: MapFunction, function: PlacedCall) -> None:
        self._original = original
        self.batch = original.batch
        self.function = self.called = self._call = function

    def with_constants(self, constants: dict[str, Any]) -> Callable[..., Any]:
        """Return the function to call for an element on its executor, with these keyword arguments bound to it."""
        call = self._call
        return type(call)(call.place, partial(call.function, **constants), call.timeout) if constants else call

    @property
    def consumed(self) -> bool:  # the original's, which goes through all runs
        """Whether a run has drawn from an iterator."""
        return self._original.consumed

    @consumed.setter
    def consumed(self, consumed: bool) -> None:
        self._original.consumed = consumed


class Failure(NamedTuple):
    """An element that has failed."""

    element: Element
    error: BaseException
    digest: bytes
    start: float
    end: float


class ElementGroup:
    """Elements of a map that are called together on an executor. What there is to do for each, its driver does.

    The driver waits for what was submitted, and settles it, as long as something is going on.
    """

    def __init__(self, state: MapState, size: int, first: Element | None = None) -> None:
        """Take up to `size` elements of the window, after the `first`, which somebody has taken already."""
        self._state = state
        self._elements: list[Element] = []
        self._digests: list[bytes] = []
        self.failed: list[Failure] = []
        """Elements that have failed, for the driver to take."""
        self.back: list[tuple[Element, bytes]] = []
        """Elements that were not begun, with their digests, for the driver to take and to have called one by one."""
        self._taken: list[Element] = [] if first is None else [first]
        with suppress(IndexError):
            while len(self._taken) < size:
                self._taken.append(state.window.pop())

    def __len__(self) -> int:
        return len(self._taken) + len(self._elements)

    def submit(self, placed: PlacedCall) -> Submitted | None:
        """Submit the elements that are not recorded; return `None` where there are none."""
        state, taken, self._taken = self._state, self._taken, []
        for element in taken:
            start = perf_counter()
            try:
                digest = state.begin(*element)
            except BaseException as error:
                self.failed.append(Failure(element, error, b"", start, start))
                continue
            if digest is not None:
                self._elements.append(element)
                self._digests.append(digest)
        if not self._elements:
            return None
        calls: list[tuple[int, Call]] = [(place, (placed.function, args, {})) for place, args in self._elements]
        try:
            return placed.place.submit(state.index, calls)
        except Exception as error:  # the executor takes no calls any more
            self.fail(error)
            return None

    def fail(self, error: BaseException) -> None:
        """Fail all elements that have not ended."""
        now = perf_counter()
        self.failed += [
            Failure(element, error, digest, now, now)
            for element, digest in zip(self._elements, self._digests, strict=True)
        ]
        self._elements, self._digests = [], []

    def settle(self, made: Made, note: Callable[[float, float, int], object]) -> Submitted | None:
        """Settle those that have ended; return those that are going on.

        `note` is told when each call began and ended that did so well, and how many elements it had.
        """
        state = self._state
        for (place, args), digest, ended in zip(self._elements, self._digests, made.ended, strict=False):
            error: BaseException = ended.value
            if ended.returned:
                try:
                    count = state.ends.returned(place, digest, ended.value, ended.start, ended.end)
                except BaseException as failure:  # it cannot be recorded
                    error = GiveUp(failure)  # neither could what another attempt returns
                else:
                    note(ended.start, ended.end, count)
                    continue
            elif isinstance(error, TransferError):
                error = GiveUp(error)  # another attempt would fail, too
            self.failed.append(Failure((place, args), error, digest, ended.start, ended.end))
        rest = list(zip(self._elements, self._digests, strict=True))[len(made.ended) :]
        going, self.back = rest[: made.others], self.back + rest[made.others :]
        self._elements, self._digests = [element for element, _ in going], [digest for _, digest in going]
        return made.going


def grouped(state: MapState, *, recorded: bool) -> PlacedCall | None:
    """Return the function of a map whose elements may be sent in batches, else `None`."""
    options, function = state.options, state.function
    if not isinstance(function, PlacedCall) or function.timeout is not None or (recorded and state.in_order):
        return None
    return function if isinstance(options.retries, int) and not options.limit else None


def group_size(place: Place, state: MapState, more: int = 0) -> int:
    """Return how many elements of a map are to be called together, of those in the window and `more` of them.

    As long as there will be others, one group is for each worker, and two lie ready.
    """
    window, workers = state.window, place.workers
    left = len(window.elements) + more
    return place.size(left if window.exhausted else max(left, 2 * workers * window.most // (workers + 2)))
