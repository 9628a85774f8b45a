"""Telling open pages that something has changed.

    journal ◀──stamps── one poller ──▶ a flag for each open page ──▶ its event stream

There is nothing to queue: a page that has not yet been told of one change need not be told of the next, for it asks
for all of it. So a browser that stops reading costs a flag and what the system buffers for its connection.
"""

import asyncio
import weakref
from collections.abc import AsyncGenerator, Callable

Topic = int | None
"""The key of a run, or `None`: the list of runs."""

PAUSE_S = 0.15
"""Seconds between two readings of the journal."""

PART = 10
"""Looking takes at most one part in so many of the poller's time."""

PULSE_S = 15.0
"""How often an idle stream is written to, so that one whose reader is gone is noticed."""

STREAMS = 100
"""Open pages, at most."""


class Live:
    """The streams of all open pages. `stamp` returns a text that is another one when a topic has changed.

    All of it belongs to one event loop; `stamp` is called in a thread, and raises nothing.
    """

    def __init__(self, stamp: Callable[[Topic], str], pause: float = PAUSE_S) -> None:
        self._stamp = stamp
        self._pause = pause
        # A flag is held by its stream alone, which may never begin: a browser that is gone before it could.
        self._flags: dict[Topic, weakref.WeakSet[asyncio.Event]] = {}
        self._stamps: dict[Topic, str] = {}
        self._poller: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def streams(self) -> int:
        """How many pages are open; there should be no more than `STREAMS`."""
        return sum(map(len, self._flags.values()))

    def close(self) -> None:
        """End all streams."""
        self._closed = True
        for flag in (flag for flags in self._flags.values() for flag in flags):
            flag.set()

    def stream(self, topic: Topic, known: str) -> AsyncGenerator[str]:
        """Yield the stamp of a topic each time it is another than the one `known`, and "" when nothing happens.

        It counts as one of `streams` from now on.
        """
        flag = asyncio.Event()
        self._flags.setdefault(topic, weakref.WeakSet()).add(flag)
        return self._stream(topic, known, flag)

    async def _stream(self, topic: Topic, known: str, flag: asyncio.Event) -> AsyncGenerator[str]:
        try:
            if self._poller is None:
                self._poller = asyncio.create_task(self._poll())
            while not self._closed:
                stamp = self._stamps.get(topic, known)
                if stamp != known:
                    known = stamp
                    yield stamp
                    continue
                flag.clear()
                try:
                    await asyncio.wait_for(flag.wait(), PULSE_S)
                except TimeoutError:
                    yield ""
        finally:
            self._flags[topic].discard(flag)
            self._forget(topic)

    def _forget(self, topic: Topic) -> None:
        """Drop a topic that no stream follows."""
        if not self._flags[topic]:
            del self._flags[topic]
            self._stamps.pop(topic, None)

    async def _poll(self) -> None:
        clock = asyncio.get_running_loop().time
        while self._flags and not self._closed:
            began = clock()
            for topic in list(self._flags):
                stamp = await asyncio.to_thread(self._stamp, topic)
                if self._stamps.get(topic) != stamp and topic in self._flags:
                    self._stamps[topic] = stamp
                    for flag in self._flags[topic]:
                        flag.set()
            for topic in list(self._flags):
                self._forget(topic)
            await asyncio.sleep(max(self._pause, (PART - 1) * (clock() - began)))
        self._poller = None
