"""What a person reads: the summary of a run, the repr of things, and how messages speak of what they refuse."""

import re
import threading

import pytest
import tenacity

from procession import Hybrid, Parallel, Process, RunCancelledError, Sequential, current_task, task

STRANGE = "name\r\n forged \x1b[31m\x00\x07\u202e\ud800" + "x" * 1_000_000


def same(value):
    return value


def throw(error):
    raise error


class Unspeakable:
    """Something that must not be asked for its text."""

    def __repr__(self):
        raise AssertionError("nobody may call this")

    __str__ = __format__ = __repr__


class Endless(Exception):
    """An exception with 100 MB to say."""

    def __str__(self):
        return "\x1b[31m\n" + "x" * 100_000_000


def lines_of(run, *limit):
    """Return the lines of a summary, with `T` in place of times and the run's id."""
    text = re.sub(r"\d[\d.]*(e[+-]\d+)? (s|ms|µs)\b", "T", run.summary(*limit)).replace(run.id, "ID")
    return [re.sub(r"  +", "  ", line) for line in text.split("\n")]


def harmless(text, longest):
    """Return whether a text can be shown: lines of printable characters, none too long."""
    return all(line.isprintable() and len(line) <= longest for line in text.split("\n"))


# The summary


def test_a_summary_tells_how_the_run_went_and_then_its_tasks():
    """The failed ones first, then the slowest; what never started comes last."""
    process = Process("nightly", on_error="return")
    process.add_task(same, 1)
    process.add_task(task(name="slow")(threading.Event().wait), 0.02)
    rules = tenacity.Retrying(stop=tenacity.stop_after_attempt(2), wait=tenacity.wait_none())
    process.add_task(task(retries=rules, name="load")(throw), KeyError("no"))
    process.add_task(same, 2)
    process.execute()
    assert lines_of(process.last_run) == [
        "nightly: completed in T (2 completed, 1 failed, 1 skipped) · run ID",
        "#  task  state  attempts  start  took  error",
        "2  load  failed  2  T  T  KeyError: 'no'",
        "1  slow  completed  1  T  T",
        "0  same  completed  1  T  T",
        "3  same  skipped  0",
    ]


def test_a_summary_lists_twenty_tasks_or_as_many_as_asked_for():
    """And says how many more there are."""
    process = Process("many", "parallel", 2)
    for number in range(1234):
        process.add_task(same, number)
    process.execute()
    run = process.last_run
    assert len(lines_of(run)) == 1 + 1 + 20 + 1
    assert lines_of(run)[0].startswith("many: completed in T (1,234 completed) · run ")
    assert lines_of(run)[-1] == "… and 1,214 more"
    assert lines_of(run, 2)[-1] == "… and 1,232 more"
    assert lines_of(run, 0)[1:] == ["… and 1,234 more"]
    assert len(lines_of(run, 5000)) == 1 + 1 + 1234


def test_the_columns_of_a_summary_stand_one_below_the_other():
    """Numbers to the right, words to the left."""
    process = Process("columns", "parallel", on_error="return")
    for number in range(11):
        process.add_task(task(name="n" * (number + 1))(throw), KeyError("e" * number))
    process.execute()
    _, heading, *rows = process.last_run.summary().split("\n")
    for word in "task", "state", "error":
        column = heading.index(word)
        assert all(row[column - 1] == " " and row[column] != " " for row in rows)
    assert sorted(row[:2] for row in rows) == [f"{number:2}" for number in range(11)]
    end = heading.index("attempts") + len("attempts")
    assert all(row[end - 1] == "1" and row[end] == " " for row in rows)


def test_the_summary_of_a_process_without_tasks_says_so():
    """In one line."""
    process = Process("empty")
    process.execute()
    assert lines_of(process.last_run) == ["empty: completed in T (no tasks) · run ID"]


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3)])
def test_the_summary_of_a_failed_run_says_what_stopped_it(error):
    """Below the first line."""
    process = Process("failed")
    process.add_task(throw, error)
    process.add_task(same, 1)
    with pytest.raises(type(error)):
        process.execute()
    text = f"{type(error).__name__}: {error}"
    assert lines_of(process.last_run) == [
        "failed: failed in T (1 failed, 1 skipped) · run ID",
        f"stopped by {text}",
        "#  task  state  attempts  start  took  error",
        f"0  throw  failed  1  T  T  {text}",
        "1  same  skipped  0",
    ]


