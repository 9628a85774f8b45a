"""The calls of a map that get several elements each: what each stands for, on any engine.

elements ──packed──▶ window ──opened──▶ a call with lists ──began──▶ returned ──▶ a part for each element
         up to `size`          recorded ones left out          └───▶ ended: the places of all

To the engines such a call is that of its first element, whose arguments are lists. All that goes by element (digests,
records, results, counts) goes through here.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from procession._engine.unawaited import unawaited, unawaited_in
from procession._model.outcome import Away
from procession._model.text import counted
from procession.errors import ResultError

Element = tuple[int, tuple[Any, ...]]
"""The place of an element, and the arguments of its call; of several, the first place, and lists of arguments."""

LATE_S = 0.02
"""How long what was drawn of a batch waits for the next element.

Shorter, and a thread that draws while others compute would rarely have the interpreter in time.
"""

_place_of = itemgetter(0)


class Part(NamedTuple):
    """What came of one element of a call: its share of the time is as long as that of the others."""

    place: int
    digest: bytes
    value: Any
    start: float
    end: float
    encoded: bytes | None


class _Call:
    """The elements that one call stands for."""

    __slots__ = ("digests", "error", "places")

    def __init__(self, places: list[int]) -> None:
        self.places = places
        self.digests: list[bytes] = []
        self.error: BaseException | None = None
        """Why the call cannot be made."""


class ElementBatches:
    """The calls of one map that have not ended, each known by the place of its first element."""

    __slots__ = ("_calls", "_came", "_gathered", "_lock", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        """How many elements a call gets, at most."""
        self._calls: dict[int, _Call] = {}
        self._gathered: list[Element] = []
        """What an iterable that may be slow has given of a batch that is not full yet."""
        self._came = 0.0
        """When the last of these came, as a reading of the clock."""
        self._lock = threading.Lock()

    # Before a call

    def gather(self, element: Element) -> int:
        """Keep an element until its batch is full, or is not waited for any more; return how many there are now."""
        with self._lock:
            self._gathered.append(element)
            self._came = time.perf_counter()
            return len(self._gathered)

    @property
    def gathering(self) -> bool:
        """Whether there are elements that wait for others, to fill a batch."""
        return bool(self._gathered)

    @property
    def is_late(self) -> bool:
        """Whether the next element is too long in coming to be waited for."""
        return bool(self._gathered) and time.perf_counter() - self._came > LATE_S

    def hand_out(self, window: deque[Element]) -> None:
        """Put what was gathered into the window."""
        with self._lock:
            window.extend(self.packed(self._gathered))
            self._gathered.clear()

    def packed(self, elements: Iterable[Element]) -> Iterator[Element]:
        """Yield calls for elements, as many in each as it may have."""
        ordered = sorted(elements, key=_place_of)  # handed on by other maps, they come as they end
        for start in range(0, len(ordered), self.size):
            some = ordered[start : start + self.size]
            place = some[0][0]
            self._calls[place] = _Call([place for place, _ in some])
            yield place, tuple(map(list, zip(*(args for _, args in some), strict=True)))

    def opened(self, element: Element, recall: Callable[[int, tuple[Any, ...]], bytes | None]) -> Element:
        """Return a call without the elements that need none.

        `recall` takes what is recorded of an element, or returns its digest; what it raises, the call fails with.
        """
        first, lists = element
        call, left = self._calls.pop(first), list[int]()
        for at, place in enumerate(call.places):
            digest: bytes | None = b""
            try:
                digest = recall(place, tuple([one[at] for one in lists]))
            except BaseException as error:
                call.error = call.error or error
            if digest is not None:
                left.append(at)
                call.digests.append(digest)
        if not left:
            return element
        if len(left) < len(call.places):
            call.places = [call.places[at] for at in left]
            lists = tuple([[one[at] for at in left] for one in lists])
        self._calls[call.places[0]] = call
        return call.places[0], lists

    def began(self, first: int) -> Sequence[int]:
        """Return the places of a call that begins; none where all are recorded. Raises if it cannot be made."""
        call = self._calls.get(first)
        if call is None:
            return ()
        if call.error is not None:
            raise call.error
        return call.places

    # After a call

    def returned(
        self, first: int, value: Any, start: float, end: float, encode: Callable[[Any], bytes] | None
    ) -> Iterator[Part]:
        """Return the result of each element of a batched call, from the list that the call returned.

        Raises for a result that cannot be recorded, before any part is taken; then the call is to be `ended`.
        """
        call = self._calls[first]
        results: list[Any] = value.fetch() if isinstance(value, Away) else value
        coroutines = [unawaited(results[at], f"for element {call.places[at]:,}, it") for at in unawaited_in(results)]
        if coroutines:
            raise coroutines[0]
        encoded: list[bytes | None] = [None] * len(results)
        if encode is not None:
            for at, result in enumerate(results):
                try:
                    encoded[at] = encode(result)
                except ResultError as error:
                    error.add_note(f"it is the result for element {call.places[at]:,}")
                    raise
        del self._calls[first]
        spans = _spans(start, end, len(results))
        parts = zip(call.places, call.digests, results, spans, encoded, strict=True)
        return (Part(place, digest, result, *span, data) for place, digest, result, span, data in parts)

    def ended(self, first: int) -> Sequence[int]:
        """Return the places of a call that has failed, or that of a single element that has."""
        call = self._calls.pop(first, None)
        return (first,) if call is None else call.places


def spans_of(places: Sequence[int], start: float, end: float) -> Iterator[tuple[int, float, float]]:
    """Yield the places of a call, each with when its share of the time began and ended."""
    for place, (begun, over) in zip(places, _spans(start, end, len(places)), strict=True):
        yield place, begun, over


def _spans(start: float, end: float, count: int) -> list[tuple[float, float]]:
    part = (end - start) / count
    return [(start + part * at, start + part * (at + 1)) for at in range(count)]


def in_words(places: Sequence[int]) -> str:
    """Return which elements a call had.

    >>> in_words([3]), in_words([0, 1, 2]), in_words([4, 7, 9])
    ('element 3', 'elements 0 to 2', '3 elements from 4 to 9')
    """
    first, last = places[0], places[-1]
    if len(places) == 1:
        return f"element {first}"
    if last - first == len(places) - 1:
        return f"elements {first} to {last}"
    return f"{counted(len(places), 'element')} from {first} to {last}"
