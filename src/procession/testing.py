"""Tools for tests of processes: a journal in memory, tasks called directly, retries without pauses, and crashes.

    crash_everywhere ──▶ an interpreter runs the process undisturbed                       ──▶ results
                     ──▶ for n = 1, 2, ...: an interpreter is killed after its n-th write
                                            another interpreter resumes the run            ──▶ the same results?
    fail_everywhere  ──▶ the same, with interpreters whose n-th journal write fails

Where a run is suspended, what it waits for is answered, and another interpreter resumes it; the count goes on. Each
execution has an interpreter of its own, a fresh one or a fork: see `_interpreters`.

Needs the extra `testing`.
"""

import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, get_args

try:
    import cloudpickle  # noqa: F401  # pyright: ignore[reportMissingTypeStubs, reportUnusedImport]
    import sqlalchemy  # noqa: F401  # pyright: ignore[reportUnusedImport]  # which the modules below need, like cloudpickle
except ImportError as error:
    raise ImportError('procession.testing needs more packages: pip install "procession[testing]"') from error

from procession import Process
from procession._crash_stage import MODULE, CrashStage
from procession._direct_calls import TaskContext, task_context, without_pauses
from procession._evidence import Evidence
from procession._interpreters import Interpreters
from procession._journal_writes import Failure, failing
from procession._model.record import WHOLE
from procession._model.text import sketch
from procession.journal import Journal

__all__ = [
    "CrashReport",
    "Failure",
    "FailureReport",
    "TaskContext",
    "crash_everywhere",
    "fail_everywhere",
    "failing_journal",
    "memory_journal",
    "recorded_calls",
    "task_context",
    "without_pauses",
]


class CrashReport(NamedTuple):
    """The result of `crash_everywhere`."""

    crashes: int
    """How many times the process was killed, each time after one more write to its journal."""
    results: list[Any]
    """The results of an undisturbed run, which every resumed run has returned, too."""


class FailureReport(NamedTuple):
    """The result of `fail_everywhere`."""

    failures: int
    """How many writes to the journal were made to fail, each in every way of `Failure`."""
    results: list[Any]
    """The results of an undisturbed run, which every resumed run has returned, too."""


def crash_everywhere(
    build_process: Callable[[], Process], *, answers: Mapping[str, object] | None = None, timeout: float = 60.0
) -> CrashReport:
    """Kill a process after each write to its journal in turn, resume it, and check that no result is lost or differs.

    Each run takes place in an interpreter of its own, which is killed for real. Tasks that were not recorded when the
    crash came are called again, so a task must bear that: this function finds tasks that do not.

    A run that is suspended is resumed. Nothing is waited for: each answer is there at once, and whatever else tasks
    wait for, long sleeps and answers that are not given, is over at once.

    Args:
        build_process: Builds and returns the process, the same process each time. It is sent to the interpreters by
            cloudpickle.
        answers: The answers that tasks wait for (`current_task().wait_for`), by their names.
        timeout: The time in seconds that each run may take.

    Returns:
        The number of crashes, and the results.

    Raises:
        AssertionError: A resumed run has other results than an undisturbed run, calls a task again that was recorded,
            waits again for what was answered, or fails. The message names a task whose result differed when it was
            called twice.
        TimeoutError: A run took longer than `timeout`.
        TypeError: `build_process` is no function, or does not return a process.
        ValueError: The process has no tasks, so nothing would be tested; or a task waits without end for an answer that
            is not given.

    Example:
        >>> def build() -> Process:
        ...     process = Process("sum", "parallel", 2)
        ...     process.task(sum, process.map(abs, [-1, -2]))
        ...     return process
        >>> crash_everywhere(build).results
        [[1, 2], 3]

    """
    _check_builder("crash_everywhere", "crash", build_process)
    with tempfile.TemporaryDirectory() as folder, Interpreters(MODULE, Path(folder)) as interpreters:
        stage = CrashStage(Path(folder), interpreters, build_process, answers or {}, timeout)
        crashes = 0
        while stage.crashed(stage.journal(crashes), after=crashes + 1):
            crashes += 1
            stage.resume(stage.journal(crashes - 1), f"crash {crashes}")
    if not crashes:
        raise ValueError("the process that build_process returned has no tasks, so no crash of it was tested")
    return CrashReport(crashes, stage.undisturbed.results)


