"""Tools for tests of processes: a journal in memory, tasks called directly, retries without pauses, and crashes.

    crash_everywhere ──▶ an interpreter runs the process undisturbed                       ──▶ results
                     ──▶ for n = 1, 2, ...: an interpreter is killed after its n-th write
                                            another interpreter resumes the run            ──▶ the same results?
    fail_everywhere  ──▶ the same, with interpreters whose n-th journal write fails

Needs the extra `testing`.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

try:
    import cloudpickle  # pyright: ignore[reportMissingTypeStubs]
    from sqlalchemy import select
except ImportError as error:
    raise ImportError('procession.testing needs more packages: pip install "procession[testing]"') from error

from procession import Process
from procession._direct_calls import TaskContext, task_context, without_pauses
from procession._model.record import WHOLE
from procession._model.states import RunStatus
from procession._model.text import sketch
from procession.errors import JournalError
from procession.journal import Journal, Recorder, schema
from procession.journal.calls import CallRecords

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

_Commit = Callable[..., None]
_CallPlace = tuple[str, int, int, int]
"""A call: its run, task, element, and its place among the calls that the task makes itself; `WHOLE` for none."""

_CHANGED = "procession.errors.PlanChangedError: "
_RUN_ID = "crash-everywhere"
_SURVIVED = 3
_NO_PROCESS = 4
_FAILED = 5

Failure = Literal["once", "unanswered", "for good"]
"""How a write to a journal fails.

`"once"`: this write is lost. `"unanswered"`: the write succeeds, but raises as if it were lost. `"for good"`: this
write and all later ones are lost."""


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


def crash_everywhere(build_process: Callable[[], Process], *, timeout: float = 60.0) -> CrashReport:
    """Kill a process after each write to its journal in turn, resume it, and check that no result is lost or differs.

    Each run takes place in an interpreter of its own, which is killed for real. Tasks that were not recorded when the
    crash came are called again, so a task must bear that: this function finds tasks that do not.

    Args:
        build_process: Builds and returns the process, the same process each time. It is sent to the interpreters by
            cloudpickle.
        timeout: The time in seconds that each run may take.

    Returns:
        The number of crashes, and the results.

    Raises:
        AssertionError: A resumed run has other results than an undisturbed run, calls a task again that was recorded,
            or fails. The message names a task that was called twice, and differed.
        TimeoutError: A run took longer than `timeout`.
        TypeError: `build_process` is no function, or does not return a process.
        ValueError: The process has no tasks, so nothing would be tested.

    Example:
        >>> def build() -> Process:
        ...     process = Process("sum", "parallel", 2)
        ...     process.task(sum, process.map(abs, [-1, -2]))
        ...     return process
        >>> crash_everywhere(build).results
        [[1, 2], 3]

    """
    _check_builder("crash_everywhere", "crash", build_process)
    with tempfile.TemporaryDirectory() as folder:
        stage = _Stage(Path(folder), build_process, timeout)
        undisturbed = stage.run(stage.journal("undisturbed"))
        crashes = 0
        while stage.crashed(stage.journal(crashes), after=crashes + 1):
            crashes += 1
            _resume(stage, stage.journal(crashes - 1), undisturbed, f"crash {crashes}")
    if not crashes:
        raise ValueError("the process that build_process returned has no tasks, so no crash of it was tested")
    return CrashReport(crashes, undisturbed)


def fail_everywhere(build_process: Callable[[], Process], *, timeout: float = 60.0) -> FailureReport:
    """Make each write to the journal fail in turn, execute the process again, and check that no result is wrong.

    A disk is full for a moment, another program holds a lock, a database restarts: a write fails, and the next one
    succeeds, or none does. Each write fails in every way of `Failure`, also the write that records the end of a run.

    Args:
        build_process: Builds and returns the process, the same process each time. It is sent to interpreters of their
            own by cloudpickle.
        timeout: The time in seconds that each run may take.

    Returns:
        The number of writes, and the results.

    Raises:
        AssertionError: A run whose journal failed did not fail; or, executed again, it had other results than an
            undisturbed run, called a task again that was recorded, or failed.
        TimeoutError: A run took longer than `timeout`.
        TypeError: `build_process` is no function, or does not return a process.

    Example:
        >>> def build() -> Process:
        ...     process = Process("one")
        ...     process.add_task(abs, -1)
        ...     return process
        >>> fail_everywhere(build)
        FailureReport(failures=2, results=[1])

    """
    _check_builder("fail_everywhere", "failure", build_process)
    with tempfile.TemporaryDirectory() as folder:
        stage = _Stage(Path(folder), build_process, timeout)
        undisturbed = stage.run(stage.journal("undisturbed"))
        failures = 0
        while True:
            for way in get_args(Failure):
                journal = stage.journal(f"{failures}-{way}")
                if not stage.failed(journal, failures + 1, way):
                    return FailureReport(failures, undisturbed)
                _resume(stage, journal, undisturbed, f"write {failures + 1} failed ({way})")
            failures += 1


@contextmanager
def failing_journal(at: int, way: Failure = "once") -> Generator[Callable[[], bool]]:
    """Make one write to any journal raise a `JournalError`, for as long as the `with` statement lasts.

    Args:
        at: The number of the write that fails, from 1. Each commit of records is a write, and so is the end of a run.
        way: How the write fails.

    Yields:
        A function that returns whether at least `at` writes have been made.

    Example:
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
    lock, count, close = threading.Lock(), 0, Recorder.close

    def fails() -> bool:
        nonlocal count
        with lock:
            count += 1
            return count == at or (count > at and way == "for good")

    def refuse(*_: object, **__: object) -> None:
        raise JournalError(f"write {at} was made to fail ({way})")

    def disturbed(commit: _Commit) -> _Commit:
        def commit_or_fail(*args: Any, **kwargs: Any) -> None:
            failing = fails()
            if not failing or way == "unanswered":
                commit(*args, **kwargs)
            if failing:
                refuse()

        return commit_or_fail

    def disturbed_close(recorder: Recorder, status: RunStatus, error: str | None = None) -> None:
        failing = fails()
        if failing and way != "unanswered":
            recorder._update = refuse  # type: ignore[method-assign]  # `close` is still called, so that connections are closed
        close(recorder, status, error)
        if failing:
            refuse()

    with _with_commits(disturbed):
        Recorder.close = disturbed_close  # type: ignore[assignment,method-assign]
        try:
            yield lambda: count >= at
        finally:
            Recorder.close = close  # type: ignore[method-assign]


