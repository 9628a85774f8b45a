"""The threads of a stage at once: one that has nothing to do is used again before another is started."""

import threading

import pytest

from procession import Process, task

WAIT_S = 30


@pytest.mark.usefixtures("restless")
@pytest.mark.parametrize("timeout", [None, WAIT_S])
def test_no_more_threads_are_started_than_there_are_workers(timeout):
    """In two hundred waves, each of which needs all workers together, with a moment for a single one in between."""
    width, threads = 3, set()

    def meet(_, barrier):
        threads.add(threading.current_thread())
        barrier.wait(WAIT_S)

    def pass_on(*_):
        threads.add(threading.current_thread())

    process = Process("waves", "parallel", width)
    last = process.task(pass_on)
    for _ in range(200):
        barrier = threading.Barrier(width)
        last = process.task(pass_on, *[process.task(task(timeout=timeout)(meet), last, barrier) for _ in range(width)])
    process.execute()
    assert len(threads) <= width
