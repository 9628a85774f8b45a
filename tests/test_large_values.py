"""Large arguments and results of worker processes: each call has its own, and what calls share is sent once."""

import sys
import weakref

import pytest

numpy = pytest.importorskip("numpy")
if sys.platform == "win32":
    pytest.skip("there is no such memory on Windows", allow_module_level=True)

import arrays
from arrays import count_up, first, numbered, ones, same, total
from procession import Process, WorkerDiedError, task
from procession._remote.wire.memory_file import MemoryFile
from procession.journal import Journal


@pytest.fixture
def written(monkeypatch):
    """The sizes of what this process puts into memory for workers."""
    sizes = []
    append = MemoryFile.append

    def noted(self, view):
        sizes.append(view.nbytes)
        return append(self, view)

    monkeypatch.setattr(MemoryFile, "append", noted)
    return sizes


# Arguments


def test_few_of_many_large_arguments_are_here_at_a_time(processes):
    """A lazy map draws the next ones as calls have ended: what was sent is not kept."""
    drawn, most = [], 0

    def large():
        nonlocal most
        for _ in range(60):
            array = numpy.empty(1 << 19)  # at once: nothing is written
            drawn.append(weakref.ref(array))
            most = max(most, sum(one() is not None for one in drawn))
            yield array

    process = processes()
    process.map(first, large())
    assert len(process.execute()[0]) == 60
    assert most <= 12


@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_that_many_calls_take_is_copied_once(processes, written, order):
    """Wherever it stands in the arguments."""
    array = numpy.asarray(ones().reshape(-1, 64), order=order)
    process = processes()
    for number in range(12):
        process.add_task(total, array)
        process.add_task(first, arrays.Box({"deep": [array]}).content["deep"][0], number)
    assert process.execute() == [array.sum(), 1.0] * 12
    assert written == [array.nbytes]


@pytest.mark.parametrize("value", [b"b" * 3_000_000, ones(), [ones(), ones(3)], arrays.Box({"a": (ones(),)})])
def test_all_large_parts_of_a_value_are_copied_once(processes, written, value):
    """Buffers and bytes, inside of lists, dictionaries and objects, too."""
    process = processes()
    for _ in range(6):
        process.add_task(arrays.looks_of, value)
    assert process.execute() == [arrays.looks_of(value)] * 6
    assert sum(written) == {bytes: 3_000_000, list: 5 << 20}.get(type(value), 2 << 20)


