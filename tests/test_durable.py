"""What a run with a journal promises: nothing that is done is done twice, and its id leads to its results."""

import sys
import threading
from contextlib import suppress

import pytest

from counted_calls import BROKEN, CALLS, HOLD, STRATEGIES, _nothing_called, calls, path, plus, same, ten, work
from procession import PlanChangedError, Process, TaskSkippedError, current_task, task
from procession.journal import Journal


def halved(number):
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number // 2


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_succeeded_is_not_called_again(strategy, path):
    """Executed again after a failure, a run calls what had not succeeded, and returns all results."""
    BROKEN.add(5)
    with pytest.raises(ValueError, match="5 is broken"):
        ten(strategy).execute(run_id="a", journal=path)
    before = set(calls())
    BROKEN.clear()
    process = ten(strategy)
    assert process.execute(run_id="a", journal=path) == [number * 10 for number in range(10)]
    after = set(calls())
    assert before | after == set(range(10))
    assert before & after == {5}
    assert [outcome.recorded for outcome in process.last_run.outcomes] == [n not in after for n in range(10)]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_completed_run_returns_its_results_at_once(strategy, path):
    """Nothing is called; outcomes say that they were recorded, how long each took then, and on whom."""
    ten(strategy).execute(run_id="a", journal=path)
    calls()
    process = ten(strategy)
    assert process.execute(run_id="a", journal=path) == [number * 10 for number in range(10)]
    assert calls() == []
    assert process.status == "completed"
    for outcome in process.last_run.outcomes:
        assert (outcome.state, outcome.recorded, outcome.attempts, outcome.start) == ("completed", True, 1, None)
        assert outcome.duration >= 0
        assert outcome.worker


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_completed_run_that_is_executed_again_keeps_when_it_ran_and_how_long(strategy, path):
    """Unless something of it is called: what may fail in its results, or what has changed."""

    def build(*numbers):
        process = Process("run", strategy, 2, on_error="return")
        process.map(work, numbers)
        process.add_task(work, 9)
        return process

    def times():
        info = journal.run("a")
        return info.status, info.started_at, info.ended_at, info.progress.ended

    with Journal(path) as journal:
        build(1, 2).execute(run_id="a", journal=journal)
        before = times()
        build(1, 2).execute(run_id="a", journal=journal)
        assert (times(), journal.run("a").executions) == (before, 2)
        BROKEN.add(3)
        build(1, 3).execute(run_id="a", journal=journal, allow_changes=True)
        changed = times()
        assert changed[1] >= before[2]
        build(1, 3).execute(run_id="a", journal=journal)
        assert times()[1] >= changed[2]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_that_is_executed_again_does_not_shrink(strategy, path):
    """Elements of a map are counted, whether they are called or were recorded."""
    process = Process("maps", strategy, 2, on_error="return")
    process.map(work, range(3))
    process.add_task(work, 20)
    process.map(work, range(10, 14))
    BROKEN.add(13)
    with Journal(path) as journal:
        process.execute(run_id="run", journal=journal)
        assert journal.run("run").progress == (8, 1, 8)
        BROKEN.clear()
        for _ in range(3):
            process.execute(run_id="run", journal=journal)
            assert journal.run("run").progress == (8, 0, 8)


def test_ids_are_apart(path):
    """Under another id, or in another journal, everything is called."""
    ten().execute(run_id="a", journal=path)
    calls()
    ten().execute(run_id="b", journal=path)
    assert len(calls()) == 10
    ten().execute(run_id="a", journal=path.with_name("other.db"))
    assert len(calls()) == 10


def test_without_an_id_a_run_gets_one(path):
    """It is recorded all the same, and can be gone on with under the id that it says."""
    BROKEN.add(5)
    process = ten(journal=path)
    with pytest.raises(ValueError):
        process.execute()
    calls()
    BROKEN.clear()
    process.execute(run_id=process.last_run.id)
    assert calls() == [5, 6, 7, 8, 9]


def test_an_id_needs_a_journal():
    """It would promise what nobody keeps."""
    process = ten()
    with pytest.raises(ValueError, match=r"process 'ten': run_id='a' .*journal="):
        process.execute(run_id="a")
    assert len(process.execute()) == 10


def test_a_journal_is_a_default_of_the_process(path):
    """An execution may name another."""
    process = ten(journal=str(path))
    process.execute(run_id="a")
    process.execute(run_id="a", journal=path.with_name("other.db"))
    process.start(run_id="a").result()
    assert len(calls()) == 20


