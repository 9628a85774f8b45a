"""The slots of a stage in a loop: at most so many calls at the same time, each in the slot of a worker.

A call that waits for elements of a stream lends its slot, and takes one again before it goes on.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from procession._engine.callbacks import breaks_down
from procession._engine.latch import Latch
from procession._loop.side_threads import SideThreads, hand_over


class Stage(Protocol):
    """The stage whose slots they are."""

    def fill(self) -> None:
        """Fill the free slots: there may be something for them."""
        ...

    def break_down(self, error: BaseException) -> None:
        """End the stage with an error of its own."""
        ...


class Slots:
    """Counts the slots of one stage. Where not said otherwise, all is called in the loop's thread."""

    def __init__(self, stage: Stage, name: str, limit: int, side_threads: SideThreads) -> None:
        self.limit = limit
        self.used = 0
        """How many slots are in use."""
        self.lent = 0
        """How many calls go on that have lent their slot."""
        self._stage = stage
        self._side_threads = side_threads
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._free: list[str] = []
        """Workers that have no call: the names of free slots that were in use before."""
        self._named = 0
        self._broken = False
        self._returning: deque[Callable[[], object]] = deque()
        """What tells calls that they have a slot again."""

    def take(self) -> str:
        """Return the name of the worker that has a free slot from now on."""
        self.used += 1
        free = self._free
        if free:
            return free.pop()
        self._named += 1
        return f"{self._name}-coroutine_{self._named - 1}"

    def give_back(self, worker: str) -> None:
        """Free the slot of a worker."""
        self.used -= 1
        self._free.append(worker)

    @property
    def busy(self) -> bool:
        """Whether a call goes on, with a slot or without."""
        return bool(self.used or self.lent)

    @property
    def wanted(self) -> bool:
        """Whether a call waits for a slot to go on."""
        return bool(self._returning)

    def give(self) -> None:
        """Give a slot to the call that has waited for one for longest."""
        self.used += 1
        self.lent -= 1
        self._returning[0]()  # which stays there if it raises, and is told when the stage has broken down
        self._returning.popleft()

    def release(self) -> None:
        """Let all calls continue without a slot: the stage has broken down, and the counts may be wrong."""
        self._broken = True
        while self._returning:
            self.give()

    @breaks_down
    def lend(self, wait: Callable[[], object]) -> None:
        """Make a call that waits, in a side thread, and have others use its slot meanwhile."""
        hand_over(self._loop, self._begin_in_thread)
        try:
            wait()
        finally:
            granted = Latch()
            hand_over(self._loop, self._ask_in_thread, granted.open)
            granted.wait()

    async def wait(self, due: "asyncio.Future[None]") -> None:
        """Wait for something in a coroutine, and have others use its slot meanwhile."""
        granted: asyncio.Future[None] = self._loop.create_future()

        def grant() -> None:
            if granted.done():  # it was cancelled, and has taken a slot
                self.used -= 1
                self.lent += 1
            else:
                granted.set_result(None)

        self._begin()
        try:
            await due
            self._ask(grant)
            await granted
        except Exception as error:  # nobody knows who has a slot
            self.break_down(error)
            raise
        finally:
            if not granted.done() or granted.cancelled():  # it ends without waiting for a slot
                granted.cancel()
                self.used += 1
                self.lent -= 1

    def break_down(self, error: BaseException) -> None:
        """End the stage with an error of its own."""
        self._stage.break_down(error)

    @breaks_down
    def _begin_in_thread(self) -> None:
        self._begin()
        self._side_threads.note_waits()

    @breaks_down
    def _ask_in_thread(self, grant: Callable[[], object]) -> None:
        self._side_threads.note_goes_on()
        self._ask(grant)

    @breaks_down
    def _begin(self) -> None:
        self.used -= 1
        self.lent += 1
        self._stage.fill()

    @breaks_down
    def _ask(self, granted: Callable[[], object]) -> None:
        try:
            self._returning.append(granted)
            if self._broken:
                self.give()
            else:
                self._stage.fill()
        except BaseException:
            granted()  # nothing else would: the stage breaks down
            raise
