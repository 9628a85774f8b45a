"""The legend of a timeline: what its colours and marks mean, and how many calls there are of each."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from procession._model.states import TaskState
from procession._model.table import lasting
from procession._model.text import counted
from procession.pictures.account import Account
from procession.pictures.schedule import Span, states_of

WORST: Final[tuple[TaskState, ...]] = ("completed", "running", "cancelled", "failed")
"""The states of calls, the worst last."""

PATTERNED: Final = ("failed", "cancelled")
"""The states that a pattern distinguishes, besides their colour."""

_LINE = 18
_LETTER = 6.4
_NEVER: Final[dict[str, str]] = {"completed": "completed before", "cancelled": "cancelled before they began"}


def legend_of(
    account: Account, left: float, right: float, top: float, *, patterns: bool, critical: bool
) -> tuple[list[str], float]:
    """Return the elements of a legend between two edges, and where its last line stands.

    `top` is where its first line stands. `patterns` says whether states have patterns, `critical` whether the picture
    shows a critical path.
    """
    body: list[str] = []
    x, y = left, top
    for mark, said in _entries(account, patterns=patterns, critical=critical):
        width = (20 if mark else 0) + _LETTER * len(said)
        if x > left and x + width > right:
            x, y = left, y + _LINE
        at = x + (20 if mark else 0)
        if mark:
            body.append(f'<g transform="translate({x:.1f} {y - 9:.0f})">{mark}</g>')
        body.append(f'<text class="small" x="{at:.1f}" y="{y:.0f}">{said}</text>')
        x += width + 18
    return body, y


def _entries(account: Account, *, patterns: bool, critical: bool) -> Iterator[tuple[str, str]]:
    """Yield each mark of the legend, and what it says."""
    states = Counter[TaskState]()
    for busy in account.begun:
        states += states_of(busy.span)
    for state in reversed(WORST):
        if states[state]:
            mark = f'<rect class="{state}" width="14" height="10" rx="2"/>'
            if patterns and state in PATTERNED:
                mark += f'<rect width="14" height="10" fill="url(#procession-{state})"/>'
            yield mark, f"{states[state]:,} {state}"
    yield from _calls(account)
    again = len({(busy.span.index, busy.span.element) for busy in account.begun if busy.span.attempts > 1})
    if again:
        yield '<path class="again" d="M0 0h10l-10 10z"/>', f"{again:,} tried again"
    if any(busy.span.failed_attempts for busy in account.begun):
        yield '<rect class="pause" width="14" height="10"/>', "pause between attempts"
    if critical and account.begun:
        yield (
            '<rect class="critical" y="5" width="14" height="2.5"/>',
            f"critical path, {lasting(account.critical)}",
        )
    left_out = Counter(span.state for span in account.spans if span.start is None)
    said = ", ".join(f"{count:,} {_NEVER.get(state, state)}" for state, count in left_out.items())
    if said:
        yield "", f"not shown: {said}"


def _calls(account: Account) -> Iterator[tuple[str, str]]:
    """Yield the marks of the recorded calls, and what they say."""
    made, bad = (sum(count) for count in zip((0, 0), *(_made(busy.span) for busy in account.calls), strict=True))
    if made:
        failed = f", {bad:,} failed" if bad else ""
        yield '<rect class="call" width="14" height="10"/>', f"{counted(made, 'recorded call')}{failed}"
    going_on = sum(busy.span.state == "running" for busy in account.calls)
    if going_on:
        yield '<rect class="call running" width="14" height="10"/>', f"{going_on:,} of them going on"


def _made(span: Span) -> tuple[int, int]:
    """Return how many recorded calls a span is, and how many of them failed."""
    return span.calls, states_of(span)["failed"]
