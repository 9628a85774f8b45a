"""The tables, and how older ones become them."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from sqlalchemy import (
    DDL,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Double,
    Identity,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    event,
    inspect,
    literal_column,
    select,
    text,
    type_coerce,
)
from sqlalchemy.types import NullType

from procession._model.text import shown, sketch
from procession.errors import JournalError
from procession.journal.prepared import Prepared

VERSION = 6

MIGRATIONS: Final[dict[int, tuple[str, ...]]] = {
    1: (
        # SQLite takes any word for a type, and keeps bytes as they are.
        "CREATE TABLE procession_definitions (run BIGINT PRIMARY KEY, fingerprint BYTEA NOT NULL, shape BYTEA)",
        'INSERT INTO procession_definitions (run, fingerprint) SELECT "key", fingerprint FROM procession_runs',
        "ALTER TABLE procession_runs DROP COLUMN fingerprint",
        "ALTER TABLE procession_records ADD COLUMN log TEXT",
    ),
    2: ("ALTER TABLE procession_definitions ADD COLUMN shared TEXT",),
    3: (
        """
        CREATE TABLE procession_calls (
            run BIGINT, task INTEGER, element BIGINT, call INTEGER, seen INTEGER NOT NULL, state VARCHAR(20) NOT NULL,
            name TEXT NOT NULL, digest BYTEA NOT NULL, value BYTEA, error TEXT, attempts INTEGER NOT NULL,
            started_at DOUBLE PRECISION NOT NULL, duration DOUBLE PRECISION NOT NULL, worker TEXT NOT NULL,
            PRIMARY KEY (run, task, element, call)
        )
        """,
    ),
    4: (
        """
        CREATE TABLE procession_waits (
            run BIGINT, task INTEGER, element BIGINT, kind VARCHAR(20), name VARCHAR(200), state VARCHAR(20) NOT NULL,
            created_at DOUBLE PRECISION NOT NULL, due DOUBLE PRECISION, value BYTEA,
            PRIMARY KEY (run, task, element, kind, name)
        )
        """,
    ),
    5: (
        "ALTER TABLE procession_calls ADD COLUMN element_digest BYTEA",
        "ALTER TABLE procession_waits ADD COLUMN element_digest BYTEA",
    ),
}
"""Statements that make the tables of a version those of the next one."""

_KEY = BigInteger().with_variant(Integer, "sqlite")  # only an INTEGER can number itself there

ID_LIMIT = 500
"""Characters of a run id, at most: what every database can index."""

WAIT_LIMIT: Final = 200
"""Characters of the name of what a task waits for, at most."""

TOP: Final = 0
"""The parent of a run that is not nested in another."""

LIMIT_TABLES: Final = ("procession_limits", "procession_limit_users", "procession_limit_starts")
"""Tables that may be in the same database: see `journal.limits`."""

metadata = MetaData()

schema = Table("procession_schema", metadata, Column("version", Integer, primary_key=True, autoincrement=False))

runs = Table(
    "procession_runs",
    metadata,
    # Never used again, so that what is left of a deleted run, if anything ever is, cannot become another one's.
    Column("key", _KEY, Identity(), primary_key=True),
    Column("parent", _KEY, nullable=False),  # TOP for a run that is not nested
    Column("id", String(ID_LIMIT), nullable=False),  # of a nested run: the task, and the element, that it is
    Column("process", Text, nullable=False),
    Column("codec", String(100), nullable=False),
    Column("status", String(20), nullable=False),
    Column("error", Text),
    Column("executions", Integer, nullable=False),
    Column("created_at", Double, nullable=False),  # all times: seconds since the epoch, UTC
    Column("started_at", Double, nullable=False),  # the last execution
    Column("ended_at", Double),
    Column("progress", Text, nullable=False),  # JSON: how far it has come, and what runs now
    Column("cancelling", Boolean, nullable=False),
    # The lease: which program executes the run, if any does.
    Column("token", String(32)),
    Column("holder", Text),  # JSON: see lease
    Column("held_since", Double),
    Column("held_until", Double),
    # What can be long stands last, so that reading the others does not read it.
    Column("origin", Text, nullable=False),  # JSON: how it was started
    UniqueConstraint("parent", "id"),
    sqlite_autoincrement=True,
)

# Apart from the run's row, which each heartbeat writes anew: of 100,000 tasks this takes 2 MB.
definitions = Table(
    "procession_definitions",
    metadata,
    Column("run", _KEY, primary_key=True, autoincrement=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("shape", LargeBinary),  # none of a run that was begun when none was kept
    Column("shared", Text),  # JSON: what several tasks take and have changed, if there is any
)

records = Table(
    "procession_records",
    metadata,
    Column("run", _KEY, primary_key=True),
    Column("task", Integer, primary_key=True),
    Column("element", BigInteger, primary_key=True),
    Column("state", String(20), nullable=False),
    Column("name", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("duration", Double, nullable=False),
    Column("worker", Text, nullable=False),
    Column("error", Text),
    Column("log", Text),
    Column("value", LargeBinary),
    # One tree instead of a table and its index: a commit writes one page less.
    sqlite_with_rowid=False,
)


# The calls that tasks made themselves and recorded one by one.
calls = Table(
    "procession_calls",
    metadata,
    Column("run", _KEY, primary_key=True),
    Column("task", Integer, primary_key=True),
    Column("element", BigInteger, primary_key=True),
    Column("call", Integer, primary_key=True),
    Column("seen", Integer, nullable=False),
    Column("state", String(20), nullable=False),
    Column("name", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("value", LargeBinary),
    Column("error", Text),
    Column("attempts", Integer, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("duration", Double, nullable=False),
    Column("worker", Text, nullable=False),
    Column("element_digest", LargeBinary),  # as in its record; none of a task, nor of what an older version wrote
    sqlite_with_rowid=False,
)

# What tasks wait for, or have waited for: answers and times.
waits = Table(
    "procession_waits",
    metadata,
    Column("run", _KEY, primary_key=True),
    Column("task", Integer, primary_key=True),
    Column("element", BigInteger, primary_key=True),
    Column("kind", String(20), primary_key=True),  # "answer" or "sleep"
    Column("name", String(WAIT_LIMIT), primary_key=True),  # of a sleep: its place among those of the task
    Column("state", String(20), nullable=False),  # "waiting", "answered", or "over" once the task knows
    Column("created_at", Double, nullable=False),
    Column("due", Double),  # until when
    Column("value", LargeBinary),
    Column("element_digest", LargeBinary),  # likewise
    sqlite_with_rowid=False,
)


def is_failed() -> ColumnElement[bool]:
    """Return the condition for records of failures, written so that a database can use its index for it."""
    return records.c.state == literal_column("'failed'")


# Few are; among 100,000 that are not, they took 50 ms to find.
# As text, since an `Index` that names PostgreSQL has its dialect imported, of which SQLite has no need.
event.listen(
    records,
    "after_create",
    DDL(  # type: ignore[no-untyped-call]
        f"CREATE INDEX procession_failed ON {records.name} (run, task, element) WHERE state = 'failed'"
    ),
)


def version_of(connection: Connection) -> int | None:
    """Return the version of the tables there are, `None` if there are none.

    Raises `JournalError` for those of a newer version, and for an SQLite file that is another program's: it may be
    shared in a database server, but not in a file that somebody has mistaken for a journal.
    """
    sqlite = connection.dialect.name == "sqlite"
    found = [_Found(*row) for row in _FOUND.execute(connection)] if sqlite else []
    names = [one.name for one in found if one.kind == "table"] if sqlite else inspect(connection).get_table_names()
    tables = [name for name in names if name not in LIMIT_TABLES]
    if schema.name not in tables:
        if tables and sqlite:
            raise JournalError(f"this is another program's database: it has the table {tables[0]!r} and is no journal")
        return None
    _check_plain(found)
    rows = _VERSION.execute(connection).fetchall()
    version: object = rows[0][0] if len(rows) == 1 else None
    if not isinstance(version, int) or version < 1:
        raise JournalError(f"the journal is damaged: the version of its tables is {sketch(version)}")
    if version > VERSION:
        raise JournalError(
            f"the journal was written by a newer version of Procession (its tables are of version {version}, and this "
            f"one knows those up to {VERSION}): upgrade this one"
        )
    return version


_OURS = tuple(table.name for table in metadata.sorted_tables)

_VERSION = Prepared(select(type_coerce(schema.c.version, NullType())))

# All in one statement, as it is asked at each opening of a file.
_FOUND = Prepared(
    text(f"""
        SELECT type, lower(name), lower(tbl_name), rootpage, type = 'table' AND rootpage > 0 AND lower(name) IN {_OURS}
            AND EXISTS (SELECT 1 FROM pragma_table_xinfo(m.name) WHERE hidden)
        FROM sqlite_master AS m WHERE name NOT LIKE 'sqlite~_%' ESCAPE '~'
    """)  # noqa: S608  # no word of it is a user's
)


class _Found(NamedTuple):
    """A table, index, view or trigger of an SQLite file."""

    kind: str
    name: str
    table: str
    page: int
    is_computed: int
    """Whether it is a table of ours, with a column that is computed."""


def _check_plain(found: Sequence[_Found]) -> None:
    """Raise `JournalError` unless tables of our names are plain: a view may never end, and triggers do anything."""
    for kind, name, table, page, is_computed in found:
        if (name in _OURS and (kind != "table" or not page)) or (kind == "trigger" and table in _OURS):
            raise JournalError(
                f"the journal is damaged, or was made by somebody else: {shown(str(name))!r} is a {kind}"
            )
        if is_computed:
            raise JournalError(
                f"the journal is damaged, or was made by somebody else: {name!r} has a column that is computed"
            )


def check_owner(connection: Connection, *, looking: bool) -> None:
    """Raise `JournalError` if the tables on a PostgreSQL server are such that another role could have its code run.

    Values in them can run code when they are read, and what belongs to a table can when it is changed: triggers, rules,
    policies. So tables are used that belong to this role, or to a superuser, who has the server anyway. A connection
    that is only `looking` reads no values; for it, plain tables will do, no matter who owns them.
    """
    names = [table.name for table in metadata.sorted_tables]
    for row in connection.execute(_OWNERS, {"names": names}):
        if row.ours or (looking and row.plain):
            continue
        raise JournalError(
            f"its table {row.relname!r} belongs to the role {row.owner!r} and not to {row.me!r}, and values in it can "
            f"run code when they are read: connect as {row.owner!r}, or keep the journal in a schema of your own"
        )


_OWNERS = text("""
    SELECT c.relname, r.rolname AS owner, current_user AS me, r.rolsuper OR r.rolname = current_user AS ours,
        c.relkind = 'r' AND NOT (c.relhasrules OR c.relhastriggers OR c.relrowsecurity) AS plain
    FROM unnest(CAST(:names AS text[])) AS name
    JOIN pg_class AS c ON c.oid = to_regclass(name)
    JOIN pg_roles AS r ON r.oid = c.relowner
""")


def create(connection: Connection) -> None:
    """Make the tables what this version needs, inside a transaction.

    Where several make them at the same time, a server lets one do so and fails the others once that has ended.
    """
    version = version_of(connection)
    if version not in (None, VERSION) and connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"LOCK TABLE {schema.name} IN ACCESS EXCLUSIVE MODE")
        version = version_of(connection)
    if version is None:
        metadata.create_all(connection)
        connection.execute(schema.insert().values(version=VERSION))
        return
    for older in range(version, VERSION):
        for statement in MIGRATIONS[older]:
            connection.exec_driver_sql(statement)
    connection.execute(schema.update().values(version=VERSION))
