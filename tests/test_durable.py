"""What a run with a journal promises: nothing that is done is done twice, and nothing that is recorded is lost."""

import logging
import os
import pickle
import sqlite3
import sys
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procession import (
    DigestError,
    JournalError,
    PlanChangedError,
    Process,
    ProcessRunningError,
    ResultError,
    RunInUseError,
    TaskLogHandler,
    TaskSkippedError,
    current_task,
    task,
)
from procession.journal import Journal, Recorder

STRATEGIES = ["sequential", "parallel", "hybrid"]
CALLS: list[object] = []
BROKEN: set[object] = set()


@pytest.fixture(autouse=True)
def _nothing_called():
    CALLS.clear()
    BROKEN.clear()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs.db"


def work(number):
    """Note the call, and fail while told to."""
    CALLS.append(number)
    if number in BROKEN:
        raise ValueError(f"{number} is broken")
    return number * 10


def plus(*numbers):
    CALLS.append(("plus", numbers))
    return sum(numbers)


def same(value):
    return value


def halved(number):
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number // 2


def calls():
    made, CALLS[:] = sorted(CALLS, key=repr), []
    return made


def ten(strategy="sequential", workers=4, **options):
    process = Process("ten", strategy, workers, **options)
    for number in range(10):
        process.add_task(work, number)
    return process


# The run id is an idempotency key


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_ended_well_is_not_called_again(strategy, path):
    """Executed again after a failure, a run calls what had not ended well, and returns all results."""
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
    """A failure among many elements loses none that has ended well."""

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
    """Its tasks that ended well are not called again either."""

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
    """Under on_error="return", too, what failed has not ended well: tasks and elements."""

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


# Who may go on with it


def test_two_cannot_execute_one_run(path):
    """The second is told who is at it, and may when that one has ended."""
    gate, begun = threading.Event(), threading.Event()

    def hold():
        begun.set()
        return gate.wait(20)

    def build():
        process = Process("held")
        process.add_task(holding)
        return process

    HOLD[:] = [hold]
    first = build()
    run = first.start(run_id="a", journal=path)
    assert begun.wait(20)
    second = build()
    with pytest.raises(RunInUseError, match=rf"run 'a' is being executed by process {os.getpid()} on "):
        second.execute(run_id="a", journal=path)
    assert second.status == "failed"
    with pytest.raises(ProcessRunningError):
        first.execute(run_id="b", journal=path)
    gate.set()
    assert run.result() == [True]
    assert second.execute(run_id="a", journal=path) == [True]


HOLD: list[object] = []


def holding():
    return HOLD[0]()


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda process: process.add_task(work, 11), r"there were 10 tasks, now 11"),
        (lambda process: process.tasks.__setitem__(7, (same, (7,), {})), r"task 7 was .*work, is .*same"),
        (lambda process: process.tasks.__setitem__(7, (work, (8,), {})), r"task 7 .* has other arguments"),
    ],
)
def test_a_changed_definition_is_refused(change, difference, path):
    """With the first difference, before anything is called; allow_changes keeps what is unchanged."""
    ten().execute(run_id="a", journal=path)
    calls()
    changed = ten()
    change(changed)
    with pytest.raises(PlanChangedError, match=difference):
        changed.execute(run_id="a", journal=path)
    assert calls() == []
    assert changed.status == "failed"
    results = changed.execute(run_id="a", journal=path, allow_changes=True)
    assert len(results) == len(changed.tasks)
    assert len(calls()) <= 1
    changed.execute(run_id="a", journal=path)
    assert calls() == []


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_with_changes_allowed_a_run_comes_to_what_a_new_one_does(data):
    """What changed is called, and what takes its value, directly or not; nothing else is."""
    count = data.draw(st.integers(1, 6))
    needs = [data.draw(st.sets(st.integers(0, index - 1))) if index else set() for index in range(count)]
    maps = data.draw(st.sets(st.integers(0, count - 1)))
    before = data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    after = data.draw(st.lists(st.integers(0, 3), min_size=count + 1, max_size=count + 1))
    after = [old if data.draw(st.booleans()) else new for old, new in zip(before, after, strict=False)]

    def build(numbers):
        process, handles = Process("graph", "parallel", 2), []
        for index, number in enumerate(numbers):
            taken = [handles[need] for need in sorted(needs[index])]
            handle = process.task(plus_all, index, number, taken)
            if index in maps:
                handle = process.map(partial(plus_all, index, number), process.task(listed, handle))
            handles.append(handle)
        return process

    changed = {index for index in range(count) if before[index] != after[index]}
    for index in range(count):
        changed |= {index} if needs[index] & changed else set()
    with Journal(":memory:") as journal:
        build(before).execute(run_id="a", journal=journal)
        calls()
        results = build(after).execute(run_id="a", journal=journal, allow_changes=True)
        made = calls()
        assert results == build(after).execute()
        calls()
    assert set(made) == changed


