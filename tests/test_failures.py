"""What a failure means for the tasks around it, and for the results."""

import threading

import pytest

from failing_tasks import POLICIES, STRATEGIES, caught_from, same, states, throw
from procession import Process, TaskSkippedError


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("place", [0, 1, 4, 9])
def test_nothing_new_starts_after_a_failure(strategy, place):
    """With one worker, exactly those before it have run."""
    begun = []

    def work(number):
        begun.append(number)
        if number == place:
            raise KeyError(number)

    process = Process("stop", strategy, 1)
    for number in range(10):
        process.add_task(work, number)
    with pytest.raises(KeyError, match=str(place)):
        process.execute()
    assert begun == list(range(place + 1))
    assert states(process) == ["completed"] * place + ["failed"] + ["skipped"] * (9 - place)
    assert process.status == process.last_run.status == "failed"


def test_what_runs_when_a_task_fails_is_let_end():
    """Its value is in the outcomes; nothing else starts."""
    workers = 4
    together, failed, begun = threading.Barrier(workers), threading.Event(), []

    def bystander(number):
        begun.append(number)
        together.wait(20)
        assert failed.wait(20)
        return number

    def fail():
        together.wait(20)
        raise KeyError("no")

    process = Process("in flight", "parallel", workers)
    process.add_task(fail)
    for number in range(1, 1000):
        process.add_task(bystander, number)
    run = process.start()
    next(iter(run))  # the failed one, the others are held back
    failed.set()
    with pytest.raises(KeyError):
        run.result(20)
    assert sorted(begun) == [1, 2, 3]
    assert [outcome.value for outcome in run.outcomes[1:workers]] == [1, 2, 3]
    assert {outcome.state for outcome in run.outcomes[workers:]} == {"skipped"}


@pytest.mark.parametrize("places", [(0, 1), (1, 0)])
def test_the_failure_that_stopped_the_run_is_raised(places):
    """The first in time, wherever it stands; the others are in the outcomes."""
    order, both = [threading.Event(), threading.Event()], threading.Barrier(2)

    def fail(turn):
        both.wait(20)
        assert order[turn].wait(20)
        raise KeyError(turn)

    process = Process("race", "parallel", 2)
    for turn in places:
        process.add_task(fail, turn)
    run = process.start()
    order[0].set()
    assert next(iter(run)).error.args == (0,)
    order[1].set()
    with pytest.raises(KeyError) as caught:
        run.result(20)
    assert caught.value.args == (0,)
    assert [outcome.error.args for outcome in run.outcomes] == [(turn,) for turn in places]


@pytest.mark.parametrize("policy", POLICIES)
def test_hybrid_starts_nothing_at_once_after_a_failure_in_order(policy):
    """The second half waits for the first to succeed, whatever the policy."""
    begun = []
    process = Process("halves", "hybrid", 4, on_error=policy)
    process.add_task(begun.append, 0)
    process.add_task(throw, KeyError("no"))
    for number in range(2, 4):
        process.add_task(begun.append, number)
    process.start().wait(20)
    assert begun == [0]
    assert states(process) == ["completed", "failed", "skipped", "skipped"]


@pytest.mark.parametrize("policy", ["continue", "return"])
def test_in_order_every_later_task_waits_for_the_failed_one(policy):
    """So a sequential process ends with its first failure, whatever the policy."""
    begun = []
    process = Process("order", on_error=policy)
    process.add_task(throw, KeyError("no"))
    process.add_task(begun.append, 1)
    process.start().wait(20)
    assert begun == []
    assert states(process) == ["failed", "skipped"]


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("policy", ["continue", "return"])
def test_what_does_not_wait_for_a_failed_task_still_runs(workers, policy):
    """What waits for it, at any distance and beside others, is skipped.

    broken ──▶ child ──▶ grandchild
        └──────────┬──▶ mixed
    fine ──────────┴──▶ fed          lone
    """
    process = Process("graph", "parallel", workers, on_error=policy)
    broken, fine = process.task(throw, KeyError("no")), process.task(same, 1)
    child = process.task(same, broken)
    process.add_task(same, [child])
    process.add_task(dict, a=fine, b=broken)
    process.add_task(same, (fine, fine))
    process.add_task(same, "lone")
    run = process.start()
    run.wait(20)
    assert states(process) == ["failed", "completed", "skipped", "skipped", "skipped", "completed", "completed"]
    assert [run.outcomes[place].value for place in (1, 5, 6)] == [1, (1, 1), "lone"]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("policy", POLICIES)
