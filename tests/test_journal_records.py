"""What is recorded in a journal, and which values are."""

import collections
import enum
import pickle
import sys
import threading
import time
from pathlib import Path

import numpy
import pytest

from journals import SIX, done, failed, values
from procession import JournalError, ResultError
from procession._model.record import WHOLE, Record
from procession._plan.fingerprint import fingerprint_of
from procession.journal import Journal, codec, recorder


def test_what_is_recorded_is_read_by_another_journal(where):
    """Values, attempts and durations of tasks that succeeded come back; failed ones do not, and elements have their own place."""
    with Journal(where) as journal:
        recorder = journal.begin("run", SIX)
        assert (dict(recorder.recorded), recorder.elements(1), recorder.executions) == ({}, {}, 1)
        recorder.commit([done(recorder, 0, {"a": [1, None]}), failed(2)])
        recorder.commit([done(recorder, 1, place * 10, place)._replace(digest=b"d%d" % place) for place in (1, 0)])
        recorder.commit([Record(1, WHOLE, "completed", "builtins:len", b"", None, None, 2, 1e9, 0.25, "w")])
        recorder.close("failed", "no")
    with Journal(where) as journal:
        recorder = journal.begin("run", SIX)
        assert values(recorder) == {0: {"a": [1, None]}, 1: None}
        assert recorder.recorded[1][1:] == (2, 0.25, "w", b"")
        assert [(place, r.value, r.digest) for place, r in recorder.elements(1).items()] == [
            (0, 0, b"d0"),
            (1, 10, b"d1"),
        ]
        assert recorder.executions == 2
        recorder.close("completed")


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("size", [1, 2, 99, 100, 101, 250, 1000])
def test_groups_of_any_size_are_recorded_whole(where, size, direct, monkeypatch):
    """However many records come at once, each is there, through the driver and through SQLAlchemy alike."""
    if not direct:
        monkeypatch.setattr(recorder, "DIRECT", {})
    with Journal(where) as journal:
        one = journal.begin("run", SIX)
        one.commit([done(one, 1, str(place), place) for place in range(size)])
        assert [r.value for r in one.elements(1).values()] == [str(place) for place in range(size)]
        one.close("completed")


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("size", [1, 2, 150])
def test_a_group_is_recorded_whole_or_not_at_all(where, size, direct, monkeypatch):
    """A record of a call that has one is refused, with its whole group; and the recorder goes on."""
    if not direct:
        monkeypatch.setattr(recorder, "DIRECT", {})
    with Journal(where) as journal:
        one = journal.begin("run", SIX)
        one.commit([done(one, 1, "first", size - 1)])
        with pytest.raises(JournalError):
            one.commit([done(one, 1, "second", place) for place in range(size)])
        assert [r.value for r in one.elements(1).values()] == ["first"]
        one.commit([done(one, 1, "third", size)])
        one.close("completed")
        assert journal.run("run").status == "completed"


def test_a_failure_gives_way_to_what_comes_after_it(where):
    """A task that failed can be recorded again, in the same group as others, and only once."""
    with Journal(where) as journal:
        one = journal.begin("run", SIX)
        one.commit([failed(0), failed(1)])
        one.close("failed")
        two = journal.begin("run", SIX)
        two.commit([done(two, 0, "mended"), done(two, 2, "new")])
        with pytest.raises(JournalError):
            two.commit([done(two, 0, "again")])
        two.close("completed")
        assert [(task.task, task.state) for task in journal.tasks("run")] == [
            (0, "completed"),
            (1, "failed"),
            (2, "completed"),
        ]


def test_text_that_databases_refuse_is_recorded_escaped(where):
    """NUL and lone surrogates in names, errors and workers do not fail a run."""
    odd = "file\udcff\0\n\u202e"
    with Journal(where) as journal:
        one = journal.begin("run", fingerprint_of(odd, [(len, ("a",), {})]), origin={"argv": [odd]})
        one.commit([failed(0, odd)._replace(name=odd, worker=odd)])
        one.close("failed", odd)
        (task,), run = journal.tasks("run"), journal.run("run")
        assert {task.name, task.worker, task.error, run.process, run.error} == {"file\\udcff\\x00\n\u202e"}
        assert run.origin == {"argv": [odd]}