def plus_all(index, number, others):
    CALLS.append(index)
    return number + sum(map(total, others if isinstance(others, list) else [others]))


def listed(value):
    return [value, value]


def total(value):
    return sum(value) if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("numbers", "called"),
    [
        ([1, 2, 3, 4], [4]),
        ([0, 1, 2, 3], [0]),
        ([3, 2, 1], []),
        ([2, 9, 1, 1], [9]),
        ([1], []),
        ([7, 8], [7, 8]),
    ],
)
@pytest.mark.parametrize("strategy", ["sequential", "parallel"])
@pytest.mark.parametrize("by_handle", [False, True])
def test_of_a_changed_map_only_new_elements_are_called(numbers, called, strategy, by_handle, path):
    """Those that are the same keep their results, where they were or elsewhere; what takes the list is called again."""

    def run(numbers, **options):
        process = Process("mapped", strategy, 2)
        process.task(lambda tens: plus(*tens), process.map(work, process.task(same, numbers) if by_handle else numbers))
        return process.execute(run_id="a", journal=path, **options)[-2:]

    run([1, 2, 3])
    calls()
    if by_handle is False:
        with pytest.raises(PlanChangedError, match="has other arguments: argument 1"):
            run(numbers)
    assert run(numbers, allow_changes=True) == run(numbers)
    assert run(numbers)[0] == [number * 10 for number in numbers]
    made = calls()
    assert [one for one in made if isinstance(one, int)] == called
    assert ("plus", tuple(number * 10 for number in numbers)) in made


def test_of_a_map_of_another_function_all_elements_are_called(path):
    """By name, or by what it holds."""

    def run(function):
        process = Process("mapped")
        process.map(function, [1, 2])
        return process.execute(run_id="a", journal=path, allow_changes=True)

    assert run(work) == [[10, 20]]
    assert run(partial(plus, 1)) == [[2, 3]]
    assert run(partial(plus, 2)) == [[3, 4]]
    assert run(same) == [[1, 2]]


def test_no_task_gets_the_result_of_another_that_has_its_name(path):
    """Lambdas that have changed places are refused; with changes allowed, each gives its own."""

    def run(*functions, **options):
        process = Process("sync")
        for function in functions:
            process.add_task(function)
        process.add_task(work, 1)
        return process.execute(run_id="a", journal=path, **options)[:-1]

    users, orders, fresh = (lambda: "users"), (lambda: "orders"), (lambda: "fresh")
    assert run(users, orders) == ["users", "orders"]
    assert run(lambda: "users", lambda: "orders") == ["users", "orders"]
    with pytest.raises(PlanChangedError, match=r"task 0 .*<lambda>\) has other code.*@task\(name=...\)"):
        run(orders, users)
    assert run(fresh, users, orders, allow_changes=True) == ["fresh", "users", "orders"]


def test_a_mended_function_goes_on_with_what_is_recorded(path):
    """Also a lambda, as long as no other has its name; and the same code from another place in the file."""

    def run(function):
        process = Process("mended")
        process.add_task(function, 1)
        process.add_task(same, 2)
        return process.execute(run_id="a", journal=path)

    assert run(lambda x: x + 1) == [2, 2]
    assert run(lambda x: x - 1) == [2, 2]


def test_how_it_runs_is_no_part_of_a_definition(path):
    """Another strategy, another number of workers and another policy go on with the same run."""
    BROKEN.add(5)
    with pytest.raises(ValueError):
        ten("sequential").execute(run_id="a", journal=path)
    calls()
    BROKEN.clear()
    ten("parallel", 2, on_error="return").execute(run_id="a", journal=path)
    assert calls() == [5, 6, 7, 8, 9]


def test_arguments_that_cannot_be_told_apart_are_refused(path):
    """By name, before anything is called; without a journal they are arguments like others."""
    process = Process("locked")
    process.add_task(work, 1)
    process.add_task(same, threading.Lock())
    with pytest.raises(DigestError, match=r"process 'locked', task 1 \(.*same\)"):
        process.execute(run_id="a", journal=path)
    assert calls() == []
    assert process.execute()[0] == 10


# What tasks share and change


class Etl:
    """Its tasks hand on rows in what they share."""

    def __init__(self, rows, note=None):
        self.rows = rows
        self.note = note

    def extract(self, *_):
        self.rows.append(len(self.rows))

    def load(self, *_):
        work(5)
        return sum(self.rows)


def fill(rows):
    rows.append(7)
    return "filled"


def summed(rows):
    work(5)
    return sum(rows)


