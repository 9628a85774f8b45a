"""How a run is recorded, if it is: between a run and a journal, so that a run without one imports and pays nothing."""

import os
import sys
import traceback
from typing import TYPE_CHECKING, cast

from procession._engine.course import Course
from procession._engine.current import Seat
from procession._engine.ledger import Ledger
from procession._model.states import RunStatus
from procession._model.text import shown
from procession._plan.plan import Plan

if TYPE_CHECKING:
    from procession.journal import Journal, Recorder


class Recording:
    """A run's id and, where it is recorded, its way into the journal. `opened` is a journal to close with it."""

    __slots__ = ("opened", "recorder", "run_id")

    def __init__(self, run_id: str, recorder: "Recorder | None" = None, opened: "Journal | None" = None) -> None:
        self.run_id = run_id
        self.recorder = recorder
        self.opened = opened

    def follow(self, course: Course) -> None:
        """Begin to tell the journal how far the run is, and to look there whether it is to be cancelled."""
        if self.recorder is not None:
            self.recorder.start_heartbeat(course.snapshot, course.cancel, course.interrupt)

    def close(self, course: Course, status: RunStatus) -> None:
        """Record how the run ended, and let go of it. A journal that fails here fails the run."""
        if self.recorder is None:
            return
        try:
            self.recorder.close(status, _why(course.ledger, status))
        except Exception as error:
            course.interrupt(error)
        finally:
            if self.opened is not None:
                self.opened.close()


def _why(ledger: Ledger, status: RunStatus) -> str | None:
    """Return why a run failed: by what stopped it or, if it went on, by what failed first."""
    error = ledger.failure
    if error is None and status == "failed":
        error = next(iter(ledger.errors.values()))
        while isinstance(error, BaseExceptionGroup):  # which says how many elements of a map failed, and not why
            error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return None if error is None else "".join(traceback.format_exception_only(error)).strip()


def recording_of(
    plan: Plan,
    process_name: str,
    run_id: str | None,
    journal: "Journal | str | os.PathLike[str] | None",
    *,
    task: Seat | None,
    allow_changes: bool,
) -> Recording:
    """Return how a run is recorded. `task` is where it runs if it is itself a task, and then it is recorded with it."""
    outer = None
    if run_id is None and task is not None and isinstance(task.conduct, Course):
        outer = task.conduct.recorder
    if outer is None and journal is None:
        where = f"process {shown(process_name)!r}"
        if run_id is not None:
            raise ValueError(f"{where}: run_id={shown(run_id)!r} is a key to a journal; give journal=, too")
        if allow_changes:
            raise ValueError(f"{where}: allow_changes=True is about what a journal has; give run_id= and journal=, too")
        return Recording(os.urandom(8).hex())
    from procession._plan.fingerprint import fingerprint_of  # only who records needs it, and what it imports
    from procession._plan.shape import shape_of
    from procession.journal import Journal, Recorder  # needs the extra `journal`

    fingerprint = fingerprint_of(process_name, plan.calls)
    shape = shape_of(plan.calls, plan.stages, plan.needs)
    if task is not None and outer is not None:
        assert isinstance(outer, Recorder)
        run_id = f"{task.conduct.run_id}/{task.index}" + (f".{task.element}" if task.element >= 0 else "")
        within = (outer, task.index, task.element)
        return Recording(run_id, outer.journal.begin(run_id, fingerprint, shape, within=within))
    run_id = os.urandom(8).hex() if run_id is None else run_id
    origin = {"argv": sys.argv, "folder": os.getcwd()}  # noqa: PTH109  # pathlib takes long to import
    if isinstance(journal, Journal):
        return Recording(run_id, journal.begin(run_id, fingerprint, shape, origin=origin, allow_changes=allow_changes))
    assert journal is not None
    opened = Journal(journal)
    try:
        recorder = opened.begin(run_id, fingerprint, shape, origin=origin, allow_changes=allow_changes)
        return Recording(run_id, recorder, opened)
    except BaseException:
        opened.close()
        raise
