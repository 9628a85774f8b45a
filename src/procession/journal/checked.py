"""Values as they are read from a journal to be shown: each of the right kind, and no larger than it can be.

A journal may be damaged, or come from somebody who has put anything into it. A value that is wrong is replaced by one
that does no harm, and the error of its run or task begins by saying which it was, so that all the rest can be shown.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final, Literal, NamedTuple, NoReturn, TypeVar, cast, get_args

from sqlalchemy import ColumnElement, Row, func, type_coerce
from sqlalchemy.types import NullType

from procession._model.held_back import HeldBack
from procession._model.progress import Progress
from procession._model.text import shown, sketch
from procession.errors import JournalError
from procession.journal.lease import Holder, is_held
from procession.journal.schema import ID_LIMIT, runs

TEXT_LIMIT: Final = 1_000_000
"""Characters of a text that are read, at most."""
NAME_LIMIT: Final = 100_000
_COUNT_LIMIT: Final = 2**53
_TIME_LIMIT: Final = 250_000_000_000.0  # the year 9892
_RUNNING_LIMIT: Final = 10_000
_HELD_LIMIT: Final = 100

T = TypeVar("T")
Status = Literal["running", "completed", "failed", "cancelled", "suspended", "interrupted"]
State = Literal["completed", "failed"]
_STATUSES: Final[tuple[Status, ...]] = get_args(Status)
_STATES: Final[tuple[State, ...]] = get_args(State)


@dataclass(frozen=True, slots=True)
class Running:
    """A task that ran when its run last reported to the journal, at most about a second ago if the run goes on."""

    task: int
    """The place of the task in its process; 0 is the first."""
    name: str
    worker: str
    """The name of the thread, process or asyncio task that runs it."""
    started_at: float
    """When it began, in seconds since the epoch, UTC."""
    label: str | None = None
    """What its name gives for its arguments, if that is a template such as `"fetch {url}"`."""


class RunRow(NamedTuple):
    """A row of `runs`. `wrong` says which of its values were."""

    key: int
    parent: int
    id: str
    process: str
    status: Status
    error: str | None
    executions: int
    created_at: float
    started_at: float
    ended_at: float | None
    progress: Progress | None
    running: tuple[Running, ...]
    pausing: tuple[Running, ...]
    held_back: tuple[HeldBack, ...]
    cancelling: bool
    token: str | None
    holder: Holder | None
    held_since: float
    held_until: float
    origin: Mapping[str, Any]
    wrong: tuple[str, ...]

    def is_alive(self, now: float) -> bool:
        """Return whether the run is being executed, as far as can be known here; `now` is the database's time."""
        return is_held(self.holder, self.token, self.held_until, now)


class Checked:
    """Checks the values of one row, and knows afterwards which were wrong."""

    def __init__(self) -> None:
        self.wrong: Final[list[str]] = []

    def text(self, name: str, value: object) -> str:
        """Return a text."""
        return value if isinstance(value, str) else self._instead(name, value, "?")

    def some_text(self, name: str, value: object) -> str | None:
        """Return a text, or `None`; one that goes on in the journal says so."""
        if value is None:
            return None
        text = self.text(name, value)
        return text if len(text) <= TEXT_LIMIT else f"{text[:TEXT_LIMIT]}\n… and more than is read of it"

    def count(self, name: str, value: object) -> int:
        """Return a number of things."""
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _COUNT_LIMIT:
            return value
        return self._instead(name, value, 0)

    def number(self, name: str, value: object) -> float:
        """Return a time in seconds since the epoch, or a duration in seconds."""
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _TIME_LIMIT:
            return float(value)
        return self._instead(name, value, 0.0)

    def status(self, value: object) -> Status:
        """Return the status of a run."""
        for status in _STATUSES:
            if value == status:
                return status
        return self._instead("status", value, "interrupted")

    def state(self, value: object) -> State:
        """Return how a task ended."""
        for state in _STATES:
            if value == state:
                return state
        return self._instead("state", value, "failed")

    def parsed(self, name: str, value: object) -> dict[str, Any]:
        """Return the object that JSON text is."""
        try:
            found = json.loads(value, parse_constant=_refuse) if isinstance(value, str) else None
        except (ValueError, RecursionError):
            found = None
        return cast("dict[str, Any]", found) if isinstance(found, dict) else self._instead(name, value, {})

    def holder(self, value: object) -> Holder:
        """Return which program executes a run, from its lease."""
        try:
            return Holder.read(value) if isinstance(value, str) else self._instead("holder", value, Holder.unknown())
        except ValueError:
            return self._instead("holder", value, Holder.unknown())

    def progress(self, said: Mapping[str, Any]) -> Progress | None:
        """Return how far a run says it has come; `None` if it has not said."""
        if not said:
            return None
        return Progress(*(self.count(f"progress.{name}", said.get(name)) for name in Progress._fields))

    def running(self, said: Mapping[str, Any], which: Literal["running", "pausing"]) -> tuple[Running, ...]:
        """Return which tasks a run says that it executes, or which wait for their next attempt."""
        tasks = _list(said.get(which, []))
        if tasks is None or len(tasks) > _RUNNING_LIMIT:
            return self._instead(f"progress.{which}", said.get(which), ())
        labels = said.get("labels", {})
        if not isinstance(labels, dict):
            labels = self._instead("progress.labels", labels, dict[str, object]())
        return tuple(self._running(task, cast("dict[str, object]", labels)) for task in tasks)

    def _running(self, said: object, labels: Mapping[str, object]) -> Running:
        task, name, worker, started_at = _list(said, 4) or self._instead("progress.running", said, [0, "?", "?", 0.0])
        return Running(
            self.count("progress.running.task", task),
            self.text("progress.running.name", name),
            self.text("progress.running.worker", worker),
            self.number("progress.running.started_at", started_at),
            None if (label := labels.get(str(task))) is None else shown(self.text("progress.labels", label)),
        )

    def held_back(self, said: Mapping[str, Any]) -> tuple[HeldBack, ...]:
        """Return the calls that limits hold back, as a run says."""
        limits = _list(said.get("held_back", []))
        if limits is None or len(limits) > _RUNNING_LIMIT:
            return self._instead("progress.held_back", said.get("held_back"), ())
        tasks = _list(said.get("held_tasks", []))
        if tasks is None or len(tasks) > min(len(limits), _HELD_LIMIT):
            tasks = self._instead("progress.held_tasks", said.get("held_tasks"), list[object]())
        return tuple(self._held_back(*each) for each in zip_longest(limits, tasks))

    def _held_back(self, said: object, tasks: object) -> HeldBack:
        limit, waiting, calls, seconds = _list(said, 4) or self._instead("progress.held_back", said, ["?", 0, 0, 0.0])
        return HeldBack(
            self.text("progress.held_back.limit", limit),
            self.count("progress.held_back.waiting", waiting),
            self.count("progress.held_back.calls", calls),
            self.number("progress.held_back.seconds", seconds),
            () if tasks is None else tuple(map(self._range, self._ranges(tasks))),
        )

    def _ranges(self, said: object) -> list[object]:
        ranges = _list(said)
        if ranges is None or len(ranges) > _HELD_LIMIT:
            return self._instead("progress.held_tasks", said, [])
        return ranges

    def _range(self, said: object) -> range:
        begin, end = _list(said, 2) or self._instead("progress.held_tasks", said, [0, 0])
        return range(self.count("progress.held_tasks", begin), self.count("progress.held_tasks", end))

    def origin(self, value: object) -> Mapping[str, Any]:
        """Return how a run was begun."""
        said = self.parsed("origin", value)
        argv = _list(said.get("argv", []))
        if argv is None or not all(isinstance(text, str) for text in (*argv, said.get("folder", ""))):
            return self._instead("origin", said, {})
        return said

    def _instead(self, name: str, value: object, instead: T) -> T:
        if name not in {known.partition(" ")[0] for known in self.wrong}:
            self.wrong.append(f"{name} is {sketch(value)}")
        return instead


