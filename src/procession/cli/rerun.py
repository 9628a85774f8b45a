"""Which part of a run is to be called again, and saying so before it is forgotten."""

import argparse
from typing import TYPE_CHECKING, Any, Final

from procession._model.table import table
from procession._model.text import counted, shown
from procession.cli.terminal import say, tell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from procession.journal import Forgotten, Journal

_ROWS: Final = 50


def task_of(text: str) -> int | str:
    """Return a task as a journal takes it: its place, or its name."""
    return int(text) if text.isascii() and text.isdigit() else text


def element_of(text: str) -> tuple[int | str, int]:
    """Return an element as a journal takes it, of `TASK:N`."""
    name, _, element = text.rpartition(":")
    if not name or not (element.isascii() and element.isdigit()):
        raise argparse.ArgumentTypeError(f"an element is TASK:N, such as fetch:3 or 0:3, and not {text!r}")
    return task_of(name), int(element)


def chosen_by(options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `Journal.rerun` for the options of the command; empty if nothing is named."""
    chosen = {"tasks": options.tasks, "elements": options.elements, "failed": options.failed}
    return chosen if any(chosen.values()) else {}


def say_again(journal: "Journal", run_id: str, chosen: dict[str, Any], *, dry_run: bool) -> bool:
    """Print what would be called again, on standard output for a `dry_run`; return whether there is anything to do."""
    forgotten = journal.rerun(run_id, **chosen, dry_run=True)
    write = say if dry_run else tell
    if forgotten:
        write(_table(run_id, forgotten))
        return True
    if not (chosen["tasks"] or chosen["elements"]):
        write(f"nothing has failed in run {shown(run_id)}")
        return False
    write(f"nothing of that is recorded in run {shown(run_id)}: it is called in any case")
    return True


def _table(run_id: str, forgotten: "Sequence[Forgotten]") -> str:
    from procession.journal.rerun import REASONS, name_of, place_in

    rows = [(place_in(run_id, one), name_of(one), REASONS[one.reason]) for one in forgotten[:_ROWS]]
    head = f"called again in run {shown(run_id)}:\n"
    more = f"\n… and {counted(len(forgotten) - _ROWS, 'other')}" if len(forgotten) > _ROWS else ""
    return head + table(("#", "task", "why"), rows) + more
