"""How a run is recorded, if it is: between a run and a journal, so that a run without one imports and pays nothing."""

import os
import traceback
from collections.abc import Mapping, Sized
from typing import TYPE_CHECKING, cast

from procession._engine.call_context import CURRENT_CALL, CallContext
from procession._engine.ledger import Ledger
from procession._engine.run_state import RunState
from procession._engine.suspension import wake_ready
from procession._model.handle import Handle, index_of
from procession._model.outcome import NotKept
from procession._model.record import place_name
from procession._model.states import RunStatus
from procession._model.task import MapFunction, known_length, name_of
from procession._model.text import counted, described, shown, untold
from procession._plan.plan import Plan
from procession.errors import PlanChangedError

if TYPE_CHECKING:
    from procession._model.progress import Snapshot
    from procession._plan.shape import Shape
    from procession._plan.shared import Watch  # likewise
    from procession.journal import Journal, Recorder


class RunRecording:
    """A run's id and, where it is recorded, its way into the journal. `opened` is a journal to close with it.

    `lengths` has the number of elements of maps, by task, as far as it is known before they begin.
    """

    __slots__ = ("lengths", "opened", "recorder", "run_id", "watch")

    def __init__(
        self,
        run_id: str,
        recorder: "Recorder | None" = None,
        watch: "Watch | None" = None,
        opened: "Journal | None" = None,
        lengths: Mapping[int, int] | None = None,
    ) -> None:
        self.run_id = run_id
        self.recorder = recorder
        self.watch = watch
        self.opened = opened
        self.lengths: Mapping[int, int] = {} if lengths is None else lengths

    @property
    def is_nested(self) -> bool:
        """Whether the run is recorded with the run around it, as one of its tasks, elements or recorded calls."""
        return self.recorder is not None and self.recorder.key != self.recorder.held.key

    def follow(self, run_state: RunState) -> None:
        """Start the heartbeat, which writes how far the run has come, and reads whether it was asked to cancel."""
        if self.recorder is not None:
            self.recorder.start_heartbeat(
                lambda: self._snapshot(run_state),
                run_state.cancel,
                run_state.interrupt,
                lambda: [] if run_state.admission is None else run_state.admission.held_tasks(),
                lambda: wake_ready(run_state),
            )

    def _snapshot(self, run_state: RunState) -> "Snapshot":
        """Return how far a run has come, and what runs now."""
        assert self.recorder is not None
        snapshot = run_state.snapshot()
        progress = snapshot.progress
        # Elements count from the start, or a run would fall back when a map begins.
        begun, ends = run_state.maps, run_state.ledger.ends
        waiting = (size for task, size in self.lengths.items() if task not in begun and ends[task] is None)
        total = progress.total + sum(size - 1 for size in waiting)
        if not self.recorder.texts:
            snapshot = snapshot._replace(labels={})
        return snapshot._replace(progress=progress._replace(total=total))

    def close(self, run_state: RunState, status: RunStatus) -> None:
        """Record how the run ended, and give back its lease. A journal that fails here fails the run."""
        if self.recorder is None:
            return
        try:
            try:
                self._note_shared(run_state, self.recorder)
            finally:
                self.recorder.close(status, self._why(run_state.ledger, status))
        except Exception as error:
            run_state.interrupt(error)
        finally:
            if self.opened is not None:
                self.opened.close()

    def abandon(self, error: BaseException) -> None:
        """Record that the run failed before it could begin, and give back its lease. The caller raises the error."""
        if self.recorder is None:
            return
        try:
            self.recorder.abandon(self._said(error))
        except Exception as failure:
            error.add_note(f"nor could that be recorded: {described(failure)}")
        finally:
            if self.opened is not None:
                self.opened.close()

    def _note_shared(self, run_state: RunState, recorder: "Recorder") -> None:
        """Record the arguments and values that several tasks share and have changed."""
        from procession._plan.parts import place_of  # as in `recording_of`
        from procession._plan.shared import Shared

        shared = self.watch.changed() if self.watch is not None else []
        ledger = run_state.ledger
        for source, tasks in _takers(run_state.plan.needs).items():
            if ledger.state(source) != "completed":  # a map that failed, whose good elements somebody has taken
                continue
            if isinstance(ledger.values[source], NotKept):
                continue
            if len(tasks) == 1 or all(ledger.state(task) == "completed" for task in tasks):
                continue
            if not recorder.is_as_recorded(source, ledger.values[source]):
                shared.append(Shared(place_of(type(ledger.values[source])), tuple(tasks)))
        if shared:
            recorder.note_shared(shared)

    def _why(self, ledger: Ledger, status: RunStatus) -> str | None:
        """Return why a run failed: by what stopped it or, if it went on, by what failed first."""
        error = ledger.failure
        if error is None and status == "failed":
            error = next(iter(ledger.errors.values()))
            while isinstance(error, BaseExceptionGroup):  # which says how many elements of a map failed, and not why
                error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
        return None if error is None else self._said(error)

    def _said(self, error: BaseException) -> str:
        if self.recorder is not None and not self.recorder.texts:
            return untold(shown(type(error).__name__))
        return "".join(traceback.format_exception_only(error)).strip()


