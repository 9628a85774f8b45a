"""The timeline of a recorded run, and what it says of where the time went."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from markupsafe import Markup

from procession._model.states import RunStatus
from procession._model.table import lasting
from procession._model.text import counted
from procession._plan.shape import Shape
from procession.journal import Mark
from procession.pictures.account import Account
from procession.pictures.schedule import Span, most_at_once, span_of_calls
from procession.pictures.timeline_svg import part_of_timeline

CELLS = 240
"""Into how many parts time is cut: calls that are shorter than one are summed up by the database."""

EXACT = 5_000
"""Calls of a run, at most, that are drawn one by one: then it is known which of them held the run up."""

_EXACT_S = 1e-5  # seconds since the epoch are no more exact than that, once they were added up


class Drawn(NamedTuple):
    """A timeline."""

    wide: Markup
    narrow: Markup
    """For a phone."""
    told: Sequence[str]
    """Why the run is not faster, in sentences, the verdict last; none where that cannot be known."""


def timeline_of(
    marks: Iterable[Mark],
    begin: float,
    end: float,
    key: int,
    *,
    shape: Shape | None = None,
    status: RunStatus = "running",
    recorded: Iterable[Mark] = (),
) -> Drawn:
    """Return the pictures of what workers did between two times in the run of a key.

    A mark of no calls is a call that has not ended. `shape` is given where the marks are single calls. `recorded` are
    the calls that tasks made themselves.
    """
    spans = [_span(mark, begin, shape) for mark in marks]
    inner = [_span(mark, begin, None) for mark in recorded]
    calls = sum(span.calls for span in spans if span.state != "running")
    failed = sum(span.failed if span.calls > 1 else span.state == "failed" for span in spans)
    names = {span.worker for some in (spans, inner) for span in some}
    duration = max(end - begin, 1e-9)
    stages, needs = (shape.stages, shape.needs) if shape else ((), None)
    account = Account(
        "", status, duration, spans, max_workers=0, stages=stages, needs=needs, exact=_EXACT_S, calls=inner
    )
    by = f"by {counted(len(names), 'worker')} in {lasting(account.duration)}"
    within = f", {counted(sum(span.calls for span in inner), 'recorded call')}" if inner else ""
    title = f"Timeline: {counted(calls, 'call')}, {failed:,} failed{within}, {by}"

    def link(span: Span, several: bool) -> str:
        element = "" if span.element is None or several else f"/{span.element}"
        return f"/run/{key}/task/{span.index}{element}"

    critical = shape is not None
    wide, narrow = (part_of_timeline(account, title, link, critical=critical, narrow=one) for one in (False, True))
    told: list[str] = []
    if shape and status != "running" and account.begun:
        # How many workers there were is not recorded. A call that pauses has none, and threads replace each other.
        workers = min(len(names), most_at_once(account.begun, _EXACT_S))
        told = Account("", status, duration, spans, max_workers=workers, stages=stages, needs=needs).told[1:]
    return Drawn(Markup(wide), Markup(narrow), told)  # noqa: S704  # what they are made of is escaped there


def _span(mark: Mark, begin: float, shape: Shape | None) -> Span:
    return replace(
        span_of_calls(mark, mark.head.label or mark.name, mark.begin - begin, mark.end - mark.begin),
        element=mark.element if mark.calls == 1 else None,
        elements=1 if shape and mark.element is not None else None,
        failed_attempts=mark.head.failed_attempts,
        call=mark.call,
    )
