"""For tests: what the journal of a run says of it between its executions, and the answers that its tasks wait for.

Values in it are read with pickle, as the journals that are made for tests are recorded.
"""

import pickle
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple, cast

from sqlalchemy import Connection, or_, select, update

from procession._model.outcome import NotKept
from procession._model.record import WHOLE
from procession._model.text import shown
from procession.journal import Journal, schema

_OVER: Final = 0.0
"""When a wait was over whose time was let pass."""


class Place(NamedTuple):
    """A call of a run: of a task, an element of a map, or one that a task makes itself; `WHOLE` for what it is not."""

    run: str
    task: int
    element: int = WHOLE
    call: int = WHOLE

    @property
    def _order(self) -> tuple[int, ...]:
        """What sorts calls so that those come first that others may have their values from."""
        nested = self.run.split("/")[1:]
        top = int(nested[0].partition("#")[0].partition(".")[0]) if nested else self.task
        return top, -len(nested), self.task, self.element == WHOLE, self.element, self.call == WHOLE, self.call

    def described(self, name: str) -> str:
        """Return the call in words; `name` is that of the function."""
        task = f"task {self.task}" if self.element == WHOLE else f"element {self.element} of task {self.task}"
        task += "" if "/" not in self.run else f" of the nested run {self.run.partition('/')[2]}"
        return f"{task} ({shown(name)})" if self.call == WHOLE else f"call {self.call} ({shown(name)}) of {task}"


class Wait(NamedTuple):
    """What a task waits for, or has waited for."""

    run: str
    task: int
    element: int
    kind: str
    name: str


class Evidence:
    """The calls of a run, and of those nested in it, that its journal has recorded as completed, with their values."""

    def __init__(self, journal: Journal) -> None:
        with journal.database.reading() as connection:
            self._records = {place: (name, value) for place, name, value in _completed(connection)}

    @property
    def recorded(self) -> set[Place]:
        """The calls that are recorded as completed."""
        return set(self._records)

    def difference(self, other: "Evidence") -> str | None:
        """Return the first call, in words, of which another value is recorded in the other run."""
        common = self._records.keys() & other._records.keys()
        for place in sorted(common, key=lambda place: place._order):
            name, value = self._records[place]
            if not _is_same(value, other._records[place][1]):
                return place.described(name)
        return None


def follows_from_failures(journal: Journal, run_id: str) -> set[tuple[str, int]]:
    """Return the tasks, each by its run and place, that are called again as something that they took has failed."""
    return {(one.run, one.task) for one in journal.rerun(run_id, failed=True, dry_run=True)}


def let_go_on(journal: Journal, answers: Mapping[str, bytes]) -> set[Wait]:
    """Answer what tasks wait for, and let the time of all else pass; return what they waited for.

    Raises `ValueError` for what no answer is given to and that is waited for without end.
    """
    w = schema.waits.c
    with journal.database.writing() as connection:
        ids = _ids(connection)
        waiting = connection.execute(
            select(w.run, w.task, w.element, w.kind, w.name, w.due).where(
                w.state == "waiting", or_(w.due.is_(None), w.due > _OVER)
            )
        ).all()
        for run, task, element, kind, name, due in waiting:
            here = w.run == run, w.task == task, w.element == element, w.kind == kind, w.name == name
            if kind == "answer" and name in answers:
                values: dict[str, Any] = {"state": "answered", "value": answers[name]}
            elif due is not None:
                values = {"due": _OVER}
            else:
                raise ValueError(
                    f"task {task} waits for {shown(name)!r}, and no answer of that name is given: "
                    f"answers={{{shown(name)!r}: ...}}"
                )
            connection.execute(update(schema.waits).where(*here).values(**values))
    return {Wait(ids[run], task, element, kind, name) for run, task, element, kind, name, _ in waiting}


def are_alike(one: object, other: object) -> bool:
    """Return whether results are equal, or failed alike: exceptions are by type and message."""
    if isinstance(one, BaseException):
        return type(one) is type(other) and str(one) == str(other)
    if isinstance(one, list) and isinstance(other, list):
        these, others = cast("list[object]", one), cast("list[object]", other)
        return len(these) == len(others) and all(map(are_alike, these, others))
    return bool(one == other)


def differing(one: Iterable[object], other: Iterable[object], cancelled: set[int]) -> list[int]:
    """Return the places at which results differ. How much there was of a map that was cancelled is left to chance."""
    return [
        place
        for place, (this, that) in enumerate(zip(one, other, strict=True))
        if not are_alike(this, that)
        and not (place in cancelled and isinstance(this, NotKept) and isinstance(that, NotKept))
    ]


def _completed(connection: Connection) -> Iterator[tuple[Place, str, bytes | None]]:
    """Yield all calls that are recorded as completed, each with its name and value."""
    ids = _ids(connection)
    r, c = schema.records.c, schema.calls.c
    for run, task, element, name, value in connection.execute(
        select(r.run, r.task, r.element, r.name, r.value).where(r.state == "completed")
    ):
        yield Place(ids[run], task, element), name, value
    for run, task, element, call, name, value in connection.execute(
        select(c.run, c.task, c.element, c.call, c.name, c.value).where(c.state == "completed")
    ):
        yield Place(ids[run], task, element, call), name, value


def _ids(connection: Connection) -> dict[int, str]:
    """Return the ids of all runs, by their keys; of a nested run, with that of the run around it."""
    c, ids = schema.runs.c, dict[int, str]()
    # A run has a higher key than the one it is nested in.
    for key, parent, place in connection.execute(select(c.key, c.parent, c.id).order_by(c.key)):
        ids[key] = f"{ids[parent]}/{place}" if parent in ids else place
    return ids


def _is_same(one: bytes | None, other: bytes | None) -> bool:
    """Return whether recorded values are equal, as far as can be told."""
    if one == other or one is None or other is None:
        return one == other
    try:  # other bytes may still be of the same value
        return are_alike(pickle.loads(one), pickle.loads(other))  # noqa: S301  # of a journal that was just made here
    except Exception:
        return False
