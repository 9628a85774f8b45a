"""What a coroutine function gets for the streams among its arguments: async iterators over maps that go on."""

import asyncio
import threading
from functools import partial
from typing import Any, NoReturn

from procession._engine.elements import Elements, Inputs, read_back
from procession._engine.run_state import RunState
from procession._loop.side_threads import hand_over, in_thread
from procession._loop.slots import Slots


class AsyncElements(Elements):
    """Iterates over the elements, each as soon as it and those before it have ended. A slot is lent meanwhile."""

    __slots__ = ("inputs", "slots")

    inputs: "Inputs[AsyncElements]"
    slots: Slots

    def __aiter__(self) -> "AsyncElements":
        return self

    def __iter__(self) -> NoReturn:
        raise TypeError("a coroutine gets the elements of a stream by `async for`, as it waits for them; not by `for`")

    async def __anext__(self) -> Any:
        while not self.buffer:
            if self.read:
                return self.read.popleft()
            if self.earlier:
                await in_thread(self.read_back)
                continue
            loop = asyncio.get_running_loop()
            due: asyncio.Future[None] = loop.create_future()
            if not self.refill(partial(open_in_loop, loop, threading.get_ident(), due)):
                await self._wait(due)
            elif self.over:
                raise StopAsyncIteration
            elif self.cut:
                self.inputs.check()
        return self.hand_out()

    async def _wait(self, due: "asyncio.Future[None]") -> None:
        inputs = self.inputs
        inputs.check_goes_on()
        inputs.bind(self, binds=False)
        await self.slots.wait(due)
        inputs.check_goes_on()
        inputs.bind(self)


def async_elements_of(run_state: RunState, index: int, slots: Slots) -> Inputs[AsyncElements]:
    """Return the streams of a task that is to be called in the loop."""
    assert run_state.streams is not None
    streams = [
        (source, AsyncElements(feed, partial(read_back, run_state, index, source)))
        for source, feed in run_state.streams.open(index)
    ]
    inputs = Inputs(run_state, index, streams)
    for _, stream in streams:
        stream.inputs, stream.slots = inputs, slots
    return inputs


def open_in_loop(loop: asyncio.AbstractEventLoop, thread: int, due: "asyncio.Future[None]") -> None:
    """Say in a loop, which runs in the thread of this number, that what was waited for is there. From any thread."""
    if threading.get_ident() == thread:
        _set(due)
    else:
        hand_over(loop, _set, due)


def _set(due: "asyncio.Future[None]") -> None:
    if not due.done():
        due.set_result(None)
