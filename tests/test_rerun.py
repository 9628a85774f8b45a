"""Running a part of a recorded run again: what is forgotten, and what is called when the run is executed again."""

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counted_calls import BROKEN, CALLS, HOLD, _nothing_called, calls, path, plus, same, work
from journals import execute
from procession import PlanChangedError, Process, RunInUseError, RunUnknownError, current_task, stream, task
from procession.journal import Journal

RATE = {"rate": 2}


def load():
    CALLS.append("load")
    return 10


def convert(amount):
    CALLS.append("convert")
    return amount * RATE["rate"]


def report(amount):
    CALLS.append("report")
    return f"{amount} EUR"


def invoice(strategy="sequential"):
    process = Process("invoice", strategy)
    process.task(report, process.task(convert, process.task(load)))
    return process


def again(where, run_id="a", **which):
    """Forget a part of a run; return the places of what was forgotten, and why."""
    with Journal(where) as journal:
        return {(one.run, one.task, one.element): one.reason for one in journal.rerun(run_id, **which)}


def test_a_task_that_was_wrong_is_mended_and_called_again(where):
    """With what takes its value, directly or not, and without the hours of work before it."""
    RATE["rate"] = 2
    assert invoice().execute(run_id="a", journal=where) == [10, 20, "20 EUR"]
    calls()
    RATE["rate"] = 3
    assert again(where, tasks=["convert"]) == {("a", 1, None): "named", ("a", 2, None): "takes"}
    assert invoice().execute(run_id="a", journal=where) == [10, 30, "30 EUR"]
    assert calls() == ["convert", "report"]
    assert invoice().execute(run_id="a", journal=where) == [10, 30, "30 EUR"]
    assert calls() == []


def test_a_dry_run_says_the_same_and_forgets_nothing(where):
    """So it can be looked at before it is done."""
    invoice().execute(run_id="a", journal=where)
    calls()
    assert again(where, tasks=[1], dry_run=True) == {("a", 1, None): "named", ("a", 2, None): "takes"}
    with Journal(where) as journal:
        assert journal.run("a").status == "completed"
    invoice().execute(run_id="a", journal=where)
    assert calls() == []


def test_a_run_of_which_something_was_forgotten_is_shown_as_it_stands(where):
    """As interrupted, with what is left; also by a journal that has counted it before."""
    invoice().execute(run_id="a", journal=where)
    with Journal(where) as journal:
        journal.rerun("a", tasks=[2])
        run = journal.run("a")
        assert (run.status, run.progress, run.error) == ("interrupted", (2, 0, 3), None)
        journal.rerun("a", tasks=[1])
        assert journal.run("a").progress == (1, 0, 3)
        invoice().execute(run_id="a", journal=journal)
        assert (journal.run("a").status, journal.run("a").progress) == ("completed", (3, 0, 3))
        journal.rerun("a", tasks=[0])
        assert journal.prune(time.time() + 60) == ["a"]


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_what_follows_from_a_task_is_called_again_and_nothing_else(data):
    """Whatever takes values of what, where all run at once."""
    count = data.draw(st.integers(1, 7))
    needs = [data.draw(st.sets(st.integers(0, index - 1), max_size=3)) if index else set() for index in range(count)]
    named = data.draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=2))
    expected = set(named)
    for index in range(count):
        if needs[index] & expected:
            expected.add(index)

    def build():
        process = Process("any", "parallel", 1)
        handles = []
        for index in range(count):
            handles.append(process.task(note, index, *(handles[need] for need in sorted(needs[index]))))
        return process

    with Journal(":memory:") as journal:
        first = build().execute(run_id="a", journal=journal)
        calls()
        assert {one.task for one in journal.rerun("a", tasks=named)} == expected
        assert build().execute(run_id="a", journal=journal) == first
        assert calls() == sorted(expected)


def note(index, *values):
    CALLS.append(index)
    return index + sum(values)


# Elements of maps