@contextmanager
def _with_commits(wrap: Callable[["_Commit"], "_Commit"]) -> Generator[None]:
    """Replace what writes records, of tasks and of calls that tasks make themselves, by what `wrap` makes of it."""
    commit, commit_calls = Recorder.commit, CallRecords.commit
    Recorder.commit, CallRecords.commit = wrap(commit), wrap(commit_calls)  # type: ignore[method-assign]
    try:
        yield
    finally:
        Recorder.commit, CallRecords.commit = commit, commit_calls  # type: ignore[method-assign]


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
    return {(run, task, element) for run, task, element, call in _recorded(journal) if call == WHOLE}


def _recorded(journal: Journal) -> set["_CallPlace"]:
    """Return all calls that are recorded as completed, also those that tasks have made themselves."""
    runs, records, calls = schema.runs, schema.records, schema.calls
    with journal.database.reading() as connection:
        ids: dict[int, str] = {}
        # A run has a higher key than the one it is nested in.
        for key, parent, place in connection.execute(select(runs.c.key, runs.c.parent, runs.c.id).order_by(runs.c.key)):
            ids[key] = f"{ids[parent]}/{place}" if parent in ids else place
        of_tasks = select(records.c.run, records.c.task, records.c.element).where(records.c.state == "completed")
        found = {(ids[run], task, element, WHOLE) for run, task, element in connection.execute(of_tasks)}
        inside = select(calls.c.run, calls.c.task, calls.c.element, calls.c.call).where(calls.c.state == "completed")
        return found | {(ids[run], task, element, call) for run, task, element, call in connection.execute(inside)}


def _check_builder(name: str, what: str, build_process: object) -> None:
    if isinstance(build_process, Process) or not callable(build_process):
        raise TypeError(
            f"{name} takes a function that builds and returns a process; got {sketch(build_process)}. Each "
            f"{what} needs a process of its own: {name}(build), with def build() -> Process"
        )


def _resume(stage: "_Stage", journal: Path, expected: list[Any], what: str) -> None:
    with Journal(journal) as opened:
        recorded = _recorded(opened)
    stage.calls.unlink(missing_ok=True)
    results = stage.run(journal, f"after {what}, ")
    if results != expected:
        raise AssertionError(
            f"after {what} a resumed run gave {results!r}; undisturbed it gives {expected!r}"
            f"{_differed(results, expected, stage.names)}"
        )
    twice = sorted(recorded & stage.called())
    assert not twice, (
        f"after {what} these were called again though they were recorded (run, task, element, call): {twice}"
    )


def _differed(results: list[Any], expected: list[Any], names: Mapping[int, str]) -> str:
    """Return which task was not fit to be called again, in words: the first one with another result."""
    for index, (one, other) in enumerate(zip(results, expected, strict=False)):
        if one != other:
            return f": task {index} ({names.get(index, '?')}) was called twice, and differed"
    return ""


