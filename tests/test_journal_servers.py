"""Database servers that drop their clients, lose answers, stay away; and how durably they are told to write."""

from contextlib import contextmanager

import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from journals import SIX, done, execute, failed, values
from procession import JournalError, Limit
from procession._model.record import WHOLE
from procession.journal import Journal, channel, held, limits, schema


def drop_clients(where):
    """Have the server end all its other connections, as when it restarts."""
    with psycopg.connect(where, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            " AND datname = current_database()"
        )


@pytest.mark.parametrize("size", [1, 150])
def test_a_server_that_drops_its_clients_costs_nothing(postgres, size, caplog):
    """Whatever is asked next is asked of a new connection: reading, recording, forgetting, renewing, nesting, ending.

    Nobody is shown the tracebacks of a library for that.
    """
    where = postgres.new_database()
    with Journal(where) as journal:
        one = journal.begin("run", SIX)
        drop_clients(where)
        one.commit([done(one, 0, place, place) for place in range(size)] + [done(one, 0, None)])
        drop_clients(where)
        assert one.elements(0).keys() == set(range(size))
        drop_clients(where)
        one.forget_elements(0, 1)
        drop_clients(where)
        inner = journal.begin("run/2", SIX, within=(one, 2, WHOLE))
        drop_clients(where)
        inner.close("completed")
        drop_clients(where)
        with pytest.raises(JournalError):
            one.renew("{}")
        one.renew("{}")
        drop_clients(where)
        one.close("completed")
        two = journal.begin("run", SIX)
        drop_clients(where)
        assert two.elements(0).keys() == {0}
        drop_clients(where)
        assert two.last_element(0) == 0
        two.close("completed")
        assert (journal.run("run").status, journal.run("run/2").status) == ("completed", "completed")
    assert [record for record in caplog.records if record.name.startswith("sqlalchemy")] == []


def test_a_server_that_goes_away_as_the_tables_of_a_limit_are_made_is_what_is_told(postgres, monkeypatch):
    """And not that there are no such tables."""
    where = postgres.new_database()
    create = schema.metadata.create_all

    def make(connection, **_):
        drop_clients(where)
        create(connection)

    monkeypatch.setattr(limits._tables, "create_all", make)
    with pytest.raises(JournalError, match="terminating connection"):
        limits.LimitCount(Limit("api", at_once=1, shared=where))


def test_an_answer_that_is_lost_with_its_connection_does_no_harm(postgres, monkeypatch):
    """What was asked is done, and asked again: a record is there once, and a run that has ended has ended."""
    where = postgres.new_database()
    open_once, transaction_once = channel.Channel.open, channel.Channel.transaction
    losing = []

    def losing_its_answer(method):
        @contextmanager
        def lost(channel):
            with method(channel) as connection:
                yield connection
            if losing:
                losing.pop()
                drop_clients(where)
                with open_once(channel) as connection:
                    connection.exec_driver_sql("SELECT 1")

        return lost

    with Journal(where) as journal:
        before = journal.begin("run", SIX)
        before.commit([failed(3)])
        before.close("failed")
        one = journal.begin("run", SIX)
        monkeypatch.setattr(channel.Channel, "open", losing_its_answer(open_once))
        losing.append(1)
        one.commit([done(one, 0, 1)])
        losing.append(1)
        one.commit([done(one, 3, 3)])
        monkeypatch.setattr(channel.Channel, "open", open_once)
        monkeypatch.setattr(channel.Channel, "transaction", losing_its_answer(transaction_once))
        losing.append(1)
        one.commit([done(one, 1, place, place) for place in range(150)])
        losing.append(1)
        one.close("completed")
        assert losing == []
        assert (journal.run("run").status, len(journal.tasks("run")), len(journal.tasks("run", 200, task=1))) == (
            "completed",
            2,
            150,
        )


def test_a_server_that_stays_away_for_longer_than_the_lease_fails_the_run_with_its_first_error(postgres, monkeypatch):
    """Until then it is asked again and again; the run can be executed again at once."""
    where, asked = postgres.new_database(), []

    def refused():
        asked.append(1)
        if len(asked) == 3:
            one.held.renewed = float("-inf")
        raise OperationalError("connect", None, psycopg.OperationalError("connection refused"))

    monkeypatch.setattr(held, "PAUSES_S", (0.001, 0.001))
    with Journal(where) as journal:
        one = journal.begin("run", SIX)
        one.commit([done(one, 0, 1)])
        monkeypatch.setattr(one.held.channel, "_connect", refused)
        drop_clients(where)
        with pytest.raises(JournalError, match="cannot be used: terminating connection due to administrator command"):
            one.commit([done(one, 1, 1)])
        assert len(asked) == 3
        with pytest.raises(JournalError, match="connection refused"):
            one.close("failed")
        two = journal.begin("run", SIX)
        assert values(two) == {0: 1}
        two.close("completed")


@pytest.mark.parametrize(("durability", "told"), [("process", "off"), ("power", "on")])
def test_a_server_is_told_for_each_write_how_durable_it_is_and_keeps_nothing_in_its_session(postgres, durability, told):
    """Behind a pooler the next transaction of the session is another program's, and prepared statements are too."""
    where = postgres.new_database()
    with Journal(f"{where}&prepare_threshold=0", durability=durability) as journal:
        journal.begin("before", SIX).close("completed")
        execute(where, "CREATE TABLE settings (setting TEXT)")
        note = "INSERT INTO settings VALUES (current_setting('synchronous_commit')); RETURN NEW;"
        execute(where, f"CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {note} END $$")
        for table in ("procession_runs", "procession_records"):
            event = f"BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION note()"
            execute(where, f"CREATE TRIGGER noted_{table} {event}")
        one = journal.begin("run", SIX)
        for place in range(10):
            one.commit([done(one, place, 1)])
        one.commit([done(one, 11, place, place) for place in range(150)])
        one.renew("{}")
        with one.held.channel.open() as connection:
            assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
            assert connection.exec_driver_sql("SELECT COUNT(*) FROM pg_prepared_statements").scalar() == 0
        one.close("completed")
    assert execute(where, "SELECT DISTINCT setting FROM settings") == [(told,)]
    assert execute(where, "SELECT COUNT(*) FROM settings") == [(163,)]


@pytest.mark.parametrize("durability", ["process", "power"])
def test_durability_is_what_the_database_is_told(tmp_path, durability):
    """Each commit is synced for `power`, and for `process` it need not be."""
    with Journal(tmp_path / "runs.db", durability=durability) as journal:
        one = journal.begin("run", SIX)
        with one.held.channel.open() as connection:
            told = connection.exec_driver_sql("PRAGMA synchronous").scalar()
            assert told == {"process": 1, "power": 2}[durability]
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        one.close("completed")
