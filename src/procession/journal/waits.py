"""What tasks wait for: how it is written and read while a run goes on, how it is answered, and how it is shown.

wait_for, sleep ──WaitRecords.begin──▶ "waiting" ──answer──▶ "answered" ──begin──▶ "over": the task knows
                                           └──── due ─────────────────────begin──────┘
"""

import math
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from sqlalchemy import CTE, ColumnElement, Connection, delete, select, type_coerce, update
from sqlalchemy.types import NullType

from procession._model.record import WHOLE, WaitKind, WaitRecord, place_name, place_of
from procession.journal.checked import NAME_LIMIT, Checked, bounded
from procession.journal.held import Held
from procession.journal.schema import runs, waits

_SHOWN: Final = 1000
"""Waits of one run that are read to be shown, at most."""

_NAMED: Final = 5
"""Waits that a message names, at most."""

_OPEN: Final = ("running", "suspended")
"""How a nested run stands in which tasks may wait."""


@dataclass(frozen=True, slots=True)
class WaitInfo:
    """What a task of a run waits for, as the journal shows it. All times are in seconds since the epoch, UTC."""

    run: str
    """The id of the run; of a nested run, `run/task` or `run/task.element`."""
    task: int
    """The place of the task in its process; 0 is the first."""
    element: int | None
    """The place of the element in its map that waits; `None` if the task itself does."""
    kind: WaitKind
    """`"answer"` for a task that waits for an answer, `"sleep"` for one that waits until a time."""
    name: str
    """The name of the answer; of a sleep, its place among those of the task."""
    since: float
    """Since when the task waits."""
    due: float | None
    """Until when it waits; `None` if without end."""
    answered: bool
    """Whether it is answered, and the task does not know yet."""

    def within(self, run_id: str) -> int:
        """Return the place of the task that waits in a run: of the one that it is nested in, if it is nested there."""
        if self.run == run_id:
            return self.task
        digits = re.match(r"[0-9]{1,9}", self.run.removeprefix(f"{run_id}/"))
        return self.task if digits is None else int(digits[0])


class WaitRecords:
    """What the tasks of one run wait for. `now` returns the time of a connection's database."""

    def __init__(self, held: Held, key: int, now: Callable[[Connection], float]) -> None:
        self._held = held
        self._key = key
        self._now = now

    def begin(
        self,
        index: int,
        element: int,
        kind: WaitKind,
        name: str,
        seconds: float | None,
        element_digest: bytes | None = None,
    ) -> WaitRecord:
        """Return how it stands with what a task, or element, waits for; record that it waits, `seconds` at most."""
        here = _place(self._key, index, element, kind, name)

        def enter(_again: bool) -> WaitRecord:
            with self._held.channel.transaction() as connection:
                self._held.check(connection)
                now = self._now(connection)
                row = connection.execute(select(waits.c.state, waits.c.due, waits.c.value).where(*here)).one_or_none()
                if row is None:
                    place = {"run": self._key, "task": index, "element": element, "kind": kind, "name": name}
                    due = None if seconds is None else now + seconds
                    standing = {"state": "waiting", "created_at": now, "due": due, "element_digest": element_digest}
                    connection.execute(waits.insert().values(**place, **standing))
                    return WaitRecord(None, math.inf if seconds is None else seconds)
                if row.state == "waiting" and (row.due is None or row.due > now):
                    return WaitRecord(None, math.inf if row.due is None else row.due - now)
                if row.state != "over":
                    connection.execute(update(waits).where(*here).values(state="over"))
                return WaitRecord(row.value, 0.0)

        return self._held.persist(enter)

    def forget_answer(self, index: int, element: int, name: str) -> None:
        """Forget the answer that a task, or element, has been given, so that it waits for it anew."""
        here = _place(self._key, index, element, "answer", name)

        def delete_it(_again: bool) -> None:
            with self._held.channel.transaction() as connection:
                self._held.check(connection)
                connection.execute(delete(waits).where(*here))

        self._held.persist(delete_it)

    def forget_but(self, index: int, element: int, passed: Collection[tuple[WaitKind, str]]) -> None:
        """Forget what a task, or element, has waited for, but for these."""
        c = waits.c
        here = c.run == self._key, c.task == index, c.element == element

        def delete_them(_again: bool) -> None:
            with self._held.channel.transaction() as connection:
                self._held.check(connection)
                rows = connection.execute(select(c.kind, c.name).where(*here)).all()
                for kind, name in rows:
                    if (kind, name) not in passed:
                        connection.execute(delete(waits).where(*_place(self._key, index, element, kind, name)))

        self._held.persist(delete_them)

    def ready(self) -> list[tuple[int, int]]:
        """Return the tasks and elements, as `WHOLE` or by their place, that have to wait no longer.

        Those are among them in which a suspended run is nested of which something has to wait no longer.
        """
        c, inside = waits.c, _suspended_within(self._key)
        with self._held.channel.open() as connection:
            is_ready = _is_ready(self._now(connection))
            own = connection.execute(select(c.task, c.element).where(c.run == self._key, is_ready).distinct())
            ready = [(task, element) for task, element in own]
            nested = select(inside.c.place).join(waits, c.run == inside.c.key).where(is_ready).distinct()
            return ready + [place_of(name) for name in connection.execute(nested).scalars()]


