"""Journals that are damaged, or that somebody has made to do harm to whoever looks at them."""

import json
import sqlite3
import zlib
from contextlib import closing

import pytest

from procession import JournalError, Process
from procession._plan.fingerprint import Fingerprint, called
from procession._plan.shape import Shape
from procession.cli.main import IN_USE, main
from procession.journal import Journal, database

MARKS = "\x1b]0;title\x07\u202e"
HELD = {"ended": 1, "failed": 0, "total": 1, "held_back": [["api", 1, 1, 0.5]]}


def fail(text):
    raise ValueError(text)


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A journal of two runs, of which the first has a task that failed, a map and a nested run; and where we are."""
    monkeypatch.chdir(tmp_path)
    with Journal("runs.db") as journal:
        for run_id in "first", "second":
            inner = Process("inner")
            inner.add_task(len, "a")
            process = Process("outer", "parallel", 2, on_error="return")
            handle = process.task(len, "abc")
            process.add_task(fail, handle)
            process.map(len, ["a", "ab"])
            process.add_task(inner)
            process.execute(run_id=run_id, journal=journal)
    return tmp_path / "runs.db"


def change(file, *statements):
    """Change a journal from outside; `first` is the key of the first run, `nested` that of the run in it."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        keys = dict(connection.execute("SELECT id, key FROM procession_runs WHERE parent = 0"))
        (nested,) = connection.execute("SELECT key FROM procession_runs WHERE parent = ?", [keys["first"]]).fetchone()
        for statement, *values in statements:
            connection.execute(statement.replace(":first", str(keys["first"])).replace(":nested", str(nested)), values)


def look(capsys):
    """Return what each command shows, and that none fails in another way than by a line."""
    said = {}
    for words in ["runs"], ["show", "first"], ["show", "first", "--failed"], ["show", "first/3"], ["show", "second"]:
        status = main(words)
        out, err = capsys.readouterr()
        assert status == 0 or err.startswith("procession: "), (words, err)
        assert (out + err).replace("\n", "").isprintable(), (words, out + err)
        said[" ".join(words)] = out + err
    return said


RUN = "UPDATE procession_runs SET {} = ? WHERE key = :first"
RECORD = "UPDATE procession_records SET {} = ? WHERE run = :first AND task = 1"
GOING = (
    "UPDATE procession_runs SET status = 'running', token = 't', held_since = 1, held_until = 1e11, holder = ? "
    "WHERE key = :first"
)
HERE = {"host": "far", "system": "s", "pid": 1, "started": 1.0}

OF_RUN = [
    ("status", [MARKS, "", 7, b"\xff"], "status"),
    ("executions", [MARKS, -1, 2**60, 1.5], "executions"),
    ("started_at", [1e300, -1.0, "yesterday", float("inf")], "started_at"),
    ("created_at", [1e300, "yesterday"], "created_at"),
    ("ended_at", [1e300, b"\0"], "ended_at"),
    ("process", [b"\xff\0"], "process"),
    ("error", [b"\xff\0"], "error"),
    ("progress", ["", "[1]", "[" * 100_000, "{}x", 7, b"\0"], "progress"),
    ("progress", [json.dumps({"ended": MARKS, "failed": 0, "total": 1, "running": []})], "progress.ended"),
    ("progress", ['{"ended": 1e400, "failed": 0, "total": 1}', '{"ended": true, "failed": 0, "total": 1}'], "progress"),
    ("progress", ['{"ended": 1, "failed": 0, "total": NaN}', '{"ended": 1, "failed": 0}'], "progress"),
    ("progress", [json.dumps({"ended": 1, "failed": 0, "total": 1, "held_tasks": [[[0, 1]]]})], "progress.held_tasks"),
    ("progress", [json.dumps({**HELD, "held_tasks": 7})], "progress.held_tasks"),
    ("progress", [json.dumps({**HELD, "held_tasks": [[[0, 1, 2]]]})], "progress.held_tasks"),
    ("progress", [json.dumps({**HELD, "held_tasks": [[[0, MARKS]]]})], "progress.held_tasks"),
    ("progress", [json.dumps({**HELD, "held_tasks": [[[0, 1]] * 101]})], "progress.held_tasks"),
    ("progress", [json.dumps({"ended": 1, "failed": 0, "total": 1, "running": 7})], "progress.running"),
    ("progress", [json.dumps({"ended": 1, "failed": 0, "total": 1, "running": [[1, 2]]})], "progress.running"),
    ("progress", [json.dumps({"ended": 1, "failed": 0, "total": 1, "running": [[1, 2, 3, "x"]]})], "progress.running"),
    ("origin", ["[1]", '{"argv": 5}', '{"argv": [5]}', '{"folder": []}', "[" * 100_000, "", 7], "origin"),
]


