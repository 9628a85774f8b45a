"""The tables, and how older ones become them."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Double,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    inspect,
    literal_column,
    select,
)

from procession.errors import JournalError

VERSION = 2

MIGRATIONS: Final[dict[int, tuple[str, ...]]] = {
    1: (
        # SQLite takes any word for a type, and keeps bytes as they are.
        "CREATE TABLE procession_definitions (run BIGINT PRIMARY KEY, fingerprint BYTEA NOT NULL, shape BYTEA)",
        'INSERT INTO procession_definitions (run, fingerprint) SELECT "key", fingerprint FROM procession_runs',
        "ALTER TABLE procession_runs DROP COLUMN fingerprint",
        "ALTER TABLE procession_records ADD COLUMN log TEXT",
    ),
}
"""Statements that make the tables of a version those of the next one."""

_KEY = BigInteger().with_variant(Integer, "sqlite")  # only an INTEGER can number itself there

ID_LIMIT = 500
"""Characters of a run id, at most: what every database can index."""

TOP: Final = 0
"""The parent of a run that is not nested in another."""

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
    # The lease: who executes the run, if anybody does.
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


def is_failed() -> ColumnElement[bool]:
    """Say which records are of failures, in words that show a database that its index has all of them."""
    return records.c.state == literal_column("'failed'")


# Few are; among 100,000 that are not, they took 50 ms to find.
Index(
    "procession_failed",
    records.c.run,
    records.c.task,
    records.c.element,
    sqlite_where=is_failed(),
    postgresql_where=is_failed(),
)


def version_of(connection: Connection) -> int | None:
    """Return the version of the tables there are, `None` if there are none.

    Raises `JournalError` for those of a newer version, and for an SQLite file that is another program's: it may be
    shared in a database server, but not in a file that somebody has mistaken for a journal.
    """
    tables = inspect(connection).get_table_names()
    if schema.name not in tables:
        if tables and connection.dialect.name == "sqlite":
            raise JournalError(f"this is another program's database: it has the table {tables[0]!r} and is no journal")
        return None
    version = int(connection.execute(select(schema.c.version)).scalar_one())
    if version > VERSION:
        raise JournalError(
            f"the journal was written by a newer version of Procession (its tables are of version {version}, and this "
            f"one knows those up to {VERSION}): upgrade this one"
        )
    return version


def create(connection: Connection) -> None:
    """Make the tables what this version needs. Call it inside a transaction that nobody else makes tables in."""
    version = version_of(connection)
    if version is None:
        metadata.create_all(connection)
        connection.execute(schema.insert().values(version=VERSION))
        return
    for older in range(version, VERSION):
        for statement in MIGRATIONS[older]:
            connection.exec_driver_sql(statement)
    connection.execute(schema.update().values(version=VERSION))
