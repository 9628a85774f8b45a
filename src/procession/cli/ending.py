"""What is said at the end of a run: what failed, like failures once, how the run went, and what shows more."""

import os
import re
import shlex
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from heapq import nlargest
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from procession import JournalError, Outcome, Run, RunUnknownError
from procession._model.columns import shortened
from procession._model.label import is_template
from procession._model.table import lasting, table
from procession._model.text import in_a_line
from procession.cli.demo import demo_target
from procession.cli.recorded import journal_option
from procession.cli.terminal import tell

if TYPE_CHECKING:
    from procession.journal import Journal

_KINDS: Final = 5
"""Kinds of failures that are shown, at most."""

_PLACES: Final = 5
_SLOW: Final = 5
_HERE: Final = f"{Path(__file__).parents[1]}{os.sep}"
_DEMO: Final = demo_target().rpartition(":")[0]
_IMPORT: Final = "<frozen importlib"
_ELEMENT: Final = re.compile(r", element (\d+), attempt \d+$")

Kind = tuple[str, str, int]
"""What like failures have in common: their type, and the file and line of the user's code that raised them."""

Label = Callable[[int, int], str | None]
"""Returns the label of an element, by the places of task and element, if it is known."""


def tell_error(error: BaseException) -> None:
    """Print the traceback of an error; of the failures that a run has put into a group, one of each kind."""
    kinds: dict[Kind, list[BaseException]] = {}
    for failure in _failures(error):
        kinds.setdefault(_kind(failure), []).append(failure)
    for alike in list(kinds.values())[:_KINDS]:
        if len(alike) > 1:
            tell(f"{type(alike[0]).__name__} × {len(alike):,}, the first of them:")
        tell(f"{_traceback_of(alike[0])}\n" if len(kinds) > 1 else _traceback_of(alike[0]))
    if len(kinds) > _KINDS:
        tell(f"… and {len(kinds) - _KINDS:,} more kinds of failures\n")


def tell_end(run: Run, journal: "Journal | None", address: str | None) -> None:
    """Print how a run went. Of one with failures: these by kind, the slowest tasks, and the command that shows more.

    `journal` is the journal that the run is recorded in, `address` its address as far as it was passed.
    """
    if not run.progress.failed:
        tell(run.summary())
        return
    tell(run.summary(0).partition("\n")[0])
    outcomes = list(run.outcomes)
    _tell_kinds(outcomes, None if journal is None else partial(_label, journal, run.id))
    ended = [outcome for outcome in outcomes if outcome.duration is not None]
    if len(ended) > 1:
        slowest = nlargest(_SLOW, ended, key=lambda outcome: outcome.duration or 0.0)
        tell(table(("slowest", "state", "took"), map(_row, slowest), right={"took"}))
    if address is not None:
        tell(f"→ procession show {shlex.quote(run.id)} --failed{journal_option(address)}")


def without_ours(error: BaseException) -> traceback.TracebackException:
    """Return the traceback of an error without the frames of this package, which say nothing of the user's code."""
    told = traceback.TracebackException(type(error), error, error.__traceback__, compact=True)
    links: list[traceback.TracebackException | None] = [told]
    while links:
        link = links.pop()
        if link is None:
            continue
        theirs = [frame for frame in link.stack if not _is_ours(frame.filename)]
        if theirs:
            link.stack[:] = theirs
        elif link.__notes__:  # of a task, whose code the error did not come from
            link.stack = None  # type: ignore[assignment]  # the module itself looks for it
        links += [link.__cause__, link.__context__, *(link.exceptions or ())]
    return told


def _traceback_of(error: BaseException) -> str:
    return "".join(without_ours(error).format()).rstrip()


def _tell_kinds(outcomes: list[Outcome], label: Label | None) -> None:
    found: dict[Kind, list[tuple[Outcome, BaseException]]] = {}
    for outcome in outcomes:
        if outcome.error is not None:
            for error in _failures(outcome.error):
                found.setdefault(_kind(error), []).append((outcome, error))
    for alike in nlargest(_KINDS, found.values(), key=len):
        places = {_place(outcome, error): outcome for outcome, error in alike}
        said = [_named(place, outcome, label) for place, outcome in islice(places.items(), _PLACES)]
        more = f" and {len(places) - _PLACES:,} more" if len(places) > _PLACES else ""
        times = f" × {len(alike):,}" if len(alike) > 1 else ""
        name, colon, message = in_a_line(alike[0][1]).partition(": ")
        tell(f"{name}{times} in {', '.join(said)}{more}{colon}{message}")
    if len(found) > _KINDS:
        tell(f"… and {len(found) - _KINDS:,} more kinds of failures")


def _failures(error: BaseException) -> Iterator[BaseException]:
    """Yield the failures that an error stands for: of a group that a run has made, those in it."""
    frame = _frame_of(error)
    if isinstance(error, BaseExceptionGroup) and frame is None:
        for inner in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from _failures(inner)
    else:
        yield error


def _kind(error: BaseException) -> Kind:
    name, frame = type(error).__name__, _frame_of(error)
    return (name, "", 0) if frame is None else (name, frame.filename, frame.lineno or 0)


def _frame_of(error: BaseException) -> traceback.FrameSummary | None:
    """Return the innermost frame of the user's code."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame for frame in reversed(frames) if not _is_ours(frame.filename)), None)


def _is_ours(filename: str) -> bool:
    return filename.startswith((_HERE, _IMPORT)) and filename != _DEMO


def _place(outcome: Outcome, error: BaseException) -> tuple[int, int | None]:
    """Return the place of the task, and of the element of it that failed, if it is a map."""
    start = f", task {outcome.index} ("
    notes = (note for note in getattr(error, "__notes__", ()) if isinstance(note, str) and start in note)
    element = next((match[1] for note in notes if (match := _ELEMENT.search(note))), None)
    return outcome.index, None if element is None else int(element)


def _named(place: tuple[int, int | None], outcome: Outcome, label: Label | None) -> str:
    task, element = place
    if element is None:
        return f"task {task} ({shortened(outcome.label or outcome.name, 40)})"
    name = label(task, element) if label is not None and is_template(outcome.name) else None
    return f"task {task}.{element} ({shortened(name or outcome.name, 40)})"


def _label(journal: "Journal", run_id: str, task: int, element: int) -> str | None:
    """Return the label that an element was recorded with."""
    with suppress(JournalError, RunUnknownError), journal.reader() as reader:
        found = reader.task(reader.key(run_id), task, element)
        return None if found is None else found.label
    return None


def _row(outcome: Outcome) -> tuple[str, ...]:
    return (
        f"{outcome.index} {shortened(outcome.label or outcome.name, 40)}",
        outcome.state,
        lasting(outcome.duration or 0.0),
    )
