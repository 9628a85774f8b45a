"""Maps that draw from generators, gone on with where changes are allowed: only what is new is called."""

import os
import shutil
from functools import partial
from pathlib import Path
from typing import get_args

import pytest

from counted_calls import STRATEGIES
from noted_calls import FOLDER, after, beside, tenfold, tenfold_async, total
from observing import Kept
from procession import PlanChangedError, Process
from procession.errors import JournalError
from procession.journal import Journal
from procession.testing import Failure, failing_journal

NUMBERS = [1, 2, 3]
CHANGES = {
    "appended": ([1, 2, 3, 4], ["4"]),
    "put in front": ([0, 1, 2, 3], ["0"]),
    "put in between": ([1, 9, 2, 3], ["9"]),
    "removed": ([1, 3], []),
    "removed at the end": ([1, 2], []),
    "all removed": ([], []),
    "reordered": ([3, 1, 2], []),
    "doubled": ([1, 2, 2, 3], []),
    "replaced": ([1, 8, 3], ["8"]),
    "other ones": ([6, 7], ["6", "7"]),
}


@pytest.fixture(autouse=True)
def _calls(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER, str(tmp_path / "calls"))  # worker processes have it, too
    (tmp_path / "calls").mkdir()


engines = pytest.mark.parametrize(
    ("function", "executor"),
    [(tenfold, "threads"), (tenfold_async, "threads"), (tenfold, "processes")],
    ids=["threads", "coroutines", "worker processes"],
)
every_strategy = pytest.mark.parametrize(
    ("function", "executor", "strategy"),
    [(function, "threads", strategy) for function in (tenfold, tenfold_async) for strategy in STRATEGIES]
    + [(tenfold, "processes", "parallel")],
)


class Audio:
    """Executes one run again and again, each time over other numbers."""

    def __init__(self, folder, function=tenfold, executor="threads", strategy="parallel", source=iter):
        self.folder = folder
        self.function = function
        self.source = source
        self.process = partial(Process, "audio", strategy, 2, executor=executor)
        self.calls = Path(os.environ[FOLDER])

    def filled(self, numbers):
        process = self.process()
        tens = process.map(self.function, self.source(numbers))
        process.task(after, process.task(total, tens))
        process.add_task(beside)
        return process

    def run(self, numbers, **options):
        """Return the results and the names of the calls."""
        self.last = self.filled(numbers)
        results = self.last.execute(run_id="a", journal=self.folder / "runs.db", **options)
        return results, self.made()

    def made(self):
        calls = sorted(path.name.partition(".")[0] for path in self.calls.iterdir())
        for path in self.calls.iterdir():
            path.unlink()
        return calls


class Around(Audio):
    """The same in a process that is itself a task."""

    def filled(self, numbers):
        process = self.process()
        inner = process.task(super().filled(numbers))
        process.task(after, process.task(len, inner))
        return process


def expected(numbers):
    tens = [number * 10 for number in numbers]
    return [tens, sum(tens), sum(tens) + 1, None]


@engines
@pytest.mark.parametrize("source", [list, iter])
@pytest.mark.parametrize("change", CHANGES)
def test_with_changes_allowed_only_new_elements_are_called_and_what_follows(
    function, executor, source, change, tmp_path
):
    """Of a completed map, from whatever it draws; and without changes allowed, what is recorded then is returned."""
    if executor == "processes" and (source is list or change not in ("put in between", "removed", "reordered")):
        pytest.skip("what is drawn is compared where the map is, and workers take long to start")
    numbers, called = CHANGES[change]
    audio = Audio(tmp_path, function, executor, source=source)
    assert audio.run(NUMBERS)[0] == expected(NUMBERS)
    assert audio.run(numbers, allow_changes=True) == (expected(numbers), sorted([*called, "after", "total"]))
    for options in {}, {"allow_changes": True}:
        assert audio.run(numbers, **options) == (expected(numbers), [])


@pytest.mark.parametrize("kind", [Audio, Around])
@every_strategy
def test_where_a_generator_gives_the_same_elements_nothing_is_called(function, executor, kind, strategy, tmp_path):
    """Neither of the map nor of what follows from it: all that is recorded holds, and when it ran stays as it was."""
    audio = kind(tmp_path, function, executor, strategy)
    results, _ = audio.run(NUMBERS)
    with Journal(tmp_path / "runs.db") as journal:
        before = journal.tasks("a"), journal.run("a").started_at
        assert audio.run(NUMBERS, allow_changes=True) == (results, [])
        assert (journal.tasks("a"), journal.run("a").started_at) == before
    assert all(outcome.recorded and outcome.state == "completed" for outcome in audio.last.last_run.outcomes)