@pytest.mark.parametrize(("column", "value", "name"), [(c, v, n) for c, values, n in OF_RUN for v in values])
def test_a_wrong_value_of_a_run_is_named_and_the_others_are_shown(file, capsys, column, value, name):
    """By what commands print and by what a program reads."""
    change(file, (RUN.format(column), value))
    said = look(capsys)
    assert "second" in said["runs"] and "damaged" not in said["show second"]
    with Journal(file) as journal:
        info = journal.run("first")
        assert info.error.startswith(f"the journal is damaged: {name}")
        assert journal.run("second").error is None
    assert f"the journal is damaged: {name}" in said["show first"]


OF_TASK = [
    ("state", [MARKS, 7, b"\xff"]),
    ("attempts", [MARKS, -1, 2**60]),
    ("started_at", [1e300, -1.0, "yesterday"]),
    ("duration", [-1e308, "long", float("inf")]),
    ("name", [b"\xff\0"]),
    ("worker", [b"\xff\0"]),
    ("error", [b"\xff\0"]),
]


@pytest.mark.parametrize(("column", "value"), [(column, value) for column, values in OF_TASK for value in values])
def test_a_wrong_value_of_a_task_is_named_and_the_others_are_shown(file, capsys, column, value):
    """By what commands print and by what a program reads."""
    change(file, (RECORD.format(column), value))
    said = look(capsys)
    assert f"the journal is damaged: {column}" in said["show first"]
    with Journal(file) as journal:
        tasks = journal.tasks("first")
        assert tasks[1].error.startswith(f"the journal is damaged: {column}")
        assert [task.error for task in tasks if task.task != 1] == [None] * (len(tasks) - 1)


HOLDERS = [
    *(HERE | {name: value} for name in ("host", "system") for value in (MARKS, 7)),
    *(HERE | {"pid": value} for value in (MARKS, 0, -1, 2**40, True, 1.5)),
    HERE | {"started": MARKS},
    HERE | {"more": 1},
    [],
    None,
]


@pytest.mark.parametrize("holder", HOLDERS)
def test_a_holder_that_is_no_process_is_named(file, capsys, holder):
    """Nor does anybody act on it."""
    change(file, (GOING, "[" * 100_000 if holder is None else json.dumps(holder)))
    said = look(capsys)
    assert "the journal is damaged: holder" in said["show first"]
    assert main(["cancel", "first"]) == 0
    assert main(["prune", "first"]) == IN_USE
    assert "first" in said["runs"] and "is being executed" in capsys.readouterr().err


def test_text_that_is_no_text_hides_nothing_else(file, capsys):
    """A byte that is wrong is shown as such."""
    change(file, ("UPDATE procession_runs SET process = CAST(x'61ff62' AS TEXT) WHERE key = :first",))
    assert "a\ufffdb" in look(capsys)["runs"]


@pytest.mark.parametrize(
    "value", [b"", b"{}\n", b"[" * 100_000 + b"\n", b'{"version": 1, "process": "p", "names": []}']
)
@pytest.mark.parametrize("column", ["fingerprint", "shape"])
def test_a_definition_that_is_none_is_named_below_what_is_known(file, capsys, column, value):
    """Also where tasks would have to be counted."""
    change(file, (f"UPDATE procession_definitions SET {column} = ? WHERE run = :first", value))
    change(file, ("UPDATE procession_runs SET status = 'running', token = NULL WHERE key = :first",))
    said = look(capsys)
    with Journal(file) as journal, journal.reader() as reader:
        with pytest.raises(JournalError, match="the journal is damaged: the (definition|shape) of run"):
            (reader.definition if column == "fingerprint" else reader.shape)(reader.key("first"))
    if column == "fingerprint":
        assert "first of process outer: interrupted" in said["show first"]
        assert "not the fingerprint of a process" in said["show first"]


def test_a_little_is_not_unpacked_to_very_much(file, monkeypatch):
    """What is packed has the length that it is known to have, or is refused before it takes memory."""
    bomb = zlib.compress(bytes(50_000_000))
    head = json.dumps({"version": 1, "process": "p", "names": ["a"], "which": len(bomb)}).encode()
    shape = json.dumps({"version": 1, "stages": [[0, 4, True]], "lengths": [0, 0, 12_500_000, 0, 0, 0]}).encode()
    took = []
    new = zlib.decompressobj

    class Watched:
        def __init__(self):
            self._one = new()

        def decompress(self, *given):
            found = self._one.decompress(*given)
            took.append(len(found))
            return found

        @property
        def eof(self):
            return self._one.eof

    monkeypatch.setattr(zlib, "decompressobj", Watched)
    with pytest.raises(ValueError, match="cut short"):
        Fingerprint.from_bytes(head + b"\n" + bomb + bytes(16))
    with pytest.raises(ValueError, match=r"12,500,000 numbers, and up to 4,000,000 are read"):
        Shape.from_bytes(shape + b"\n" + bomb)
    assert sum(took) < 100


