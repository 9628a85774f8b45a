"""The elements of a map for a coroutine that follows a run, while the run goes on."""

import asyncio
import threading
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

from procession._engine.elements import Elements
from procession._engine.feed import Feed
from procession._engine.latch import SLICE_S, Latch
from procession._engine.run_state import RunState
from procession._loop.elements import open_in_loop
from procession._model.outcome import at_hand


async def followed_in_loop(run_state: RunState, feed: Feed, over: Latch) -> AsyncGenerator[Any]:
    """Yield the elements that `feed` takes, as `followed` does, without blocking the loop."""
    loop, thread = asyncio.get_running_loop(), threading.get_ident()
    elements = Elements(feed)
    elements.bind(binds=feed.reserved)
    try:
        while True:
            while elements.buffer:
                yield at_hand(elements.hand_out())
            due: asyncio.Future[None] = loop.create_future()
            wake = partial(open_in_loop, loop, thread, due)
            if elements.refill(wake):
                if elements.over or elements.cut:
                    return
                continue
            run_state.look()
            while not (due.done() or over.is_open or run_state.ledger.halted):
                await asyncio.wait((due,), timeout=SLICE_S)
            if not due.done() and not elements.refill(wake):
                return  # nothing more will come
    finally:
        elements.close()
