"""The picture of a timeline: how many calls ran over time, and below it a lane for each worker.

    Account ──▶ Chart: axis, load, lanes ──▶ part_of_timeline    what the page of a journal shows
                                         ──▶ svg_of_timeline     with figures, stages, critical path and legend

However many calls there are, a picture has a bounded number of bars: neighbours in a lane that are narrower than a cell
share a block, as strong in colour as its worker was busy. Cells grow until the bars are few enough.
"""

import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from html import escape
from itertools import accumulate, islice
from typing import Final, Literal

from procession._model.columns import columns, shortened
from procession._model.states import TaskState
from procession._model.table import lasting
from procession._model.text import counted
from procession.pictures import call_rows
from procession.pictures.account import Account
from procession.pictures.bars import NARROW, Bar, bars_of
from procession.pictures.legend import PATTERNED, WORST, legend_of
from procession.pictures.picture import MONO, TIMES, Style, part_of, sheet, svg_of, text
from procession.pictures.schedule import Busy, Span, load, states_of

LIMIT = 1200
"""Bars and blocks that a whole picture has at most, or somewhat more."""

PART_LIMIT = 110
"""Bars and blocks that a part of a page has at most, or somewhat more: some 200 bytes each."""

LANES = 48
"""Lanes that a whole picture has at most; the others share one."""

PART_LANES = 32
"""Lanes that a part of a page has at most."""

NARROW_LIMIT = 50
"""Bars and blocks that a part of a narrow page has at most, or somewhat more."""

# Geometry, in pixels.
_WIDTH = 960
_PHONE = 362
_NAMED = 18
_MARGIN = 24
_LOAD = 44
_LANE = 18
_GAP = 5
_RIGHT = 64
_CHARACTER = 7.3
_LETTER = 6.4
_LINE = 18
_ROOM = 34

_STEPS = (0.25, 0.5, 0.75)

STYLE: Style = {
    ".title": {"font-size": "16px", "font-weight": "600", "fill": "ink"},
    ".sub": {"font-size": "12px", "fill": "muted"},
    ".said": {"font-size": "12px", "fill": "ink"},
    ".small": {"font-size": "12px", "fill": "muted"},
    ".right": {"text-anchor": "end"},
    ".mid": {"text-anchor": "middle"},
    ".mono": {"font-family": MONO, "font-size": "12px", "fill": "ink"},
    ".on": {"font-family": MONO, "font-size": "12px", "fill": "paper", "pointer-events": "none"},
    ".on.failed": {"stroke": "red", "stroke-width": "4", "paint-order": "stroke", "fill": "paper"},
    ".on.cancelled": {"stroke": "grey", "stroke-width": "4", "paint-order": "stroke", "fill": "paper"},
    ".lane": {"fill": "panel"},
    ".grid": {"stroke": "line", "stroke-width": "1", "fill": "none"},
    ".most": {"stroke": "edge", "stroke-width": "1", "stroke-dasharray": "3 3", "fill": "none"},
    ".load": {"fill": "sky"},
    ".bar": {"stroke": "panel", "stroke-width": "1"},
    ".block": {"stroke": "none"},
    ".completed": {"fill": "blue"},
    ".running": {"fill": "sky", "stroke": "blue", "stroke-width": "1.5", "stroke-dasharray": "3 2"},
    ".failed": {"fill": "red"},
    ".cancelled": {"fill": "grey"},
    ".pause": {"fill": "panel", "stroke": "edge", "stroke-width": "1", "stroke-dasharray": "2 2"},
    ".over": {"pointer-events": "none"},
    ".stripe": {"stroke": "paper", "stroke-width": "2"},
    ".again": {"fill": "amber", "stroke": "panel", "pointer-events": "none"},
    ".critical": {"fill": "ink"},
    **call_rows.STYLE,
    "a:hover rect": {"opacity": "0.75"},
}

# What distinguishes states without colour.
_PATTERNS = (
    '<defs><pattern id="procession-failed" width="6" height="6" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><path class="stripe" d="M1 0V6"/></pattern>'
    '<pattern id="procession-cancelled" width="4" height="4" patternUnits="userSpaceOnUse">'
    '<path class="stripe" d="M0 1H4"/></pattern></defs>'
)

_KIND: Final = "procession-timeline"
TIMELINE_SHEET = sheet(_KIND, STYLE)
"""The rules of `part_of_timeline`."""


Link = Callable[[Span, bool], str]
"""Returns the address that a span leads to; the flag says whether it stands for others, too."""


def svg_of_timeline(account: Account) -> str:
    """Return the timeline of a run as a whole picture."""
    return _Whole(account).svg()


