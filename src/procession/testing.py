"""For tests of processes: a journal that lives in memory, and crashes and failures wherever one could matter.

    crash_everywhere ──▶ an interpreter that runs undisturbed                              ──▶ results
                     ──▶ for n = 1, 2, ...: one that is killed after its n-th journal write
                                            one that resumes what the first one left        ──▶ the same results?
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
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

try:
    import cloudpickle  # pyright: ignore[reportMissingTypeStubs]
    from sqlalchemy import select
except ImportError as error:
    raise ImportError('procession.testing needs more packages: pip install "procession[testing]"') from error

from procession import Process
from procession._model.record import WHOLE, Record
from procession._model.states import RunStatus
from procession._model.text import sketch
from procession.errors import JournalError
from procession.journal import Journal, Recorder, schema

__all__ = [
    "CrashReport",
    "FailureReport",
    "crash_everywhere",
    "fail_everywhere",
    "failing_journal",
    "memory_journal",
    "recorded_calls",
]

_RUN_ID = "crash-everywhere"
_SURVIVED = 3
_NO_PROCESS = 4
_FAILED = 5

Failure = Literal["once", "unanswered", "for good"]
"""How a journal fails at a write: that one is lost; it is written, and the answer is lost; all later ones are lost."""


class CrashReport(NamedTuple):
    """What `crash_everywhere` came to."""

    crashes: int
    """How many times the process was killed, each time after one more write to its journal."""
    results: list[Any]
    """The results of an undisturbed run, and so of every resumed one."""


class FailureReport(NamedTuple):
    """What `fail_everywhere` came to."""

    failures: int
    """How many writes to the journal were made to fail, each in every way of `Failure`."""
    results: list[Any]
    """The results of an undisturbed run, and so of every resumed one."""


def crash_everywhere(build_process: Callable[[], Process], *, timeout: float = 60.0) -> CrashReport:
    """Kill a process after each write to its journal in turn, resume it, and see that nothing is lost or done twice.

    `build_process` returns the process, and must build the same one each time: it is called in interpreters of their
    own, to which it travels by cloudpickle. Each run there may take `timeout` seconds. Tasks that had not been
    recorded when the crash came are called again, so what they do must bear that: this is how to find out.

    Raises `AssertionError` where a resumed run has other results than an undisturbed one, calls a task again that was
    recorded, or fails; `TimeoutError` for a run that takes too long; `TypeError` for what builds no process, and
    `ValueError` for a process without tasks, of which nothing would be tested.

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
    """Have each write to the journal fail in turn, execute the process again, and see that no wrong value comes out.

    A disk is full for a moment, another program holds a lock, a database restarts: a write fails, and the next one
    succeeds, or none does. Each write fails in every way of `Failure`, the one that records the end of a run included.

    Args:
        build_process: Returns the process, the same one each time. It is called in interpreters of their own, to which
            it travels by cloudpickle.
        timeout: What each run there may take, in seconds.

    Returns:
        How many writes there were, and the results.

    Raises:
        AssertionError: A run whose journal failed did not fail; or, executed again, it had other results than an
            undisturbed one, called a task again that was recorded, or failed.
        TimeoutError: A run took too long.
        TypeError: `build_process` builds no process.

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
    """Have one write to any journal fail, with a `JournalError`, for as long as the `with` lasts.

    Args:
        at: Which of the writes, from 1: of the records of one commit, or of the end of a run.
        way: How it fails.

    Yields:
        A function that says whether there have been as many writes.

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
    lock, count = threading.Lock(), 0
    commit, close = Recorder.commit, Recorder.close

    def fails() -> bool:
        nonlocal count
        with lock:
            count += 1
            return count == at or (count > at and way == "for good")

    def refuse(*_: object, **__: object) -> None:
        raise JournalError(f"write {at} was made to fail ({way})")

    def disturbed_commit(recorder: Recorder, group: Sequence[Record], *, again: bool = False) -> None:
        failing = fails()
        if not failing or way == "unanswered":
            commit(recorder, group, again=again)
        if failing:
            refuse()

    def disturbed_close(recorder: Recorder, status: RunStatus, error: str | None = None) -> None:
        failing = fails()
        if failing and way != "unanswered":
            recorder._update = refuse  # type: ignore[method-assign]  # what is to be closed is closed all the same
        close(recorder, status, error)
        if failing:
            refuse()

    Recorder.commit = disturbed_commit  # type: ignore[assignment,method-assign]
    Recorder.close = disturbed_close  # type: ignore[assignment,method-assign]
    try:
        yield lambda: count >= at
    finally:
        Recorder.commit = commit  # type: ignore[method-assign]
        Recorder.close = close  # type: ignore[method-assign]


