"""For tests: a process that is run, killed and resumed, each time in an interpreter of its own.

    CrashStage ──folder: the builder, a journal──▶ an interpreter ──▶ calls, results, the exit code ──▶ CrashStage

`testing` says what is done to a process, and this module does it. What runs in the interpreters stands at its end.
"""

import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import cloudpickle  # pyright: ignore[reportMissingTypeStubs]

from procession import Process, task
from procession._evidence import Evidence, Place, Wait, differing, follows_from_failures, let_go_on
from procession._interpreters import Interpreters, arguments_of_run
from procession._journal_writes import Failure, Write, Writes, failing, with_writes
from procession._model.record import WHOLE
from procession._model.text import sketch
from procession.errors import JournalError, RunSuspendedError
from procession.journal import Journal

MODULE: Final = "procession._crash_stage"
"""What the interpreters run."""

_CHANGED: Final = "procession.errors.PlanChangedError: "
_RUN_ID: Final = "crash-everywhere"
_SURVIVED: Final = 3
_NO_PROCESS: Final = 4
_FAILED: Final = 5
_SUSPENDED: Final = 6


class Ended(NamedTuple):
    """How a run ended."""

    results: list[Any]
    cancelled: set[int]
    """The tasks whose outcome is that they were cancelled, as nobody took what is left of them."""
    evidence: Evidence


class CrashStage:
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

    def _run(self, journal: Path, after: str = "") -> Ended:
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
                    return Ended(results, cancelled, Evidence(opened))
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


# The code below runs in the interpreters that a `CrashStage` starts.


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
    writes = Writes()
    with with_writes(lambda write: _counted(write, writes, after)):
        try:
            results = process.execute(run_id=_RUN_ID, journal=journal)
        except RunSuspendedError:
            return _suspended(folder, writes)
    outcomes = process.last_run.outcomes if process.last_run is not None else ()
    cancelled = {outcome.index for outcome in outcomes if outcome.state == "cancelled"}
    (folder / "results").write_bytes(_pickled((results, cancelled)))
    return _SURVIVED if after else 0


def _counted(write: Write, writes: Writes, last: int) -> Write:
    """Wrap `write` so that it counts the writes, and kills the interpreter after the one with the number `last`."""

    def write_and_count(*args: Any, **kwargs: Any) -> Any:
        written = write(*args, **kwargs)
        if writes.next() == last:
            _die()
        return written

    return write_and_count


def _suspended(folder: Path, writes: Writes) -> int:
    (folder / "writes").write_text(str(writes.count))
    return _SUSPENDED


def _fail(process: Process, folder: Path, journal: Path, at: int, way: Failure) -> int:
    with failing(at, way) as writes:
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
    with Journal(":memory:") as journal:
        process.execute(run_id="load", journal=journal)


if __name__ == "__main__":
    given_folder, given_journal, given_after, given_way = arguments_of_run(_load)
    sys.exit(_main(Path(given_folder), Path(given_journal), int(given_after), given_way))
