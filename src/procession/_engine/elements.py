"""What a function gets for the streams among its arguments: iterators over the elements of maps that go on."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from procession._engine.call_context import CallContext
from procession._engine.callbacks import breaks_down
from procession._engine.feed import Feed
from procession._engine.latch import SLICE_S, Latch
from procession._engine.run_state import RunState
from procession._engine.streams import WINDOW
from procession._engine.suspension import suspended_taker
from procession._engine.unfinished import Unfinished, skipped_task
from procession._model.text import shown
from procession.errors import TaskCancelled, ValueUnavailableError

_TOGETHER = 16
"""How many elements are counted as handed out together: each by itself, it would take the lock of the run."""

_REST_S = 0.001
"""How long a thread that waits for elements leaves them to gather. To wake it costs as much as some 50 of them."""

ReadBack = Callable[[range], Iterable[Any]]
"""Returns the elements at these places of a map that are recorded, without those that have failed."""

Lend = Callable[[Callable[[], object]], object]
"""Makes a call that waits, and has another worker make calls meanwhile."""


class Elements:
    """The elements of a map that are to be handed out, in order."""

    __slots__ = ("_feed", "_handed_out", "_read_back", "buffer", "cut", "earlier", "over", "read")

    def __init__(self, feed: Feed, read_back: ReadBack | None = None) -> None:
        self._feed = feed
        self._read_back = read_back
        self.earlier = range(feed.start_over() if feed.goes_on else 0)
        """The places of elements that an earlier call has taken, and that are still to be read back."""
        self.read: deque[Any] = deque()
        """Elements that were read back and not handed out."""
        self.buffer: deque[tuple[int, Any]] = deque()
        """Elements that were taken and not handed out."""
        self._handed_out: list[int] = []
        """Those that were handed out and are not counted yet. None where the buffer is empty."""
        self.over = False
        """Whether there are no others."""
        self.cut = False
        """Whether elements are missing: the map has failed as a whole, or `waits`."""

    @property
    def waits(self) -> bool:
        """Whether elements are missing as they wait."""
        return self._feed.taker.waits

    def refill(self, wake: Callable[[], object], *, rests: bool = False) -> bool:
        """Take what is there; return `False` where it has to be waited for: then `wake` is called once it is there.

        One that `rests` is to `rest` then, and may be woken before.
        """
        feed, taker = self._feed, self._feed.taker
        feed.wake = wake
        while not self.buffer:
            elements = feed.take(WINDOW, counted=False, rests=rests)
            for place, values in elements:
                if place >= 0:
                    self.buffer.append((place, values[0]))
                elif not self.buffer:
                    feed.note_taken((place,))
                else:
                    self.buffer.append((place, None))
            if not elements:
                self.over = taker.over or taker.closed
                self.cut = taker.cut
                return self.over or self.cut
        return True

    def read_back(self) -> None:
        """Read some of the earlier elements back, which may take a while. Raises where they are not recorded."""
        assert self._read_back is not None
        self.read.extend(self._read_back(self.earlier[:WINDOW]))
        self.earlier = self.earlier[WINDOW:]

    def rest(self, due: Latch) -> bool:
        """Leave elements a while to gather, after `refill` with `rests`; return whether to look again now."""
        return due.wait(_REST_S) or not self._feed.fall_asleep()

    def hand_out(self) -> Any:
        """Return the next element in the buffer."""
        buffer, handed_out = self.buffer, self._handed_out
        place, value = buffer.popleft()
        handed_out.append(place)
        while buffer and buffer[0][0] < 0:  # it has failed
            handed_out.append(buffer.popleft()[0])
        if not buffer or len(handed_out) >= _TOGETHER:
            self._handed_out = []
            self._feed.note_taken(handed_out)
        return value

    def bind(self, *, binds: bool) -> None:
        """Set whether the map waits for its elements to be taken."""
        self._feed.bind(binds=binds)

    def close(self) -> None:
        """Take nothing more. Where another call of the task goes on with the feed, that is left open."""
        self.over, self.earlier = True, range(0)
        self.buffer.clear()
        self.read.clear()
        if not self._feed.goes_on:
            self._feed.close()


E = TypeVar("E", bound=Elements)


class Inputs(Generic[E]):
    """The streams of one call of a task: one for each among its arguments, with the index of its map."""

    def __init__(self, run_state: RunState, index: int, streams: Sequence[tuple[int, E]]) -> None:
        self._run_state = run_state
        self._index = index
        self._call_context: CallContext | None = None
        self._closed = False
        self.streams = streams

    @property
    def by_source(self) -> dict[int, Iterator[E]]:
        """The streams of each map, in order."""
        return {
            source: iter([stream for other, stream in self.streams if other == source]) for source, _ in self.streams
        }

    def begin(self, call_context: CallContext | None) -> None:
        """Note that the call has begun, and let the maps wait for it to take their elements."""
        self._call_context = call_context
        self.bind()

    def bind(self, but: Elements | None = None, *, binds: bool = True) -> None:
        """Set whether the maps, except `but`, wait for the call: while it waits for `but`, it takes from no other."""
        for _, stream in self.streams:
            if stream is not but:
                stream.bind(binds=binds)

    @breaks_down
    def close(self) -> None:
        """Take nothing more: the call has ended, or was abandoned with a thread that still waits."""
        self._closed = True
        for _, stream in self.streams:
            stream.close()

    def break_down(self, error: BaseException) -> None:
        """End the run with an error of its own."""
        self._run_state.break_down_driver(error)

    def check(self) -> None:
        """Raise if the call cannot have had all elements, or is not to go on."""
        cut = [stream for _, stream in self.streams if stream.cut]
        if cut:
            self.check_goes_on()
            if all(stream.waits for stream in cut):
                raise suspended_taker()
            raise Unfinished("skipped", skipped_task(self._run_state, self._index))

    @property
    def begun(self) -> bool:
        """Whether the call has begun, and may have taken elements."""
        return self._call_context is not None

    @property
    def stopped(self) -> bool:
        """Whether the call is to wait for nothing more."""
        abandoned = self._call_context is not None and self._call_context.abandoned
        return abandoned or self._closed or self._run_state.ledger.halted

    def look(self) -> None:
        """See whether the stage goes on, as the call waits."""
        self._run_state.look()

    def check_goes_on(self) -> None:
        """Raise if the call is to wait for nothing more."""
        if self.stopped:
            raise TaskCancelled("the run was stopped before the next element of a stream had ended")


class ElementIterator(Elements):
    """Iterates over the elements, each as soon as it and those before it have ended. A worker lends its place then."""

    __slots__ = ("inputs", "lend")

    inputs: "Inputs[ElementIterator]"
    lend: Lend

    def __iter__(self) -> "ElementIterator":
        return self

    def __next__(self) -> Any:
        while not self.buffer:
            if self.read:
                return self.read.popleft()
            if self.earlier:
                self.read_back()
                continue
            due = Latch()
            if not self.refill(due.open, rests=True):
                self._wait(due)
            elif self.over:
                raise StopIteration
            elif self.cut:
                self.inputs.check()
        return self.hand_out()

    def _wait(self, due: Latch) -> None:
        inputs = self.inputs
        inputs.check_goes_on()
        inputs.bind(self, binds=False)
        self.lend(partial(self._wait_in_place, due))
        inputs.check_goes_on()
        inputs.bind(self)

    def _wait_in_place(self, due: Latch) -> None:
        if self.rest(due):
            return
        self.inputs.look()
        while not (due.wait(SLICE_S) or self.inputs.stopped):
            pass


def read_back(run_state: RunState, index: int, source: int, places: range) -> Iterable[Any]:
    """Return elements of a map that a task has taken before, from the journal, without those that have failed."""
    if run_state.recorder is None:
        raise ValueUnavailableError(
            f"task {index} ({shown(run_state.name(index))}) is called again, and elements that it has taken of task "
            f"{source} ({shown(run_state.name(source))}) are gone: its values are not kept (keep=False), nor is there "
            "a journal to read them back from"
        )
    return [one.value for one in run_state.recorder.elements(source, places).values()]


def iterators_of(run_state: RunState, index: int) -> Inputs[ElementIterator]:
    """Return the streams of a task that is to be called in a thread."""
    assert run_state.streams is not None
    iterators = [
        (source, ElementIterator(feed, partial(read_back, run_state, index, source)))
        for source, feed in run_state.streams.open(index)
    ]
    inputs = Inputs(run_state, index, iterators)
    for _, iterator in iterators:
        iterator.inputs = inputs
    return inputs
