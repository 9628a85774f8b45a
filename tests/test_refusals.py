"""What cannot be meant is refused as early as it can be known, with what was wrong, where, and what would be right."""

import asyncio
import sys
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import pytest

from procession import DigestError, HandleError, Process
from procession.journal import Journal


def same(value=None, **_):
    return value


# Handles where no value takes their place


class Pair(NamedTuple):
    one: object
    other: object


@dataclass
class Settings:
    value: object


@dataclass(frozen=True, slots=True)
class Slotted:
    value: object


@dataclass
class Step:
    value: object

    def __call__(self, *_):
        return self.value


@dataclass
class Table(dict):
    name: str = ""


class Rows(list):
    """Does not say what it has, as one that loads it when it is iterated over."""

    def __iter__(self):
        raise AssertionError("nobody has asked for the rows yet")


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
    "a tuple of type Pair": lambda handle: Pair(1, handle),
    "a dict of type OrderedDict": lambda handle: OrderedDict(a=handle),
    "a dict of type Table": lambda handle: Table.fromkeys("ab", handle),
    "the keys of a dict of type defaultdict": lambda handle: defaultdict(list, {handle: 1}),
    "a list of type Rows": lambda handle: Rows([1, handle]),
    "a set of type .*Words": lambda handle: type("Words", (set,), {})([handle]),
    "a dataclass of type Settings": lambda handle: Settings(handle),
    "a dataclass of type Slotted inside it": lambda handle: [1, Slotted(handle)],
    "a set inside it": lambda handle: Settings({handle}),
    "a tuple of type Pair inside it": lambda handle: [Pair(handle, 1)],
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
        for function in partial(same, handle), partial(partial(same, 1), deep={"a": handle}), Step(handle):
            with pytest.raises(HandleError, match=r"task 1 \((same|Step)\): the callable has <handle of task 0 "):
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


def test_a_long_list_is_looked_at_in_one_pass():
    """Its items are not looked at one by one in Python: as many lines are executed for ten as for ten thousand."""

    def lines(count):
        process, seen = Process("long"), []
        handle, numbers = process.task(same, 1), list(range(count))

        def trace(frame, event, argument):
            seen.append(event)
            return trace

        sys.settrace(trace)
        try:
            process.add_task(same, numbers, handle)
        finally:
            sys.settrace(None)
        return len(seen)

    assert lines(1) >= lines(10_000) == lines(10)


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


# Arguments of a process, a run, a task


class Watching:
    def on_event(self, event):
        pass


class Awaiting:
    async def on_event(self, event):
        pass


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"observers": print}, "observers takes a list of observers; got an object"),
        ({"observers": 3}, "observers takes a list of observers; got 3"),
        ({"observers": Watching()}, "observers takes a list of observers; got an object of type Watching"),
        ({"observers": [Watching(), Awaiting()]}, "on_event of an object of type Awaiting is a coroutine function"),
        ({"journal": 3}, r"journal is a path, a URL or a procession\.journal\.Journal; got 3"),
        ({"journal": b"runs.db"}, "journal is a path, a URL"),
        ({"journal": Journal}, "journal is a path, a URL.*; got class Journal"),
        ({"run_id": 3, "journal": ":memory:"}, "run_id is a str; got 3"),
        ({"run_id": 3}, "run_id is a str; got 3"),
        ({"progress": "yes"}, "progress is True or False; got 'yes'"),
        ({"allow_changes": "yes", "journal": ":memory:"}, "allow_changes is True or False; got 'yes'"),
    ],
)
def test_arguments_of_a_wrong_type_are_refused_before_anything_runs(wrong, match):
    """When the process is made, where it is given there, and else by each way to execute it, which changes nothing."""
    process = Process("wrong")
    process.add_task(same, 1)
    ways = [process.execute, process.start, lambda **wrong: asyncio.run(process.execute_async(**wrong))]
    if wrong.keys() <= {"observers", "journal"}:
        ways.append(lambda **wrong: Process("wrong", **wrong))
    for way in ways:
        with pytest.raises(TypeError, match=f"process 'wrong': {match}"):
            way(**wrong)
    assert (process.status, process.last_run) == ("initialized", None)


def test_attributes_that_were_set_to_something_wrong_are_refused_when_a_run_begins():
    """As if they had been given."""
    process = Process("set")
    process.journal = 3
    with pytest.raises(TypeError, match="'set': journal is"):
        process.execute()
    process.journal, process.observers = None, print
    with pytest.raises(TypeError, match="'set': observers takes"):
        process.execute()


def test_changes_cannot_be_allowed_where_there_is_no_journal():
    """There is nothing that they could be changes of."""
    process = Process("forgetful")
    with pytest.raises(ValueError, match="process 'forgetful': allow_changes=True .* give run_id= and journal="):
        process.execute(allow_changes=True)


def test_a_journal_is_at_a_path_or_a_url():
    """Said when it is made."""
    for wrong in 3, None, b"runs.db", ["runs.db"]:
        with pytest.raises(TypeError, match="a journal is kept at a path or a URL, which is a str; got"):
            Journal(wrong)


@pytest.mark.parametrize("wrong", ["x", True, [1]])
def test_a_timeout_that_is_no_number_is_refused(wrong):
    """By whatever waits for a run, ended or not."""
    process = Process("waited")
    process.add_task(same, 1)
    run = process.start()
    for wait in run.wait, run.result:
        with pytest.raises(TypeError, match="process 'waited': timeout is a number of seconds, or None; got"):
            wait(timeout=wrong)
    assert run.result(timeout=float("inf")) == [1]
    with pytest.raises(TypeError, match="timeout"):
        run.result(timeout=wrong)


def test_a_handle_of_another_process_is_refused_by_a_run_with_its_name():
    """The message says whose it is, and that it is another process even where that has the same name."""
    process, other = Process("same"), Process("same")
    handle = other.task(same, 1)
    process.execute()
    with pytest.raises(
        HandleError, match=r"of process 'same'; got <handle of task 0 \(same\) of process 'same'>, another"
    ):
        process.last_run[handle]


def test_an_option_that_is_given_as_an_argument_is_told_when_the_function_does_not_take_it():
    """When it is added, with what would be right. A function that takes it, or anything, gets it as ever."""

    class Fetcher:
        def fetch(self, url):
            return url

    def fetch(url, /, timeout=1, *, name=None):
        return url, timeout, name

    process = Process("options")
    for function in lambda url: url, Fetcher().fetch, partial(lambda url, other: url, other=1):
        for option in "retries", "timeout", "name", "retry_on":
            for add in process.add_task, process.task:
                with pytest.raises(
                    TypeError, match=rf"'options', task 0 .*no argument '{option}'.*task\({option}=\.\.\."
                ):
                    add(function, "a", **{option: 3})
    process.add_task(fetch, "a", timeout=3, name="b")
    process.add_task(same, 1, retries=3)
    process.add_task(max, [1], default=1)
    assert process.execute() == [("a", 3, "b"), 1, 1]
