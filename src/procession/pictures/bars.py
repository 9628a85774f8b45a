"""The bars of a timeline: what of a lane is drawn as one rectangle. Pure."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from procession.pictures.schedule import Busy, Lane

NARROW = 2.0
"""Pixels: what is narrower may share a bar with its neighbours."""

_WIDEST = 960


class Bar(NamedTuple):
    """One rectangle in a lane: a call, or several that are too short to be drawn apart."""

    start: float
    end: float
    spans: list[Busy]

    @property
    def calls(self) -> int:
        """How many calls, or workers' shares of a map, the rectangle stands for."""
        return sum(span.calls for _, _, span in self.spans)


def bars_of(lanes: Sequence[Lane], scale: float, limit: int) -> list[list[Bar]]:
    """Return the bars of each lane, at `scale` pixels a second: about `limit` of them in all."""
    cell = NARROW
    while True:
        bars = [list(_folded(lane.spans, scale, cell)) for lane in lanes]
        if sum(map(len, bars)) <= limit or cell > _WIDEST:
            return bars
        cell *= 1.5


def _folded(spans: Sequence[Busy], scale: float, cell: float) -> Iterator[Bar]:
    pending: list[Busy] = []
    place = -1
    for busy in spans:
        narrow = (busy.end - busy.start) * scale < cell and busy.span.state != "running"
        here = int(busy.start * scale / cell)
        if pending and (not narrow or here != place):
            yield Bar(pending[0].start, pending[-1].end, pending)
            pending = []
        if narrow:
            pending.append(busy)
            place = here
        else:
            yield Bar(busy.start, busy.end, [busy])
    if pending:
        yield Bar(pending[0].start, pending[-1].end, pending)