def recording_of(
    plan: Plan,
    process_name: str,
    run_id: str | None,
    journal: "Journal | str | os.PathLike[str] | None",
    *,
    task: CallContext | None,
    allow_changes: bool,
) -> RunRecording:
    """Return how a run is recorded. `task` is where it runs if it is itself a task, and then it is recorded with it."""
    outer = None
    if run_id is None and task is not None and isinstance(task.run, RunState):
        outer = task.run.recorder
    if outer is None and journal is None:
        where = f"process {shown(process_name)!r}"
        if task is None:
            _check_recorded_around(where)
        if run_id is not None:
            raise ValueError(f"{where}: run_id={shown(run_id)!r} is a key to a journal; give journal=, too")
        if allow_changes:
            raise ValueError(f"{where}: allow_changes=True is about what a journal has; give run_id= and journal=, too")
        return RunRecording(os.urandom(8).hex())
    from procession._plan.fingerprint import fingerprint_of  # only who records needs it, and what it imports
    from procession._plan.shape import shape_of
    from procession._plan.shared import Watch  # likewise
    from procession.journal import Journal, Recorder  # needs the extra `journal`
    from procession.journal.origin import origin_of

    fingerprint = fingerprint_of(process_name, plan.calls)
    shape = shape_of(plan.calls, plan.stages, plan.needs)
    watch = Watch(plan.calls)
    lengths = {
        task: size
        for task, kind in shape.kinds.items()
        if kind == "map" and task not in plan.needs and (size := known_length(plan.calls[task][1][0])) is not None
    }
    opened: Journal | None = None
    if task is not None and outer is not None:
        assert isinstance(outer, Recorder)
        place = task.index, task.element, task.call
        run_id = f"{task.run.run_id}/{place_name(*place)}"
        recorder = outer.begin_nested(run_id, fingerprint, shape, *place)
    else:
        run_id = os.urandom(8).hex() if run_id is None else run_id
        assert journal is not None
        if not isinstance(journal, Journal):
            journal = opened = Journal(journal)
        try:
            origin = origin_of(run_id)
            recorder = journal.begin(run_id, fingerprint, shape, origin=origin, allow_changes=allow_changes)
        except BaseException:
            if opened is not None:
                opened.close()
            raise
    return _with_whole_maps(RunRecording(run_id, recorder, watch, opened, lengths), plan, shape, process_name)


def _check_recorded_around(where: str) -> None:
    """Raise if a task of a recorded run executes the process by itself: nothing of that would be recorded."""
    around = CURRENT_CALL.get(None)
    if around is not None and around.index >= 0 and around.run.is_recorded:
        outer = around.run
        raise RuntimeError(
            f"{where} is executed by task {around.index} ({shown(outer.name(around.index))}) of process "
            f"{shown(outer.process_name)!r}, whose run is recorded, and would not be recorded with it. Execute it with "
            "current_task().call(process), or give it a journal and a run id of its own"
        )


def _with_whole_maps(recording: RunRecording, plan: Plan, shape: "Shape", process_name: str) -> RunRecording:
    """Return the recording; refuse, or forget, maps that are recorded as completed and have elements missing.

    Earlier versions could leave such records when a journal failed for a moment and then worked again.
    """
    recorder = recording.recorder
    if recorder is None or recorder.executions == 1:
        return recording
    try:
        maps = [index for index, kind in shape.kinds.items() if kind == "map"]
        gaps = {index: gap for index in maps if (gap := _gap(recorder, plan, index)) is not None}
        if gaps and not recorder.allow_changes:
            index, gap = next(iter(gaps.items()))
            raise PlanChangedError(
                f"run {shown(recorder.run_id)!r} of process {shown(process_name)!r}: task {index} "
                f"({shown(name_of(plan.calls[index][0]))}) is recorded as completed, {gap}. "
                "Start under another run id, or with allow_changes=True, which calls again what is missing and what "
                "follows from it"
            )
        if gaps:
            recorder.forget(gaps.keys(), shape.following(gaps.keys()) - gaps.keys())
    except BaseException as error:
        recording.abandon(error)
        raise
    return recording


def _gap(recorder: "Recorder", plan: Plan, index: int) -> str | None:
    """Return which elements of a map that is recorded as completed are not recorded, in words."""
    recorded = recorder.recorded.get(index)
    if recorded is None:
        return None
    count, end = recorder.extent(index)
    expected = recorded.value if isinstance(recorded.value, int) else max(end, _known_length(recorder, plan, index))
    return None if count == expected else f"but {counted(count, 'element')} of {expected:,} are"


def _known_length(recorder: "Recorder", plan: Plan, index: int) -> int:
    """Return how many elements a map has, as far as its iterables say without being drawn from; else 0."""
    for iterable in plan.calls[index][1]:
        if isinstance(iterable, Handle):
            source = recorder.recorded.get(index_of(iterable))
            value = None if source is None else source.value
            if isinstance(plan.calls[index_of(iterable)][0], MapFunction):
                return value if isinstance(value, int) else recorder.extent(index_of(iterable))[1]
        else:
            value = iterable
        if isinstance(value, Sized):
            return len(value)
    return 0


def _takers(needs: Mapping[int, tuple[int, ...]]) -> dict[int, list[int]]:
    """Return which tasks take the value of each."""
    takers: dict[int, list[int]] = {}
    for task, needed in needs.items():
        for source in needed:
            takers.setdefault(source, []).append(task)
    return takers