def lines(strategy, on_error="stop"):
    process = Process("lines", strategy, 2, on_error=on_error)
    first = process.map(work, range(5))
    second = process.map(plus, first, [1] * 5)
    process.task(total, stream(second))
    process.map(same, [first])
    return process


def total(values):
    CALLS.append("total")
    return sum(values)


@pytest.mark.parametrize("strategy", ["sequential", "parallel"])
def test_one_element_of_a_map_is_called_again(strategy, where):
    """With the one of the next map that takes it, and what takes the lists; the others stay."""
    results = lines(strategy).execute(run_id="a", journal=where)
    calls()
    assert again(where, elements=[("work", 3)]) == {
        ("a", 0, 3): "named",
        ("a", 1, 3): "takes",
        ("a", 2, None): "takes",
        ("a", 3, None): "takes",
    }
    assert lines(strategy).execute(run_id="a", journal=where) == results
    assert calls() == ["total", ("plus", (30, 1)), 3]


def test_a_whole_map_is_called_again(where):
    """A map that takes its elements, too, as each of these may be another one."""
    results = lines("parallel").execute(run_id="a", journal=where)
    calls()
    again(where, tasks=[0])
    assert lines("parallel").execute(run_id="a", journal=where) == results
    assert calls() == ["total", *(("plus", (10 * n, 1)) for n in range(5)), *range(5)]


def test_what_failed_of_a_completed_run_is_called_again(where):
    """With the sinks that had only the good elements: the others stay."""
    BROKEN.add(3)
    results = lines("parallel", "return").execute(run_id="a", journal=where)
    assert (results[2], type(results[0][3])) == (74, ValueError)
    calls()
    BROKEN.clear()
    assert again(where, failed=True) == {("a", 0, 3): "failed", ("a", 2, None): "takes"}
    results = lines("parallel", "return").execute(run_id="a", journal=where)
    assert results[:3] == [[0, 10, 20, 30, 40], [1, 11, 21, 31, 41], 105]
    assert calls() == ["total", ("plus", (30, 1)), 3]


def test_a_pipeline_with_a_failed_element_goes_on_without_being_run_again(where):
    """Nobody has changed the list of a map that failed: some of it was never there."""

    def build():
        process = Process("forked", "parallel", 2, on_error="return")
        first = process.map(work, range(5))
        process.map(same, first)
        process.task(total, stream(first))
        return process

    BROKEN.add(3)
    build().execute(run_id="a", journal=where)
    BROKEN.clear()
    assert build().execute(run_id="a", journal=where)[:2] == [[0, 10, 20, 30, 40]] * 2


def test_if_nothing_failed_nothing_is_forgotten(where):
    """And the run stays completed."""
    lines("parallel").execute(run_id="a", journal=where)
    assert again(where, failed=True) == {}
    with Journal(where) as journal:
        assert journal.run("a").status == "completed"


# Order


def steps(strategy):
    """Two tasks in order that hand on nothing, one that hands on a value to another, and two that do not."""
    process = Process("steps", strategy, 2)
    for number in range(2):
        process.add_task(work, number)
    process.task(same, process.task(work, 2))
    for number in 4, 5:
        process.add_task(work, number)
    return process


@pytest.mark.parametrize(
    ("strategy", "named", "expected"),
    [
        ("sequential", 1, {1: "named", 2: "in order", 3: "takes", 4: "in order", 5: "in order"}),
        ("sequential", 3, {3: "named", 4: "in order", 5: "in order"}),
        ("parallel", 1, {1: "named"}),
        ("parallel", 2, {2: "named", 3: "takes"}),
        ("hybrid", 1, {1: "named", 2: "in order", 3: "takes", 4: "in order", 5: "in order"}),
        ("hybrid", 4, {4: "named"}),
    ],
)
def test_in_order_a_task_without_handles_follows_from_those_before_it(strategy, named, expected, path):
    """It can depend on them only by what they left behind; a task with handles says on what it depends."""
    steps(strategy).execute(run_id="a", journal=path)
    calls()
    assert {task: reason for (_, task, _), reason in again(path, tasks=[named]).items()} == expected
    steps(strategy).execute(run_id="a", journal=path)
    assert calls() == sorted(expected.keys() - {3})