def test_a_process_is_usable_after_a_failure(strategy, policy):
    """It starts afresh, and what failed before leaves no trace."""
    broken = True

    def sometimes():
        if broken:
            raise KeyError("no")
        return "well"

    process = Process("again", strategy, 2, on_error=policy)
    process.add_task(sometimes)
    process.add_task(same, 2)
    process.start().wait(20)
    broken = False
    process.add_task(same, 3)
    assert process.execute() == ["well", 2, 3]
    assert process.status == process.last_run.status == "completed"
    assert states(process) == ["completed"] * 3
    broken = True
    process.start().wait(20)
    assert states(process)[0] == "failed"


@pytest.mark.parametrize("workers", [1, 4])
def test_continue_raises_all_failures_in_the_order_of_their_tasks(workers):
    """In whatever order they happened."""
    gate = threading.Event()
    errors = [KeyError("a"), ValueError("b"), OSError("c")]

    def last():
        if workers > 1:
            assert gate.wait(20)
        raise errors[0]

    def first():
        gate.set()
        raise errors[2]

    process = Process("group", "parallel", workers, on_error="continue")
    process.add_task(last)
    process.add_task(throw, errors[1])
    process.add_task(same, 2)
    process.add_task(first)
    group = caught_from(process)
    assert type(group) is ExceptionGroup
    assert list(group.exceptions) == errors
    assert "3 of 4 tasks of process 'group'" in str(group)
    assert process.status == process.last_run.status == "failed"
    assert [error.__notes__ for error in group.exceptions] == [
        [f"in process 'group', task {place} ({name}), attempt 1"]
        for place, name in ((0, last.__qualname__), (1, "throw"), (3, first.__qualname__))
    ]


def test_skipped_tasks_are_no_failures_of_their_own():
    """The group has only what was raised."""
    process = Process("group", "parallel", on_error="continue")
    broken = process.task(throw, KeyError("no"))
    process.add_task(same, broken)
    assert [type(error) for error in caught_from(process).exceptions] == [KeyError]


def test_continue_raises_a_group_for_a_single_failure_too():
    """So that `except*` catches it, however many there are."""
    process = Process("one", "parallel", on_error="continue")
    process.add_task(throw, KeyError("no"))
    process.add_task(same, 1)
    caught = []
    try:
        process.execute()
    except* KeyError as group:
        caught += group.exceptions
    assert [error.args for error in caught] == [("no",)]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_continue_without_a_failure_returns_the_results(strategy):
    """There is nothing to raise."""
    process = Process("well", strategy, on_error="continue")
    process.add_task(same, 1)
    process.add_task(same, KeyError("a value"))
    first, second = process.execute()
    assert (first, type(second)) == (1, KeyError)


@pytest.mark.parametrize("workers", [1, 4])
def test_return_puts_exceptions_in_their_places(workers):
    """The very instances; a skipped task has an error that says so."""
    errors = [KeyError("a"), ValueError("b")]
    process = Process("places", "parallel", workers, on_error="return")
    broken = process.task(throw, errors[0])
    process.add_task(same, 1)
    process.add_task(same, broken)
    process.add_task(throw, errors[1])
    results = process.execute()
    assert (results[0], results[1], results[3]) == (errors[0], 1, errors[1])
    assert isinstance(results[2], TaskSkippedError)
    assert isinstance(results[2], RuntimeError)
    assert "task 2 (same) of process 'places'" in str(results[2])
    assert process.status == process.last_run.status == "completed"
    assert states(process) == ["failed", "completed", "skipped", "failed"]
    assert [outcome.error for outcome in process.last_run.outcomes] == [errors[0], None, None, errors[1]]


@pytest.mark.parametrize("strategy", ["sequential", "hybrid"])
def test_return_marks_all_that_never_started_after_a_failure_in_order(strategy):
    """Each with an error of its own."""
    process = Process("rest", strategy, on_error="return")
    process.add_task(same, 0)
    process.add_task(throw, KeyError("no"))
    for number in range(2, 5):
        process.add_task(same, number)
    results = process.execute()
    assert [type(value) for value in results] == [int, KeyError, *[TaskSkippedError] * 3]
    assert [f"task {place} " in str(results[place]) for place in (2, 3, 4)] == [True] * 3


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_exception_that_is_returned_is_a_result_like_any_other(strategy, policy):
    """Only what is raised is a failure."""
    values = [KeyError("a value"), None, False, KeyboardInterrupt, TaskSkippedError("a value"), NotImplemented]
    process = Process("values", strategy, on_error=policy)
    for value in values:
        process.add_task(same, value)
    assert process.execute() == values
    assert states(process) == ["completed"] * len(values)


@pytest.mark.parametrize("policy", ["ignore", "", None, "Stop", ["stop"]])
def test_an_unknown_policy_is_refused_at_construction(policy):
    """The message names the process and lists the known ones."""
    with pytest.raises(ValueError, match=r"process 'x': unknown on_error .*'stop', 'continue', 'return'"):
        Process("x", on_error=policy)
