"""What earlier executions of a run have recorded, as values again: for the execution that goes on with it."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

from sqlalchemy import bindparam, func, literal_column, select

from procession._model.record import WHOLE, Recorded
from procession._plan.shape import Shape
from procession.errors import ResultError
from procession.journal.codec import Codec, decoded
from procession.journal.held import Held
from procession.journal.prepared import Prepared
from procession.journal.schema import calls, records, waits
from procession.journal.statements import FORGET

_c = records.c
_RECORDED = select(_c.value, _c.attempts, _c.duration, _c.worker, _c.digest, _c.task, _c.element, _c.name).where(
    _c.run == bindparam("run"), _c.state == literal_column("'completed'")
)
_TASKS = Prepared(
    _RECORDED.add_columns(_c.task.label("place")).where(_c.element == literal_column(str(WHOLE))).order_by(_c.task)
)
_ELEMENTS = Prepared(
    _RECORDED.add_columns(_c.element.label("place"))
    .where(_c.task == bindparam("task"), _c.element != literal_column(str(WHOLE)))
    .order_by(_c.element)
)


_SOME_ELEMENTS = Prepared(
    _RECORDED.add_columns(_c.element.label("place"))
    .where(_c.task == bindparam("task"), _c.element >= bindparam("start"), _c.element < bindparam("stop"))
    .order_by(_c.element)
)


class Replay:
    """The records of one run that an execution finds when it begins.

    Where changes are allowed, values that cannot be read back are forgotten, and raise `ResultError` elsewhere.
    """

    def __init__(
        self, held: Held, key: int, run_id: str, *, codec: Codec, shape: Shape | None, first: bool, allow_changes: bool
    ) -> None:
        self._held: Final = held
        self._key: Final = key
        self._run_id: Final = run_id
        self._codec: Final = codec
        self._shape: Final = shape
        self._first: Final = first
        self._allow_changes: Final = allow_changes
        self._recorded: dict[int, Recorded] | None = None

    @property
    def recorded(self) -> Mapping[int, Recorded]:
        """The tasks that succeeded, by their place; a task whose value was forgotten is not among them."""
        if self._recorded is None:
            self._recorded, unreadable = self._read(_TASKS)
            if self._allow_changes:
                self._forget_unreadable(self._recorded, unreadable)
        return self._recorded

    def elements(self, index: int, places: range | None = None) -> dict[int, Recorded]:
        """Return the elements of a map that succeeded, by their place, without those that cannot be read back.

        Of all, or only of those `places`, among which may be some of this execution.
        """
        if places is None:
            return self._elements(index)[0]
        return self._read(_SOME_ELEMENTS, task=index, start=places.start, stop=places.stop)[0]

    def last_element(self, index: int) -> int:
        """Return the place of the last element of a map that is recorded, -1 if there is none."""
        if self._first:
            return WHOLE
        query = select(func.max(records.c.element)).where(records.c.run == self._key, records.c.task == index)

        def read(_again: bool) -> int:
            with self._held.channel.open() as connection:
                last: int | None = connection.execute(query).scalar_one()
            return WHOLE if last is None else last

        return self._held.persist(read)

    def digests_inside(self, index: int) -> dict[int, bytes]:
        """Return the digests of a map's elements that have made calls or waited, by their places."""
        found: dict[int, bytes] = {}
        if self._first:
            return found

        def read(_again: bool) -> None:
            with self._held.channel.open() as connection:
                for table in calls, waits:
                    c = table.c
                    query = select(c.element, c.element_digest).distinct()
                    here = c.run == self._key, c.task == index, c.element_digest.is_not(None)
                    found.update((element, digest) for element, digest in connection.execute(query.where(*here)))

        self._held.persist(read)
        return found

    def extent(self, index: int) -> tuple[int, int]:
        """Return how many elements of a map are recorded as completed, and the place after the last of them."""
        if self._first:
            return 0, 0
        c = records.c
        query = select(func.count(), func.max(c.element)).where(
            c.run == self._key, c.task == index, c.element != WHOLE, c.state == "completed"
        )

        def read(_again: bool) -> tuple[int, int]:
            with self._held.channel.open() as connection:
                count, last = connection.execute(query).one()
            return count, 0 if last is None else last + 1

        return self._held.persist(read)

    def read_anew(self) -> None:
        """Read the records again when they are next asked for: some were deleted."""
        self._recorded = None

    def leave_out(self, tasks: AbstractSet[int]) -> None:
        """Leave out tasks whose records were deleted, without reading the others again."""
        self._recorded = {task: one for task, one in self.recorded.items() if task not in tasks}

    def _elements(self, index: int) -> tuple[dict[int, Recorded], list[int]]:
        return self._read(_ELEMENTS, task=index)

    def _read(self, query: Prepared, **where: int) -> tuple[dict[int, Recorded], list[int]]:
        """Return the records by place, and the places whose values cannot be read back."""

        def read(_again: bool) -> Sequence[Any]:
            with self._held.channel.open() as connection:
                found: Sequence[Any] = query.execute(connection, run=self._key, **where).fetchall()
            return found

        rows = self._held.persist(read)
        found: dict[int, Recorded] = {}
        unreadable: list[int] = []
        for data, attempts, duration, worker, element_digest, task, element, name, at in rows:
            try:
                value = None if data is None else self._decoded(data, task, element, name)
            except ResultError:
                if not self._allow_changes:
                    raise
                unreadable.append(at)
            else:
                found[at] = Recorded(value, attempts, duration, worker, element_digest)
        return found, unreadable

    def _decoded(self, data: bytes, task: int, element: int, name: str) -> object:
        place = "" if element == WHOLE else f", element {element}"
        return decoded(self._codec, data, f"run {self._run_id!r}, task {task} ({name}){place}")

    def _forget_unreadable(self, recorded: dict[int, Recorded], tasks: list[int]) -> None:
        """Forget the tasks whose values cannot be read back, and those that follow from them: they are called again.

        A map keeps those of its elements that can be read: as it draws them, it compares their digests.
        """
        gone = {(task, WHOLE) for task in tasks}
        maps = select(records.c.task).where(records.c.run == self._key, records.c.element != WHOLE).distinct()

        def read(_again: bool) -> set[int]:
            with self._held.channel.open() as connection:
                return set(connection.execute(maps).scalars())

        mapped = recorded.keys() & self._held.persist(read)
        for task in mapped:
            elements = self._elements(task)[1]
            if elements:
                gone |= {(task, element) for element in (WHOLE, *elements)}
        if not gone:
            return
        again = {task for task, _ in gone}
        if self._shape is not None:
            again = self._shape.following(again)
        gone |= {(task, WHOLE) for task in again}

        def delete_them(_again: bool) -> None:
            with self._held.channel.transaction() as connection:
                self._held.check(connection)
                connection.execute(FORGET, [{"of": self._key, "at": task, "on": element} for task, element in gone])

        self._held.persist(delete_them)
        for task in again:
            recorded.pop(task, None)
