"""Values that go from the worker that made them to a call in another: as they came, and each call has its own."""

import sys

import pytest

pytest.importorskip("numpy")
if sys.platform == "win32":
    pytest.skip("there is no such memory on Windows", allow_module_level=True)

import arrays
from arrays import Counted, append, count_up, counted, numbered, objects, pairs, total
from procession import Process, task
from procession._remote.wire import handed_on
from procession._remote.wire.memory_file import MemoryFile
from procession.journal import Journal


@pytest.fixture
def never_written(monkeypatch):
    """This process may put nothing into memory."""

    def refuse(self, view):
        raise AssertionError(f"{view.nbytes} bytes were copied")

    monkeypatch.setattr(MemoryFile, "append", refuse)


@pytest.fixture(params=[False, True], ids=["plain", "recorded"])
def how(request, tmp_path):
    """Whether the run is recorded."""
    if not request.param:
        yield {}
        return
    with Journal(tmp_path / "runs.db") as journal:
        yield {"run_id": "handed on", "journal": journal}


@pytest.fixture
def never_pickled(monkeypatch):
    """This process may not pickle the values."""

    def refuse(self):
        raise AssertionError("it was pickled")

    monkeypatch.setattr(Counted, "__reduce__", refuse)


def test_a_large_value_goes_on_without_a_copy(processes, never_written, how):
    """From its own memory, to each task that takes it, and each task can write into its own."""
    process = processes()
    array = process.task(numbered, 3)
    parts = process.map(numbered, [1, 2])
    for _ in range(3):
        process.task(count_up, array)
    process.task(total, array, array)
    process.task(arrays.total_of, parts)
    three, *_ = results = process.execute(**how)
    assert results[2:] == [(4.0, 4.0)] * 3 + [6.0 * three.size, 3.0 * three.size]
    assert (three == 3).all()


def test_a_value_goes_on_without_being_pickled_again(processes, never_pickled, how):
    """To tasks that take it whole, within a list or a dictionary, as the elements of a map, and by a map."""
    process = processes()
    one = process.task(counted, 500)
    many = process.map(counted, [500, 600, 700])
    process.task(pairs, one, [one], many)
    if not how:  # else the elements are digested, which pickles them, too
        process.map(pairs, many)
    assert process.execute(**how)[2:] == [2800, [500, 600, 700]][: 1 if how else 2]


def test_elements_go_on_without_being_pickled_again_however_many(processes, never_pickled, monkeypatch):
    """The bytes of each are let go once the map after it has it, so that there is always room for the next ones."""
    monkeypatch.setattr(handed_on, "_MOST_BYTES", 500_000)  # those of a fifth of them, and of all in a window
    process = processes()
    many = process.map(counted, [500] * 400)
    process.map(pairs, many, many)
    more = process.map(pairs, many)
    process.task(sum, more)
    assert process.execute()[1:] == [[1_000] * 400, [500] * 400, 200_000]


def test_each_task_has_a_copy_of_a_value(processes, how):
    """As the task returned it, whatever others do to theirs."""
    process = processes()
    one = process.task(counted, 500)
    for _ in range(4):
        process.task(append, one)
    first, *lengths = process.execute(**how)
    assert (len(first.pairs), lengths) == (500, [501] * 4)


def test_a_value_that_a_task_takes_twice_is_one_object_there(processes, how):
    """Also inside of containers, and in one container that the task takes twice; others are others."""
    process = processes()
    one, many = process.task(counted, 500), process.map(counted, [500, 600])
    process.task(objects, one, [one, one], many, many)
    assert process.execute(**how)[2] == 3


def test_what_a_process_in_between_has_changed_is_handed_on_changed():
    """It is called here, with the very value."""
    process = Process("changed", "sequential", executor="processes")
    one = process.task(counted, 500)
    inner = Process("inner")
    inner.add_task(append, 1)
    process.task(Changing(), one)
    process.task(pairs, one)
    assert process.execute()[1:] == [501, 501]


class Changing(Process):
    """A process that changes what it is called with."""

    def __init__(self):
        super().__init__("changing")

    def __call__(self, one):
        return append(one)


def test_values_go_on_after_a_retry_as_the_last_attempt_returned_them(processes, tmp_path):
    """Not as one before did."""
    process = processes()
    one = process.task(task(retries=2)(arrays.die_before), str(tmp_path / "died"), arrays.ones())
    process.task(str, one)
    assert process.execute() == [(2.0, 2.0), "(2.0, 2.0)"]
