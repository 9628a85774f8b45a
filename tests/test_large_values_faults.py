"""Large values where there is no room, too few files, or somebody is killed: right or refused by name, and nothing stays."""

import errno
import os
import sys
from collections import Counter

import pytest

pytest.importorskip("numpy")
if sys.platform == "win32":
    pytest.skip("there is no such memory on Windows", allow_module_level=True)

import arrays
from arrays import count_up, first, numbered, ones
from marks import linux
from pool_fixtures import large_memory, mappings, named_memory, open_files, workers
from procession import Process, TransferError, WorkerDiedError
from procession._remote.wire.memory_file import MemoryFile
from programs import program

pytestmark = linux


@pytest.mark.parametrize("missing", ["made", "append"])
@pytest.mark.parametrize("why", [errno.ENOSPC, errno.ENOMEM, errno.EMFILE])
def test_arguments_go_through_the_pipe_where_there_is_no_memory(processes, monkeypatch, missing, why):
    """As they did before there was any."""

    def fail(*_):
        raise OSError(why, os.strerror(why))

    monkeypatch.setattr(MemoryFile, missing, fail)
    array = ones()
    process = processes()
    for _ in range(4):
        process.add_task(count_up, array)
    process.add_task(arrays.size, b"b" * 2_000_000)
    assert process.execute() == [(2.0, 2.0)] * 4 + [2_000_000]
    assert array[0] == 1


def test_half_a_buffer_that_found_no_room_does_no_harm(processes, monkeypatch):
    """Those before it stay where they are, and it goes through the pipe."""
    write = os.pwrite

    def fail_half_way(descriptor, view, place):
        if place >= 2 << 20:
            if place > 3 << 20:
                raise OSError(errno.ENOSPC, "no room")
            view = view[: (1 << 20) + 1]
        return write(descriptor, view, place)

    monkeypatch.setattr(os, "pwrite", fail_half_way)
    process = processes()
    for _ in range(3):
        process.add_task(arrays.total, ones(2), ones(3), ones(2))
    assert process.execute() == [float(7 << 17)] * 3


def test_results_go_through_the_pipe_where_a_worker_may_open_no_more_files():
    """They are right all the same."""
    process = Process("few", "sequential", executor="processes")
    process.add_task(arrays.open_no_more_files)
    process.add_task(numbered, 7)
    assert float(process.execute()[1].sum()) == 7.0 * (2 << 17)


def test_a_call_whose_worker_may_open_no_more_files_fails_by_name():
    """The others go on."""
    process = Process("few", "parallel", 1, executor="processes", on_error="return")
    process.add_task(arrays.open_no_more_files)
    process.add_task(first, ones())
    process.add_task(arrays.same, 1)
    _, refused, one = process.execute()
    assert one == 1
    assert isinstance(refused, TransferError)
    assert "too many open files" in str(refused)


def test_a_thousand_calls_leave_no_file_open(processes):
    """Neither here, while their results are kept, nor in the workers."""
    before = open_files()
    process = processes()
    array = ones()
    process.map(arrays.descriptors, [(array, number) for number in range(500)])
    for number in range(500):
        process.add_task(numbered, number)
    counts, *results = process.execute()
    assert max(counts) < 40
    assert not Counter(open_files()) - Counter(before)
    assert mappings() == 500
    del results
    assert mappings() == 0


def test_few_open_files_are_enough(tmp_path):
    """For as many large arguments and results as you like."""
    with program(
        tmp_path,
        """
        import arrays, resource
        from procession import Process

        if __name__ == "__main__":
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
            process = Process("few", "parallel", 2, executor="processes")
            many = process.map(arrays.numbered, range(100))
            process.map(arrays.first, many)
            process.map(arrays.first, [arrays.numbered(number) for number in range(100)])
            _, there, here = process.execute()
            print(there == here == [float(number) for number in range(100)])
        """,
    ) as child:
        out, complaints = child.communicate(timeout=50)
    assert (out, complaints) == ("True\n", "")


def test_the_coordinator_holds_no_copy(tmp_path):
    """Its memory grows by less than a fifth of an array that forty calls take, and of what they return."""
    with program(
        tmp_path,
        """
        import arrays, resource, threading
        from procession import Process

        def most():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

        if __name__ == "__main__":
            array = arrays.ones(100)
            process = Process("warm", "parallel", 2, executor="processes")
            process.map(arrays.same, [1, 2])
            process.execute()
            before = most()
            process = Process("large", "parallel", 2, executor="processes")
            for number in range(40):
                process.add_task(arrays.first, array, number)
            process.execute()
            print(most() - before)
            process = Process("results", "parallel", 2, executor="processes")
            process.map(arrays.numbered, range(40))
            results = process.execute()
            print(most() - before)
        """,
    ) as child:
        out, complaints = child.communicate(timeout=50)
    assert complaints == ""
    assert max(map(int, out.split())) < 20


@pytest.mark.parametrize("at", ["taking", "making"])
def test_a_worker_that_is_killed_leaves_nothing(processes, at):
    """Whatever memory it had, or was making."""
    before = open_files()
    process = processes(on_error="return")
    array = ones()
    for number in range(20):
        process.add_task(arrays.die if number % 5 == 0 else first if at == "taking" else arrays.same, array)
    results = process.execute()
    assert sum(isinstance(result, WorkerDiedError) for result in results) == 4
    del results
    assert not Counter(open_files()) - Counter(before)
    assert named_memory() == []
    assert mappings() == 0


def test_workers_that_stay_hold_no_result_that_was_let_go(workers, comes_true):
    """However large it was, and though they have no other call meanwhile."""
    executor = workers(1)
    process = Process("large", "parallel", 1, executor=executor)
    for number in range(8):
        process.add_task(numbered, number)
    results = process.execute()
    assert large_memory()
    results = process = None
    assert comes_true(lambda: large_memory() == [])
