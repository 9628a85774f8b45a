"""Forgetting a part of a recorded run, so that it is called again: some tasks or elements, and what follows from them.

First it is marked, so that people can be told; then its records, recorded calls and nested runs are deleted. Nested
runs may be marked in part: of a process as a task that failed, what has failed in it is called again, and not all.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, select, update

from procession._model.progress import Progress, Snapshot
from procession._model.record import WHOLE, place_name
from procession._model.text import counted, shown, sketch
from procession._plan.fingerprint import Fingerprint
from procession._plan.rerun import Part, Reason, Rerun
from procession._plan.shape import Shape
from procession.errors import JournalError
from procession.journal.beginning import read_shared
from procession.journal.checked import RunRow
from procession.journal.counts import count_progress
from procession.journal.heartbeat import text_of
from procession.journal.reader import Reader
from procession.journal.removal import forget, nested_in, remove
from procession.journal.schema import calls, definitions, is_failed, records, runs, waits
from procession.journal.statements import FORGET

_MAP_OF: Final = "map of "
_MANY: Final = 10
"""Tasks that an error names, at most."""

Place = tuple[int, int]
"""A task, and an element of it or `WHOLE`."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """A task, or one element of a map, that is called again when its run is next executed."""

    run: str
    """The id of its run; of a run nested in another one, `run/task` or `run/task.element`."""
    task: int
    """The place of the task in its process; 0 is the first."""
    element: int | None
    """The place of the element in its map; `None` for the task itself."""
    name: str
    reason: Reason
    """Why: it was `"named"`; it `"failed"`; it `"takes"` a value of what is called again; it comes after that
    `"in order"`, and takes no value of any task; or it `"shares"` an object with it, which tasks have changed."""


REASONS: Final[dict[Reason, str]] = {
    "named": "named",
    "failed": "failed",
    "takes": "takes a value of these",
    "in order": "comes later, and takes no value",
    "shares": "shares an object with these, which was changed",
}
"""Each reason in words for people."""


def place_in(run_id: str, one: Forgotten) -> str:
    """Return the place as `procession show` names it; of a nested run, with that run's place before it."""
    nested = one.run.removeprefix(run_id).removeprefix("/")
    place = place_name(one.task, WHOLE if one.element is None else one.element)
    return f"{nested}/{place}" if nested else place


def name_of(one: Forgotten) -> str:
    """Return the name as people are told it."""
    return one.name if one.element is None else f"{one.name}, element {one.element}"


@dataclass
class Marked:
    """What of a run is to be called again."""

    key: int
    run_id: str
    total: int
    definition: Fingerprint
    shape: Shape
    rerun: Rerun
    inside: frozenset[Place]
    """Where calls are recorded, or runs are nested."""
    nested: dict[Place, "Marked"] = field(default_factory=dict[Place, "Marked"])
    """The nested runs of which only a part is to be called again."""

    def entered(self) -> dict[Place, "Marked"]:
        """Return the nested runs of which only a part is to be called again, though other tasks may follow from it."""
        parts = self.rerun.parts
        return {place: marked for place, marked in self.nested.items() if parts.get(place[0]) is not None}


def marked_of(
    reader: Reader,
    connection: Connection,
    row: RunRow,
    tasks: Iterable[int | str],
    elements: Iterable[tuple[int | str, int]],
    *,
    failed: bool,
) -> Marked:
    """Return the tasks and elements to call again. Raises `ValueError` for one that the run does not have."""
    total = 0 if row.progress is None else row.progress.total
    marked = _unmarked(reader, connection, row.key, row.id, total)
    where = f"run {shown(row.id)!r} of process {shown(row.process)!r}"
    for task in tasks:
        marked.rerun.add(_place(marked.definition, task, where), None, "named")
    for task, element in elements:
        place = _place(marked.definition, task, where)
        _check_element(connection, marked, place, element, where)
        marked.rerun.add(place, frozenset([element]), "named")
    if failed:
        _mark_failed(reader, connection, marked)
    marked.rerun.follow()
    return marked


def forgotten_of(connection: Connection, marked: Marked) -> Iterator[Forgotten]:
    """Yield what of it is recorded, by place: all else is called in any case."""
    rerun, nested = marked.rerun, marked.entered()
    recorded = _recorded_tasks(connection, marked)
    for task, part in sorted(rerun.parts.items()):
        name, reason = marked.definition.called(task), rerun.reasons[task]
        if part is None:
            if task in recorded:
                yield Forgotten(marked.run_id, task, None, name, reason)
            continue
        for element in sorted(part & _recorded_elements(connection, marked, task)):
            if (task, element) not in nested:
                yield Forgotten(marked.run_id, task, element, name.removeprefix(_MAP_OF), reason)
        for place in sorted(place for place in nested if place[0] == task):
            yield from forgotten_of(connection, nested[place])