class _Stage:
    """A folder with the files that the interpreters read and write: the builder, journals, calls and results."""

    def __init__(self, folder: Path, build_process: Callable[[], Process], timeout: float) -> None:
        self.folder = folder
        self.calls = folder / "calls"
        self.names: dict[int, str] = {}
        """The names of the tasks that were called, by place; of nested runs, none."""
        self._timeout = timeout
        # The module search path first: the pickled builder may need it.
        (folder / "path").write_text(json.dumps(sys.path))
        (folder / "build_process").write_bytes(_pickled(build_process))

    def journal(self, name: object) -> Path:
        """Return the path of the journal with a name."""
        return self.folder / f"{name}.db"

    def called(self) -> set["_CallPlace"]:
        """Return the calls that the interpreters have written down since the file was last deleted."""
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        places: set[_CallPlace] = set()
        for run, task, element, call, name in map(json.loads, lines):
            places.add((str(run), int(task), int(element), int(call)))
            if run == _RUN_ID:
                self.names[int(task)] = str(name)
        return places

    def run(self, journal: Path, when: str = "") -> list[Any]:
        """Run the process to its end and return its results."""
        code, complaints = self._interpreter(journal, 0)
        self.called()  # for the names
        changed = [line for line in complaints.splitlines() if line.startswith(_CHANGED)]
        assert not (when and changed), (
            f"{when}a task was called twice, and differed: {changed[0].removeprefix(_CHANGED)}"
        )
        assert code == 0, f"{when}the process did not complete:\n{complaints}"
        results: list[Any] = cloudpickle.loads((self.folder / "results").read_bytes())
        return results

    def crashed(self, journal: Path, after: int) -> bool:
        """Run the process and kill it after its write number `after`; return whether it made so many writes."""
        code, complaints = self._interpreter(journal, after)
        assert code != 1, f"the process did not complete:\n{complaints}"
        return code != _SURVIVED

    def failed(self, journal: Path, at: int, way: Failure) -> bool:
        """Run the process with a journal whose write number `at` fails; return whether it made so many writes."""
        code, complaints = self._interpreter(journal, at, way)
        assert code != 1, f"the process completed, or failed otherwise, though its journal failed:\n{complaints}"
        return code != _SURVIVED

    def _interpreter(self, journal: Path, after: int, way: str = "") -> tuple[int, str]:
        command = [sys.executable, "-m", "procession.testing", str(self.folder), str(journal), str(after), way]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=self._timeout, check=False)  # noqa: S603
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"a run of the process took more than {self._timeout:g} s") from error
        if done.returncode == _NO_PROCESS:
            raise TypeError(done.stderr.splitlines()[-1])
        return done.returncode, done.stderr


def _pickled(value: object) -> bytes:
    data: bytes = cloudpickle.dumps(value)  # pyright: ignore[reportUnknownMemberType]
    return data


# The code below runs in the interpreters that `_Stage` starts.


def _die() -> None:
    if sys.platform == "win32":
        import ctypes

        ctypes.windll.kernel32.TerminateProcess(-1, 9)
    else:
        os.kill(os.getpid(), signal.SIGKILL)


class _Calls(logging.Handler):
    """Writes down each call before it is made, so that a crash cannot hide it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage() in ("task_started", "element_started", "call_started"):
            fields = vars(record)
            place = fields["index"], fields.get("element", WHOLE), fields.get("call", WHOLE)
            line = json.dumps([fields["run_id"], *place, fields["task_name"]])
            os.write(self._file, f"{line}\n".encode())


def _main(folder: Path, journal: Path, after: int, way: str) -> int:
    sys.path[:] = json.loads((folder / "path").read_text())
    build_process = cloudpickle.loads((folder / "build_process").read_bytes())
    logger = logging.getLogger("procession")
    logger.addHandler(_Calls(folder / "calls"))
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    process: object = build_process()
    if not isinstance(process, Process):
        sys.stderr.write(f"build_process is to return a Process; it returned {sketch(process)}\n")
        return _NO_PROCESS
    if way:
        return _fail(process, journal, after, cast("Failure", way))
    with _with_commits(_dying_after(after)):
        results = process.execute(run_id=_RUN_ID, journal=journal)
    (folder / "results").write_bytes(_pickled(results))
    return _SURVIVED if after else 0


def _dying_after(writes: int) -> Callable[["_Commit"], "_Commit"]:
    count = 0

    def counted(commit: _Commit) -> _Commit:
        def commit_and_die(*args: Any, **kwargs: Any) -> None:
            nonlocal count
            commit(*args, **kwargs)
            count += 1
            if count == writes:
                _die()

        return commit_and_die

    return counted


def _fail(process: Process, journal: Path, at: int, way: Failure) -> int:
    with failing_journal(at, way) as has_failed:
        try:
            process.execute(run_id=_RUN_ID, journal=journal)
        except JournalError:
            return _FAILED if has_failed() else 1
        return 1 if has_failed() else _SURVIVED


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