def _suspended_within(key: int) -> CTE:
    """Return the keys of the suspended runs nested in a run, however deep, each with its place in that run."""
    c = runs.c
    inside = select(c.key, c.id.label("place")).where(c.parent == key, c.key > key, c.status == "suspended")
    found = inside.cte("suspended_within", recursive=True)
    # As in `_family`, this ends whatever a damaged journal says.
    deeper = c.parent == found.c.key, c.key > found.c.key, c.status == "suspended"
    return found.union_all(select(c.key, found.c.place).where(*deeper))


def _place(key: int, task: int, element: int, kind: str, name: str) -> tuple[ColumnElement[bool], ...]:
    c = waits.c
    return c.run == key, c.task == task, c.element == element, c.kind == kind, c.name == name


def _is_ready(now: float) -> ColumnElement[bool]:
    """Return the condition for what is answered, or due, and not known to the task."""
    return _is_answered() | _is_due(now)


def _is_answered() -> ColumnElement[bool]:
    return waits.c.state == "answered"


def _is_due(now: float) -> ColumnElement[bool]:
    return (waits.c.state == "waiting") & (waits.c.due <= now)


# Of a run with all that are nested in it


class _Run(NamedTuple):
    key: int
    id: str
    status: str


def _family(connection: Connection, key: int, run_id: str) -> Iterator[_Run]:
    """Yield a run, and the runs nested in it in which tasks may wait."""
    c = runs.c
    status = connection.execute(select(bounded(c.status, NAME_LIMIT)).where(c.key == key)).scalar()
    found: list[_Run] = [_Run(key, run_id, str(status))]
    while found:
        one = found.pop()
        yield one
        # What is nested in a run began after it; so this ends, whatever a damaged journal says.
        query = select(type_coerce(c.key, NullType()), bounded(c.id, NAME_LIMIT), bounded(c.status, NAME_LIMIT))
        query = query.where(c.parent == one.key, c.key > one.key, c.status.in_(_OPEN))
        inside: Sequence[Any] = connection.execute(query).all()
        found += [_Run(child, f"{one.id}/{place}", status) for child, place, status in inside]


def waits_of(connection: Connection, key: int, run_id: str) -> list[WaitInfo]:
    """Return the answers and times that tasks of a run, and of its nested runs, wait for."""
    found: list[WaitInfo] = []
    for one in _family(connection, key, run_id):
        found += _waits_within(connection, one)
    return found[:_SHOWN]


def _waits_within(connection: Connection, run: _Run) -> list[WaitInfo]:
    c = waits.c
    columns: list[ColumnElement[Any]] = [
        *(type_coerce(c[name], NullType()) for name in ("task", "element")),
        *(bounded(c[name], NAME_LIMIT) for name in ("kind", "name")),
        *(type_coerce(c[name], NullType()) for name in ("created_at", "due")),
        bounded(c.state, NAME_LIMIT),
    ]
    query = select(*columns).where(c.run == run.key, c.state != "over")
    rows = connection.execute(query.order_by(c.task, c.element, c.created_at).limit(_SHOWN)).all()
    return [_wait_info(run.id, row) for row in rows]