def delete_marked(connection: Connection, marked: Marked) -> None:
    """Delete what is recorded of it. The run, and the nested ones that are gone on with, are not complete any more."""
    key, parts, entered = marked.key, marked.rerun.parts, marked.entered()
    forget(connection, key, {task for task, part in parts.items() if part is None})
    broken = {(task, WHOLE) for task, part in parts.items() if part is not None}
    again = {(task, element) for task, part in parts.items() for element in part or ()}
    _delete_each(connection, FORGET, key, broken | again)
    for table in calls, waits:
        of_elements = delete(table).where(
            table.c.run == bindparam("of"), table.c.task == bindparam("at"), table.c.element == bindparam("on")
        )
        _delete_each(connection, of_elements, key, again)
    for child, (task, element, _) in nested_in(connection, key):
        if (task, element) in again and (task, element) not in entered:
            remove(connection, child)
    for nested in entered.values():
        delete_marked(connection, nested)
    counts = count_progress(connection, key, marked.definition.tasks)
    progress = Progress(counts.ended, counts.failed, max(counts.total, marked.total))
    # Shown as interrupted: somebody has to go on with it.
    values = {"status": "running", "error": None, "progress": text_of(Snapshot(progress, []))}
    connection.execute(update(runs).where(runs.c.key == key).values(**values))


def _delete_each(connection: Connection, statement: Any, key: int, places: Collection[Place]) -> None:
    if places:
        connection.execute(statement, [{"of": key, "at": task, "on": element} for task, element in places])


# What is to be called again


def _unmarked(reader: Reader, connection: Connection, key: int, run_id: str, total: int = 0) -> Marked:
    shape = reader.shape(key)
    if shape is None:
        raise JournalError(
            f"run {shown(run_id)!r} was recorded by a version that did not keep which tasks take the values of which: "
            "execute it once with this version, and then have parts of it called again"
        )
    query = select(definitions.c.shared).where(definitions.c.run == key)
    shared = [one.tasks for one in read_shared(connection.execute(query).scalar_one())]
    made = select(calls.c.task, calls.c.element).where(calls.c.run == key).distinct()
    inside = {(task, element) for task, element in connection.execute(made)}
    inside |= {(task, element) for _, (task, element, _) in nested_in(connection, key)}
    return Marked(key, run_id, total, reader.definition(key), shape, Rerun(shape, shared), frozenset(inside))


def _mark_failed(reader: Reader, connection: Connection, marked: Marked) -> None:
    """Mark what has failed. Of a process as a task that is what has failed in its run, not that run as a whole."""
    query = select(records.c.task, records.c.element).where(records.c.run == marked.key, is_failed())
    failed = {(task, element) for task, element in connection.execute(query)}
    for child, (task, element, call) in nested_in(connection, marked.key):
        if call == WHOLE:
            nested = _unmarked(reader, connection, child, f"{marked.run_id}/{place_name(task, element)}")
            _mark_failed(reader, connection, nested)
            nested.rerun.follow()
            if nested.rerun.parts or (task, element) in failed:
                marked.nested[task, element] = nested
    for task, element in failed | marked.nested.keys():
        is_part = marked.shape.kinds.get(task) == "map" or (task, element) in marked.nested
        marked.rerun.add(task, _only(element) if is_part else None, "failed")


def _only(element: int) -> Part:
    return frozenset() if element == WHOLE else frozenset([element])


def _place(definition: Fingerprint, task: int | str, where: str) -> int:
    """Return the place of a task that is named by its place, or by its name."""
    if type(task) is int:
        if 0 <= task < definition.tasks:
            return task
        last = f", from 0 to {definition.tasks - 1}" if definition.tasks else ""
        raise ValueError(f"{where} has no task {task}: it has {counted(definition.tasks, 'task')}{last}")
    if not isinstance(task, str):
        raise TypeError(f"{where}: a task is named by its place, or by its name; got {sketch(task)}")
    names = [definition.called(place) for place in range(definition.tasks)]
    found = [place for place, name in enumerate(names) if task in (name, name.removeprefix(_MAP_OF))]
    if len(found) == 1:
        return found[0]
    if found:
        places = ", ".join(map(str, found[:_MANY])) + (" and more" if len(found) > _MANY else "")
        raise ValueError(f"{where} has several tasks {shown(task)!r}: name one of them by its place, {places}")
    known = list(dict.fromkeys(shown(name) for name in names))
    more = " and more" if len(known) > _MANY else ""
    raise ValueError(f"{where} has no task {shown(task)!r}; there are {', '.join(known[:_MANY]) or 'none'}{more}")


def _check_element(connection: Connection, marked: Marked, task: int, element: int, where: str) -> None:
    name = f"task {task} ({shown(marked.definition.called(task))})"
    if type(element) is not int:
        raise TypeError(f"{where}: an element of {name} is named by its place, an int; got {sketch(element)}")
    if marked.shape.kinds.get(task) != "map":
        raise ValueError(f"{where}: {name} is no map, and has no elements")
    elements = _recorded_elements(connection, marked, task)
    if element not in elements:
        last = f"; the last one that is recorded is {max(elements)}" if elements else ""
        raise ValueError(f"{where}: element {element} of {name} is not recorded{last}")


# What is recorded


def _recorded_tasks(connection: Connection, marked: Marked) -> set[int]:
    """Return the tasks of which anything is recorded: they have ended, or a part of them has."""
    query = select(records.c.task).where(records.c.run == marked.key).distinct()
    return {*connection.execute(query).scalars(), *(task for task, _ in marked.inside)}


def _recorded_elements(connection: Connection, marked: Marked, task: int) -> set[int]:
    c = records.c
    query = select(c.element).where(c.run == marked.key, c.task == task)
    found = {*connection.execute(query).scalars(), *(element for at, element in marked.inside if at == task)}
    return found - {WHOLE}
