"""What cannot be meant is refused as early as it can be known, with what was wrong, where, and what would be right."""

import sys
from functools import partial

import pytest

from procession import DigestError, HandleError, Process
from procession.journal import Journal


def same(value=None, **_):
    return value


# Handles where no value takes their place


HIDDEN = {
    "a list inside it": lambda handle: [[handle]],
    "a dict inside it": lambda handle: [{"a": [1, {"b": handle}]}],
    "a tuple inside it": lambda handle: {"a": (1, handle)},
    "the keys of a dict inside it": lambda handle: ({handle: 1},),
    "a set": lambda handle: {handle},
    "a frozenset": lambda handle: frozenset([1, handle]),
    "the keys of a dict": lambda handle: {1: 1, handle: 1},
    "a functools.partial": lambda handle: partial(same, value=handle),
    "a functools.partial inside it": lambda handle: [partial(same, handle)],
}


@pytest.mark.parametrize("foreign", [False, True])
@pytest.mark.parametrize(("holder", "hide"), HIDDEN.items())
def test_a_handle_that_no_value_would_take_the_place_of_is_refused_when_added(holder, hide, foreign):
    """Wherever it lies, the message says where; the process has no such task, and can be used."""
    process, other = Process("hidden"), Process("other")
    handle = (other if foreign else process).task(same, 1)
    count = len(process.tasks)
    said = (
        rf"process 'hidden', task {count} \(same\): argument {{}} has <handle of task 0 \(same\).*> in {holder}, where"
    )
    for add in process.add_task, process.task:
        with pytest.raises(HandleError, match=said.format(2)):
            add(same, [1, 2], hide(handle))
        with pytest.raises(HandleError, match=said.format("'value'")):
            add(same, value=hide(handle))
    assert len(process.tasks) == count
    process.add_task(same, 2)
    assert process.execute() == [1, 2][1 - count :]


def test_a_callable_that_is_or_holds_a_handle_is_refused_when_added():
    """It would be called with the handle instead of the value, or be called itself."""
    process = Process("called")
    handle = process.task(same, 1)
    for add in process.add_task, process.task, lambda function: process.map(function, [1]):
        for function in partial(same, handle), partial(partial(same, 1), deep={"a": handle}):
            with pytest.raises(HandleError, match=r"task 1 \(same\): the callable has <handle of task 0 "):
                add(function)
        with pytest.raises(HandleError, match="<handle of task 0 .* cannot be called"):
            add(handle)
    with pytest.raises(HandleError, match=r"task 1 \(map of same\): argument 1 has <handle of task 0 .* in a tuple"):
        process.map(same, [(1, handle)])
    assert process.execute() == [1]


def test_looking_for_handles_ends_in_containers_that_are_large_or_hold_themselves():
    """What is not searched to its end is taken for what it is: a value."""
    process = Process("large")
    handle = process.task(same, 1)
    knot = [1, {"a": 2}]
    knot[1]["b"] = knot
    process.add_task(same, knot)
    process.add_task(same, [[number] for number in range(50_000)])
    process.add_task(same, [[0] * 50_000, handle])
    assert process.execute()[-1] == [[0] * 50_000, 1]
    with pytest.raises(HandleError):
        process.add_task(same, [*knot, [handle]])


def test_a_list_of_a_million_numbers_is_looked_at_in_one_pass():
    """Its numbers are not looked at one by one: as many calls are made for ten as for a million."""

    def events(count):
        process, seen = Process("long"), []
        handle, numbers = process.task(same, 1), list(range(count))
        sys.setprofile(lambda *event: seen.append(event[1]))
        try:
            process.add_task(same, numbers, handle)
        finally:
            sys.setprofile(None)
        return len(seen)

    assert events(1_000_000) == events(10)


# What has no order where order counts


def letters():
    return {"a", "b", "c"}


@pytest.mark.parametrize("source", [{"a", "b"}, frozenset("ab"), type("Words", (set,), {})("ab")])
def test_a_run_that_is_recorded_refuses_to_map_a_set_before_anything_runs(source):
    """In the next interpreter it has another order. The message says what to do; without a journal it is fine."""
    calls = []
    process, inner = Process("words"), Process("inner")
    process.add_task(calls.append, 1)
    process.map(str.upper, source)
    inner.map(str.upper, source)
    outer = Process("outer")
    outer.add_task(inner)
    with Journal(":memory:") as journal:
        with pytest.raises(DigestError, match=rf"'words', task 1 .*, argument 1 is a {type(source).__name__}.*sorted"):
            process.execute(run_id="a", journal=journal)
        with pytest.raises(DigestError, match=r"'inner', task 0 .*sorted"):
            outer.execute(run_id="b", journal=journal)
        assert journal.runs() == []
    assert calls == []
    assert process.status == "failed"
    assert sorted(process.execute()[1]) == ["A", "B"]


@pytest.mark.parametrize("strategy", ["sequential", "parallel"])
@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_a_set_that_a_handle_turns_out_to_be_fails_its_map_in_a_run_that_is_recorded(strategy, executor):
    """As soon as it is known, before any element is called; what was recorded before stays."""
    process = Process("words", strategy, 2, executor=executor)
    process.map(str.upper, process.task(letters))
    with Journal(":memory:") as journal:
        with pytest.raises(DigestError, match=r"process 'words', task 1 \(map of .*, argument 1 is a set.*sorted"):
            process.execute(run_id="a", journal=journal)
        assert [(task.name, task.state) for task in journal.tasks("a")][0] == ("letters", "completed")
        assert journal.tasks("a", task=1) == []
    assert sorted(process.execute()[1]) == ["A", "B", "C"]


def test_what_has_an_order_is_mapped_in_a_run_that_is_recorded():
    """Views of a dict have that of the dict, and so do classes of sets that keep one."""

    class Ordered(set):
        def __iter__(self):
            return iter(sorted(set.__iter__(self)))

    process = Process("ordered")
    for source in {"b": 1, "a": 2}.keys(), {"b": 1}, Ordered("ba"):
        process.map(str.upper, source)
    with Journal(":memory:") as journal:
        assert process.execute(run_id="a", journal=journal) == [["B", "A"], ["B"], ["A", "B"]]