def test_values_flow_from_recorded_tasks(path):
    """A handle of a task that is not called again becomes the value that was recorded."""

    def build():
        process = Process("flow", "parallel", 3)
        first, second = process.task(work, 1), process.task(work, 2)
        process.task(plus, first, process.task(plus, first, second))
        return process

    BROKEN.add(2)
    with pytest.raises(ValueError):
        build().execute(run_id="a", journal=path)
    calls()
    BROKEN.clear()
    run = build().start(run_id="a", journal=path)
    assert run.result() == [10, 20, 30, 40]
    assert calls() == [("plus", (10, 20)), ("plus", (10, 30)), 2]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("by_handle", [False, True])
def test_each_element_of_a_map_is_recorded(strategy, by_handle, path):
    """A failure among many elements loses none that has succeeded."""

    def build():
        process = Process("map", strategy, 3)
        numbers = process.task(list, range(200)) if by_handle else range(200)
        process.map(work, numbers)
        return process

    BROKEN.add(150)
    with pytest.raises(ValueError):
        build().execute(run_id="a", journal=path)
    before = set(calls())
    BROKEN.clear()
    assert build().execute(run_id="a", journal=path)[-1] == [number * 10 for number in range(200)]
    after = set(calls())
    assert before & after == {150}
    assert before | after == set(range(200))
    assert build().execute(run_id="a", journal=path)[-1] == [number * 10 for number in range(200)]
    assert calls() == []


def test_each_element_is_recorded_with_the_worker_that_called_it(path):
    """A map that several work on has several in its records."""
    barrier = threading.Barrier(3)
    HOLD[:] = [barrier.wait]
    process = Process("met", "parallel", 3)
    process.map(meeting, range(3))
    process.execute(run_id="a", journal=path)
    with Journal(path) as journal:
        assert len({element.worker for element in journal.tasks("a", task=0)}) == 3


def meeting(_number):
    HOLD[0](20)


def test_a_lazy_map_is_drawn_again_and_only_its_open_elements_are_called(path):
    """An iterator is drawn anew each time, and compared with what was recorded."""

    def build(last):
        process = Process("lazy", "parallel", 2)
        process.map(work, (number for number in [*range(20), last]))
        return process

    BROKEN.add(20)
    with pytest.raises(ValueError):
        build(20).execute(run_id="a", journal=path)
    calls()
    BROKEN.clear()
    assert build(20).execute(run_id="a", journal=path) == [[number * 10 for number in range(21)]]
    assert calls() == [20]


def test_an_element_that_has_changed_is_refused(path):
    """It is named; and with allow_changes it is called, and the others are not."""

    def build(numbers):
        process = Process("lazy", "sequential")
        process.map(work, iter(numbers))
        process.add_task(work, 99)
        return process

    BROKEN.add(99)
    with pytest.raises(ValueError):
        build([1, 2, 3]).execute(run_id="a", journal=path)
    # The map itself is complete, and is not drawn again.
    assert calls() == [1, 2, 3, 99]
    BROKEN.add(3)
    with pytest.raises(ValueError):
        build([1, 2, 3]).execute(run_id="b", journal=path)
    BROKEN.clear()
    with pytest.raises(PlanChangedError, match=r"process 'lazy', task 0 \(map of work\): element 1 is not"):
        build([1, 5, 3]).execute(run_id="b", journal=path)
    calls()
    results = build([1, 5, 3]).execute(run_id="b", journal=path, allow_changes=True)
    assert results == [[10, 50, 30], 990]
    assert calls() == [3, 5, 99]


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_elements_that_are_gone_are_refused(path, executor):
    """The list is never longer than what it is made of; with allow_changes they are forgotten."""

    def build(*numbers):
        process = Process("lazy", "parallel", 1, executor=executor)
        mapped = process.map(halved, iter(numbers))
        process.add_task(len, mapped)
        return process

    with pytest.raises(ValueError):
        build(2, 4, 6, 7).execute(run_id="a", journal=path)
    refusal = r"process 'lazy', task 0 \(map of halved\): its iterables gave 2 elements, and element 3 was recorded"
    for _ in range(2):
        with pytest.raises(PlanChangedError, match=refusal):
            build(2, 4).execute(run_id="a", journal=path)
    assert build(2, 4).execute(run_id="a", journal=path, allow_changes=True) == [[1, 2], 2]
    assert build(2, 4).execute(run_id="a", journal=path) == [[1, 2], 2]
    with Journal(path) as journal:
        assert len(journal.tasks("a", task=0)) == 2