def test_in_order_a_task_with_handles_does_not_follow_from_those_before_it(path):
    """Else the hours of work of another branch would be done again."""
    process = Process("two")
    first = process.task(work, 1)
    process.task(plus, first, process.task(same, process.task(same, 2)))
    process.execute(run_id="a", journal=path)
    assert again(path, tasks=[2]) == {("a", 2, None): "named", ("a", 3, None): "takes"}


# Processes as tasks, and recorded calls


def around(on_error="return"):
    process = Process("around", "parallel", 2)
    inner = Process("inner", "parallel", 1, on_error=on_error)
    for number in range(3):
        inner.add_task(work, number)
    process.task(len, process.task(inner))
    process.add_task(work, 9)
    return process


def test_a_process_as_a_task_is_called_again_as_a_whole(where):
    """Where it is named."""
    around().execute(run_id="a", journal=where)
    calls()
    assert again(where, tasks=["inner"]) == {("a", 0, None): "named", ("a", 1, None): "takes"}
    around().execute(run_id="a", journal=where)
    assert calls() == [0, 1, 2]


@pytest.mark.parametrize("on_error", ["return", "continue"])
def test_of_a_process_as_a_task_only_what_failed_is_called_again(on_error, where):
    """Where it is what failed: a completed one, too; and the tasks that take its results."""
    BROKEN.add(1)
    if on_error == "return":
        around(on_error).execute(run_id="a", journal=where)
    else:
        with pytest.raises(ExceptionGroup):
            around(on_error).execute(run_id="a", journal=where)
    calls()
    BROKEN.clear()
    follows = {("a", 1, None): "takes"} if on_error == "return" else {}
    assert again(where, failed=True) == {("a/0", 1, None): "failed", **follows}
    with Journal(where) as journal:
        assert journal.run("a/0").progress == (2, 0, 3)
    around(on_error).execute(run_id="a", journal=where)
    assert [one for one in calls() if one != 9] == [1]


def ask(number):
    CALLS.append(("ask", number))
    return number


def asks(number):
    me = current_task()
    me.call(ask, number)
    if ("asks", number) in BROKEN:
        raise ValueError("no")
    return me.call(ask, -number)


def asking():
    process = Process("asking", "parallel", 1, on_error="return")
    process.add_task(asks, 1)
    process.map(asks, [2, 3])
    process.add_task(asks, 4)
    return process


def test_the_recorded_calls_of_a_task_are_forgotten_with_it(where):
    """Of a task, and of an element of a map; also where it failed, since to keep them it is enough to go on."""
    BROKEN.add(("asks", 4))
    asking().execute(run_id="a", journal=where)
    calls()
    again(where, tasks=[0], elements=[(1, 1)], failed=True)
    BROKEN.clear()
    asking().execute(run_id="a", journal=where)
    assert calls() == sorted((("ask", n) for n in (1, -1, 3, -3, 4, -4)), key=repr)


def add_to(rows, number):
    rows.append(number)


def test_tasks_that_have_changed_an_object_that_they_share_are_called_again_together(where):
    """One of them alone would see the object as it was at first, and going on would be refused."""

    def build():
        rows = []
        process = Process("shared", "parallel", 1)
        process.task(same, process.task(add_to, rows, 1))
        process.task(same, process.task(add_to, rows, 2))
        return process

    build().execute(run_id="a", journal=where)
    assert again(where, tasks=[2]) == {
        ("a", 0, None): "shares",
        ("a", 1, None): "takes",
        ("a", 2, None): "named",
        ("a", 3, None): "takes",
    }
    build().execute(run_id="a", journal=where)


# What is refused


