"""The timeline of a run: which worker made which call when, and why the run is not faster."""

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from procession._model.attempt import FailedAttempt
from procession._model.made_calls import MadeCalls
from procession._model.map_share import MapShare
from procession._model.outcome import Outcome
from procession._model.printable import printable
from procession._model.record import WHOLE
from procession._model.table import lasting
from procession._model.text import shown
from procession.pictures.account import Account
from procession.pictures.endings import TIMELINE, format_of
from procession.pictures.picture import Picture
from procession.pictures.schedule import Span, span_of_calls
from procession.pictures.timeline_svg import svg_of_timeline
from procession.pictures.trace_events import trace_events_of

if TYPE_CHECKING:
    from procession._model.states import TaskState


def spans_of(
    outcomes: Iterable[Outcome],
    map_shares: Iterable[MapShare],
    began: float,
    failed_attempts: Callable[[int, float], tuple[FailedAttempt, ...]] = lambda _, __: (),
) -> list[Span]:
    """Return the spans of a run's timeline; `began` is the reading of the clock when the run began.

    `failed_attempts` returns those of a task whose first attempt began at a reading of the clock.
    """
    shares: dict[int, list[MapShare]] = {}
    for map_share in map_shares:
        shares.setdefault(map_share.task, []).append(map_share)
    spans: list[Span] = []
    for one in outcomes:
        name = one.label or one.name
        # A suspended task was left long ago, and its worker has done something else since.
        start = None if one.state == "suspended" else one.start
        pauses = one.state == "waiting" and start is not None
        state: TaskState = "running" if pauses else one.state
        whole = Span(one.index, name, state, one.attempts, start, one.duration, one.worker)
        failed: tuple[FailedAttempt, ...] = ()
        if (one.attempts > 1 or pauses) and start is not None:
            failed = failed_attempts(one.index, began + start)[: one.attempts - (not pauses)]
            whole = replace(whole, failed_attempts=failed)
        # The shares of a map that goes on are known when its workers leave it.
        mine = shares.get(one.index, ()) if state != "running" else ()
        of_elements = any(share.failed for share in mine)  # else the map failed of something else
        spans += [
            Span(
                one.index,
                name,
                "completed" if (of_elements and share.failed < share.elements) or start is None else state,
                one.attempts,
                share.start - began,
                share.end - share.start,
                share.worker,
                share.elements or None,
                share.failed,
                share.busy,
                (share.longest[0] - began, share.longest[1]),
                share.drawn,
                error=failed[place].error if place < len(failed) and not share.elements else "",
            )
            for place, share in enumerate(mine)
        ] or [whole]
    return spans


def spans_of_calls(made: Iterable[MadeCalls], under_way: Iterable[MadeCalls], epoch: float) -> list[Span]:
    """Return the spans of calls that tasks made themselves, and of those that go on.

    `epoch` is when the run began, in seconds since 1970.
    """
    going_on = [replace(span, state="running", duration=None) for span in _spans_of_made(under_way, epoch)]
    return [*_spans_of_made(made, epoch), *going_on]


def _spans_of_made(made: Iterable[MadeCalls], epoch: float) -> list[Span]:
    return [
        replace(
            span_of_calls(one, one.name, one.start - epoch, one.end - one.start),
            element=None if one.element == WHOLE else one.element,
            call=one.call if one.calls == 1 else None,
        )
        for one in made
    ]


class Timeline(Account, Picture):
    """Which worker made which call when in one run. `str()` of it says why the run is not faster.

    `run.timeline()` makes it, and a notebook shows it as SVG. The critical path is the longest chain of tasks that wait
    for each other, as in the critical path method of scheduling: no number of workers makes the run shorter.

    Args:
        process_name: The name of the process.
        status: How the run stands or ended.
        duration: How long the run took, or has taken so far, in seconds.
        spans: When each task ran, and on which worker.
        max_workers: How many tasks may run at the same time.
        stages: Ranges of tasks that run in order, or at once. By default all run at once.
        needs: Task → the tasks whose values it takes. By default none takes any.
        cpu: Seconds the process spent computing while the run went on, if known.
        cores: How many cores the process and its child processes kept busy, and how many there are, if known.
        exact: How far the times of spans may be off, in seconds.
        held_back: What limits have held back.
        calls: The recorded calls that tasks made, or sums of them: drawn below their tasks, whose time includes them.

    Example:
        >>> from procession.pictures import Span
        >>> spans = [Span(0, "load", "completed", 1, 0.0, 2.0, "a"), Span(1, "save", "completed", 1, 0.0, 1.0, "b")]
        >>> timeline = Timeline("copy", "completed", 2.0, spans, max_workers=2)
        >>> timeline.speed_up
        SpeedUp(reached=1.5, ideal=1.5)
        >>> timeline.idle
        {'a': 0.0, 'b': 1.0}

    """

    def svg(self) -> str:
        """Return the timeline as an SVG picture, light or dark as its reader prefers. Its size is bounded."""
        return svg_of_timeline(self)

    def trace(self) -> dict[str, Any]:
        """Return the run in the trace-event format, which Perfetto (ui.perfetto.dev) and chrome://tracing open."""
        return trace_events_of(self)

    def save(self, path: str | Path) -> None:
        """Write the timeline to a file.

        Args:
            path: Where to: a picture if it ends in `.svg`, a trace if it ends in `.json`.

        Raises:
            ValueError: The path ends in something else.
            OSError: The file cannot be written.

        """
        path = Path(path)
        format_ = format_of(path, TIMELINE)
        # Perfetto shows the escapes of JSON in the names of threads and processes as they are.
        text = self.svg() if format_ == "svg" else json.dumps(self.trace(), ensure_ascii=False)
        path.write_text(text, encoding="utf-8")

    def __str__(self) -> str:
        return printable("\n".join(self.told))

    def __repr__(self) -> str:
        return f"<Timeline of {shown(self.process_name)!r}: {self.status} in {lasting(self.duration)}>"