def test_a_nested_process_is_recorded_with_the_run_around_it(path):
    """Its tasks that succeeded are not called again either."""

    def build():
        inner = ten("parallel", 2)
        outer = Process("outer", "hybrid", 2)
        outer.add_task(work, 100)
        outer.add_task(inner)
        outer.add_task(work, 101)
        return outer

    BROKEN.add(7)
    with pytest.raises(ValueError):
        build().execute(run_id="a", journal=path)
    before = set(calls())
    BROKEN.clear()
    assert build().execute(run_id="a", journal=path) == [1000, [number * 10 for number in range(10)], 1010]
    after = set(calls())
    assert before & after <= {7}
    assert before | after == {*range(10), 100, 101}
    build().execute(run_id="a", journal=path)
    assert calls() == []


def test_failures_in_results_are_called_again(path):
    """Under on_error="return", too, what failed has not succeeded: tasks and elements."""

    def build():
        process = ten("parallel", on_error="return")
        process.task(same, process.map(work, range(20, 25)))
        return process

    BROKEN.update({3, 22})
    *results, made_of = build().execute(run_id="a", journal=path)
    assert isinstance(results[3], ValueError)
    assert isinstance(results[10][2], ValueError)
    assert isinstance(made_of, TaskSkippedError)
    calls()
    BROKEN.clear()
    *results, made_of = build().execute(run_id="a", journal=path)
    assert calls() == [22, 3]
    assert results == [*(number * 10 for number in range(10)), [200, 210, 220, 230, 240]]
    assert made_of == results[10]


def test_a_cancelled_run_goes_on(path):
    """What had not started is called, and the rest is not."""

    def build():
        process = Process("cancelled", "sequential")
        for number in range(4):
            process.add_task(cancelling, number)
        return process

    run = build().start(run_id="a", journal=path)
    run.wait()
    assert run.status == "cancelled"
    assert calls() == [0, 1]
    BROKEN.add("no more")
    assert build().execute(run_id="a", journal=path) == [0, 1, 2, 3]
    assert calls() == [2, 3]


def cancelling(number):
    CALLS.append(number)
    if number == 1 and "no more" not in BROKEN:
        current_task()._call_context.run.cancel()
    return number


def test_attempts_are_those_that_were_made(path):
    """A recorded outcome says how many attempts its task took."""

    @task(retries=2)
    def flaky(number):
        CALLS.append(number)
        if len(CALLS) < 3:
            raise ConnectionError
        return number

    def build():
        process = Process("flaky")
        process.add_task(flaky, 1)
        return process

    process = build()
    process.execute(run_id="a", journal=path)
    assert process.last_run.outcomes[0].attempts == 3
    process = build()
    process.execute(run_id="a", journal=path)
    assert process.last_run.outcomes[0].attempts == 3
    assert CALLS == [1, 1, 1]


def test_a_run_without_a_journal_imports_none_and_one_with_a_file_no_server():
    """What is not used is not paid."""
    import subprocess

    code = (
        "import sys; from procession import Process; p = Process('p'); p.add_task(int); p.execute(); "
        "print('sqlalchemy' in sys.modules or 'procession.journal' in sys.modules); "
        "p.execute(run_id='a', journal=':memory:'); "
        "print('sqlalchemy' in sys.modules, 'sqlalchemy.dialects.postgresql' in sys.modules, 'psycopg' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert said == "False\nTrue False False\n"


@pytest.mark.parametrize(("policy", "said"), [("stop", "2 is broken"), ("continue", "2 is broken"), ("return", None)])
def test_a_run_says_why_it_failed(where, policy, said):
    """By what failed first, under every policy; a run whose failures are returned has not failed."""
    process = Process("six", "parallel", 1, on_error=policy)
    for number in [1, 2, 3, 4]:
        process.add_task(work, number)
    BROKEN.update({2, 3})
    with suppress(ValueError, ExceptionGroup):
        process.execute(run_id="a", journal=where)
    with Journal(where) as journal:
        error = journal.run("a").error
    assert error == (said and f"ValueError: {said}\nin process 'six', task 1 (work), attempt 1")
    BROKEN.clear()
    process.execute(run_id="a", journal=where)
    with Journal(where) as journal:
        assert journal.run("a").error is None, "it has completed since"


def test_a_run_that_goes_on_says_which_element_of_a_map_failed(where):
    """That so many did says less."""
    process = Process("map", "parallel", 1, on_error="continue")
    process.map(work, [1, 2, 3])
    BROKEN.update({2, 3})
    with pytest.raises(ExceptionGroup):
        process.execute(run_id="a", journal=where)
    with Journal(where) as journal:
        (said, place) = journal.run("a").error.splitlines()
    assert said == "ValueError: 2 is broken"
    assert "element 1" in place