@pytest.mark.parametrize(
    "run_id", ["a/b", "../x", "a\nb", "' OR 1=1 --", '"', "🎉" * 100, "%s?:x", " ", "x" * 500, "a%2Fb"]
)
def test_odd_run_ids_are_ids_like_any_other(where, run_id):
    """Slashes, newlines, quotes and emoji neither break anything nor meet another run."""
    with Journal(where) as journal:
        for one_id, value in ((run_id, "odd"), (run_id[:-1] + "z", "other")):
            one = journal.begin(one_id, SIX)
            one.commit([done(one, 0, value)])
            one.close("completed")
        assert [run.id for run in journal.runs()] == [run_id[:-1] + "z", run_id]
        again = journal.begin(run_id, SIX)
        assert values(again) == {0: "odd"}
        again.close("completed")
        journal.delete(run_id)
        assert [run.id for run in journal.runs()] == [run_id[:-1] + "z"]


@pytest.mark.parametrize("run_id", ["", "x" * 501, "x" * 10_000, "a\0b", "\udcff"])
def test_run_ids_that_no_database_keeps_are_refused(where, run_id):
    """Empty, too long, or with characters that would be lost: a ValueError, short and harmless to show."""
    with Journal(where) as journal, pytest.raises(ValueError, match="run id") as caught:
        journal.begin(run_id, SIX)
    assert len(str(caught.value)) < 200 and str(caught.value).isprintable()
    with Journal(where) as journal, pytest.raises(TypeError, match="not int"):
        journal.begin(7, SIX)


class Trap:
    """Pickles, and does not unpickle."""

    def __reduce__(self):
        return refuse, ()


def refuse():
    raise RuntimeError("not again")


class Lost:
    """Can be unpickled as long as it is where it was."""


@pytest.mark.parametrize("value", [Trap(), [1, {"deep": Trap()}], lambda: None, threading.Lock(), (n for n in ())])
def test_a_value_that_could_not_be_read_back_is_refused_when_it_is_recorded(value):
    """The error names the type and says what to do, while the task can still fail for it."""
    with Journal(":memory:") as journal:
        one = journal.begin("run", SIX)
        with pytest.raises(ResultError, match="of type .*cannot be recorded.*codec 'pickle'.*Return something"):
            one.encode(value)
        one.close("failed")


@pytest.mark.parametrize(
    "value", [None, 0, -(10**30), "ü\x93c", b"\x93", 1.5, {1: {2, 3}}, [[]] * 3, Lost, Path("a"), Ellipsis]
)
def test_what_pickle_takes_is_recorded(value):
    """What comes back equals what was recorded."""
    with Journal(":memory:") as journal:
        one = journal.begin("run", SIX)
        one.commit([done(one, 0, value)])
        assert one.recorded[0].value == value
        one.close("completed")


def test_a_value_that_is_too_large_is_refused(monkeypatch):
    """A limit that every database keeps, with the way out."""
    monkeypatch.setattr(codec, "LIMIT", 1000)
    with Journal(":memory:") as journal:
        one = journal.begin("run", SIX)
        with pytest.raises(ResultError, match=r"of type bytes takes 1,\d\d\d bytes.*Write it to a file"):
            one.encode(b"x" * 1000)
        one.close("failed")


def test_a_value_whose_class_is_gone_is_named(where, monkeypatch):
    """Run, task and what is missing stand in the error; nothing is lost, and with the class back it reads."""
    with Journal(where) as journal:
        one = journal.begin("run", SIX)
        one.commit([done(one, 3, Lost())])
        one.close("completed")
        with monkeypatch.context() as patch:
            patch.delattr(sys.modules[__name__], "Lost")
            two = journal.begin("run", SIX)
            with pytest.raises(ResultError, match=r"run 'run', task 3 \(builtins:len\).*Lost.*Put back"):
                dict(two.recorded)
            two.close("failed")
        three = journal.begin("run", SIX)
        assert isinstance(three.recorded[3].value, Lost)
        three.close("completed")