@contextmanager
def memory_journal() -> Generator[Journal]:
    """Give a journal that lives in memory and is gone afterwards, as a fixture of a test would.

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
    """Return the calls that a journal has as completed: run, task, and element of a map or -1.

    The id of a run that is nested in another is `run/task`.
    """
    runs, records = schema.runs, schema.records
    with journal.database.reading() as connection:
        ids: dict[int, str] = {}
        # A run has a higher key than the one it is nested in.
        for key, parent, place in connection.execute(select(runs.c.key, runs.c.parent, runs.c.id).order_by(runs.c.key)):
            ids[key] = f"{ids[parent]}/{place}" if parent in ids else place
        completed = select(records.c.run, records.c.task, records.c.element).where(records.c.state == "completed")
        return {(ids[run], task, element) for run, task, element in connection.execute(completed)}


def _check_builder(name: str, what: str, build_process: object) -> None:
    if isinstance(build_process, Process) or not callable(build_process):
        raise TypeError(
            f"{name} takes a function that builds and returns a process; got {sketch(build_process)}. Each "
            f"{what} needs a process of its own: {name}(build), with def build() -> Process"
        )


def _resume(stage: "_Stage", journal: Path, expected: list[Any], what: str) -> None:
    with Journal(journal) as opened:
        recorded = recorded_calls(opened)
    stage.calls.unlink(missing_ok=True)
    results = stage.run(journal)
    assert results == expected, f"after {what} a resumed run gave {results!r}; undisturbed it gives {expected!r}"
    twice = sorted(recorded & stage.called())
    assert not twice, f"after {what} these were called again though they were recorded (run, task, element): {twice}"


class _Stage:
    """A folder with what the interpreters need to run the process, and what they leave."""

    def __init__(self, folder: Path, build_process: Callable[[], Process], timeout: float) -> None:
        self.folder = folder
        self.calls = folder / "calls"
        self._timeout = timeout
        # The path first: what is pickled may be found by it only.
        (folder / "path").write_text(json.dumps(sys.path))
        (folder / "build_process").write_bytes(_pickled(build_process))

    def journal(self, name: object) -> Path:
        """Return the path of a journal."""
        return self.folder / f"{name}.db"

    def called(self) -> set[tuple[str, int, int]]:
        """Return the calls that were written down."""
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        return {(str(run), int(task), int(element)) for run, task, element in map(json.loads, lines)}

    def run(self, journal: Path) -> list[Any]:
        """Run the process to its end and return its results."""
        code, complaints = self._interpreter(journal, 0)
        assert code == 0, f"the process did not complete:\n{complaints}"
        results: list[Any] = cloudpickle.loads((self.folder / "results").read_bytes())
        return results

    def crashed(self, journal: Path, after: int) -> bool:
        """Run the process and kill it after so many writes; return whether there were as many."""
        code, complaints = self._interpreter(journal, after)
        assert code != 1, f"the process did not complete:\n{complaints}"
        return code != _SURVIVED

    def failed(self, journal: Path, at: int, way: Failure) -> bool:
        """Run the process with a journal that fails at this write; return whether there were as many."""
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


# In an interpreter of its own


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
        if record.getMessage() in ("task_started", "element_started"):
            fields = vars(record)
            line = json.dumps([fields["run_id"], fields["index"], fields.get("element", WHOLE)])
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
    _die_after(after)
    results = process.execute(run_id=_RUN_ID, journal=journal)
    (folder / "results").write_bytes(_pickled(results))
    return _SURVIVED if after else 0


def _die_after(writes: int) -> None:
    commit, count = Recorder.commit, 0

    def counted(recorder: Recorder, group: Sequence[Record], *, again: bool = False) -> None:
        nonlocal count
        commit(recorder, group, again=again)
        count += 1
        if count == writes:
            _die()

    Recorder.commit = counted  # type: ignore[assignment,method-assign]


def _fail(process: Process, journal: Path, at: int, way: Failure) -> int:
    with failing_journal(at, way) as has_failed:
        try:
            process.execute(run_id=_RUN_ID, journal=journal)
        except JournalError:
            return _FAILED if has_failed() else 1
        return 1 if has_failed() else _SURVIVED


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