def part_of_timeline(account: Account, title: str, link: Link, *, critical: bool, narrow: bool = False) -> str:
    """Return when which worker was busy as SVG, for a page that has `TIMELINE_SHEET`.

    `title` is read out, `link` says where a mark leads to. `critical` says whether the spans are such that there is a
    critical path, `narrow` whether the picture is for a phone.
    """
    limit = NARROW_LIMIT if narrow else PART_LIMIT
    chart = Chart(account, 6, limit, PART_LANES, "call", width=_PHONE if narrow else _WIDTH, link=link)
    body = [*chart.body(), *(chart.critical() if critical else ()), *chart.legend(critical=critical)]
    return part_of(_KIND, (0, 0, chart.width, chart.bottom), title, body)


class Chart:
    """How many calls ran over time, and below it a lane for each worker.

    The chart begins `top` pixels below the upper edge of its picture, and has at most `lanes` lanes with about `limit`
    bars in all. `noun` is the word for what a span stands for.
    """

    patterns = False
    """Whether states have patterns, too: a page that loads nothing by address refuses them."""

    def __init__(
        self,
        account: Account,
        top: float,
        limit: int,
        lanes: int,
        noun: Literal["call", "task"],
        *,
        width: int = _WIDTH,
        link: Link | None = None,
    ) -> None:
        self.account = account
        self.duration = account.duration or 1.0
        self.limit = limit
        self.noun = noun
        self.width = width
        self.link = link
        self.lanes = account.lanes[:lanes]
        self.others = account.lanes[lanes:]
        self.over = width == _PHONE
        """Whether the names of lanes stand above them: beside them there is no room."""
        named = max((columns(shortened(lane.worker, 22)) for lane in self.lanes), default=0)
        self.left = 2.0 if self.over else _MARGIN + max(56.0, named * _CHARACTER + 10)
        self.right = float(width - 2 if self.over else width - _MARGIN - _RIGHT)
        self.scale = (self.right - self.left) / self.duration
        self.load_top = top + (_NAMED if self.over else 0)
        self.pitch = _LANE + _GAP + (_NAMED if self.over else 0)
        self.top = self.load_top + _LOAD + (30 if len(account.stages) > 1 else 14) + (_NAMED if self.over else 0)
        heights = (self.pitch + call_rows.height_of(len(lane.calls)) for lane in self.lanes)
        self.tops = list(accumulate(heights, initial=self.top))
        """Where each lane begins, and after the last one, where they end."""
        self.axis = self.tops[-1] + ((_LOAD + _GAP) if self.others else 0)
        self.axis -= _NAMED if self.over else 0
        self.attempts = limit // 2
        """How many more attempts may be drawn apart."""
        self.bottom = self.axis + 22
        """Where the picture ends; the legend moves it on."""

    def body(self) -> list[str]:
        """Return the elements of the chart."""
        return [*self._ticks(), *self._load(), *self._lanes(), *self._stages()]

    def x(self, seconds: float) -> float:
        """Return where a moment lies, in pixels from the left."""
        return self.left + seconds * self.scale

    def _ticks(self) -> Iterator[str]:
        about = self.duration / (3 if self.over else 8)
        step = next(s for s in _ticking() if s >= about)
        for place in range(int(self.duration / step) + 1):
            x, said = self.x(place * step), lasting(place * step)
            room = len(said) * _LETTER / 2  # no tick is cut off at the edge
            yield (
                f'<path class="grid" d="M{x:.1f} {self.load_top}V{self.axis}"/><text class="small mid" '
                f'x="{min(max(x, room), self.width - room):.1f}" y="{self.axis + 15}">{said}</text>'
            )

    def _load(self) -> Iterator[str]:
        workers = self.account.max_workers
        busy = load(self.account.begun, self.duration, int((self.right - self.left) / 2))
        most = max(*busy, workers if any(stage.at_once for stage in self.account.stages) else 1.0, 1e-9)
        bottom = self.load_top + _LOAD
        beside = f'class="small right" x="{self.left - 10:.1f}" y="{self.load_top + 10}"'
        above = f'class="small" x="{self.left:.1f}" y="{self.load_top - 6}"'
        yield (
            f"<text {above if self.over else beside}>running</text>"
            f"<g><title>how many {self.noun}s ran at the same time: {sum(busy) / len(busy):.2g} on average</title>"
            f'<path class="load" d="{_area(busy, self.left, self.right, bottom, (_LOAD - 4) / most)}"/></g>'
            f'<path class="grid" d="M{self.left:.1f} {bottom}H{self.right:.1f}"/>'
        )
        if most == workers:
            said = f"{workers} at most"
        elif not workers and most >= 1:
            said = f"up to {most:.0f}"
        else:
            return
        beside = f'class="small" x="{self.right + 8}" y="{self.load_top + 8}"'
        above = f'class="small right" x="{self.right:.1f}" y="{self.load_top - 6}"'
        yield (
            f'<path class="most" d="M{self.left:.1f} {self.load_top + 4}H{self.right:.1f}"/>'
            f"<text {above if self.over else beside}>{said}</text>"
        )

    def _lanes(self) -> Iterator[str]:
        account = self.account
        count = Counter[str]()
        for _, _, span in account.begun:
            count[span.worker or "?"] += span.calls
        rows = iter(bars_of([row for lane in self.lanes for row in lane.calls], self.scale, self.limit // 2))
        for lane, y, bars in zip(self.lanes, self.tops, bars_of(self.lanes, self.scale, self.limit), strict=False):
            whole = f'x="{self.left:.1f}" y="{y}" width="{self.right - self.left:.1f}" height="{_LANE}"'
            yield f'<rect class="lane" {whole}/>'
            if not lane.place:
                idle = account.idle[lane.worker]
                busy = 1 - idle / self.duration
                name = text(shortened(lane.worker, 32 if self.over else 22))
                calls = counted(count[lane.worker], self.noun)
                named = f'class="mono right" x="{self.left - 10:.1f}" y="{y + 13}"'
                busied = f'class="small" x="{self.right + 8}" y="{y + 13}"'
                if self.over:
                    named = f'class="mono" x="{self.left:.1f}" y="{y - 5}"'
                    busied = f'class="small right" x="{self.right:.1f}" y="{y - 5}"'
                yield (
                    f"<g><title>{text(lane.worker)}: {calls}, idle for {lasting(idle)}</title>"
                    f"<text {named}>{name}</text><text {busied}>{busy:.0%} busy</text></g>"
                )
            for bar in bars:
                yield from self._bar(bar, y)
            for place, row in enumerate(islice(rows, len(lane.calls))):
                below = y + _LANE + _GAP + place * call_rows.PITCH
                yield from call_rows.drawn_calls(row, below, self.x, self.link)
        if self.others:
            y = self.axis - _GAP
            spans = [busy for lane in self.others for busy in lane.spans]
            busy_ = load(spans, self.duration, int((self.right - self.left) / 2))
            area = _area(busy_, self.left, self.right, y, (_LOAD - 4) / max(busy_))
            calls = counted(sum(span.calls for _, _, span in spans), self.noun)
            named = f'class="small right" x="{self.left - 10:.1f}"'
            if self.over:
                named = f'class="small" x="{self.left:.1f}"'
            yield (
                f'<g><title>{counted(len(self.others), "more lane")}, {calls}</title><path class="load" d="{area}"/>'
                f'<text {named} y="{y - 16}">{len(self.others):,} more</text></g>'
            )

    def _bar(self, bar: Bar, y: float) -> Iterator[str]:
        x = self.x(bar.start)
        width = max(1.0, self.x(bar.end) - x)
        place = f'x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_LANE}"'
        title, marks = self._block(bar, x, y, place) if bar.calls > 1 else self._call(bar, x, y, width, place)
        span = bar.spans[0].span
        tried = bar.calls == 1 and width > _ROOM and 0 < len(span.failed_attempts) <= self.attempts
        if tried:  # hollow, with the attempts on it
            self.attempts -= len(span.failed_attempts)
            marks = [f'class="pause" {place}']
        attempts = self._attempts(bar.spans[0], title, y) if tried else ()
        if self.link is None:
            yield from (f"<rect {mark}><title>{title}</title></rect>" for mark in marks)
            yield from attempts
        else:
            # Hundreds of marks would be in the way of a keyboard, which has the table.
            address = text(self.link(span, bar.calls > 1))
            yield f'<a tabindex="-1" href="{address}"><title>{title}</title>'
            yield from (f"<rect {mark}/>" for mark in marks)
            yield from attempts
            yield "</a>"
        if bar.calls == 1 and not tried:
            yield from self._on_bar(span, x, y, width, place)

    def _call(self, bar: Bar, x: float, y: float, width: float, place: str) -> tuple[str, list[str]]:
        """Return the title of a single call, and its rectangles."""
        (start, end, span), *_ = bar.spans
        state = span.state
        how = f"{state}, {lasting(end - start)}" if state != "running" else f"running for {lasting(end - start)} so far"
        parts = f", {counted(span.elements, 'element')}" if span.elements is not None else ""
        parts += f", {span.failed:,} of them failed" if span.failed else ""
        tries = f", {span.attempts} attempts" if span.attempts > 1 else ""
        error = f"\nthis attempt: {text(span.error)}" if span.error else ""
        between = ": " if state == "running" else "\n"
        element = "" if span.element is None else f", element {span.element}"
        title = f"{text(span.name)}, task {span.index}{element}{between}{how}{parts}{tries}{error}"
        title += f"\nfrom {lasting(start)}"
        kind = f"{'bar ' if width > NARROW + 1 else ''}{state}"
        corner = ' rx="2"' if width > 6 else ""  # noqa: PLR2004
        marks = [f'class="{kind}" {place}{corner}']
        if state == "completed" and span.failed:
            part = max(2.0, min(width * span.failed / (span.elements or 1), width - 2))
            marks.append(f'class="failed" {_standing_out(x + width - part, y, part)}')
        return title, marks

    def _attempts(self, busy: Busy, title: str, y: float) -> Iterator[str]:
        """Draw the attempts of a call one by one: those that failed, and the one after them."""
        start, end, span = busy
        at = start

        def place(until: float) -> str:
            width = max(1.0, (until - at) * self.scale)
            return f'x="{self.x(at):.1f}" y="{y}" width="{width:.1f}" height="{_LANE}"'

        for number, one in enumerate(span.failed_attempts, start=1):
            at = min(start + one.start, end)
            until = min(at + one.duration, end)
            said = f"attempt {number} of {span.attempts}{f': {text(one.error)}' if one.error else ''}"
            yield f'<rect class="failed" {place(until)}><title>{said}, {lasting(one.duration)}</title></rect>'
            at = min(until + one.pause, end)
        if at < end:
            yield f'<rect class="{span.state}" {place(end)}><title>{title}</title></rect>'
            yield from self._on_bar(span, self.x(at), y, (end - at) * self.scale, place(end))

    def _on_bar(self, span: Span, x: float, y: float, width: float, place: str) -> Iterator[str]:
        """Draw what stands on the bar of a single call."""
        state = span.state
        if self.patterns and state in PATTERNED:
            yield f'<rect class="over" {place} fill="url(#procession-{state})"/>'
        if span.attempts > 1 and width > 8:  # noqa: PLR2004
            yield f'<path class="again" d="M{x + 1:.1f} {y + 0.5}h8l-8 8z"/>'
        if width > _ROOM:
            room = int((width - 10) / _CHARACTER)
            on = f"on {state}" if state in PATTERNED else "on"
            at = f'x="{x + 6 + 5 * (span.attempts > 1):.1f}" y="{y + 12.5}"'
            yield f'<text class="{on}" {at}>{text(shortened(span.name, room))}</text>'

    def _block(self, bar: Bar, x: float, y: float, place: str) -> tuple[str, list[str]]:
        """Return the title of several calls, and their rectangles."""
        busy = sum(end - start if span.busy is None else span.busy for start, end, span in bar.spans)
        part = busy / (bar.end - bar.start) if bar.end > bar.start else 1.0
        states = Counter[TaskState]()
        for _, _, span in bar.spans:
            states += states_of(span)
        worst = max(states, key=WORST.index)
        said = ""
        if len(bar.spans) == bar.calls:  # of what was summed up before, not all names are known
            names = Counter(span.name for _, _, span in bar.spans).most_common(3)
            said = ", ".join(f"{text(shortened(name, 40))} {TIMES} {count:,}" for name, count in names) + "\n"
        bad = "".join(f", {count:,} {state}" for state, count in states.items() if state != "completed")
        title = f"{bar.calls:,} {self.noun}s{bad}\n{said}busy for {part:.0%} of {lasting(bar.end - bar.start)}"
        strength = 0.4 + 0.2 * sum(part > step for step in _STEPS)
        fade = f' fill-opacity="{strength:.1f}"' if strength < 1 else ""
        usual = "completed" if states["completed"] else worst
        marks = [f'class="block {usual}" {place}{fade}']
        if worst != usual:
            at = next(self.x(start) for start, _, span in bar.spans if span.state == worst or span.failed)
            marks.append(f'class="{worst}" {_standing_out(max(x, at), y, 2)}')
        return title, marks

    def _stages(self) -> Iterator[str]:
        if len(self.account.stages) < 2:  # noqa: PLR2004
            return
        y = self.load_top + _LOAD + 17
        for stage in self.account.stages:
            spans = [busy for busy in self.account.begun if stage.start <= busy.span.index < stage.stop]
            if spans:
                x, end = self.x(spans[0].start), self.x(max(busy.end for busy in spans))
                said = "at once" if stage.at_once else "in order"
                yield f'<path class="grid" d="M{x + 0.5:.1f} {y}v-5H{end - 0.5:.1f}v5"><title>{said}</title></path>'
                if end - x > 60:  # noqa: PLR2004
                    yield f'<text class="small mid" x="{(x + end) / 2:.1f}" y="{y + 5}">{said}</text>'

    def critical(self) -> Iterator[str]:
        """Underline the critical path, with about as many lines as there may be bars."""
        path = {span.index for span in self.account.critical_path}
        last: dict[int, Busy] = {}
        for busy in self.account.begun:
            if busy.span.index in path and (busy.span.index not in last or busy.end > last[busy.span.index].end):
                last[busy.span.index] = busy
        wanted = {id(busy) for busy in last.values()}
        on_path = [
            [(self.x(busy.start), self.x(busy.end)) for busy in lane.spans if id(busy) in wanted] for lane in self.lanes
        ]
        gap = NARROW
        while sum(map(len, lines := [_joined(ranges, gap) for ranges in on_path])) > self.limit and gap < _WIDTH:
            gap *= 1.5
        for top, ranges in zip(self.tops, lines, strict=False):
            y = top + _LANE + 1
            for x, end in ranges:
                yield (
                    f'<rect class="critical" x="{x:.1f}" y="{y}" width="{max(1.0, end - x):.1f}" height="2.5">'
                    "<title>on the critical path</title></rect>"
                )

    def legend(self, *, critical: bool = True) -> list[str]:
        """Return the legend, and let the picture end below it."""
        left, right = (self.left, self.right) if self.over else (float(_MARGIN), float(self.width - _MARGIN))
        top = self.axis + 42
        body, last = legend_of(self.account, left, right, top, patterns=self.patterns, critical=critical)
        self.bottom = last + (20 if self.patterns else 6)
        return body


class _Whole(Chart):
    """A chart with the figures of its run above it, its stages and critical path in it, and a legend below."""

    patterns = True

    def __init__(self, account: Account) -> None:
        self.said = textwrap.wrap(account.verdict, 140)
        super().__init__(account, 66 + _LINE * len(self.said) + 12, LIMIT, LANES, "task")

    def svg(self) -> str:
        account = self.account
        body = [
            f"<desc>{escape(' '.join(account.told))}</desc>",
            _PATTERNS,
            f'<text class="title" x="{_MARGIN}" y="34">{text(shortened(account.process_name, 80))}</text>',
            f'<text class="sub" x="{_MARGIN}" y="55">{text(account.headline)}</text>',
            *(
                f'<text class="said" x="{_MARGIN}" y="{78 + _LINE * place}">{text(line)}</text>'
                for place, line in enumerate(self.said)
            ),
        ]
        if account.begun or account.calls:
            body += [*self.body(), *self.critical()]
        body += self.legend()
        return svg_of(_KIND, _WIDTH, self.bottom, f"Timeline of {account.process_name}", body, STYLE)


def _joined(ranges: Sequence[tuple[float, float]], gap: float) -> list[tuple[float, float]]:
    """Return the ranges of pixels with those joined that lie closer together than `gap`."""
    joined: list[tuple[float, float]] = []
    for x, end in ranges:
        if joined and x - joined[-1][1] < gap:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((x, end))
    return joined


def _standing_out(x: float, y: float, width: float) -> str:
    """Return the place of a mark that stands out of its lane, for readers who do not see its colour."""
    return f'x="{x:.1f}" y="{y - 2}" width="{width:.1f}" height="{_LANE + 4}"'


def _ticking() -> Iterator[float]:
    """Yield the steps that an axis may have, in seconds."""
    for power in range(-9, 2):
        yield from (step * 10.0**power for step in (1, 2, 5) if step * 10.0**power < 60)  # noqa: PLR2004
    for step in (1, 2, 5, 10, 20, 30, 60, 120, 360, 720, 1440):
        yield step * 60.0
    long = 2880 * 60.0
    while True:
        yield long
        long *= 2


def _area(heights: Sequence[float], left: float, right: float, bottom: float, scale: float) -> str:
    step = (right - left) / len(heights)
    path, now = f"M{left:.1f} {bottom}", ""
    for place, height in enumerate(heights):
        y = f"{bottom - height * scale:.0f}"
        if y != now:
            path += f"{f'H{left + place * step:.0f}' if place else ''}V{y}"
            now = y
    return f"{path}H{right:.1f}V{bottom}z"