def error_of(error: str | None, wrong: Sequence[str]) -> str | None:
    """Return the error of a run or task, and before it which of its values were wrong."""
    if not wrong:
        return error
    said = f"the journal is damaged: {', '.join(wrong)}"
    return said if error is None else f"{said}\n{error}"


def refuse(wrong: Sequence[str]) -> None:
    """Raise `JournalError` if any value was wrong, where nothing can stand in its place."""
    if wrong:
        raise JournalError(f"the journal is damaged: {', '.join(wrong)}")


def run_row(row: Row[Any]) -> RunRow:
    """Return a row of `RUN`, checked."""
    check, v = Checked(), row._mapping
    said = check.parsed("progress", v["progress"])
    key, parent = check.count("key", v["key"]), check.count("parent", v["parent"])
    if parent >= key:  # a nested run begins after the one around it; so no run lies within itself
        raise JournalError(f"the journal is damaged: run {key} lies within run {parent}, which began after it")
    return RunRow(
        key=key,
        parent=parent,
        id=check.text("id", v["id"]),
        process=check.text("process", v["process"]),
        status=check.status(v["status"]),
        error=check.some_text("error", v["error"]),
        executions=check.count("executions", v["executions"]),
        created_at=check.number("created_at", v["created_at"]),
        started_at=check.number("started_at", v["started_at"]),
        ended_at=None if v["ended_at"] is None else check.number("ended_at", v["ended_at"]),
        progress=check.progress(said),
        running=check.running(said, "running"),
        pausing=check.running(said, "pausing"),
        held_back=check.held_back(said),
        cancelling=bool(v["cancelling"]),
        token=None if v["token"] is None else check.text("token", v["token"]),
        holder=None if v["token"] is None else check.holder(v["holder"]),
        held_since=0.0 if v["held_since"] is None else check.number("held_since", v["held_since"]),
        held_until=0.0 if v["held_until"] is None else check.number("held_until", v["held_until"]),
        origin=check.origin(v["origin"]),
        wrong=tuple(check.wrong),
    )


def bounded(column: ColumnElement[Any], limit: int) -> ColumnElement[Any]:
    """Return an expression that selects the first `limit` characters of a column, under the column's name."""
    return type_coerce(func.substr(column, 1, limit), NullType()).label(column.name)


_LIMITS: Final = {
    "id": ID_LIMIT,
    "process": NAME_LIMIT,
    "codec": NAME_LIMIT,
    "status": NAME_LIMIT,
    "error": TEXT_LIMIT + 1,
    "progress": TEXT_LIMIT,
    "token": NAME_LIMIT,
    "holder": NAME_LIMIT,
    "origin": TEXT_LIMIT,
}
RUN: Final[list[ColumnElement[Any]]] = [
    bounded(column, _LIMITS[column.name])
    if column.name in _LIMITS
    else type_coerce(column, NullType()).label(column.name)
    for column in runs.c
]
"""What is selected of `runs` to be shown."""


def _list(value: object, length: int | None = None) -> list[object] | None:
    """Return a list, of so many values if that matters; `None` if it is none."""
    if not isinstance(value, list) or length not in (None, len(cast("list[object]", value))):
        return None
    return cast("list[object]", value)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")