def test_a_frame_is_copied_once(processes, written):
    """Though it hands out other arrays each time that it is pickled."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(numpy.ones((300_000, 2)), columns=["a", "b"])
    process = processes()
    for _ in range(8):
        process.add_task(arrays.column_total, frame)
    assert process.execute() == [300_000.0] * 8
    assert sum(written) == 4_800_000


@pytest.mark.parametrize("options", [{}, {"retries": 1}])
def test_what_a_task_writes_into_an_array_is_seen_by_nobody_else(processes, options):
    """Neither by calls in other workers, nor by those that follow in the same worker or batch, nor by the caller."""
    array = ones()
    process = processes()
    for number in range(300):
        process.add_task(task(**options)(count_up), array, number)
    process.map(count_up, [array] * 300)
    *results, mapped = process.execute()
    assert set(results) == set(mapped) == {(2.0, 2.0)}
    assert (array == 1).all()


@pytest.mark.parametrize("value", [ones(), ones().reshape(512, 512).T])
def test_a_change_between_two_calls_of_a_run_is_not_seen_by_the_second(value):
    """The snapshot holds that was made at the first; another run makes another one."""
    process = Process("changed", "sequential", executor="processes")
    inner = Process("change")
    inner.add_task(value.fill, 5)
    process.add_task(first, value)
    process.add_task(inner)
    process.add_task(first, value)
    assert process.execute() == [1.0, [None], 1.0]
    assert process.execute() == [5.0, [None], 5.0]
    value.fill(1)


def test_objects_that_come_and_go_are_not_taken_for_each_other(processes):
    """Where a new array has the address of one that is gone."""
    process = processes()
    process.map(first, (numbered(number) for number in range(60)))
    process.map(arrays.size, (bytes(1_500_000 + number) for number in range(60)))
    assert process.execute() == [list(map(float, range(60))), [1_500_000 + number for number in range(60)]]


def test_other_views_of_one_array_are_not_taken_for_each_other(processes):
    """Of the same size, of other places, and not in one piece."""
    array = numpy.concatenate([ones(), ones() * 2])
    half = len(array) // 2
    process = processes()
    process.map(first, [array[:half], array[half:], array[::2], array[::-1], array[: half + 1]])
    assert process.execute()[0] == [1.0, 2.0, 1.0, 2.0, 1.0]


def test_one_array_that_stands_twice_in_a_call_is_one_object_there(processes):
    """And two equal arrays are two."""
    array = ones()
    process = processes()
    process.add_task(arrays.are_same, array, array)
    process.add_task(arrays.are_same, array, array.copy())
    assert process.execute() == [True, False]


def test_a_retried_call_gets_the_array_as_it_was(processes, tmp_path):
    """Also where the worker that had written into it has died."""
    array = ones()
    process = processes()
    process.add_task(task(retries=2)(arrays.die_before), str(tmp_path / "died"), array)
    assert process.execute() == [(2.0, 2.0)]


def test_functions_that_go_by_value_take_arrays_too(processes, written):
    """A lambda has its arguments' memory as any function."""
    pytest.importorskip("cloudpickle")
    array = ones()
    process = processes()
    for _ in range(5):
        process.add_task(arrays.unnamed, array)
    assert process.execute() == [array.sum()] * 5
    assert set(written) == {array.nbytes}


# Results


def test_large_results_are_the_callers_own(processes):
    """They can be written to, are right at any depth, and no two of them share memory."""
    process = processes()
    for number in range(6):
        process.add_task(numbered, number)
    process.add_task(arrays.zeros_in)
    *results, box = process.execute()
    for number, array in enumerate(results):
        assert array.flags.writeable and (array == number).all()
        array += 1
    assert [float(array[-1]) for array in results] == [1, 2, 3, 4, 5, 6]
    box.content["zeros"][0] += 1
    assert box.content["text"] == "x" * (2 << 20)


@pytest.mark.parametrize("codec", ["pickle", "default"])
def test_large_results_are_recorded_whole(tmp_path, codec):
    """A resumed run has them as they were."""
    options = {} if codec == "default" else {"codec": codec}
    journal = Journal(tmp_path / "runs.db", **options)
    process = Process("recorded", "parallel", 2, executor="processes")
    process.add_task(numbered, 3)
    process.map(numbered, [4, 5])
    process.add_task(arrays.zeros_in)
    for _ in range(2):
        three, (four, five), box = process.execute(run_id="large", journal=journal)
        assert [float(array.mean()) for array in (three, four, five)] == [3.0, 4.0, 5.0]
        assert box.content["text"] == "x" * (2 << 20)
        three += 1


def test_a_result_that_came_is_kept_though_its_worker_dies_in_the_next_call():
    """Its memory is not the worker's any more."""
    process = Process("dies", "parallel", 1, executor="processes", on_error="return")
    for number in range(3):
        process.add_task(numbered, number)
    process.add_task(arrays.die)
    *arrays_, died = process.execute()
    assert [float(array[0]) for array in arrays_] == [0.0, 1.0, 2.0]
    assert isinstance(died, WorkerDiedError)


def test_results_of_a_class_that_goes_by_value_come_whole(processes):
    """In memory, too."""
    pytest.importorskip("cloudpickle")

    class Local:
        def __init__(self, array):
            self.array = array

    process = processes()
    process.add_task(lambda: Local(ones(3)))
    (local,) = process.execute()
    local.array += 1
    assert float(local.array.sum()) == 2 * (3 << 17)