def test_a_fingerprint_that_names_what_it_does_not_have_is_refused():
    """And not met again where its tasks are shown."""
    which = zlib.compress((5).to_bytes(4, "little"))
    head = json.dumps({"version": 1, "process": "p", "names": ["a"], "which": len(which)}).encode()
    with pytest.raises(ValueError, match="names tasks that it does not have"):
        Fingerprint.from_bytes(head + b"\n" + which + bytes(16))


@pytest.mark.parametrize(
    "name", ["map of " * 50_000 + "a:b", "a:b '\\x'", "a:b '\n'", "map of a:b '\\N{none}'", "(" * 50_000, ""]
)
def test_any_text_is_called_something(name):
    """Whatever it would mean as Python."""
    assert isinstance(called(name), str)


@pytest.mark.parametrize(
    "shape",
    [
        Shape((), {}, {}),
        Shape(((0, 9, True),), {}, {}),
        Shape(((1, 3, True),), {}, {}),
        Shape(((0, 2, True), (1, 3, True)), {}, {}),
        Shape(((0, 3, True),), {7: (1,)}, {}),
        Shape(((0, 3, True),), {1: (2,)}, {}),
        Shape(((0, 3, True),), {1: (1,)}, {}),
        Shape(((0, 3, True),), {}, {3: "map"}),
    ],
)
def test_a_shape_that_no_process_of_three_tasks_has_is_refused(shape):
    """A picture of it could not be drawn."""
    with pytest.raises(ValueError, match="not the shape of a process"):
        Shape.from_bytes(shape.to_bytes()).check(3)


def test_a_run_that_lies_within_itself_is_told_and_not_followed(file, capsys):
    """Nor are those that it would lie in when the one that it was in is deleted."""
    change(file, ("UPDATE procession_runs SET parent = :nested WHERE key = :nested",))
    look(capsys)
    with Journal(file) as journal, journal.reader() as reader, pytest.raises(JournalError, match="damaged: run 2 lies"):
        reader.run(2)
    assert main(["prune", "first"]) == 0


@pytest.mark.parametrize(
    "trap",
    [
        ["ALTER TABLE procession_records RENAME TO kept", "CREATE VIEW procession_records AS SELECT * FROM kept"],
        ["CREATE TRIGGER trap AFTER UPDATE ON procession_runs BEGIN DELETE FROM procession_records; END"],
        ["ALTER TABLE procession_runs ADD COLUMN more AS (hex(zeroblob(300000000)))"],
        ["DROP TABLE procession_records", "CREATE VIRTUAL TABLE procession_records USING fts4(run, task)"],
    ],
)
def test_tables_that_do_more_than_keep_are_refused(file, capsys, trap):
    """A view need not end, and a trigger changes what nobody has asked for."""
    change(file, *((statement,) for statement in trap))
    for words in ["runs"], ["cancel", "first"], ["prune", "first"]:
        assert main(words) == 1
        assert "is damaged, or was made by somebody else" in capsys.readouterr().err


@pytest.mark.parametrize("version", ["x", 0, -1, b"\xff"])
def test_a_version_that_is_none_is_refused(file, version):
    """In a sentence."""
    change(file, ("DROP TABLE procession_schema",), ("CREATE TABLE procession_schema (version)",))
    change(file, ("INSERT INTO procession_schema VALUES (?)", version))
    with Journal(file) as journal, pytest.raises(JournalError, match="the version of its tables is"):
        journal.runs()


def test_a_text_without_end_is_read_in_part(file, capsys):
    """Its beginning, and that there is more."""
    change(
        file, ("UPDATE procession_records SET error = printf('%.*c', 3000000, 'x') WHERE run = :first AND task = 1",)
    )
    look(capsys)
    with Journal(file) as journal:
        error = journal.tasks("first")[1].error
    assert error.endswith("… and more than is read of it") and len(error) < 1_000_100


def test_a_value_that_takes_all_memory_is_refused(file, capsys, monkeypatch):
    """By a line, where it would be shown."""
    monkeypatch.setattr(database, "VALUE_LIMIT", 2_000_000)
    change(
        file, ("UPDATE procession_records SET error = printf('%.*c', 3000000, 'x') WHERE run = :first AND task = 1",)
    )
    said = look(capsys)
    assert "a value that is larger than any that can be shown" in said["show first"]
    assert "first" in said["runs"] and "second of process" in said["show second"]
