"""The statements that write records, and forget them. A record is inserted only while the lease is still the run's."""

from collections.abc import Sequence
from functools import cache
from typing import Final

from sqlalchemy import Table, bindparam, delete, insert, select

from procession._model.record import Record
from procession.journal.schema import records, runs

COLUMNS: Final = ("run", *("task" if field == "index" else field for field in Record._fields))
"""The columns of a record, in the order of its fields: the index of a task is the column `task`."""
SHORT: Final = COLUMNS[:-1]
"""Without the log, which most have none of: what is not bound costs nothing."""
DIRECT: Final = {"sqlite": ("?", ""), "postgresql": ("%s", " FOR SHARE OF held")}
"""The databases whose driver is used directly: how it marks a parameter, and how a row is shared."""

ROWS = 100
"""Rows of one statement, at most."""

FORGET = delete(records).where(
    records.c.run == bindparam("of"), records.c.task == bindparam("at"), records.c.element == bindparam("on")
)

# Nothing is inserted unless the lease is still ours; FOR SHARE makes a process that takes it over wait for our commit.
INSERT = (
    insert(records)
    .from_select(
        list(COLUMNS),
        select(*(bindparam(name, type_=records.c[name].type) for name in COLUMNS))
        .select_from(runs)
        .where(runs.c.key == bindparam("held_key"), runs.c.token == bindparam("held_token"))
        .with_for_update(read=True),
    )
    .execution_options(preserve_rowcount=True)
)


@cache
def insertion(columns: Sequence[str], count: int, backend: str, synchronous_commit: str, table: Table = records) -> str:
    """Return `INSERT` for several rows, as a driver of `DIRECT` takes it."""
    mark, share = DIRECT[backend]
    setting = ""
    slots = ", ".join([mark] * len(columns))
    if backend == "postgresql":
        from sqlalchemy.dialects.postgresql import dialect  # takes long to import, and SQLite has no need of it

        compiler = dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy has no types for it
        # For this transaction only, which is this statement, unless there is one around it.
        setting = f", (SELECT set_config('synchronous_commit', '{synchronous_commit}', true)) AS setting"
        slots = ", ".join(f"{mark}::{table.c[name].type.compile(compiler)}" for name in columns)
    given = slots
    source = ""
    if count > 1:  # for a single row, SQLite takes a third more time like that
        given = "given.*"
        source = f"(VALUES {', '.join([f'({slots})'] * count)}) AS given, "
    return (
        f"INSERT INTO {table.name} ({', '.join(columns)}) "  # noqa: S608  # no word of it is a user's
        f"SELECT {given} FROM {source}{runs.name} AS held{setting} "
        f"WHERE held.key = {mark} AND held.token = {mark}{share}"
    )
