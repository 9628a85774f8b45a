"""Who may go on with a recorded run: a definition that has changed, and what its tasks share and change."""

import os
import threading
from collections import OrderedDict
from functools import partial
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counted_calls import BROKEN, CALLS, HOLD, _nothing_called, calls, path, plus, same, ten, work
from procession import DigestError, PlanChangedError, Process, ProcessRunningError, RunInUseError
from procession.journal import Journal


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
def test_only_new_elements_of_a_changed_map_are_called(numbers, called, strategy, by_handle, path):
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


@pytest.mark.parametrize("strategy", ["sequential", "parallel"])
@pytest.mark.parametrize("deep", [1, 2])
def test_within_a_process_that_is_a_task_only_what_has_changed_is_called(deep, strategy, path):
    """As in a process of its own: new elements, changed tasks, and what follows from these."""

    def run(numbers, number, *, name="inner", **options):
        process = Process(name, strategy, 2)
        process.add_task(work, 7)
        process.task(lambda tens: plus(*tens), process.map(work, numbers))
        process.add_task(work, number)
        for _ in range(deep):
            inner, process = process, Process("outer", strategy, 2)
            process.add_task(inner)
        return process.execute(run_id="a", journal=path, **options)

    run([1, 2, 3], 8)
    calls()
    with pytest.raises(PlanChangedError):
        run([1, 2, 3, 4], 9)
    changed = run([1, 2, 3, 4], 9, allow_changes=True)
    assert sorted(map(str, calls())) == sorted(map(str, [4, ("plus", (10, 20, 30, 40)), 9]))
    assert run([1, 2, 3, 4], 9) == changed
    assert calls() == []
    assert run([1, 2, 3, 4], 9, name="another", allow_changes=True) == changed
    assert len(calls()) == 7


@pytest.mark.parametrize("kind", [dict, OrderedDict, MappingProxyType])
def test_what_a_map_draws_from_a_mapping_has_an_order(kind, path):
    """So another order is another definition, whether or not the map has completed; the values are not drawn."""

    def run(keys, **options):
        process = Process("mapped")
        process.map(work, kind({key: None for key in keys}))
        return process.execute(run_id="a", journal=path, **options)

    assert run([1, 2, 3]) == [[10, 20, 30]]
    with pytest.raises(PlanChangedError, match="argument 1"):
        run([3, 2, 1])
    calls()
    assert run([3, 2, 1, 4], allow_changes=True) == [[30, 20, 10, 40]]
    assert calls() == [4]


def test_all_elements_of_a_map_of_another_function_are_called(path):
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
