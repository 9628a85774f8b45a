"""The picture of where a recorded run's time went: how many calls ran over time, and below it a lane for each worker.

It is made of marks that the database has summed up, and has about `LIMIT` of them however many calls there were; a
mark of no calls is one call that has not ended. It is drawn with classes alone, for the page's content security policy
allows no style but that of the style sheet.
"""

import heapq
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from markupsafe import Markup

from procession._model.table import lasting
from procession._model.text import counted
from procession.journal import Mark
from procession.web.words import count, plain

CELLS = 240
"""Into how many parts time is cut: calls that are shorter than one are drawn together."""

LIMIT = 450
"""Marks that are drawn, at most, or somewhat more: some 150 bytes each."""

LANES = 32
"""Lanes that are drawn, at most; of the others it is said how many they are."""

WIDTH = 1000
_LEFT = 8
_TOP = 44
_LANE = 15
_GAP = 4
_AXIS = 20
_EXACT_S = 1e-5  # seconds since the epoch are no more exact than that, once they were added up

_TICK = Markup('<path class="tick" d="M{x:.1f} 0V{y}"/><text class="said" x="{said:.1f}" y="{below}">{text}</text>')
_RECT = Markup(
    '<rect class="{kind}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="{height}"><title>{title}</title></rect>'
)


class Lane(NamedTuple):
    """What one worker did, or one of the things it did at once."""

    worker: str
    marks: list[Mark]


def lanes_of(marks: Sequence[Mark]) -> list[Lane]:
    """Return who was busy when, given the marks by their begin; those of a lane do not overlap."""
    lanes: dict[str, list[Lane]] = {}
    free: dict[str, list[tuple[float, int]]] = {}
    for mark in marks:
        mine, ends = lanes.setdefault(mark.worker, []), free.setdefault(mark.worker, [])
        if ends and ends[0][0] <= mark.begin + _EXACT_S:
            _, place = heapq.heappop(ends)
        else:
            place = len(mine)
            mine.append(Lane(mark.worker, []))
        mine[place].marks.append(mark)
        heapq.heappush(ends, (mark.end, place))
    return [lane for worker in sorted(lanes, key=lambda name: (len(name), name)) for lane in lanes[worker]]


def folded(lanes: Sequence[Lane], cell: float) -> list[Lane]:
    """Return the lanes with neighbours put together until there are few enough marks."""
    fewer = list(lanes)
    while sum(len(lane.marks) for lane in fewer) > LIMIT:
        cell *= 1.25
        fewer = [Lane(lane.worker, list(_joined(lane.marks, cell))) for lane in lanes]
    return fewer


def drawn(marks: Sequence[Mark], begin: float, end: float) -> Markup:
    """Return the picture of marks between two times."""
    duration = max(end - begin, 1e-9)
    every = lanes_of(marks)
    shown = folded(every[:LANES], duration / CELLS)
    bottom = _TOP + (_LANE + _GAP) * len(shown)
    scale = (WIDTH - 2 * _LEFT) / duration
    parts = [*_ticks(duration, scale, bottom), *_load(marks, begin, duration)]
    for place, lane in enumerate(shown):
        y = _TOP + place * (_LANE + _GAP)
        parts.append(
            Markup('<rect class="lane" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>').format(
                _LEFT, y, WIDTH - 2 * _LEFT, _LANE, plain(lane.worker)
            )
        )
        parts += [_drawn(mark, begin, scale, y) for mark in lane.marks]
    more = len(every) - len(shown)
    if more:
        text = Markup('<text class="said" x="{}" y="{}">and {}</text>')
        parts.append(text.format(_LEFT, bottom + _AXIS + 14, counted(more, "more lane")))
    calls, failed = sum(mark.calls for mark in marks), sum(mark.failed for mark in marks)
    workers = counted(len({mark.worker for mark in marks}), "worker")
    said = f"Timeline: {counted(calls, 'call')}, {count(failed)} failed, by {workers} in {lasting(duration)}"
    return Markup('<svg class="strip" role="img" viewBox="0 0 {} {}" aria-label="{}">{}</svg>').format(
        WIDTH, bottom + _AXIS + (18 if more else 0), said, Markup("").join(parts)
    )


def _joined(marks: Sequence[Mark], cell: float) -> Iterator[Mark]:
    """Yield marks, with those that begin in the same cell and are shorter than one put together."""
    first = marks[0].begin if marks else 0.0
    pending: Mark | None = None
    place = -1
    for mark in marks:
        here = int((mark.begin - first) / cell) if mark.calls and mark.end - mark.begin < cell else -1
        if pending is not None and here == place != -1:
            pending = pending._replace(
                calls=pending.calls + mark.calls,
                failed=pending.failed + mark.failed,
                attempts=max(pending.attempts, mark.attempts),
                end=max(pending.end, mark.end),
                busy=pending.busy + mark.busy,
            )
            continue
        if pending is not None:
            yield pending
        pending, place = mark, here
    if pending is not None:
        yield pending


