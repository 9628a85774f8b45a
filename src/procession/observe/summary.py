"""How a run went, for people: a line, and a table of its tasks."""

import html
from collections.abc import Sequence
from typing import NamedTuple

from procession._model.columns import shortened
from procession._model.outcome import Outcome
from procession._model.printable import printable
from procession._model.states import RunStatus, TaskState
from procession._model.table import lasting, table
from procession._model.text import in_a_line, shown

_HEAD = ("#", "task", "state", "attempts", "start", "took", "error")
_RIGHT = frozenset({"#", "attempts", "start", "took"})
_RED = "color:#c8431b"


class Summary(NamedTuple):
    """How a run went, with the outcomes that are worth a look."""

    process_name: str
    run_id: str
    status: RunStatus
    took: float
    states: Sequence[TaskState]
    failure: BaseException | None
    worst: Sequence[Outcome]

    def text(self) -> str:
        """Return it as lines, of characters that standard output can show."""
        lines = [f"{shown(self.process_name)}: {self._went()} · run {shown(self.run_id)}", *self._stopped()]
        if self.worst:
            lines.append(table(_HEAD, map(_row, self.worst), right=_RIGHT))
        return printable("\n".join([*lines, *self._more()]))

    def html(self) -> str:
        """Return it as HTML for a notebook."""
        head = "".join(f'<th style="text-align:left">{name}</th>' for name in _HEAD)
        rows = "".join(_html_row(outcome) for outcome in self.worst)
        lines = [html.escape(line) for line in (*self._stopped(), *self._more())]
        red = f' style="{_RED}"' if self.status == "failed" else ""
        return (
            f"<div><b>{html.escape(shown(self.process_name))}</b>: <span{red}>{html.escape(self._went())}</span>"
            f" · run {html.escape(shown(self.run_id))}</div>"
            + (f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>" if rows else "")
            + "".join(f"<div>{line}</div>" for line in lines)
        )

    def _went(self) -> str:
        counts = {state: self.states.count(state) for state in dict.fromkeys(self.states)}
        told = ", ".join(f"{count:,} {state}" for state, count in counts.items()) or "no tasks"
        return f"{self.status} in {lasting(self.took)} ({told})"

    def _stopped(self) -> list[str]:
        return [] if self.failure is None else [f"stopped by {in_a_line(self.failure)}"]

    def _more(self) -> list[str]:
        more = len(self.states) - len(self.worst)
        return [f"… and {more:,} more"] if more > 0 else []


def _row(outcome: Outcome) -> tuple[str, ...]:
    return (
        str(outcome.index),
        shortened(outcome.label or outcome.name, 40),
        outcome.state,
        str(outcome.attempts),
        "" if outcome.start is None else lasting(outcome.start),
        "" if outcome.duration is None else lasting(outcome.duration),
        "" if outcome.error is None else in_a_line(outcome.error),
    )


def _html_row(outcome: Outcome) -> str:
    red = f";{_RED}" if outcome.state == "failed" else ""
    cells = zip(_HEAD, _row(outcome), strict=True)
    aligned = (("right" if name in _RIGHT else "left", html.escape(cell)) for name, cell in cells)
    found = "".join(f'<td style="text-align:{side}{red}">{cell}</td>' for side, cell in aligned)
    return f"<tr>{found}</tr>"
