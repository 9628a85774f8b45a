"""The elements of a map for the caller of a run, while the run goes on."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from typing import Any, Generic, TypeVar, cast

from procession._engine.elements import Elements
from procession._engine.feed import Feed
from procession._engine.latch import SLICE_S, Latch
from procession._engine.ledger import Ledger
from procession._engine.run_state import RunState
from procession._model.outcome import at_hand
from procession.errors import TaskSkippedError

T = TypeVar("T")


class FollowedElements(Generic[T]):
    """What `run.stream` returns: an iterator and an async iterator. Neither begins before it is used."""

    __slots__ = ("_awaited", "_iterated")

    def __init__(self, iterated: Generator[T], awaited: AsyncGenerator[T]) -> None:
        self._iterated = iterated
        self._awaited = awaited

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        return next(self._iterated)

    def close(self) -> None:
        """Take nothing more."""
        self._iterated.close()

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        return await anext(self._awaited)

    async def aclose(self) -> None:
        """Take nothing more, in a coroutine."""
        await self._awaited.aclose()


def followed(run_state: RunState, feed: Feed, over: Latch, check: Callable[[], object]) -> Iterator[Any]:
    """Yield the elements that `feed` takes, until there are none or the run is over. `check` is called before waiting.

    Leaving the iterator takes nothing more.
    """
    elements = Elements(feed)
    elements.bind(binds=feed.reserved)
    try:
        while True:
            while elements.buffer:
                yield at_hand(elements.hand_out())
            due = Latch()
            if elements.refill(due.open, rests=True):
                if elements.over or elements.cut:
                    return
                continue
            if elements.rest(due):
                continue
            run_state.look()
            while not (due.wait(SLICE_S) or over.is_open or run_state.ledger.halted):
                check()
            if not due.is_open and not elements.refill(due.open):
                return  # nothing more will come
    finally:
        elements.close()


def good_elements(ledger: Ledger, index: int) -> Iterator[Any]:
    """Yield the elements that succeeded of a map that has failed, or been skipped, as far as the results have them."""
    items = cast("list[Any]", ledger.values[index]) if isinstance(ledger.values[index], list) else []
    error = ledger.errors.get(index)
    failed: set[int] = set()
    if isinstance(error, BaseExceptionGroup):
        failed.update(map(id, cast("BaseExceptionGroup[BaseException]", error).exceptions))
    for value in items:
        if id(value) not in failed and not isinstance(value, TaskSkippedError):
            yield at_hand(value)
