"""How far runs have come: what each says of itself once a second or, after a crash, what is recorded of it."""

from typing import Final

from sqlalchemy import Connection, and_, func, select, type_coerce
from sqlalchemy.types import NullType

from procession._model.progress import Progress
from procession._model.record import WHOLE
from procession._plan.fingerprint import Fingerprint
from procession.journal.checked import RunRow
from procession.journal.latest import Latest
from procession.journal.schema import definitions, is_failed, records

_KEEP = 1_000


class Counts:
    """How far the runs of a journal have come. What was counted is kept, since nothing is added to it."""

    def __init__(self) -> None:
        self._kept: Final = Latest[tuple[int, int], Progress](_KEEP)

    def progress(self, connection: Connection, row: RunRow, *, alive: bool) -> Progress | None:
        """Return how far the run of a row of `runs` has come, `None` if nobody knows.

        `ValueError` if it has to be counted, and the definition is none.
        """
        told = row.progress
        if alive or row.status != "running":
            return told
        which = (row.key, row.executions)
        found = self._kept.get(which)
        if found is None:
            found = _recorded(connection, row.key)
            self._kept.put(which, found)
        return found if told is None else found._replace(total=max(found.total, told.total))


def definition_of(connection: Connection, key: int) -> Fingerprint:
    """Return what the process of a run was; `ValueError` if that is not to be read."""
    column = type_coerce(definitions.c.fingerprint, NullType())
    written = connection.execute(select(column).where(definitions.c.run == key)).scalar()
    if not isinstance(written, bytes):
        raise ValueError("not the fingerprint of a process: there is none")  # noqa: TRY004  # as of bytes that are none
    return Fingerprint.from_bytes(written)


def _recorded(connection: Connection, key: int) -> Progress:
    """Return what is recorded of a run, of which there may be more; a map counts as its elements, if it has any.

    Takes 20 to 40 ms for 100,000 calls.
    """
    c = records.c
    of_run, element = c.run == key, c.element != WHOLE
    tasks = definition_of(connection, key).tasks
    calls = connection.execute(select(func.count()).where(of_run)).scalar_one()
    failed = connection.execute(select(func.count()).where(of_run, is_failed())).scalar_one()
    bad = func.count().filter(is_failed())
    maps = select(c.task, func.count().label("size"), bad.label("failed")).where(of_run, element).group_by(c.task)
    sizes = maps.subquery()
    whole = and_(of_run, c.task == sizes.c.task, c.element == WHOLE)
    query = select(sizes.c.size, sizes.c.failed, c.state).select_from(sizes.outerjoin(records, whole))
    for size, failures, state in connection.execute(query):
        tasks += size - 1
        calls -= state is not None
        failed -= state == "failed" and failures > 0
    return Progress(calls, failed, tasks)