def fail_everywhere(
    build_process: Callable[[], Process], *, answers: Mapping[str, object] | None = None, timeout: float = 60.0
) -> FailureReport:
    """Make each write to the journal fail in turn, execute the process again, and check that no result is wrong.

    A disk is full for a moment, another program holds a lock, a database restarts: a write fails, and the next one
    succeeds, or none does. Each write fails in every way of `Failure`, also the write that records the end of a run.
    A run that is suspended is resumed, as by `crash_everywhere`.

    Args:
        build_process: Builds and returns the process, the same process each time. It is sent to interpreters of their
            own by cloudpickle.
        answers: The answers that tasks wait for (`current_task().wait_for`), by their names.
        timeout: The time in seconds that each run may take.

    Returns:
        The number of writes, and the results.

    Raises:
        AssertionError: A run whose journal failed did not fail; or, executed again, it had other results than an
            undisturbed run, called a task again that was recorded, or failed.
        TimeoutError: A run took longer than `timeout`.
        TypeError: `build_process` is no function, or does not return a process.
        ValueError: A task waits without end for an answer that is not given.

    Example:
        >>> def build() -> Process:
        ...     process = Process("one")
        ...     process.add_task(abs, -1)
        ...     return process
        >>> fail_everywhere(build)
        FailureReport(failures=2, results=[1])

    """
    _check_builder("fail_everywhere", "failure", build_process)
    with tempfile.TemporaryDirectory() as folder, Interpreters(MODULE, Path(folder)) as interpreters:
        stage = CrashStage(Path(folder), interpreters, build_process, answers or {}, timeout)
        failures = 0
        while True:
            for way in get_args(Failure):
                journal = stage.journal(f"{failures}-{way}")
                if not stage.failed(journal, failures + 1, way):
                    return FailureReport(failures, stage.undisturbed.results)
                stage.resume(journal, f"write {failures + 1} failed ({way})")
            failures += 1


@contextmanager
def failing_journal(at: int, way: Failure = "once") -> Generator[Callable[[], bool]]:
    """Make one write to any journal raise a `JournalError`, for as long as the `with` statement lasts.

    Args:
        at: The number of the write that fails, from 1. Each commit of records is a write, and so is the end of a run,
            and each look at what a task waits for.
        way: How the write fails.

    Yields:
        A function that returns whether at least `at` writes have been made.

    Example:
        >>> from procession import JournalError
        >>> process = Process("durable")
        >>> process.add_task(len, "abc")
        >>> with memory_journal() as journal:
        ...     with failing_journal(at=1) as has_failed:
        ...         try:
        ...             process.execute(run_id="a", journal=journal)
        ...         except JournalError as error:
        ...             print(error, has_failed())
        ...     process.execute(run_id="a", journal=journal)
        write 1 was made to fail (once) True
        [3]

    """
    with failing(at, way) as writes:
        yield lambda: writes.count >= at


@contextmanager
def memory_journal() -> Generator[Journal]:
    """Provide a journal in memory that is closed at the end of the `with` statement, for fixtures of tests.

    Yields:
        The journal.

    Example:
        >>> process = Process("durable")
        >>> process.add_task(len, "abc")
        >>> with memory_journal() as journal:
        ...     process.execute(run_id="a", journal=journal), process.execute(run_id="a", journal=journal)
        ([3], [3])

    """
    journal = Journal(":memory:")
    try:
        yield journal
    finally:
        journal.close()


def recorded_calls(journal: Journal) -> set[tuple[str, int, int]]:
    """Return the calls that a journal has recorded as completed.

    Args:
        journal: The journal.

    Returns:
        For each call, the id of its run, the index of its task, and the place of its element in a map, or -1 for the
        task itself. The id of a run that is nested in another is `run/task`.

    Example:
        >>> process = Process("durable")
        >>> process.add_task(len, "abc")
        >>> with memory_journal() as journal:
        ...     _ = process.execute(run_id="a", journal=journal)
        ...     recorded_calls(journal)
        {('a', 0, -1)}

    """
    return {(one.run, one.task, one.element) for one in Evidence(journal).recorded if one.call == WHOLE}


def _check_builder(name: str, what: str, build_process: object) -> None:
    if isinstance(build_process, Process) or not callable(build_process):
        raise TypeError(
            f"{name} takes a function that builds and returns a process; got {sketch(build_process)}. Each "
            f"{what} needs a process of its own: {name}(build), with def build() -> Process"
        )
