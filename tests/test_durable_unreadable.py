"""Recorded values that cannot be read back, or that nobody else may read."""

import logging
import pickle
import sqlite3
from functools import partial

import pytest

from counted_calls import BROKEN, CALLS, _nothing_called, _open_files, calls, path, same, work
from procession import Process, ResultError, TaskLogHandler, task
from procession.journal import Journal


class Sealed:
    """Encodes with a key, as a codec that encrypts does."""

    name = "sealed"
    wrong: type[BaseException] = ValueError

    def encode(self, value):
        return b"1" + pickle.dumps(value)

    def decode(self, data):
        if data[:1] != b"1":
            raise self.wrong("another key")
        return pickle.loads(data[1:])


def flat(*lists):
    CALLS.append("flat")
    return [number for numbers in lists for number in numbers]


def inner():
    process = Process("inner")
    process.add_task(work, 7)
    process.add_task(work, 8)
    return process


def chain():
    """A task, a map over its value, what takes the list of that; a process; and a task that may be broken."""
    process = Process("chain")
    numbers = process.task(same, [1, 2, 3])
    process.task(flat, process.map(work, numbers))
    process.add_task(inner())
    process.add_task(work, 9)
    return process


CHAIN = [[1, 2, 3], [10, 20, 30], [10, 20, 30], [70, 80], 90]


def sealed(path, **options):
    with Journal(path, codec=Sealed(), texts=True) as journal:
        return chain().execute(run_id="a", journal=journal, **options)


def begun(path, *unreadable):
    """Leave a run behind whose last task has failed; of some calls (run, task, element), values are of another key."""
    BROKEN.add(9)
    with pytest.raises(ValueError, match="9 is broken"):
        sealed(path)
    BROKEN.clear()
    calls()
    with sqlite3.connect(path) as connection:
        for place in unreadable:
            where = "WHERE run = (SELECT key FROM procession_runs WHERE id = ?) AND task = ? AND element = ?"
            ((value,),) = connection.execute(f"SELECT value FROM procession_records {where}", place)
            connection.execute(f"UPDATE procession_records SET value = ? {where}", (b"2" + value[1:], *place))
    connection.close()


TASK, ELEMENT, PROCESS, INSIDE = ("a", 0, -1), ("a", 1, 2), ("a", 3, -1), ("3", 1, -1)


@pytest.mark.parametrize("wrong", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("place", [TASK, ELEMENT, PROCESS])
def test_a_recorded_value_that_cannot_be_read_fails_the_run_and_frees_it(place, wrong, path, comes_true, monkeypatch):
    """Nothing is called, and nothing left open; what it failed of before is still said, and nothing is lost."""
    begun(path, place)
    files = _open_files()
    monkeypatch.setattr(Sealed, "wrong", wrong)
    error = ResultError if wrong is ValueError else KeyboardInterrupt  # as if Ctrl-C came just then
    for _ in range(2):
        with pytest.raises(error, match="another key"):
            sealed(path)
    assert calls() == []
    assert comes_true(lambda: _open_files() <= files)
    with Journal(path) as journal:
        info = journal.run("a")
        assert (info.status, info.pid, info.progress.ended) == ("failed", None, 7)
        assert info.error.count(error.__name__) == 1
        assert "\nbefore that: ValueError: 9 is broken" in info.error
        assert [task.task for task in journal.tasks("a", state="failed")] == [4]
    monkeypatch.setattr(Sealed, "decode", lambda _self, data: pickle.loads(data[1:]))
    assert sealed(path) == CHAIN
    assert calls() == [9]


def test_the_error_says_what_cannot_be_read_and_what_to_do(path):
    """Which task, which element, and both ways out."""
    begun(path, ELEMENT)
    with pytest.raises(ResultError, match=r"run 'a', task 1 \(.*work\), element 2: .*key.*allow_changes=True"):
        sealed(path)


@pytest.mark.parametrize(
    ("places", "called"),
    [
        ([TASK], [9, "flat"]),
        ([ELEMENT], [9, "flat", 3]),
        ([PROCESS, INSIDE], [9, 8]),
        ([PROCESS], [9]),
        ([TASK, ELEMENT, PROCESS, INSIDE], [9, "flat", 3, 8]),
    ],
)
def test_what_cannot_be_read_is_called_again_with_changes_allowed(places, called, path):
    """And what follows from it; nothing else."""
    begun(path, *places)
    assert sealed(path, allow_changes=True) == CHAIN
    assert calls() == sorted(called, key=repr)
    assert sealed(path) == CHAIN
    assert calls() == []


def test_what_cannot_be_read_of_a_map_that_is_not_complete_fails_that_map(path):
    """With changes allowed, its element is called again."""

    def build():
        process = Process("map", on_error="continue")
        process.map(work, [1, 2, 3])
        return process

    BROKEN.add(2)
    with Journal(path, codec=Sealed()) as journal:
        with pytest.raises(ExceptionGroup):
            build().execute(run_id="a", journal=journal)
        BROKEN.clear()
        calls()
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE procession_records SET value = cast('2' AS BLOB) WHERE element = 0")
        connection.close()
        with pytest.raises(ExceptionGroup) as caught:
            build().execute(run_id="a", journal=journal)
        assert caught.group_contains(ResultError)
        assert journal.run("a").status == "failed"
        assert build().execute(run_id="a", journal=journal, allow_changes=True) == [[10, 20, 30]]
        assert calls() == [1, 2]


class Odd(Exception):
    def __str__(self):
        return "sk-live:1\n  File: sk-live"


def tell(number, error):
    logging.getLogger("told").warning("sk-live is the key")
    raise error


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"codec": Sealed()}, False),
        ({"codec": Sealed(), "texts": True}, True),
        ({"texts": False}, False),
        ({}, True),
    ],
)
@pytest.mark.parametrize("policy", ["stop", "continue"])
def test_beside_a_codec_that_may_encrypt_no_text_is_kept(options, kept, policy, path):
    """Neither what exceptions say, with causes, notes and source lines, nor what tasks log: only the types."""
    log, handler = logging.getLogger("told"), TaskLogHandler()
    log.addHandler(handler)
    with Journal(path, **options) as journal:
        for error in (PermissionError("sk-live"), Odd(), SyntaxError("no", ("sk-live.py", 1, 1, "sk-live = 1"))):
            error.add_note("sk-live noted")
            process = Process("told", on_error=policy)
            process.map(partial(tell, error=error), [1])
            with pytest.raises((type(error), ExceptionGroup)):
                process.execute(run_id=type(error).__name__, journal=journal)
            info = journal.run(type(error).__name__)
            assert type(error).__name__ in info.error
            assert all(type(error).__name__ in task.error for task in journal.tasks(info.id, task=0))
    log.removeHandler(handler)
    written = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert (b"sk-live" in written) is kept
    assert (b"what it said is not kept" in written) is not kept