@every_strategy
def test_a_generator_in_a_process_that_is_a_task_is_drawn_again_too(function, executor, strategy, tmp_path):
    """What follows from that process is called again if something in it was another."""
    audio = Around(tmp_path, function, executor, strategy)
    audio.run(NUMBERS)
    (inner, *_), made = audio.run([1, 4, 3], allow_changes=True)
    assert (inner, made) == (expected([1, 4, 3]), ["4", "after", "after", "total"])
    assert audio.run([1, 4, 3])[1] == []


def test_without_changes_allowed_a_completed_map_is_not_drawn_again(tmp_path):
    """Its record is its value; one that is not complete tells of each element that is another."""
    audio = Audio(tmp_path)
    audio.run(NUMBERS)
    drawn = iter([7])
    assert audio.run(drawn) == (expected(NUMBERS), [])
    assert next(drawn) == 7
    with Journal(tmp_path / "open.db") as journal:

        def run(*numbers):
            process = Process("open")
            process.map(tenfold, iter(numbers))
            return process.execute(run_id="a", journal=journal)

        with pytest.raises(TypeError):
            run(1, 2, object)
        with pytest.raises(PlanChangedError, match="element 1 is not the one that was recorded"):
            run(1, 3)


def test_a_map_over_the_values_of_one_that_draws_again_calls_its_new_elements(tmp_path):
    """The others keep theirs."""

    class Twice(Audio):
        def filled(self, numbers):
            process = self.process()
            process.map(tenfold, process.map(tenfold, iter(numbers)))
            return process

    audio = Twice(tmp_path)
    assert audio.run([1, 2])[1] == ["1", "10", "2", "20"]
    assert audio.run([1, 2], allow_changes=True)[1] == []
    assert audio.run([1, 3], allow_changes=True) == ([[10, 30], [100, 300]], ["3", "30"])


def test_observers_are_told_of_what_draws_again_and_of_nothing_that_is_not_called(tmp_path):
    """Nothing is missing, either."""
    audio, kept = Audio(tmp_path), Kept()
    audio.run(NUMBERS)
    audio.run(NUMBERS, allow_changes=True, observers=[kept])
    assert [event[:2] for event in kept.said if "progressed" not in event[0]] == [
        ("run_started", None),
        ("task_started", 0),
        ("task_completed", 0),
        ("run_completed", None),
    ]
    assert kept.events[-1].dropped == 0


@pytest.mark.parametrize("kind", [Audio, Around])
@pytest.mark.parametrize("way", get_args(Failure))
@pytest.mark.parametrize("numbers", [[1, 2, 3, 4], [1, 2], [3, 2, 1], [7]])
def test_a_journal_that_fails_midway_leaves_nothing_that_no_longer_holds(kind, way, numbers, tmp_path):
    """Whichever write it is: gone on with, the run has the results of a new one."""
    begun = tmp_path / "begun"
    begun.mkdir()
    kind(begun).run(NUMBERS)
    for at in range(1, 20):
        folder = tmp_path / str(at)
        shutil.copytree(begun, folder)
        audio = kind(folder)
        with failing_journal(at, way) as has_failed:
            try:
                audio.run(numbers, allow_changes=True)
            except JournalError:
                pass
            if not has_failed():
                return
        results, _ = audio.run(numbers, allow_changes=True)
        assert (results[0] if kind is Around else results) == expected(numbers)
    raise AssertionError("more writes than there can be")


def test_a_generator_that_fails_as_it_is_drawn_again_takes_along_what_follows_from_its_map(tmp_path):
    """So when it is drawn well, nothing is left of what followed from other elements."""

    def torn(numbers):
        yield numbers[0]
        raise ConnectionError("the listing was cut off")

    audio = Audio(tmp_path)
    audio.run(NUMBERS)
    with pytest.raises(ConnectionError):
        audio.run(torn(NUMBERS), allow_changes=True)
    assert audio.run([1, 2, 4], allow_changes=True) == (expected([1, 2, 4]), ["4", "after", "total"])