def sharing(how):
    """A process of which one task changes what another takes, in many ways."""
    process, rows = Process("etl"), [1]
    etl = Etl(rows)
    if how == "the object of methods":
        process.add_task(etl.extract)
        process.add_task(etl.load)
    elif how == "a list":
        process.add_task(fill, rows)
        process.add_task(summed, rows)
    elif how == "in two objects":
        process.add_task(Etl(rows).extract)
        process.add_task(Etl(rows, note={"a": 1}).load)
    elif how == "in a dict and a closure":
        process.add_task(lambda rows: rows["all"].append(7), {"all": rows})
        process.add_task(lambda: summed(rows))
    elif how == "in a map":
        process.map(etl.extract, [1, 2])
        process.add_task(partial(summed, rows))
    elif how == "in a process":
        inner = Process("inner")
        inner.add_task(etl.extract)
        process.add_task(inner)
        process.add_task(etl.load)
    elif how == "a value":
        taken = process.task(list, [1])
        process.task(fill, taken)
        process.task(summed, taken)
    else:
        taken = process.map(abs, [1, 2])
        process.task(fill, taken)
        process.task(summed, taken)
    return process


SHARING = [
    "the object of methods",
    "a list",
    "in two objects",
    "in a dict and a closure",
    "in a map",
    "in a process",
    "a value",
    "the list of a map",
]


@pytest.mark.parametrize("how", SHARING)
def test_what_tasks_share_and_change_is_refused_when_the_run_goes_on(how, path):
    """The rest would see it as it was at first. With both tasks named; with changes allowed, both are called."""
    BROKEN.add(5)
    with pytest.raises(ValueError, match="5"):
        sharing(how).execute(run_id="a", journal=path)
    BROKEN.clear()
    for _ in range(2):
        with pytest.raises(PlanChangedError, match=r"task \d \(.*\) and task \d \(.*\) take the same object of type"):
            sharing(how).execute(run_id="a", journal=path)
    expected = sharing(how).execute()
    assert sharing(how).execute(run_id="a", journal=path, allow_changes=True)[-1] == expected[-1]
    assert sharing(how).execute(run_id="a", journal=path)[-1] == expected[-1]


@pytest.mark.parametrize("how", SHARING)
def test_what_tasks_have_shared_and_changed_and_is_recorded_whole_is_returned(how, path):
    """Nothing is called that could see it. A value is what it was when its task ended."""
    results = sharing(how).execute(run_id="a", journal=path)
    calls()
    assert sharing(how).execute(run_id="a", journal=path)[1:] == results[1:]
    assert calls() == []


def test_what_tasks_share_and_leave_as_it_is_holds_nothing_up(path):
    """Nor does what one changes that is its own, or what only those have changed that are called again."""

    def run():
        process, shared, torn = Process("p"), {"deep": [1], "path": Path("a")}, [1]
        process.add_task(fill, [1])
        process.add_task(same, shared)
        process.add_task(same, [shared])
        taken = process.task(same, [[2], "a"])
        process.task(len, taken)
        process.task(lambda rows: (fill(torn), work(5)), taken)
        process.add_task(fill, torn)
        return process.execute(run_id="a", journal=path)

    BROKEN.add(5)
    with pytest.raises(ValueError, match="5"):
        run()
    BROKEN.clear()
    calls()
    assert run()[4] == 2
    assert calls() == [5]


# What is recorded has ended, and nothing else has


class Held:
    """Holds up commits until it is told to let them through."""

    def __init__(self, monkeypatch):
        self.reached, self.gate = threading.Event(), threading.Event()
        commit = Recorder.commit

        def held(recorder, records):
            self.reached.set()
            assert self.gate.wait(20)
            commit(recorder, records)

        monkeypatch.setattr(Recorder, "commit", held)


def test_workers_do_not_wait_for_each_others_commits(monkeypatch, path):
    """While one commit takes long, everything else that may run runs."""
    held, done = Held(monkeypatch), threading.Semaphore(0)
    process = Process("busy", "parallel", 2)
    for _ in range(20):
        process.add_task(same, 1)
    process.add_task(done.release)
    BROKEN.clear()
    run = process.start(run_id="a", journal=_undigested(monkeypatch, path))
    assert held.reached.wait(20)
    assert done.acquire(timeout=20)
    assert run.progress.ended == 0
    held.gate.set()
    assert len(run.result()) == 21


def _undigested(monkeypatch, path):
    # Semaphores cannot be told apart from others, and here need not be.
    from procession._plan import fingerprint

    real = fingerprint.fingerprint_of
    monkeypatch.setattr(fingerprint, "fingerprint_of", lambda name, calls: real(name, [(same, (), {})] * len(calls)))
    return path


