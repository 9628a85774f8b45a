"""The last runs of each process, as short as a picture of them needs: how each ended, and how long it took."""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Select, case, select, type_coerce
from sqlalchemy.types import NullType

from procession.journal.checked import NAME_LIMIT, Checked, Status, bounded
from procession.journal.lease import is_held
from procession.journal.schema import ID_LIMIT, TOP, runs

LOOKED_AT: Final = 1_000
"""Runs of a journal that are looked at, the newest ones: what it takes does not grow with the journal."""


class LastRun(NamedTuple):
    """One of the last runs of a process. Times are in seconds since the epoch, UTC."""

    key: int
    id: str
    status: Status
    started_at: float
    ended_at: float | None


def last_runs_query(process: str | None) -> Select[Any]:
    """Return the query whose rows `last_runs` takes: of all processes, or of one."""
    c = runs.c
    # The lease is read where it says how a run stands: its text is long.
    holder = case((c.status == "running", bounded(c.holder, NAME_LIMIT)))
    plain: list[ColumnElement[Any]] = [
        type_coerce(column, NullType()) for column in (c.key, c.started_at, c.ended_at, c.held_until)
    ]
    texts = [bounded(c.id, ID_LIMIT), bounded(c.process, NAME_LIMIT), bounded(c.status, NAME_LIMIT), c.token, holder]
    query = select(*plain, *texts).where(c.parent + 0 == TOP)
    if process is not None:
        query = query.where(c.process == process)
    return query.order_by(c.key.desc()).limit(LOOKED_AT)


def last_runs(rows: Iterable[Sequence[Any]], now: float, most: int) -> dict[str, list[LastRun]]:
    """Return the last runs of each process, at most so many, the newest first; the process that ran last first."""
    found: dict[str, list[LastRun]] = {}
    check = Checked()
    for key, started_at, ended_at, held_until, run_id, process, status, token, holder in rows:
        mine = found.setdefault(check.text("process", process), [])
        if len(mine) == most:
            continue
        stands = check.status(status)
        if stands == "running":
            lease = None if token is None else check.holder(holder)
            until = 0.0 if held_until is None else check.number("held_until", held_until)
            if not is_held(lease, token if isinstance(token, str) else None, until, now):
                stands = "interrupted"
        ended = None if ended_at is None else check.number("ended_at", ended_at)
        began = check.number("started_at", started_at)
        mine.append(LastRun(check.count("key", key), check.text("id", run_id), stands, began, ended))
    return found
