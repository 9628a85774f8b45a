"""The recorded calls in the picture of a timeline: slim rows below the lane of the tasks that made them."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from procession._model.columns import columns, shortened
from procession._model.states import TaskState
from procession._model.table import lasting
from procession._model.text import counted
from procession.pictures.bars import Bar
from procession.pictures.picture import MONO, TIMES, Style, text
from procession.pictures.schedule import Span, states_of

HEIGHT: Final = 14
PITCH: Final = HEIGHT + 2
"""Pixels from one row to the next."""

_NAMED: Final = 34
"""Pixels that a call must be wide for its name to stand on it."""
_CHARACTER: Final = 7.3

STYLE: Style = {
    ".call": {"fill": "sky", "stroke": "panel", "stroke-width": "1"},
    ".call.failed": {"fill": "red"},
    ".call.running": {"stroke": "blue", "stroke-width": "1.5", "stroke-dasharray": "3 2"},
    ".named": {"font-family": MONO, "font-size": "12px", "fill": "ink", "pointer-events": "none"},
    ".named.failed": {"fill": "paper"},
}


def height_of(rows: int) -> int:
    """Return how many pixels so many rows take below their lane."""
    return PITCH * rows + 3 if rows else 0


def drawn_calls(
    bars: Iterable[Bar], y: float, x: Callable[[float], float], link: Callable[[Span, bool], str] | None
) -> Iterator[str]:
    """Yield the elements of a row of calls that begins `y` pixels from the top.

    `x` returns where a moment lies, `link` the address that a mark leads to, as for the bars of tasks.
    """
    for bar in bars:
        left = x(bar.start)
        width = max(1.0, x(bar.end) - left)
        span = bar.spans[0].span
        states = _states(bar)
        all_failed = " failed" if states["failed"] == bar.calls else ""
        goes_on = " running" if span.state == "running" and bar.calls == 1 else ""
        title = _several(bar, states) if bar.calls > 1 else _single(bar)
        marks = [f'class="call{all_failed}{goes_on}" {_place(left, y, width)}']
        if states["failed"] and not all_failed:
            part = max(2.0, width * states["failed"] / bar.calls)
            marks.append(f'class="call failed" {_place(left + max(0.0, width - part), y, part)}')
        if link is None:
            yield from (f"<rect {mark}><title>{title}</title></rect>" for mark in marks)
        else:
            address = text(link(span, bar.calls > 1))
            yield f'<a tabindex="-1" href="{address}"><title>{title}</title>'
            yield from (f"<rect {mark}/>" for mark in marks)
            yield "</a>"
        if width > _NAMED:
            room = int((width - 8) / _CHARACTER)
            said = shortened(span.name, room) if bar.calls == 1 else f"{bar.calls:,} {TIMES}"
            if columns(said) <= room:
                yield f'<text class="named{all_failed}" x="{left + 5:.1f}" y="{y + 11}">{text(said)}</text>'


def _place(x: float, y: float, width: float) -> str:
    return f'x="{x:.1f}" y="{y}" width="{width:.1f}" height="{HEIGHT}"'


def _single(bar: Bar) -> str:
    (start, end, span), *_ = bar.spans
    element = "" if span.element is None else f", element {span.element}"
    place = "recorded call" if span.call is None else f"recorded call {span.call}"
    tries = f", {span.attempts} attempts" if span.attempts > 1 else ""
    took = lasting(end - start)
    how = f"running for {took} so far" if span.state == "running" else f"{span.state}, {took}"
    return f"{text(span.name)}, {place} of task {span.index}{element}\n{how}{tries}\nfrom {lasting(start)}"


def _several(bar: Bar, states: Counter[TaskState]) -> str:
    failed = f", {states['failed']:,} failed" if states["failed"] else ""
    said = ""
    if len(bar.spans) == bar.calls:  # of what was summed up before, not all names are known
        names = Counter(span.name for _, _, span in bar.spans).most_common(3)
        said = ", ".join(f"{text(shortened(name, 40))} {TIMES} {count:,}" for name, count in names) + "\n"
    took = sum(end - start if span.busy is None else span.busy for start, end, span in bar.spans)
    return f"{counted(bar.calls, 'recorded call')}{failed}\n{said}{lasting(took)} together"


def _states(bar: Bar) -> Counter[TaskState]:
    states = Counter[TaskState]()
    for _, _, span in bar.spans:
        states += states_of(span)
    return states
