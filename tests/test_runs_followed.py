"""Runs that go on: waited for, iterated, read by handles, and asked how far they are."""

import threading

import pytest

from gates import Gate, same, states, throw
from procession import (
    HandleError,
    Process,
    ProcessRunningError,
    RunCancelledError,
    TaskSkippedError,
    ValueUnavailableError,
    current_task,
)
from procession.observe.meter import Meter

STRATEGIES = ["sequential", "parallel", "hybrid"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_yields_each_outcome_once(strategy):
    """Those that ended, as they ended; those that never started come last."""
    gate = Gate()
    process = Process("follow", strategy, 1)
    process.add_task(same, 0)
    process.add_task(gate, 1)
    process.add_task(throw, KeyError("no"))
    process.add_task(same, 3)
    run = process.start()
    assert gate.begun.wait(20)
    outcomes = iter(run)
    first = next(outcomes)
    assert (first.index, first.value) == (0, 0)
    gate.release.set()
    rest = [(outcome.index, outcome.state) for outcome in outcomes]
    assert rest == [(1, "completed"), (2, "failed"), (3, "skipped")]
    assert [outcome.index for outcome in run] == [0, 1, 2, 3]


def test_outcomes_come_in_the_order_tasks_end():
    """Not in the order they were added, and to every reader alike."""
    turns = [threading.Event() for _ in range(3)]
    process = Process("ends", "parallel", 3)
    for turn in turns:
        process.add_task(turn.wait, 20)
    run = process.start()
    readers = [iter(run), iter(run)]
    for place in 2, 0, 1:
        turns[place].set()
        assert [next(reader).index for reader in readers] == [place, place]
    assert [list(reader) for reader in readers] == [[], []]
    assert [outcome.index for outcome in run] == [2, 0, 1]


def test_breaking_off_an_iteration_does_not_end_the_run():
    """The run goes on and can be iterated again."""
    gate = Gate()
    process = Process("break", "parallel", 1)
    process.add_task(same, 0)
    process.add_task(gate, 1)
    run = process.start()
    for outcome in run:
        assert outcome.index == 0
        break
    gate.release.set()
    assert run.result(20) == [0, 1]
    assert [outcome.index for outcome in run] == [0, 1]


def test_an_empty_run_has_nothing_to_yield():
    """And ends at once."""
    run = Process("empty").start()
    assert list(run) == []
    assert run.result(20) == []
    assert run.status == "completed"
    assert len(run.outcomes) == 0


def test_waiting_ends_in_time_and_the_run_goes_on():
    """wait() says so, result() raises TimeoutError; both can be asked again."""
    gate = Gate()
    process = Process("wait", "parallel")
    process.add_task(gate, 1)
    run = process.start()
    assert run.wait(0) is False
    assert run.wait(0.01) is False
    with pytest.raises(TimeoutError, match=r"process 'wait' goes on after 0\.01 s"):
        run.result(0.01)
    with pytest.raises(TimeoutError):
        run.result(timeout=-1)
    with pytest.raises(ProcessRunningError):
        process.start()
    assert run.status == "running"
    gate.release.set()
    assert run.wait(20) is True
    assert run.wait(0) is True
    assert run.result(0) == run.result() == [1]


def test_each_caller_of_result_has_a_list_of_its_own():
    """What one does with it does not show to the next."""
    process = Process("lists")
    process.add_task(same, 1)
    run = process.start()
    run.result(20).clear()
    assert run.result(20) == [1]


def test_a_value_is_read_by_its_handle():
    """As soon as its task has ended, although the run goes on."""
    gate = Gate()
    process = Process("handles", "parallel", 2)
    first = process.task(same, [1])
    second = process.task(gate, 2)
    run = process.start()
    assert run[first] == [1]
    assert run.status == "running"
    gate.release.set()
    assert run[second] == 2


def test_reading_a_handle_waits_for_its_task():
    """And no longer."""
    process = Process("waits", "parallel", 2)
    gate, forever = Gate(), Gate()
    wanted = process.task(gate, 1)
    process.add_task(forever)
    run = process.start()
    threading.Timer(0.01, gate.release.set).start()
    assert run[wanted] == 1
    assert run.status == "running"
    forever.release.set()
    run.wait(20)


def test_reading_the_handle_of_a_task_without_a_value_says_why():
    """What it raised; that it was skipped; that it is not of this run."""
    error = KeyError("no")
    process, other = Process("handles", "parallel", on_error="return"), Process("other")
    broken = process.task(throw, error)
    skipped = process.task(same, broken)
    run = process.start()
    with pytest.raises(KeyError) as caught:
        _ = run[broken]
    assert caught.value is error
    with pytest.raises(TaskSkippedError, match=r"task 1 \(same\)"):
        _ = run[skipped]
    for wrong in other.task(same, 1), 0, "same", None:
        with pytest.raises(HandleError, match="process 'handles'"):
            _ = run[wrong]
    run.wait(20)
    late = process.task(same, 2)
    with pytest.raises(HandleError, match="after this run"):
        _ = run[late]


def test_values_with_handles_can_be_read_after_execute():
    """The others belong to the caller alone, and their outcome says so."""
    process = Process("kept")
    kept = process.task(same, [1])
    process.add_task(same, [2])
    process.add_task(same, 3)
    results = process.execute()
    run = process.last_run
    assert run[kept] is results[0]
    assert run.outcomes[0].value is results[0]
    with pytest.raises(ValueUnavailableError, match=r"belongs to the caller of execute\(\)"):
        _ = run.outcomes[1].value


def test_progress_counts_what_has_ended():
    """From nothing to all, failures apart."""
    gate = Gate()
    process = Process("progress", "parallel", 1, on_error="return")
    process.add_task(same, 0)
    process.add_task(throw, KeyError("no"))
    process.add_task(gate)
    process.add_task(same, 3)
    run = process.start()
    assert gate.begun.wait(20)
    assert run.progress == (2, 1, 4)
    gate.release.set()
    assert run.wait(20)
    assert run.progress == (4, 1, 4)
    assert run.progress._fields == ("ended", "failed", "total")


def test_progress_counts_the_elements_of_a_map():
    """Each as one, from the moment the map begins."""
    begun, release = threading.Event(), threading.Event()

    def each(number):
        if number == 10:
            begun.set()
            assert release.wait(20)
        if number % 5 == 0:
            raise KeyError(number)

    process = Process("elements", "parallel", 1, on_error="return")
    process.add_task(same, 0)
    process.map(each, range(20))
    run = process.start()
    assert begun.wait(20)
    assert run.progress == (11, 2, 21)
    release.set()
    assert run.wait(20)
    assert run.progress == (21, 4, 21)


def test_outcomes_say_how_each_task_stands_while_it_runs():
    """Waiting, running, completed; times where there are any."""
    gate = Gate()
    process = Process("stands", "parallel", 1)
    process.add_task(same, 0)
    process.add_task(gate)
    process.add_task(same, 2)
    run = process.start()
    assert gate.begun.wait(20)
    assert states(run) == ["completed", "running", "waiting"]
    completed, running, waiting = run.outcomes
    assert (completed.attempts, running.attempts, waiting.attempts) == (1, 1, 0)
    assert running.start >= completed.start + completed.duration
    assert running.duration is None
    assert (waiting.start, waiting.duration, waiting.worker) == (None, None, None)
    assert completed.worker == running.worker
    gate.release.set()
    assert run.wait(20)
    assert states(run) == ["completed"] * 3
    assert [outcome.index for outcome in run.outcomes[::-1]] == [2, 1, 0]
    assert run.outcomes[-1].value == 2


def test_an_outcome_makes_the_very_same_call_again():
    """With the values of its handles."""
    calls = []
    process = Process("calls", on_error="return")
    one = process.task(same, [1])

    def fail(*args, **kwargs):
        calls.append((args, kwargs))
        raise KeyError("no")

    process.add_task(fail, one, {"k": one}, more=[one])
    process.execute()
    with pytest.raises(KeyError):
        process.last_run.outcomes[1].call_again()
    assert calls == [(([1], {"k": [1]}), {"more": [[1]]})] * 2


def test_each_run_has_an_id_of_its_own():
    """And the last one is the process's."""
    process = Process("ids")
    assert process.last_run is None
    runs = [process.start() for _ in range(3) if process.last_run is None or process.last_run.wait(20)]
    assert len({run.id for run in runs}) == 3
    assert process.last_run is runs[-1]
    assert all(run.wait(20) for run in runs)


def test_a_task_that_was_stopped_has_not_ended():
    """Progress, summary and the error of the run agree on how many have."""
    begun = threading.Barrier(3)

    def stopped():
        begun.wait(50)
        current_task().sleep(50)

    process = Process("agreed", "parallel", 3)
    handles = [process.task(len, "abc"), process.task(len, "ab")]
    process.add_task(stopped)
    process.add_task(stopped)
    run = process.start()
    assert [run[handle] for handle in handles] == [3, 2]
    begun.wait(50)
    run.cancel()
    with pytest.raises(RunCancelledError, match="2 of 4 tasks had ended"):
        run.result(50)
    assert run.progress == (2, 0, 4)
    assert Meter(run._run_state).read(0.0)[0][1:4] == (2, 0, 4)
    assert "(2 completed, 2 cancelled)" in run.summary()
