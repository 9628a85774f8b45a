"""What each worker has done of one map: for its progress, and for the timeline.

A worker may come and go a thousand times a second. So a stretch is added to the worker's last one where the time
between them is too short to be seen in a picture of the whole map, and there are few, however many elements there are.
"""

import math
import threading
import time
from typing import Final

from procession._engine.run_state import RunState
from procession._model.map_share import MapShare
from procession._model.progress import Progress

_TO_BE_SEEN: Final = 0.01
"""The shortest pause between two stretches of a worker, as a part of the time since the map began."""


class MapShares:
    """The shares of the workers that are on a map; what others did before is in the sums."""

    __slots__ = ("_began", "_ended", "_failed", "_here", "_index", "_last", "_lock", "_run_state", "drawing_s")

    def __init__(self, run_state: RunState, index: int) -> None:
        self._run_state = run_state
        self._index = index
        self._here: list[MapShare] = []
        self._last: dict[str, MapShare] = {}
        """For each worker that has left, the share that the run keeps."""
        self._began = math.inf
        self._ended = 0
        self._failed = 0
        self._lock = threading.RLock()  # of the same thread, as a signal handler may ask for the progress
        self.drawing_s = 0.0
        """How many seconds were spent on drawing since the last worker left."""

    def join(self, worker: str) -> MapShare:
        """Return the share of a worker that comes to the map now."""
        share = MapShare(self._index, worker, time.perf_counter())
        self._began = min(self._began, share.start)
        self._here.append(share)
        return share

    def add(self, share: MapShare) -> None:
        """Count a share that the run keeps already."""
        self._here.append(share)

    def leave(self, share: MapShare) -> None:
        """Add the share of a worker that leaves to the sums."""
        with self._lock:
            share.drawn, self.drawing_s = self.drawing_s, 0.0
            self._here.remove(share)
            self._ended += share.elements
            self._failed += share.failed
            if share.elements:  # else it came too late for any
                self._keep(share)

    def _keep(self, share: MapShare) -> None:
        last = self._last.get(share.worker)
        if last is not None and share.start - last.end <= _TO_BE_SEEN * (share.end - self._began):
            last.extend(share)
        else:
            self._last[share.worker] = share
            self._run_state.map_shares.append(share)

    def end(self) -> None:
        """Keep how long was spent on drawing, where no worker leaves."""
        if self._here:
            self._here[-1].drawn = self.drawing_s

    def count_uncalled(self) -> None:
        """Count an element that has ended without a call."""
        with self._lock:
            self._ended += 1

    def progress(self, total: int) -> Progress:
        """Return how far the map has come, of so many elements."""
        with self._lock:
            ended = self._ended + sum(share.elements for share in self._here)
            failed = self._failed + sum(share.failed for share in self._here)
        return Progress(ended, failed, total)