class Named(str):
    __slots__ = ()


class Listed(list):
    pass


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((1, 2), "a tuple, which would come back as a list"),
        ({1: 2}, "a key of type int, which would come back as a str"),
        ({None: 2}, "a key of type NoneType"),
        (enum.StrEnum("Status", ["PAID"]).PAID, r"a test_journal_records.Status, which would come back as a str"),
        (enum.IntEnum("Level", ["LOW"]).LOW, "Level, which would come back as a int"),
        (enum.IntFlag("Access", ["READ"]).READ, "Access, which would come back as a int"),
        (collections.Counter("aab"), "collections.Counter, which would come back as a dict"),
        (collections.OrderedDict(b=1), "collections.OrderedDict, which would come back as a dict"),
        (collections.defaultdict(list, a=[1]), "collections.defaultdict, which would come back as a dict"),
        (collections.namedtuple("Pair", "a b")(1, 2), "Pair, which would come back as a list"),
        (Named("a"), "Named, which would come back as a str"),
        (Listed([1]), "Listed, which would come back as a list"),
        ({Named("a"): 1}, "a key of type test_journal_records.Named"),
        (numpy.float64(1.5), "numpy.float64, which would come back as a float"),
        (numpy.str_("a"), "numpy.str_, which would come back as a str"),
        (numpy.int64(1), "int64 is not JSON"),
        ({1, 2}, "set is not JSON"),
        (float("nan"), "not JSON compliant"),
        (b"x", "bytes is not JSON"),
        (object(), "object is not JSON"),
    ],
)
@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: {"a": [1, {"b": value}]}])
def test_json_refuses_what_would_come_back_as_something_else(value, text, wrap):
    """At every depth: other types, keys that are no strings, and what JSON has no word for."""
    value = wrap(value)
    with Journal(":memory:", codec="json") as journal:
        one = journal.begin("run", SIX)
        with pytest.raises(ResultError, match=f"codec 'json'.*{text}"):
            one.encode(value)
        one.commit([done(one, 0, {"ü": [1, 1.5, None, True]})])
        assert values(one) == {0: {"ü": [1, 1.5, None, True]}}
        one.close("completed")


class Reversed:
    """A codec of a user's own."""

    name = "reversed"

    def encode(self, value):
        return value.encode()[::-1]

    def decode(self, data):
        return data[::-1].decode()


def test_a_run_is_read_with_the_codec_it_was_recorded_with(where):
    """Codecs of users work; another than the one of the run is refused with the name of the right one."""
    with Journal(where, codec=Reversed()) as journal:
        one = journal.begin("run", SIX)
        one.commit([done(one, 0, "abc")])
        assert values(one) == {0: "abc"}
        with pytest.raises(ResultError, match="type int"):
            one.encode(7)
        one.close("completed")
    with Journal(where) as journal, pytest.raises(JournalError, match="codec 'reversed' and not 'pickle'"):
        journal.begin("run", SIX)
    with pytest.raises(ValueError, match="'pickle', 'json'"):
        Journal(where, codec="yaml")


class Bomb:
    """Says so when it is unpickled."""

    def __reduce__(self):
        return explode, ()


exploded = []


def explode():
    exploded.append(1)


def test_nothing_but_a_recorder_reads_values(where):
    """Whoever shows, cancels or prunes runs cannot be made to run code by what stands in the journal."""
    with Journal(where) as journal:
        one = journal.begin("run", SIX)
        one.commit([done(one, 0, 1)._replace(value=pickle.dumps(Bomb()))])
        journal.runs(), journal.run("run"), journal.tasks("run"), journal.cancel("run")
        one.close("completed")
        journal.begin("run", SIX).close("completed")
        journal.runs(), journal.run("run"), journal.tasks("run"), journal.cancel("run"), journal.prune(time.time() + 9)
        assert exploded == []
        one = journal.begin("run", SIX)
        one.commit([done(one, 0, 1)._replace(value=pickle.dumps(Bomb()))])
        dict(one.recorded)
        assert exploded == [1]
        exploded.clear()
        one.close("completed")
