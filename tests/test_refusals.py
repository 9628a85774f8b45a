"""What cannot be meant is refused as early as it can be known, with what was wrong, where, and what would be right."""

import sys
from functools import partial

import pytest

from procession import HandleError, Process


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
