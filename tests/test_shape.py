"""What a journal keeps of a process besides its fingerprint: stages, and which tasks wait for which."""

import pickle
import sqlite3

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from procession import Process
from procession._model.strategy import Stage
from procession._plan.fingerprint import fingerprint_of
from procession._plan.shape import Shape, shape_of
from procession.journal import Journal
from procession.journal.schema import VERSION
from version_1 import make

PLACES = st.integers(0, 2**31)
SHAPES = st.builds(
    Shape,
    st.lists(st.builds(Stage, PLACES, PLACES, st.booleans())).map(tuple),
    st.dictionaries(PLACES, st.lists(PLACES, unique=True).map(tuple)),
    st.dictionaries(PLACES, st.sampled_from(["map", "process"])),
)


def execute(where, statement, *parameters):
    if "://" in where:
        with psycopg.connect(where) as connection:
            cursor = connection.execute(statement.replace("?", "%s"), parameters)
            return cursor.fetchall() if cursor.description else []
    with sqlite3.connect(where) as connection:
        found = connection.execute(statement, parameters).fetchall()
    connection.close()
    return found


def shape_in(where, run_id="run"):
    with Journal(where) as journal, journal.reader() as reader:
        return reader.shape(reader.key(run_id))


def summed(strategy="parallel", name="sums"):
    """(a) ─▶ (b) ─▶ a sum, a map of the sum, and a process beside them."""
    inner = Process("inner")
    inner.add_task(len, "abc")
    process = Process(name, strategy, 2)
    one = process.task(int, "1")
    two = process.task(abs, one)
    process.map(str, process.task(list, [one, two]))
    process.add_task(inner)
    return process


@given(SHAPES)
def test_a_shape_comes_back_as_it_was(shape):
    """Nothing of it is lost on the way through bytes, in whatever order it was said."""
    assert Shape.from_bytes(shape.to_bytes()) == shape


@pytest.mark.parametrize(
    "written",
    [b"", b"{}", b"[]\n", b'{"version": 1}\n', Shape((), {1: (0,)}, {}).to_bytes()[:-4], b'{"version": 2}\nlater'],
)
def test_what_is_no_shape_is_refused(written):
    """And so is one of a newer version, which may mean something else."""
    with pytest.raises(ValueError, match=r"shape.*(not|version 1 is known)|not the shape"):
        Shape.from_bytes(written)


def test_a_long_chain_and_a_wide_fan_take_few_bytes():
    """Of 100,000 tasks that wait for their neighbours, or for all others, less is kept than a name of each."""
    chain = Shape((Stage(0, 100_000, True),), {place: (place - 1,) for place in range(1, 100_000)}, {})
    fan = Shape((Stage(0, 100_001, True),), {100_000: tuple(range(100_000))}, {})
    assert len(chain.to_bytes()) < 5_000
    assert len(fan.to_bytes()) < 5_000
    assert Shape.from_bytes(fan.to_bytes()) == fan


def test_maps_and_processes_are_told_from_calls():
    """However a process is given as a task."""
    process = Process("all")
    inner = Process("inner")
    process.map(str, [1])
    process.add_task(inner)
    process.add_task(inner.execute)
    process.add_task([].append, 1)
    assert shape_of(process.tasks, (), {}).kinds == {0: "map", 1: "process", 2: "process"}


def test_a_recorded_run_and_one_inside_it_keep_their_shapes(where):
    """What waits for what is known afterwards, and by whoever looks at the journal meanwhile."""
    summed().execute(journal=where, run_id="run")
    assert shape_in(where) == Shape(
        (Stage(0, 5, at_once=True),), {1: (0,), 2: (0, 1), 3: (2,)}, {3: "map", 4: "process"}
    )
    assert shape_in(where, "run/4") == Shape((Stage(0, 1, at_once=False),), {}, {})


def test_a_run_that_goes_on_under_another_strategy_has_its_shape_and_no_other_fingerprint(where):
    """How it is run is no part of what it is, but it is shown as it is now."""
    summed().execute(journal=where, run_id="run")
    before = execute(where, "SELECT fingerprint FROM procession_definitions ORDER BY run")
    summed("sequential").execute(journal=where, run_id="run")
    assert shape_in(where).stages == (Stage(0, 5, at_once=False),)
    assert execute(where, "SELECT fingerprint FROM procession_definitions ORDER BY run") == before


def test_a_changed_plan_is_kept_only_when_it_is_accepted(where):
    """A refused resume leaves what was there; an accepted one puts the new plan in its place."""
    summed().execute(journal=where, run_id="run")
    before = execute(where, "SELECT fingerprint, shape FROM procession_definitions ORDER BY run")
    other = summed()
    other.task(len, other.task(repr, 7))
    with pytest.raises(ValueError, match="another definition"):
        other.execute(journal=where, run_id="run")
    assert execute(where, "SELECT fingerprint, shape FROM procession_definitions ORDER BY run") == before
    other.execute(journal=where, run_id="run", allow_changes=True)
    assert shape_in(where).needs == {1: (0,), 2: (0, 1), 3: (2,), 6: (5,)}
    other.execute(journal=where, run_id="run")


def test_a_definition_goes_with_its_run(where):
    """Nothing is left of a deleted run, nor of those inside it."""
    summed().execute(journal=where, run_id="run")
    summed().execute(journal=where, run_id="other")
    with Journal(where) as journal:
        journal.delete("run")
        assert execute(where, "SELECT run FROM procession_definitions ORDER BY run") == [(3,), (4,)]
        journal.prune(before=journal.run("other").ended_at + 1)
    assert execute(where, "SELECT run FROM procession_definitions") == []


def test_a_definition_is_not_written_with_each_heartbeat(where):
    """The row that is written every second has nothing large in it."""
    summed().execute(journal=where, run_id="run")
    with Journal(where) as journal, journal.database.reading() as connection:
        row = connection.exec_driver_sql("SELECT * FROM procession_runs").first()
    assert not any(isinstance(value, bytes) for value in row)


def test_a_journal_of_version_1_is_brought_up_to_date_and_its_run_goes_on(where):
    """It has kept no shape of that, and does from the next execution on."""
    process = Process("old", "parallel")
    one = process.task(len, "abc")
    process.task(abs, one)
    make(where, execute, fingerprint_of("old", process.tasks), pickle.dumps(3))
    assert shape_in(where) is None
    with Journal(where) as journal:
        assert [(one.name, one.state) for one in journal.tasks("run")] == [("len", "completed"), ("len", "failed")]
    other = Process("old", "parallel")
    other.add_task(len, "another")
    with pytest.raises(ValueError, match="another definition: task 0"):
        other.execute(journal=where, run_id="run")
    assert process.execute(journal=where, run_id="run") == [3, 3]
    assert shape_in(where) == Shape((Stage(0, 2, at_once=True),), {1: (0,)}, {})
    assert execute(where, "SELECT version FROM procession_schema") == [(VERSION,)]
    process.execute(journal=where, run_id="new")
    assert execute(where, "SELECT run FROM procession_definitions ORDER BY run") == [(1,), (2,)]
    with Journal(where) as journal:
        journal.delete("run")
    assert execute(where, "SELECT run FROM procession_definitions") == [(2,)]
