"""Exceptions of every make: what stops a run, what is noted on them, and that they leave as themselves."""

import traceback
from dataclasses import dataclass
from functools import partial

import pytest

from failing_tasks import POLICIES, STRATEGIES, caught_from, same, states, throw
from procession import Process, task


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_is_no_exception_stops_the_run_under_every_policy(strategy, policy, error):
    """Raised as itself, with its note; nothing new starts, and the process can be used again."""
    begun, raised = [], error("now")
    process = Process("base", strategy, 1, on_error=policy)
    process.add_task(throw, raised)
    process.add_task(begun.append, 1)
    assert caught_from(process) is raised
    assert raised.__notes__ == ["in process 'base', task 0 (throw), attempt 1"]
    assert begun == []
    assert process.status == "failed"
    assert states(process) == ["failed", "cancelled" if error is KeyboardInterrupt else "skipped"]
    process.tasks.pop(0)
    assert process.execute() == [None]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_exiting_after_a_failure_that_was_let_pass_is_raised_as_itself(error):
    """Not in a group, although there are other failures."""
    process = Process("exit", "parallel", 1, on_error="continue")
    process.add_task(throw, KeyError("no"))
    process.add_task(throw, error("now"))
    assert type(caught_from(process)) is error
    assert states(process) == ["failed", "failed"]


@pytest.mark.parametrize("error", [StopIteration, StopAsyncIteration, IndexError, TimeoutError, RuntimeError])
@pytest.mark.parametrize("workers", [1, 4])
def test_exceptions_that_loops_use_are_failures_like_others(error, workers):
    """They end no loop, and the other tasks run."""
    process = Process("loops", "parallel", workers, on_error="return")
    for number in range(20):
        process.add_task(*((throw, error(number)) if number % 2 else (same, number)))
    results = process.execute()
    assert [getattr(value, "args", (value,))[0] for value in results] == list(range(20))
    assert [type(value) for value in results] == [int, error] * 10


def test_a_note_names_process_place_task_and_attempt():
    """One note, shown in the traceback."""
    process = Process("nightly\x1b[31m", "parallel")
    process.add_task(same, 1)
    process.add_task(task(name="load\nthe rest", retries=1)(partial(throw, KeyError("no"))))
    error = caught_from(process)
    (note,) = error.__notes__
    assert note == r"in process 'nightly\\x1b[31m', task 1 (load\nthe rest), attempt 2"
    assert note in "".join(traceback.format_exception(error))


def test_notes_of_the_task_itself_stay():
    """Ours comes after them."""
    error = KeyError("no")
    error.add_note("mine")
    process = Process("notes")
    process.add_task(throw, error)
    caught_from(process)
    assert error.__notes__ == ["mine", "in process 'notes', task 0 (throw), attempt 1"]


def test_a_nested_failure_names_every_process_it_passed():
    """Inside first."""
    inner, outer = Process("inner"), Process("outer", "parallel")
    inner.add_task(throw, KeyError("no"))
    outer.add_task(same, 1)
    outer.add_task(inner)
    error = caught_from(outer)
    assert type(error) is KeyError
    assert [note.split(",")[0] for note in error.__notes__] == ["in process 'inner'", "in process 'outer'"]
    assert "task 1 (inner)" in error.__notes__[1]


def test_the_traceback_leads_to_the_line_of_the_task():
    """And shows how the task was called from there."""
    process = Process("lines", "parallel")
    process.add_task(partial(throw, KeyError("no")))
    error = caught_from(process)
    frames = traceback.extract_tb(error.__traceback__)
    assert (frames[-1].name, frames[-1].line) == ("throw", "raise error")
    assert frames[0].name == "caught_from"


@pytest.mark.parametrize("policy", POLICIES)
def test_an_instance_that_several_tasks_raise_is_a_failure_of_each(policy):
    """It has a note for each, and the same one in every run after."""
    shared = KeyError("shared")
    process = Process("shared", "parallel", 1, on_error=policy)
    for _ in range(3):
        process.add_task(throw, shared)
    for _ in range(2):
        if policy == "return":
            assert process.execute() == [shared] * 3
        elif policy == "continue":
            assert caught_from(process).exceptions == (shared,) * 3
        else:
            assert caught_from(process) is shared
    places = range(1 if policy == "stop" else 3)
    assert shared.__notes__ == [f"in process 'shared', task {place} (throw), attempt 1" for place in places]


class Mute(Exception):
    def __str__(self):
        raise ValueError("no text")

    __repr__ = __str__


class Slotted(Exception):
    __slots__ = ("code",)

    def __init__(self):
        super().__init__("slotted")
        self.code = 7


class Demanding(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} {second}")


class Falsy(Exception):
    def __bool__(self):
        return False

    def __eq__(self, other):
        raise ValueError("not comparable")

    __hash__ = None


@pytest.mark.parametrize(
    "make", [Mute, Slotted, lambda: Demanding(1, 2), Falsy], ids=["mute", "slots", "args", "falsy"]
)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_exceptions_of_any_make_leave_as_themselves(strategy, policy, make):
    """Whatever their text, attributes, arguments or truth; and the summary can still be read."""
    error = make()
    process = Process("strange", strategy, on_error=policy)
    process.add_task(throw, error)
    if policy == "return":
        caught = process.execute()[0]
    else:
        caught = caught_from(process)
        caught = caught.exceptions[0] if policy == "continue" else caught
    assert caught is error
    assert error.__notes__ == ["in process 'strange', task 0 (throw), attempt 1"]
    assert states(process) == ["failed"]
    assert type(error).__name__ in process.last_run.summary()
    assert type(error).__name__ in repr(process.last_run.outcomes)


@dataclass(frozen=True)
class Frozen(Exception):
    """A frozen dataclass: nothing may be assigned to it."""

    code: int


class Unset(Exception):
    def __setattr__(self, name, value):
        raise RuntimeError("nothing may be assigned")


class WithoutNotes(Exception):
    __notes__ = None


class OddNotes(Exception):
    def __init__(self):
        self.__notes__ = [3]


class Refusing(Exception):
    def add_note(self, note):
        raise RuntimeError("no notes")


@pytest.mark.parametrize(
    "make",
    [lambda: Frozen(7), Unset, WithoutNotes, OddNotes, Refusing],
    ids=["frozen", "unset", "none", "odd", "refusing"],
)
@pytest.mark.parametrize("how", ["plain", "timeout", "retries", "map"])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_exceptions_that_let_nothing_be_assigned_leave_as_themselves(strategy, policy, how, make):
    """A note is a kindness; without it the failure is still the failure."""
    error = make()
    process = Process("strange", strategy, on_error=policy)
    if how == "map":
        process.map(throw, [error])
    else:
        process.add_task(
            task(**{"plain": {}, "timeout": {"timeout": 50}, "retries": {"retries": 1, "retry_on": KeyError}}[how])(
                throw
            ),
            error,
        )
    try:
        result = process.execute()[0]
        caught = result[0] if how == "map" else result
    except ExceptionGroup as group:
        caught = group.exceptions[0]
        caught = caught.exceptions[0] if how == "map" else caught
    except Exception as raised:
        caught = raised
    assert caught is error
    (outcome,) = process.last_run.outcomes
    assert outcome.state == "failed"
    assert process.status == ("completed" if policy == "return" else "failed")