def test_a_summary_can_be_read_while_the_run_goes_on():
    """What has ended stands before what has not."""
    begun, release = threading.Event(), threading.Event()

    @task(name="goes on")
    def work():
        begun.set()
        assert release.wait(20)

    process = Process("going")
    process.add_task(same, 0)
    process.add_task(work)
    process.add_task(same, 2)
    run = process.start()
    assert begun.wait(20)
    assert lines_of(run) == [
        "going: running in T (1 completed, 1 running, 1 waiting) · run ID",
        "#  task  state  attempts  start  took  error",
        "0  same  completed  1  T  T",
        "1  goes on  running  1  T",
        "2  same  waiting  0",
    ]
    run.cancel()
    release.set()
    with pytest.raises(RunCancelledError):
        run.result(20)
    assert lines_of(run)[0] == "going: cancelled in T (2 completed, 1 cancelled) · run ID"


def test_a_summary_shows_names_and_errors_harmless_and_short():
    """Control characters, escapes and marks that turn the writing are escaped, and nothing fills the screen."""
    process = Process(STRANGE, "parallel", on_error="return")
    process.add_task(task(name=STRANGE)(same), 1)
    process.add_task(task(name=STRANGE)(throw), Endless())
    process.add_task(throw, type("Evil\x1b[31m\n" + "x" * 100_000, (Exception,), {})())
    process.execute()
    summary = process.last_run.summary()
    assert harmless(summary, 600)
    assert len(summary.split("\n")) == 5
    assert r"name\r\n forged \x1b[31m\x00\x07\u202e\ud800xxx" in summary
    assert r"Endless: \x1b[31m …" in summary
    summary.encode()
    process.on_error = "stop"
    with pytest.raises(Exception, match="xxx"):
        process.start().result(20)
    assert harmless(process.last_run.summary(), 600)


# How things show themselves


def test_one_is_said_in_the_singular():
    """A process of one task, its run, its picture, and the errors that count."""
    process = Process("one", "parallel", 1, on_error="continue")
    process.add_task(throw, KeyError("no"))
    assert repr(process) == "<Process 'one': 1 task, parallel, initialized>"
    assert repr(process.graph()) == "<Graph of 'one': 1 task in 1 node>"
    with pytest.raises(ExceptionGroup, match="1 of 1 task of process 'one' failed"):
        process.execute()
    assert repr(process.last_run).endswith("failed, 1 of 1 task ended>")
    assert "1 task, idle for" in process.last_run.timeline().svg()
    cancelled = process.start()
    cancelled.cancel()
    with pytest.raises((RunCancelledError, ExceptionGroup), match="of 1 task "):
        cancelled.result(20)


def test_things_show_what_they_are():
    """Short enough for a debugger's line."""
    process = Process("shows", "parallel", 3, on_error="return")
    handle = process.task(task(name="first")(lambda: repr(current_task())))
    process.add_task(task(retries=1, name="second")(throw), KeyError("no"))
    process.add_task(same, handle)
    assert repr(process) == "<Process 'shows': 3 tasks, parallel, initialized>"
    assert repr(handle) == "<handle of task 0 (first) of process 'shows'>"
    first, _, _ = process.execute()
    run = process.last_run
    assert first == "<current task 0 (first) of process 'shows', attempt 1>"
    assert repr(process) == "<Process 'shows': 3 tasks, parallel, completed>"
    assert repr(run) == f"<Run {run.id} of 'shows': completed, 3 of 3 tasks ended>"
    shown = re.sub(r"in \S+ s", "in T s", repr(run.outcomes))
    assert shown == (
        "[<Outcome 0 first: completed, in T s>, "
        "<Outcome 1 second: failed, in T s, after 2 attempts, KeyError: 'no'>, "
        "<Outcome 2 same: completed, in T s>]"
    )
    assert [repr(Sequential()), repr(Parallel()), repr(Hybrid()), repr(Hybrid(first=3))] == [
        "Sequential()",
        "Parallel()",
        "Hybrid()",
        "Hybrid(first=3)",
    ]


