"""A worker that has no memory left: the call fails by name, and the others are made."""

import pytest

import pool_jobs
from errands import same
from marks import linux
from pool_fixtures import workers
from procession import Process
from procession._remote.backends.worker_process import WorkerProcess
from procession._remote.batch_size import MOST_BYTES

__all__ = ["workers"]


def executed(executor, function, *args):
    """Return what becomes of a call, with another before it and after it."""
    process = Process("memory", "parallel", 1, executor=executor, on_error="return")
    process.add_task(same, 1)
    process.add_task(function, *args)
    process.add_task(same, 2)
    one, result, two = process.execute()
    assert (one, two) == (1, 2)
    return result


def test_a_call_that_takes_too_much_fails_alone(workers):
    """With the error that it raised."""
    executor = workers(1)
    assert isinstance(executed(executor, pool_jobs.take_memory, 1 << 60), MemoryError)
    assert isinstance(executor.submit(pool_jobs.take_memory, 1 << 60).exception(30), MemoryError)


@linux
def test_a_result_that_cannot_be_sent_for_want_of_memory_fails_alone(workers):
    """It is told from a value that can never be sent."""
    executor = workers(1, initializer=pool_jobs.limit_memory, initargs=(64,))
    error = executed(executor, pool_jobs.return_memory, 40)
    assert isinstance(error, MemoryError)
    assert "to send the result" in str(error)


@linux
def test_a_call_that_a_worker_has_no_memory_to_receive_fails_alone(workers):
    """The worker is replaced."""
    executor = workers(1, initializer=pool_jobs.limit_memory, initargs=(64,))
    error = executed(executor, len, b"x" * (100 << 20))
    assert isinstance(error, MemoryError)
    assert "had no memory left to" in str(error)
    assert isinstance(executor.submit(len, b"x" * (100 << 20)).exception(30), MemoryError)
    assert executor.submit(same, 1).result(30) == 1


def test_calls_of_megabytes_travel_alone_though_small_ones_came_before(workers):
    """Each is made by itself, in the order of the tasks, and none is lost."""
    executor = workers(1)
    process = Process("grows", "parallel", 1, executor=executor)
    sizes = [*[1] * 300, *[3 << 20] * 6, *[1] * 300]
    for size in sizes:
        process.add_task(len, b"x" * size)
    batches = []
    send = WorkerProcess.send
    with pytest.MonkeyPatch.context() as patch:

        def noted_send(self, batch, timeout):
            sent = send(self, batch, timeout)
            if sent:
                batches.append((len(batch.calls), sum(len(call[5][0]) for call in batch.calls)))
            return sent

        patch.setattr(WorkerProcess, "send", noted_send)
        assert process.execute() == sizes
    assert max(calls for calls, _ in batches) > 1
    assert max(calls for calls, size in batches if size > MOST_BYTES) == 1