def test_a_run_that_is_executed_is_refused(where):
    """Nothing is forgotten under the feet of its runner."""
    gate, begun = threading.Event(), threading.Event()

    def hold():
        begun.set()
        return gate.wait(20)

    HOLD[:] = [hold]
    process = Process("held", "parallel", 1)
    process.add_task(holding)
    run = process.start(run_id="a", journal=where)
    assert begun.wait(20)
    try:
        with pytest.raises(RunInUseError, match="is being executed by process"):
            again(where, tasks=[0])
    finally:
        gate.set()
    assert run.result() == [True]


def holding():
    return HOLD[0]()


@pytest.mark.parametrize(
    ("which", "error", "words"),
    [
        ({}, ValueError, "name what is called again of run 'a': tasks, elements, or failed=True"),
        ({"tasks": [4]}, ValueError, "run 'a' of process 'lines' has no task 4: it has 4 tasks, from 0 to 3"),
        ({"tasks": [-1]}, ValueError, "has no task -1"),
        ({"tasks": [True]}, TypeError, "a task is named by its place, or by its name; got"),
        ({"tasks": "work"}, TypeError, r"tasks takes a list, and not one string: tasks=\['work'\]"),
        ({"tasks": ["wrok"]}, ValueError, "has no task 'wrok'; there are map of work, map of plus, total"),
        ({"elements": [(2, 0)]}, ValueError, r"task 2 \(total\) is no map, and has no elements"),
        ({"elements": [(0, 9)]}, ValueError, r"element 9 of task 0 \(map of work\) is not recorded; the last .* is 4"),
        ({"elements": [(0, "3")]}, TypeError, "is named by its place, an int; got"),
    ],
)
def test_what_a_run_does_not_have_is_refused(which, error, words, path):
    """By an error that says what it has, and before anything is forgotten."""
    lines("parallel").execute(run_id="a", journal=path)
    with pytest.raises(error, match=words):
        again(path, **which)
    calls()
    lines("parallel").execute(run_id="a", journal=path)
    assert calls() == []


def test_a_name_that_several_tasks_have_is_refused(path):
    """With the places, by which one of them can be named."""
    steps("parallel").execute(run_id="a", journal=path)
    with pytest.raises(ValueError, match="has several tasks 'work': name one of them by its place, 0, 1, 2, 4, 5"):
        again(path, tasks=["work"])


def test_a_run_that_is_unknown_or_was_recorded_without_its_edges_is_refused(where):
    """Nobody could say what follows."""
    invoice().execute(run_id="a", journal=where)
    with pytest.raises(RunUnknownError, match="the journal has no run 'b'"):
        again(where, "b", tasks=[0])
    execute(where, "UPDATE procession_definitions SET shape = NULL")
    with pytest.raises(OSError, match="execute it once with this version"):
        again(where, tasks=[0])


def test_a_run_recorded_before_elements_were_paired_forgets_the_whole_map(path):
    """More than needed, and nothing too little."""
    lines("parallel").execute(run_id="a", journal=path)
    with Journal(path) as journal, journal.reader() as reader:
        shape = reader.shape(reader.key("a"))
    assert shape.paired == {1: (0,)}
    execute(str(path), "UPDATE procession_definitions SET shape = ?", shape._replace(paired={}).to_bytes())
    assert again(path, elements=[(0, 3)])[("a", 1, None)] == "takes"


def test_a_definition_that_has_changed_is_refused_as_ever(path):
    """To run a part again does not allow other changes."""
    invoice().execute(run_id="a", journal=path)
    again(path, tasks=[1])
    changed = invoice()
    changed.add_task(load)
    with pytest.raises(PlanChangedError, match="there were 3 tasks, now 4"):
        changed.execute(run_id="a", journal=path)


@task(name="named")
def renamed():
    return 1


def test_a_task_is_known_by_the_name_that_it_was_given(path):
    """As in what is shown of it."""
    process = Process("p")
    process.add_task(renamed)
    process.execute(run_id="a", journal=path)
    assert again(path, tasks=["named"]) == {("a", 0, None): "named"}