def test_many_outcomes_show_their_first_ten():
    """And that there are more."""
    process = Process("many")
    for _ in range(100_000):
        process.add_task(int)
    process.execute()
    shown = repr(process.last_run.outcomes)
    assert shown.count("<Outcome") == 10
    assert shown.endswith(", …]")
    assert len(shown) < 1000


def test_what_shows_a_task_shows_its_name_harmless_and_short():
    """Whatever it is."""
    process = Process(STRANGE, on_error="return")
    handle = process.task(task(name=STRANGE)(throw), Endless())
    process.execute()
    (outcome,) = process.last_run.outcomes
    for text in repr(handle), repr(outcome), repr(process.last_run.outcomes), outcome.error.__notes__[0]:
        assert harmless(text, 800)
        text.encode()
    with pytest.raises(LookupError) as caught:
        _ = outcome.value
    assert harmless(str(caught.value), 800)


# How messages speak of what they refuse


@pytest.mark.parametrize(
    "refuse",
    [
        lambda value: task(retries=value),
        lambda value: task(timeout=value),
        lambda value: task(name=value),
        lambda value: task(retry_on=value),
        lambda value: task(retry_on=[value]),
        lambda value: task()(value),
        lambda value: Hybrid(first=value),
        lambda value: Process("messages").map(same, value),
    ],
    ids=["retries", "timeout", "name", "retry_on", "one of retry_on", "decorated", "first", "iterable"],
)
def test_a_message_names_the_type_of_what_it_refuses(refuse):
    """And never asks a value for its text, which may raise, never end, or tell a secret."""
    with pytest.raises(TypeError, match="Unspeakable") as caught:
        refuse(Unspeakable())
    assert harmless(str(caught.value), 300)


@pytest.mark.parametrize("value", [STRANGE, b"\x1b" * 100_000, 10**5000], ids=["str", "bytes", "int"])
def test_a_message_shows_simple_values_harmless_and_short(value):
    """As they would be written."""
    for refuse in (
        lambda: task(name=3 if isinstance(value, str) else value),
        lambda: task()(value),
        lambda: task(retry_on=[value]),
    ):
        with pytest.raises(TypeError) as caught:
            refuse()
        assert harmless(str(caught.value), 400)


@pytest.mark.parametrize(
    ("refuse", "error"),
    [
        (lambda value: Process(value), TypeError),
        (lambda value: Process("x", value), ValueError),
        (lambda value: Process("x", max_workers=value), TypeError),
        (lambda value: Process("x", on_error=value), ValueError),
        (lambda value: Process("x").add_task(value), TypeError),
        (lambda value: Process("x").task(value), TypeError),
        (lambda value: Process("x").map(value, [1]), TypeError),
        (lambda value: (process := Process("x")).execute() or process.last_run[value], TypeError),
    ],
    ids=["name", "strategy", "max_workers", "on_error", "add_task", "task", "map", "run[...]"],
)
def test_a_message_of_a_process_names_the_type_of_what_it_refuses(refuse, error):
    """And never asks a value for its text."""
    with pytest.raises(error, match="Unspeakable") as caught:
        refuse(Unspeakable())
    assert harmless(str(caught.value), 300)


def test_everything_that_shows_a_process_shows_its_name_harmless_and_short():
    """Reprs and messages alike."""
    texts = []

    def told():
        texts.append(repr(current_task()))
        process.last_run.cancel()
        current_task().sleep(1)

    process = Process(STRANGE, on_error="continue")
    process.map(task(name=STRANGE)(max), iter([1, 2]), iter([1]))
    for build in lambda: None, lambda: process.tasks.clear() or process.add_task(task(name=STRANGE)(told)):
        build()
        with pytest.raises(Exception) as caught:
            process.execute()
        texts += [str(caught.value), *map(str, getattr(caught.value, "exceptions", ()))]
        texts += [repr(process), repr(process.last_run), process.last_run.summary()]
    with pytest.raises(TypeError) as caught:
        process.last_run[3]
    texts.append(str(caught.value))
    for text in texts:
        assert harmless(text, 800)
