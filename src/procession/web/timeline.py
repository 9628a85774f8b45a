"""The timeline of a recorded run, drawn from stretches of work that the database has summed up."""

from collections.abc import Iterable

from markupsafe import Markup

from procession._model.table import lasting
from procession._model.text import counted
from procession.journal import Mark
from procession.pictures.account import Account
from procession.pictures.schedule import Span
from procession.pictures.timeline_svg import part_of_timeline

CELLS = 240
"""Into how many parts time is cut: calls that are shorter than one are summed up by the database."""

_EXACT_S = 1e-5  # seconds since the epoch are no more exact than that, once they were added up


def timeline_of(marks: Iterable[Mark], begin: float, end: float) -> Markup:
    """Return the picture of what workers did between two times; a mark of no calls is a call that has not ended."""
    spans = [_span(mark, begin) for mark in marks]
    calls = sum(span.calls for span in spans if span.state != "running")
    failed = sum(span.failed if span.calls > 1 else span.state == "failed" for span in spans)
    workers = counted(len({span.worker for span in spans}), "worker")
    account = Account("", "running", max(end - begin, 1e-9), spans, max_workers=0, exact=_EXACT_S)
    title = f"Timeline: {counted(calls, 'call')}, {failed:,} failed, by {workers} in {lasting(account.duration)}"
    return Markup(part_of_timeline(account, title))  # noqa: S704  # what it is made of is escaped there


def _span(mark: Mark, begin: float) -> Span:
    return Span(
        mark.task,
        mark.name,
        "running" if not mark.calls else "failed" if mark.failed == mark.calls else "completed",
        mark.attempts,
        max(0.0, mark.begin - begin),
        mark.end - mark.begin,
        mark.worker,
        failed=mark.failed if mark.calls > 1 else 0,
        busy=mark.busy,
        element=mark.element if mark.calls == 1 else None,
        calls=max(1, mark.calls),
    )
