"""What a failure means: for the tasks around it, for the results, for whoever reads the exception."""

import threading
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import pytest

from procession import Process, TaskSkippedError, task

STRATEGIES = ["sequential", "parallel", "hybrid"]
AT_ONCE = ["parallel", "hybrid"]
POLICIES = ["stop", "continue", "return"]


def same(value):
    return value


def throw(error):
    raise error


def states(process):
    return [outcome.state for outcome in process.last_run.outcomes]


def caught_from(process):
    with pytest.raises(BaseException) as caught:
        process.execute()
    return caught.value


# What a failure means for the others


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
    """The second half waits for the first to end well, whatever the policy."""
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


# Results and groups


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


# Exceptions that are no Exception


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


# Notes and strange exceptions


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


# Maps


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_map_stops_at_its_first_failure(strategy):
    """Nothing new starts, and the note names the element."""
    begun = []

    def each(number):
        begun.append(number)
        if number == 3:
            raise KeyError("no")

    process = Process("map", strategy, 1)
    process.map(each, range(100))
    error = caught_from(process)
    assert error.__notes__ == [f"in process 'map', task 0 (map of {each.__qualname__}), element 3, attempt 1"]
    assert begun == [0, 1, 2, 3]
    assert states(process) == ["failed"]


@pytest.mark.parametrize("workers", [1, 4])
def test_a_map_that_continues_raises_the_failures_of_its_elements_in_order(workers):
    """As a group inside the group of the process; the elements that are well still ran."""
    done = []

    def each(number):
        if number % 3 == 0:
            raise KeyError(number)
        done.append(number)

    process = Process("map", "parallel", workers, on_error="continue")
    process.map(each, range(10))
    process.add_task(done.append, "beside")
    group = caught_from(process)
    assert type(group) is ExceptionGroup
    (inner,) = group.exceptions
    assert type(inner) is ExceptionGroup
    assert [error.args for error in inner.exceptions] == [(0,), (3,), (6,), (9,)]
    assert "element 3," in inner.exceptions[1].__notes__[0]
    assert "4 of 10 elements" in str(inner)
    assert set(done) == {1, 2, 4, 5, 7, 8, "beside"}


@pytest.mark.parametrize("workers", [1, 4])
def test_a_map_that_returns_has_the_exceptions_in_their_places(workers):
    """The map itself has failed, so that what waits for it is skipped: nothing gets an error for a value."""
    errors = {number: KeyError(number) for number in (1, 4)}

    def each(number):
        if number in errors:
            raise errors[number]
        return number

    process = Process("map", "parallel", workers, on_error="return")
    mapped = process.map(each, range(6))
    process.add_task(len, mapped)
    results, skipped = process.execute()
    assert results == [0, errors[1], 2, 3, errors[4], 5]
    assert isinstance(skipped, TaskSkippedError)
    assert "element 4," in errors[4].__notes__[0]
    assert states(process) == ["failed", "skipped"]
    with pytest.raises(ExceptionGroup, match=r"2 of 6 elements of .*each failed") as caught:
        process.last_run[mapped]
    assert list(caught.value.exceptions) == [errors[1], errors[4]]
    assert process.status == "completed"


def test_tasks_in_order_do_not_go_on_from_a_map_that_returns_exceptions():
    """It has not ended well, as no task has that failed."""
    process = Process("map", "hybrid", on_error="return")
    process.map(throw, [KeyError("no")])
    for _ in range(3):
        process.add_task(same, 1)
    first, *rest = process.execute()
    assert type(first[0]) is KeyError
    assert [type(result) for result in rest] == [TaskSkippedError] * 3


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_element_that_raises_no_exception_stops_the_run(policy, error):
    """Under every policy, as itself."""
    raised, begun = error("now"), []

    def each(number):
        begun.append(number)
        if number == 2:
            raise raised

    process = Process("map", "parallel", 1, on_error=policy)
    process.map(each, range(50))
    assert caught_from(process) is raised
    assert begun == [0, 1, 2]
    assert process.status == "failed"


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("place", [0, 1, 70])
def test_an_iterable_that_raises_midway_fails_its_map(strategy, workers, place):
    """As itself; the elements before the error may have run, none after."""
    raised, seen = LookupError("source"), []

    def source():
        yield from range(place)
        raise raised

    process = Process("source", strategy, workers)
    process.map(seen.append, source())
    assert caught_from(process) is raised
    assert raised.__notes__[0].startswith("in process 'source', task 0 (map of list.append)")
    assert set(seen) <= set(range(place))
    assert process.status == "failed"


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_lazy_iterables_of_unequal_length_are_told_when_the_shortest_ends(strategy, workers):
    """A ValueError that names process, task and how far it came."""
    process = Process("uneven", strategy, workers)
    process.map(max, iter(range(100)), (number for number in range(90)))
    with pytest.raises(ValueError, match=r"process 'uneven', task 0 \(map of max\).*equally long.*90") as caught:
        process.execute()
    assert "zip" not in str(caught.value)
    assert process.status == "failed"


def test_a_map_over_what_a_handle_turned_out_to_be_is_told_plainly():
    """No iterable, or one of another length."""
    process = Process("late")
    number = process.task(same, 3)
    process.map(same, number)
    with pytest.raises(TypeError, match="cannot be iterated: int"):
        process.execute()
    process = Process("late")
    three = process.task(same, [1, 2, 3])
    process.map(max, three, [1, 2])
    with pytest.raises(ValueError, match="equally long; got lengths 2, 3"):
        process.execute()


class Table:
    """Iterated, it gives its columns; its length is the number of its rows."""

    def __len__(self):
        return 90

    def __iter__(self):
        return iter("ab")


class Stream(Table):
    def __len__(self):
        raise TypeError("the length is unknown")


class Broken(Table):
    def __len__(self):
        raise RuntimeError("the connection is gone")


class Endless(Table):
    __len__ = None


class Record(Sequence):
    """A sequence whose length can be asked only once it is open."""

    def __len__(self):
        raise OSError("closed")

    def __getitem__(self, place):
        return "ab"[place]


@pytest.mark.parametrize("kind", [Table, Stream, Broken, Endless, Record])
@pytest.mark.parametrize("executor", ["threads", "given"])
def test_a_length_that_is_unknown_or_of_something_else_stands_in_no_maps_way(kind, executor):
    """Only sequences, sets and mappings say by their length how many elements they have."""
    with ThreadPoolExecutor(2) as pool:
        process = Process("tables", "parallel", 2, executor=pool if executor == "given" else "threads")
        process.map("{}{}".format, kind(), [1, 2])
        process.map(str.upper, process.task(kind))
        assert process.execute()[::2] == [["a1", "b2"], ["A", "B"]]
        assert process.last_run.progress == (5, 0, 5)


@pytest.mark.parametrize("policy", ["continue", "return"])
def test_a_map_of_a_failed_handle_is_skipped(policy):
    """Its function is never called."""
    called = []
    process = Process("fed", "parallel", on_error=policy)
    broken = process.task(throw, KeyError("no"))
    process.map(called.append, broken)
    process.start().wait(20)
    assert called == []
    assert states(process) == ["failed", "skipped"]


# What is refused


@pytest.mark.parametrize("policy", ["ignore", "", None, "Stop", ["stop"]])
def test_an_unknown_policy_is_refused_at_construction(policy):
    """The message names the process and lists the known ones."""
    with pytest.raises(ValueError, match=r"process 'x': unknown on_error .*'stop', 'continue', 'return'"):
        Process("x", on_error=policy)
