"""How far runs have come: what each says of itself while it goes on, and what is recorded of it.

A run says how far it is once a second, and counts the elements only of those maps that it calls itself. So after a
crash, and of a run that was executed more than once, the records are counted, too.
"""

import json
import threading
from collections import OrderedDict
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Row, and_, case, func, select

from procession._model.progress import Progress
from procession._model.record import WHOLE
from procession._plan.fingerprint import Fingerprint
from procession.journal.schema import TOP, definitions, is_failed, records

_KEEP = 10_000


class _Recorded(NamedTuple):
    """What is recorded of a run; a map counts as its elements, if it has any."""

    ended: int
    failed: int
    total: int
    """How many there are at least."""
    before: int
    """How many more elements there are than maps, of those that were complete before the run was gone on with."""


class Counts:
    """How far the runs of a journal have come. What was counted is kept as long as it cannot change."""

    def __init__(self) -> None:
        self._kept: Final[OrderedDict[tuple[object, ...], _Recorded]] = OrderedDict()
        self._lock = threading.Lock()

    def progress(self, connection: Connection, row: Row[Any], *, alive: bool) -> Progress | None:
        """Return how far the run of a row of `runs` has come, `None` if nobody knows.

        Counting takes time in proportion to the run, 20 to 40 ms for 100,000 calls, so it is done only where it says
        something.
        """
        written = json.loads(row.progress)
        told = Progress(written["ended"], written["failed"], written["total"]) if written else None
        interrupted = row.status == "running" and not alive
        if (row.executions == 1 and not interrupted) or (told is None and (alive or row.parent != TOP)):
            return told
        found = self._recorded(connection, row, alive=alive)
        if told is None:
            return Progress(found.ended, found.failed, found.total)
        if alive:
            return Progress(told.ended + found.before, told.failed, told.total + found.before)
        # A server's clock may differ from the runner's, and put maps before the run that were not.
        before = min(found.before, max(0, found.ended - told.ended))
        if not interrupted:
            return Progress(told.ended + before, told.failed, told.total + before)
        return Progress(found.ended, found.failed, max(told.total + before, found.total))

    def _recorded(self, connection: Connection, row: Row[Any], *, alive: bool) -> _Recorded:
        # Of a run that goes on only `before` is asked for, which is the same until it is begun again.
        which = (row.key, row.executions, *(() if alive else (row.status, row.progress)))
        with self._lock:
            found = self._kept.get(which)
        if found is None:
            found = _counted(connection, row.key, row.started_at if row.executions > 1 else 0.0)
            with self._lock:
                self._kept[which] = found
                while len(self._kept) > _KEEP:
                    self._kept.popitem(last=False)
        return found


def _counted(connection: Connection, key: int, begun: float) -> _Recorded:
    c = records.c
    of_run = c.run == key
    element = case((c.element == WHOLE, 0), else_=1)
    calls, elements = connection.execute(select(func.count(), func.sum(element)).where(of_run)).one()
    failed = connection.execute(select(func.count()).where(of_run, is_failed())).scalar_one()
    total = _tasks(connection, key)
    before = 0
    if elements:  # looking for maps takes longer than counting
        size = func.count().label("size")
        maps = select(c.task, size).where(of_run, c.element != WHOLE).group_by(c.task).subquery()
        whole = and_(of_run, c.task == maps.c.task, c.element == WHOLE)
        query = select(maps.c.size, c.state, c.started_at + c.duration).select_from(maps.outerjoin(records, whole))
        for count, state, end in connection.execute(query):
            total += count - 1
            calls -= state is not None
            if state == "completed" and end <= begun:
                before += count - 1
        failed -= _failed_maps(connection, key) if failed else 0
    return _Recorded(calls, failed, total, before)


def _failed_maps(connection: Connection, key: int) -> int:
    """Return how many maps have failed because elements of theirs have, and so count as those."""
    c, whole = records.c, records.alias()
    of_it = and_(whole.c.run == key, whole.c.task == c.task, whole.c.element == WHOLE, whole.c.state == "failed")
    query = select(func.count(func.distinct(c.task))).select_from(records.join(whole, of_it))
    return connection.execute(query.where(c.run == key, c.element != WHOLE, is_failed())).scalar_one()


def _tasks(connection: Connection, key: int) -> int:
    written = connection.execute(select(definitions.c.fingerprint).where(definitions.c.run == key)).scalar_one()
    return Fingerprint.from_bytes(written).tasks