def test_a_task_has_ended_when_it_is_recorded_and_not_before(monkeypatch, path):
    """What waits for it does not start, its outcome is not handed out, and it does not count as ended."""
    held = Held(monkeypatch)
    process = Process("waits", "parallel", 4)
    first = process.task(work, 1)
    process.task(plus, first, 1)
    run = process.start(run_id="a", journal=path)
    assert held.reached.wait(20)
    assert run.progress.ended == 0
    assert [outcome.state for outcome in run.outcomes] == ["running", "waiting"]
    held.gate.set()
    assert [outcome.index for outcome in run] == [0, 1]
    assert run.result() == [10, 11]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_in_order_each_task_is_recorded_before_the_next_one_starts(strategy, path):
    """Whoever reads the journal from a task finds all that came before it."""
    seen = []

    def look():
        connection = sqlite3.connect(path)
        seen.append(
            connection.execute("select count(*) from procession_records where state = 'completed'").fetchone()[0]
        )
        connection.close()

    LOOK[:] = [look]
    process = Process("look", strategy)
    for _ in range(6):
        process.add_task(looking)
    process.execute(run_id="a", journal=path)
    in_order = {"sequential": 6, "hybrid": 3, "parallel": 0}[strategy]
    assert seen[:in_order] == list(range(in_order))


LOOK: list[object] = []


def looking():
    LOOK[0]()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_result_that_cannot_be_recorded_fails_its_task(strategy, path):
    """When it ends, by the name of its type; what was recorded stays, and the run can be gone on with."""

    def build():
        process = Process("results", strategy, 1, on_error="return" if strategy == "parallel" else "stop")
        process.add_task(work, 1)
        process.add_task(unrecordable)
        process.add_task(work, 2)
        return process

    process = build()
    if strategy == "parallel":
        results = process.execute(run_id="a", journal=path)
        error = results[1]
        assert results[::2] == [10, 20]
    else:
        with pytest.raises(ResultError) as caught:
            process.execute(run_id="a", journal=path)
        error = caught.value
    assert "generator" in str(error)
    assert error.__notes__ == ["in process 'results', task 1 (unrecordable), attempt 1"]
    calls()
    BROKEN.add("recordable")
    assert build().execute(run_id="a", journal=path) == [10, 3, 20]
    assert 1 not in calls()


def unrecordable():
    return 3 if "recordable" in BROKEN else (number for number in range(3))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("policy", ["stop", "continue", "return"])
def test_a_failing_journal_fails_the_run(strategy, policy, monkeypatch, path):
    """Under every policy, with all that was recorded before still there."""
    commit, failures = Recorder.commit, []

    def full(recorder, records, **again):
        if not failures and any(record.task == 2 for record in records):
            failures.append(records)
            raise JournalError("the disk is full")
        commit(recorder, records, **again)

    monkeypatch.setattr(Recorder, "commit", full)
    process = ten(strategy, 1, on_error=policy)
    with pytest.raises(JournalError, match="the disk is full"):
        process.execute(run_id="a", journal=path)
    assert process.status == "failed"
    monkeypatch.undo()
    before = set(calls())
    assert process.execute(run_id="a", journal=path) == [number * 10 for number in range(10)]
    assert set(calls()) | before == set(range(10))


def test_nothing_is_left_open(path, comes_true):
    """After a recorded run there are no more threads and open files than before it."""
    ten("parallel").execute(run_id="warm", journal=path)
    threads, files = threading.active_count(), _open_files()
    for number in range(5):
        ten("parallel").execute(run_id=f"{number}", journal=path)
        BROKEN.add(5)
        with pytest.raises(ValueError):
            ten("hybrid").execute(run_id=f"failing {number}", journal=path)
        BROKEN.clear()
    assert comes_true(lambda: threading.active_count() <= threads)
    assert comes_true(lambda: _open_files() <= files)


# Values that cannot be read back


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
def test_with_changes_allowed_what_cannot_be_read_is_called_again(places, called, path):
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


def test_a_run_whose_begin_is_interrupted_is_free(path, monkeypatch):
    """Ctrl-C just when the lease was written."""

    def interrupted(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("procession.journal.store.Recorder", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ten().execute(run_id="a", journal=path)
    monkeypatch.undo()
    with Journal(path) as journal:
        assert (journal.run("a").status, journal.run("a").error) == ("failed", "KeyboardInterrupt")
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT token FROM procession_runs").fetchall() == [(None,)]
    connection.close()


def _open_files():
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


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


def test_a_run_without_a_journal_imports_none():
    """What is not used is not paid."""
    import subprocess

    code = (
        "import sys; from procession import Process; p = Process('p'); p.add_task(int); p.execute(); "
        "print('sqlalchemy' in sys.modules or 'procession.journal' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


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
