"""Tables that another role of a server has made, or can change, are not trusted with a journal."""

import psycopg
import pytest
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from journals import SIX, done, execute
from procession import JournalError
from procession.journal import Journal, database, schema


@pytest.fixture
def roles(postgres):
    """Return a schema in which two roles may create tables, as a URL for each; they are no superusers."""
    url = postgres.new_database()
    place = url.rpartition("%3D")[2]
    with psycopg.connect(url, autocommit=True) as connection:
        for role in "owner", "stranger":
            if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone():
                connection.execute(f"CREATE ROLE {role} LOGIN")
            connection.execute(f"GRANT CREATE, USAGE ON SCHEMA {place} TO {role}")
    return [url.replace("//procession@", f"//{role}@") for role in ("owner", "stranger")]


def share(url):
    execute(url, "GRANT ALL ON ALL TABLES IN SCHEMA " + url.rpartition("%3D")[2] + " TO PUBLIC")


def test_tables_of_another_role_are_not_executed_from(roles):
    """Values in them would be read; what they show may be looked at, for nothing runs then."""
    owner, stranger = roles
    with Journal(stranger) as journal:
        one = journal.begin("run", SIX)
        one.commit([done(one, 0, "kept")])
        one.close("completed")
    share(stranger)
    with Journal(owner) as journal:
        assert [run.id for run in journal.runs()] == ["run"]
        for change in (
            lambda: journal.begin("run", SIX),
            lambda: journal.begin("new", SIX),
            lambda: journal.cancel("run"),
            lambda: journal.delete("run"),
        ):
            with pytest.raises(JournalError, match="belongs to the role 'stranger' and not to 'owner'"):
                change()
        assert [run.id for run in journal.runs()] == ["run"]


@pytest.mark.parametrize("table", ["procession_records", "procession_definitions", "procession_schema"])
def test_one_table_that_another_role_has_made_is_enough_to_refuse(roles, table):
    """It may have been there before the others."""
    owner, stranger = roles
    with psycopg.connect(stranger, autocommit=True) as connection:
        made = CreateTable(schema.metadata.tables[table]).compile(dialect=postgresql.dialect())
        connection.execute(str(made))
        connection.execute(f"GRANT ALL ON {table} TO PUBLIC")
        if table == "procession_schema":
            connection.execute(f"INSERT INTO procession_schema VALUES ({schema.VERSION})")
    with Journal(owner) as journal:
        for _ in range(2):
            with pytest.raises(JournalError, match=f"table '{table}' belongs to the role 'stranger'"):
                journal.begin("run", SIX)


@pytest.mark.parametrize(
    "trap",
    [
        "ALTER TABLE procession_runs ENABLE ROW LEVEL SECURITY",
        "CREATE RULE trap AS ON UPDATE TO procession_runs DO ALSO SELECT 1",
        "ALTER TABLE procession_runs RENAME TO kept; CREATE VIEW procession_runs AS SELECT * FROM kept",
    ],
)
def test_a_look_at_tables_of_another_role_runs_none_of_its_code(roles, trap):
    """Such as a policy, a rule or a view would."""
    owner, stranger = roles
    with Journal(stranger) as journal:
        journal.begin("run", SIX).close("completed")
    for statement in trap.split("; "):
        execute(stranger, statement)
    share(stranger)
    with Journal(owner) as journal, pytest.raises(JournalError, match="'procession_runs' belongs to the role 'stra"):
        journal.runs()


def test_tables_of_a_superuser_are_used(postgres, roles):
    """Who has the server can have anything run anyway."""
    with Journal(postgres.new_database()) as journal:
        journal.begin("run", SIX).close("completed")
    owner, _ = roles
    with Journal(owner.replace("//owner@", "//procession@")) as journal:
        journal.begin("run", SIX).close("completed")
    share(owner.replace("//owner@", "//procession@"))
    with Journal(owner) as journal:
        journal.begin("run", SIX).close("completed")


def test_a_lock_of_a_stranger_does_not_hold_up_the_first_use(roles, monkeypatch):
    """Whatever number it is of; and one that is at the same tables does so for a time, and is told."""
    owner, stranger = roles
    with psycopg.connect(stranger, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(1886548835)")
        with Journal(owner) as journal:
            journal.begin("run", SIX).close("completed")
    execute(owner, "DROP TABLE procession_schema, procession_runs, procession_records, procession_definitions")
    with psycopg.connect(stranger) as other:
        other.execute("CREATE TABLE procession_schema (version INTEGER)")
        monkeypatch.setattr(database, "BUSY_S", 0.1)
        with Journal(owner) as journal, pytest.raises(JournalError, match="lock timeout"):
            journal.begin("run", SIX)
