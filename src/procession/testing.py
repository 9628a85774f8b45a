"""Tools for tests of processes: a journal in memory, tasks called directly, retries without pauses, and crashes.

    crash_everywhere ──▶ an interpreter runs the process undisturbed                       ──▶ results
                     ──▶ for n = 1, 2, ...: an interpreter is killed after its n-th write
                                            another interpreter resumes the run            ──▶ the same results?
    fail_everywhere  ──▶ the same, with interpreters whose n-th journal write fails

Where a run is suspended, what it waits for is answered, and another interpreter resumes it; the count goes on. Each
execution has an interpreter of its own, a fresh one or a fork: see `_interpreters`.

Needs the extra `testing`.
"""

import json
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, cast, get_args

try:
    import cloudpickle  # pyright: ignore[reportMissingTypeStubs]
    import sqlalchemy  # noqa: F401  # pyright: ignore[reportUnusedImport]  # which the modules below need
except ImportError as error:
    raise ImportError('procession.testing needs more packages: pip install "procession[testing]"') from error

from procession import Process, task
from procession._direct_calls import TaskContext, task_context, without_pauses
from procession._evidence import Evidence, Place, Wait, differing, follows_from_failures, let_go_on
from procession._interpreters import Interpreters, arguments_of_run
from procession._model.record import WHOLE
from procession._model.states import RunStatus
from procession._model.text import sketch
from procession.errors import JournalError, RunSuspendedError
from procession.journal import Journal, Recorder
from procession.journal.calls import CallRecords
from procession.journal.waits import WaitRecords

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

_Write = Callable[..., Any]

_MODULE: Final = "procession.testing"
_CHANGED: Final = "procession.errors.PlanChangedError: "
_RUN_ID: Final = "crash-everywhere"
_SURVIVED: Final = 3
_NO_PROCESS: Final = 4
_FAILED: Final = 5
_SUSPENDED: Final = 6

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
    with tempfile.TemporaryDirectory() as folder, Interpreters(_MODULE, Path(folder)) as interpreters:
        stage = _Stage(Path(folder), interpreters, build_process, answers or {}, timeout)
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
    with tempfile.TemporaryDirectory() as folder, Interpreters(_MODULE, Path(folder)) as interpreters:
        stage = _Stage(Path(folder), interpreters, build_process, answers or {}, timeout)
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
    with _failing(at, way) as writes:
        yield lambda: writes.count >= at


@contextmanager
def _failing(at: int, way: Failure) -> "Generator[_Writes]":
    """Do what `failing_journal` does, and yield the count of the writes."""
    writes, close = _Writes(), Recorder.close

    def fails() -> bool:
        number = writes.next()
        return number == at or (number > at and way == "for good")

    def refuse(*_: object, **__: object) -> None:
        raise JournalError(f"write {at} was made to fail ({way})")

    def disturbed(write: _Write) -> _Write:
        def write_or_fail(*args: Any, **kwargs: Any) -> Any:
            failing = fails()
            written = write(*args, **kwargs) if not failing or way == "unanswered" else None
            if failing:
                refuse()
            return written

        return write_or_fail

    def disturbed_close(recorder: Recorder, status: RunStatus, error: str | None = None) -> None:
        failing = fails()
        if failing and way != "unanswered":
            recorder._update = refuse  # type: ignore[method-assign]  # `close` is still called, so that connections are closed
        close(recorder, status, error)
        if failing:
            refuse()

    with _with_writes(disturbed):
        Recorder.close = disturbed_close  # type: ignore[assignment,method-assign]
        try:
            yield writes
        finally:
            Recorder.close = close  # type: ignore[method-assign]