def _drawn(mark: Mark, begin: float, scale: float, y: int) -> Markup:
    took = mark.end - mark.begin
    if not mark.calls:
        title = f"{plain(mark.name)}, task {mark.task}: running for {lasting(took)}"
    elif mark.calls == 1:
        where = f"task {mark.task}" + ("" if mark.element is None else f", element {mark.element}")
        how = "failed" if mark.failed else "completed"
        title = f"{plain(mark.name)}, {where}: {how} in {lasting(mark.busy)}"
        title += f", {mark.attempts} attempts" if mark.attempts > 1 else ""
    else:
        title = (
            f"{count(mark.calls)} calls, {count(mark.failed)} failed; busy for {lasting(mark.busy)} of {lasting(took)}"
        )
    strength = min(3, int(4 * mark.busy / took)) if mark.calls > 1 and took > 0 else 3
    x, width = _LEFT + (mark.begin - begin) * scale, max(1.0, took * scale - 0.4)
    place = {"x": x, "width": width, "title": title}
    if not mark.calls:
        return _RECT.format(kind="going", y=y + 1, height=_LANE - 2, **place)
    if not mark.failed:
        return _RECT.format(kind=f"busy{strength}", y=y, height=_LANE, **place)
    if mark.failed == mark.calls:
        return _RECT.format(kind="bad", y=y, height=_LANE, **place)
    part = max(2.5, _LANE * mark.failed / mark.calls)
    whole = _RECT.format(kind=f"busy{strength}", y=y, height=_LANE, **place)
    return whole + _RECT.format(kind="bad", y=f"{y + _LANE - part:.1f}", height=f"{part:.1f}", **place)


def _load(marks: Sequence[Mark], begin: float, duration: float) -> Iterator[Markup]:
    """Draw how many calls ran at the same time."""
    cell = duration / CELLS
    busy = [0.0] * CELLS
    change = [0.0] * (CELLS + 1)
    for mark in marks:
        took = mark.end - mark.begin
        first = min(max(int((mark.begin - begin) / cell), 0), CELLS - 1)
        last = min(max(int((mark.end - begin) / cell), 0), CELLS - 1)
        level = mark.busy / took if took > 0 else 1.0
        if first == last:
            busy[first] += mark.busy / cell
            continue
        busy[first] += level * (first + 1 - (mark.begin - begin) / cell)
        busy[last] += level * ((mark.end - begin) / cell - last)
        change[first + 1] += level
        change[last] -= level
    level = 0.0
    for place in range(CELLS):
        level += change[place]
        busy[place] += level
    most = max(busy, default=0.0)
    if most <= 0:
        return
    foot, room, step = _TOP - 6, _TOP - 18, (WIDTH - 2 * _LEFT) / CELLS
    heights = [f"{foot - max(0.0, value) / most * room:.1f}" for value in busy]
    path = f"M{_LEFT} {foot}"
    for place, height in enumerate(heights):
        if not place or heights[place - 1] != height:
            path += f"{f'H{_LEFT + place * step:.1f}' if place else ''}V{height}"
    text = Markup('<path class="load" d="{}H{}V{}z"><title>{}</title></path><text class="said" x="{}" y="10">{}</text>')
    title = f"calls at the same time: {sum(busy) / CELLS:.1f} on average"
    yield text.format(path, WIDTH - _LEFT, foot, title, _LEFT, f"up to {most:.0f} at once" if most >= 1 else "")


def _ticks(duration: float, scale: float, bottom: int) -> Iterator[Markup]:
    step = next(step for step in _steps() if step >= duration / 8)
    for place in range(1, int(duration / step * 1.0001) + 1):
        x = _LEFT + place * step * scale
        yield _TICK.format(x=x, y=bottom, said=min(x, WIDTH - 30.0), below=bottom + 14, text=lasting(place * step))


def _steps() -> Iterator[float]:
    for power in range(-9, 2):
        yield from (step * 10.0**power for step in (1, 2, 5) if step * 10.0**power < 60)  # noqa: PLR2004
    step = 60.0
    while True:
        yield from (step, 2 * step, 5 * step, 10 * step, 30 * step)
        step *= 60 if step < 3600 else 24  # noqa: PLR2004