def _wait_info(run_id: str, row: Sequence[Any]) -> WaitInfo:
    check = Checked()
    task, element, kind, name, since, due, state = row
    return WaitInfo(
        run=run_id,
        task=check.count("task", task),
        element=None if element == WHOLE else check.count("element", element),
        kind="sleep" if kind == "sleep" else "answer",
        name=check.text("name", name),
        since=check.number("created_at", since),
        due=None if due is None else check.number("due", due),
        answered=state == "answered",
    )


def ready_runs(connection: Connection, now: float, what: Literal["answered", "due"]) -> list[str]:
    """Return the ids of suspended runs of which a task has its answer, or is due, as they were begun."""
    condition = _is_answered() if what == "answered" else _is_due(now)
    c, top = runs.c, set[int]()
    waiting = set(connection.execute(select(waits.c.run).where(condition).distinct()).scalars())
    while waiting:
        rows = connection.execute(select(c.key, c.parent).where(c.key.in_(waiting), c.status == "suspended")).all()
        top |= {key for key, parent in rows if not parent}
        waiting = {parent for key, parent in rows if 0 < parent < key}
    ordered = select(bounded(c.id, NAME_LIMIT)).where(c.key.in_(top)).order_by(c.key)
    return list(connection.execute(ordered).scalars())


# Answers


class _Asked(NamedTuple):
    """A wait for an answer. `standing` says whether that can be given still."""

    run: _Run
    task: int
    element: int
    name: str
    standing: Literal["open", "answered", "late"]

    @property
    def place(self) -> tuple[ColumnElement[bool], ...]:
        return _place(self.run.key, self.task, self.element, "answer", self.name)


def record_answer(
    connection: Connection,
    key: int,
    run_id: str,
    name: str,
    value: bytes,
    *,
    now: float,
    task: int | None,
    element: int | None,
) -> None:
    """Write the answer to what a task of a run waits for, in a transaction.

    Raises `ValueError` where nothing waits for it, where it is answered, or where several do.
    """
    asked = [one for run in _family(connection, key, run_id) for one in _asked_in(connection, run, now)]
    here = [one for one in asked if one.name == name and task in (None, one.task) and element in (None, one.element)]
    waiting = [one for one in here if one.standing == "open"]
    if len(waiting) > 1:
        places = [f"task {place_name(one.task, one.element)} of run {one.run.id!r}" for one in waiting]
        more = f" and {len(places) - _NAMED:,} more" if len(places) > _NAMED else ""
        raise ValueError(
            f"several in run {run_id!r} wait for {name!r}: {', '.join(places[:_NAMED])}{more}; say which by task and "
            "element"
        )
    if not waiting:
        place = "" if task is None else f" in task {place_name(task, WHOLE if element is None else element)}"
        raise ValueError(f"run {run_id!r} {_why_not(name, here)}{place}{_instead(asked)}")
    answered = update(waits).where(*waiting[0].place, waits.c.state == "waiting").values(state="answered", value=value)
    if connection.execute(answered).rowcount != 1:
        raise ValueError(f"run {run_id!r} has just been given {name!r} by somebody else")


def _asked_in(connection: Connection, run: _Run, now: float) -> list[_Asked]:
    c = waits.c
    query = select(c.task, c.element, c.name, c.state, c.due, c.value.is_not(None).label("given"))
    found: list[_Asked] = []
    for row in connection.execute(query.where(c.run == run.key, c.kind == "answer").order_by(c.task, c.element)):
        is_open = row.state == "waiting" and (row.due is None or row.due > now) and run.status != "completed"
        standing: Literal["open", "answered", "late"] = "open" if is_open else "answered" if row.given else "late"
        found.append(_Asked(run, row.task, row.element, row.name, standing))
    return found


def _why_not(name: str, here: Sequence[_Asked]) -> str:
    standings = {one.standing for one in here}
    if "answered" in standings:
        return f"has been given {name!r} already"
    if here:
        return f"waits for {name!r} no longer: its time is up, or the run has ended"
    return f"does not wait for {name!r}"


def _instead(asked: Sequence[_Asked]) -> str:
    """Return the end of an error message that names the waits that still have no answer."""
    names = [f"{one.name!r} in task {place_name(one.task, one.element)}" for one in asked if one.standing == "open"]
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"; it waits for {', '.join(names[:_NAMED])}{more}" if names else ""