class _Writes:
    """Counts writes to journals."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.count = 0

    def next(self) -> int:
        """Return the number of a write that is made now, from 1."""
        with self._lock:
            self.count += 1
            return self.count


@contextmanager
def _with_writes(wrap: Callable[["_Write"], "_Write"]) -> Generator[None]:
    """Replace what records tasks, calls that they make themselves, and waits, by what `wrap` makes of it."""
    commit, commit_calls, begin = Recorder.commit, CallRecords.commit, WaitRecords.begin
    Recorder.commit, CallRecords.commit = wrap(commit), wrap(commit_calls)  # type: ignore[method-assign]
    WaitRecords.begin = wrap(begin)  # type: ignore[method-assign]
    try:
        yield
    finally:
        Recorder.commit, CallRecords.commit = commit, commit_calls  # type: ignore[method-assign]
        WaitRecords.begin = begin  # type: ignore[method-assign]


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


class _Ended(NamedTuple):
    """How a run ended."""

    results: list[Any]
    cancelled: set[int]
    """The tasks whose outcome is that they were cancelled, as nobody took what is left of them."""
    evidence: Evidence


class _Stage:
    """A folder with the files that the interpreters read and write: the builder, journals, calls and results."""

    def __init__(
        self,
        folder: Path,
        interpreters: Interpreters,
        build_process: Callable[[], Process],
        answers: Mapping[str, object],
        timeout: float,
    ) -> None:
        self.folder = folder
        self._interpreters = interpreters
        self._calls = folder / "calls"
        self._answers = {name: _pickled(value) for name, value in answers.items()}
        self._timeout = timeout
        self._given: set[Wait] = set()
        """What tasks of the run that goes on have waited for."""
        # The module search path first: the pickled builder may need it.
        (folder / "path").write_text(json.dumps(sys.path))
        (folder / "build_process").write_bytes(_pickled(build_process))
        self.undisturbed = self._run(self.journal("undisturbed"))

    def journal(self, name: object) -> Path:
        """Return the path of the journal with a name."""
        return self.folder / f"{name}.db"

    def crashed(self, journal: Path, after: int) -> bool:
        """Run the process and kill it after its write number `after`; return whether it made so many writes."""
        self._given.clear()
        while True:
            code, complaints = self._interpreter(journal, after)
            assert code != 1, f"the process did not complete:\n{complaints}"
            if code != _SUSPENDED:
                return code != _SURVIVED
            after -= self._go_on(journal)

    def failed(self, journal: Path, at: int, way: Failure) -> bool:
        """Run the process with a journal whose write number `at` fails; return whether it made so many writes."""
        self._given.clear()
        while True:
            code, complaints = self._interpreter(journal, at, way)
            assert code != 1, f"the process completed, or failed otherwise, though its journal failed:\n{complaints}"
            if code != _SUSPENDED:
                return code != _SURVIVED
            at -= self._go_on(journal)

    def resume(self, journal: Path, what: str) -> None:
        """Go on with a run until it ends, and check that it does as the undisturbed one did."""
        ended, expected = self._run(journal, what), self.undisturbed
        differs = differing(ended.results, expected.results, ended.cancelled | expected.cancelled)
        if differs:
            call = ended.evidence.difference(expected.evidence) or f"task {differs[0]}"
            raise AssertionError(
                f"after {what} a resumed run gave {ended.results!r}; undisturbed it gives {expected.results!r}: "
                f"{call} was called twice, and differed"
            )

    def _run(self, journal: Path, after: str = "") -> _Ended:
        """Execute a run until it has ended. `after` says what has happened to it before, if anything has."""
        when = f"after {after}, " if after else ""
        while True:
            recorded = self._recorded(journal)
            self._calls.unlink(missing_ok=True)
            code, complaints = self._interpreter(journal, 0)
            changed = [line for line in complaints.splitlines() if line.startswith(_CHANGED)]
            assert not (when and changed), (
                f"{when}a task was called twice, and differed: {changed[0].removeprefix(_CHANGED)}"
            )
            assert code in (0, _SUSPENDED), f"{when}the process did not complete:\n{complaints}"
            twice = sorted(tuple(one) for one in recorded & self._called())
            assert not twice, (
                f"{when}these were called again though they were recorded (run, task, element, call): {twice}"
            )
            if code == 0:
                results, cancelled = cloudpickle.loads((self.folder / "results").read_bytes())
                with Journal(journal) as opened:
                    return _Ended(results, cancelled, Evidence(opened))
            self._go_on(journal, when)

    def _recorded(self, journal: Path) -> set[Place]:
        """Return the calls that are not to be made again in the next execution."""
        if not journal.exists():
            return set()
        with Journal(journal) as opened:
            free = follows_from_failures(opened, _RUN_ID)
            return {one for one in Evidence(opened).recorded if (one.run, one.task) not in free}

    def _go_on(self, journal: Path, when: str = "") -> int:
        """Answer what a suspended run waits for; return how many writes its last execution made."""
        with Journal(journal) as opened:
            waited = let_go_on(opened, self._answers)
        again = sorted(tuple(one) for one in waited & self._given)
        assert not again, f"{when}these were waited for again though they were answered: {again}"
        self._given |= waited
        return int((self.folder / "writes").read_text())

    def _called(self) -> set[Place]:
        """Return the calls that the interpreters have written down since the file was last deleted."""
        lines = self._calls.read_text().splitlines() if self._calls.exists() else []
        return {
            Place(str(run), int(task), int(element), int(call)) for run, task, element, call in map(json.loads, lines)
        }

    def _interpreter(self, journal: Path, after: int, way: str = "") -> tuple[int, str]:
        code, complaints = self._interpreters.run(
            str(self.folder), str(journal), str(after), way, timeout=self._timeout
        )
        if code == _NO_PROCESS:
            raise TypeError(complaints.splitlines()[-1])
        return code, complaints


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
            line = json.dumps([fields["run_id"], *place])
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
        return _fail(process, folder, journal, after, cast("Failure", way))
    writes = _Writes()
    with _with_writes(lambda write: _counted(write, writes, after)):
        try:
            results = process.execute(run_id=_RUN_ID, journal=journal)
        except RunSuspendedError:
            return _suspended(folder, writes)
    outcomes = process.last_run.outcomes if process.last_run is not None else ()
    cancelled = {outcome.index for outcome in outcomes if outcome.state == "cancelled"}
    (folder / "results").write_bytes(_pickled((results, cancelled)))
    return _SURVIVED if after else 0


def _counted(write: _Write, writes: _Writes, last: int) -> _Write:
    """Wrap `write` so that it counts the writes, and kills the interpreter after the one with the number `last`."""

    def write_and_count(*args: Any, **kwargs: Any) -> Any:
        written = write(*args, **kwargs)
        if writes.next() == last:
            _die()
        return written

    return write_and_count


def _suspended(folder: Path, writes: _Writes) -> int:
    (folder / "writes").write_text(str(writes.count))
    return _SUSPENDED


def _fail(process: Process, folder: Path, journal: Path, at: int, way: Failure) -> int:
    with _failing(at, way) as writes:
        try:
            process.execute(run_id=_RUN_ID, journal=journal)
        except JournalError:
            return _FAILED if writes.count >= at else 1
        except RunSuspendedError:
            return 1 if writes.count >= at else _suspended(folder, writes)
        return 1 if writes.count >= at else _SURVIVED


def _load() -> None:
    """Import what most runs need, as a run of its own does, whose threads have ended when this returns."""
    for module in ("_engine.threads", "_engine.recorded_calls", "_loop.coroutines", "observe.log"):
        import_module(f"procession.{module}")
    process = Process("load", "parallel", 1)
    process.add_task(task(retries=1)(abs), 1)
    with memory_journal() as journal:
        process.execute(run_id="load", journal=journal)


if __name__ == "__main__":
    given_folder, given_journal, given_after, given_way = arguments_of_run(_load)
    sys.exit(_main(Path(given_folder), Path(given_journal), int(given_after), given_way))
