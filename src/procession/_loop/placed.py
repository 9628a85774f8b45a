"""Calls that an executor makes for an event loop, which waits for them without a thread."""

import asyncio
from functools import partial
from typing import Any

from procession._engine.placed import Made, PlacedCall, Submitted
from procession._loop.side_threads import hand_over, shield_once


class AwaitedPlacedCall(PlacedCall):
    """Has a function called on an executor, and awaits that."""

    __slots__ = ()

    async def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        submitted = self.submit(args, kwargs)
        return self.value_of(submitted, await self.made(submitted))

    async def made(self, submitted: Submitted) -> Made:
        """Await what was submitted; return how it ended. That is known, too, where the run is cancelled meanwhile."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        submitted.future.add_done_callback(lambda _: hand_over(loop, partial(_set, done)))
        try:
            await shield_once(done, lambda: None)
        except asyncio.CancelledError:
            if not done.done():  # it is the second time
                raise
        return submitted.future.result()


def _set(done: "asyncio.Future[None]") -> None:
    if not done.done():
        done.set_result(None)
