"""The engine for all executors but threads of our own: one coordinator, which claims, sends, receives and settles.

    ledger ──claim──▶ supply ──chunk──▶ crew ┄┄▶ whoever makes the calls
       ▲                ▲                 ┊
       │            given back,           ┊
       │            to be retried         ▼
       └──settle── course ◀───── report of a chunk

Nothing is decided elsewhere: workers know neither plan nor ledger. What is out at the same time is bounded by the crew,
so no task waits in somebody's queue while a worker has nothing to do.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from procession._crew.chunk import Chunk
from procession._crew.crew import Arrival, Crew
from procession._crew.given import LocalCrew
from procession._crew.pace import Pace
from procession._crew.supply import Supply
from procession._crew.travel import Call, Ended, by_value, ended_of
from procession._crew.unit import End, PlainUnits, Unit
from procession._engine.commit import AT_RISK, AT_RISK_S
from procession._engine.course import Course
from procession._engine.current import Seat
from procession._engine.kept import wanted
from procession._engine.latch import SLICE_S, Latch
from procession._model.luggage import LUGGAGE
from procession._model.record import WHOLE
from procession._model.stint import Stint
from procession._model.strategy import Stage
from procession._model.text import shown
from procession.errors import TaskCancelled, TransferError, WorkersUnavailableError

_TURN_S = 0.002
"""How long to wait for one crew before turning to another, or to a source of elements."""
_LEAVING_S = 1.0
"""How long the second Ctrl-C waits for workers to be ended."""
_GRACE_S = 1.0
"""How long a cancelled task may go on before the worker it runs in is ended, where that is possible."""


class _Sent:
    """A chunk on its way."""

    __slots__ = ("at", "late", "seat", "settled", "units")

    def __init__(self, units: Sequence[Unit], seat: Seat, late_s: float) -> None:
        self.units = units
        self.seat = seat
        self.at = time.perf_counter()
        self.late = self.at + late_s
        self.settled = 0
        """How many of its calls have been settled before it came back, and are not among the units any more."""


class PoolEngine:
    """Drives the course of one run over a crew, which `hire` makes when the run begins.

    `aside` says that it does so in a thread of its own if it would else be the main one.
    """

    def __init__(self, course: Course, hire: Callable[[Course], Crew], *, aside: bool = True) -> None:
        self.course = course
        self._hire = hire
        self._aside = aside
        self._crew: Crew | None = None
        self._local: LocalCrew | None = None
        self._supply = Supply(course)
        self._pace = Pace()
        self._sent: dict[Chunk, _Sent] = {}
        self._stints: dict[str, Stint] = {}
        """By worker: the stretch of time that it is on a map, until it does something else."""
        self._whole = False
        self._wanted = wanted(recorded=course.recorder is not None)
        self._left = False
        self._told = (False, False)
        self._patience: float | None = None

    def drive(self) -> None:
        """Run every stage. Never raises what a task raised.

        Signals reach the main thread only, at any instruction, so it does nothing but wait. Raises the second
        `KeyboardInterrupt` at once, with calls still being made.
        """
        course = self.course
        if not self._aside or threading.current_thread() is not threading.main_thread():
            self._coordinate()
            return
        over = Latch()

        def coordinate() -> None:
            try:
                self._coordinate()
            finally:
                over.open()

        name = f"procession-{shown(course.process_name, 40)}-coordinator"
        coordinator = threading.Thread(target=coordinate, name=name, daemon=True)
        try:
            coordinator.start()
        except RuntimeError as error:
            text = f"process {course.process_name!r}: no coordinator thread could be started: {error}"
            course.interrupt(WorkersUnavailableError(text))
            return
        try:
            try:
                over.wait()
            except BaseException as error:
                course.interrupt(error)
                over.wait()  # a second Ctrl-C is raised from here
            coordinator.join()
        except BaseException as error:
            course.interrupt(error)
            self._left = True
            coordinator.join(_LEAVING_S)
            raise
        finally:
            course.close()

    def _coordinate(self) -> None:
        course = self.course
        try:
            self._crew = self._hire(course)
            for stage in course.plan.stages:
                if not course.ledger.well:
                    break
                self._run(stage, self._crew)
            values = course.ledger.values
            if isinstance(values, list) and not self._left:
                self._crew.fetch(values)
        except BaseException as error:
            course.interrupt(error)
        finally:
            self._forsake()
            for crew in self._crews():
                try:
                    crew.close(at_once=self._left)
                except BaseException as error:
                    course.interrupt(error)
            course.close()

    def _run(self, stage: Stage, crew: Crew) -> None:
        """Run what is ready, and what becomes so, until there is nothing left to do."""
        course, supply = self.course, self._supply
        supply.in_order = not stage.at_once
        course.ledger.open(stage)
        while not self._left:
            if supply.in_order:
                course.flush()
            if course.ledger.halted:
                self._halt()
            else:
                self._send(crew)
            course.offer()
            if self._conclude_maps():
                continue
            pause = _TURN_S if supply.is_hungry else SLICE_S
            pause = min(pause, self._until_late(), pause if supply.pause is None else supply.pause)
            busy = [some for some in self._crews() if some.busy]
            for some in busy:
                for arrival in some.receive(pause if len(busy) == 1 else _TURN_S):
                    self._settle(arrival)
            if not busy:
                if supply.is_empty:
                    return
                course.wait_halted(pause)

    def _crews(self) -> list[Crew]:
        return [crew for crew in (self._crew, self._local) if crew is not None]

    # Sending

    def _send(self, crew: Crew) -> None:
        supply, in_order = self._supply, self._supply.in_order
        for unit in supply.due():
            self._retry(unit)
        while not (in_order and (self._sent or supply.pause is not None)):
            left = supply.count()
            if not left:
                if in_order or not self._recalled(crew):
                    return
                continue
            # What lies ready at a worker takes no other place than that worker's.
            full = len(self._sent) - crew.ahead >= self.course.max_workers
            if full and self._local is not None and self._local.busy:
                return
            room = crew.room(1 if in_order else supply.near, self._pace.call_s)
            if room <= 0 and (full or not supply.next_stays):
                return
            units = supply.take(self._size(supply.near))
            if not units:
                return
            if full and units[0].stays:
                supply.give_back(units)
                return
            self._send_units(self._crew_for(units[0], crew), units)

    def _size(self, left: int) -> int:
        if not self._supply.in_order:
            return self._within_risk(self._pace.size(left, self.course.max_workers))
        # In order, a task has ended when that is recorded, and only then may the next one start.
        return 1 if self.course.recorder is not None else self._pace.size(left, 1)

    def _within_risk(self, size: int) -> int:
        """Return how many calls may travel together: of all that have ended only so many may be not committed yet.

        Each worker may have made those of one chunk while those of another, which came from it, are committed.
        """
        if self.course.recorder is None or self._pace.call_s is None:
            return size
        most = max(AT_RISK, AT_RISK_S / max(self._pace.call_s, 1e-7)) / (2 * self.course.max_workers)
        return max(min(size, int(most)), 1)

    def _crew_for(self, unit: Unit, crew: Crew) -> Crew:
        if not unit.stays:
            return crew
        if self._local is None:
            self._local = LocalCrew(self.course)
        return self._local

    def _send_units(self, crew: Crew, units: Sequence[Unit]) -> None:
        course, chained = self.course, units[-1].follows
        stop = course.ledger.on_error == "stop"
        self._tell_start(units[0])
        chunk = Chunk(
            self._calls(units),
            course,
            (course.process_name, course.run_id),
            budget=2 * self._pace.chunk_s,
            stops=self._supply.in_order or chained or stop,
            halts=stop and (isinstance(units, PlainUnits) or all(map(_is_last, units))),
            chained=chained,
            kills=crew.kills,
            whole=self._whole,
            within=crew.within,
            wanted=self._wanted,
        )
        sent = _Sent(units, course.seat(""), self._pace.late_s(len(units)))
        sent.seat.index = units[0].index
        self._sent[chunk] = sent
        self._note_sent(units, sent.at)
        sent.seat.worker = crew.send(chunk, units[0].timeout)

    def _calls(self, units: Sequence[Unit]) -> list[Call]:
        if isinstance(units, PlainUnits):
            calls = self.course.plan.calls
            return [(index, WHOLE, 1, None, *calls[index]) for index in units.indexes]
        return [(unit.index, unit.element, unit.attempt, unit.timeout, *unit.loaded) for unit in units]

    def _note_sent(self, units: Sequence[Unit], at: float) -> None:
        starts = self.course.ledger.starts
        if isinstance(units, PlainUnits):
            for index in units.indexes:
                starts[index] = at
            return
        for unit in units:
            if unit.follows:
                continue
            self.course.attempts[unit.key] = unit.attempt
            if unit.job is None and starts[unit.index] is None:
                starts[unit.index] = at

    def _retry(self, unit: Unit) -> None:
        """Have another attempt made, unless the one before still goes on in a thread that was given up."""
        assert unit.again is not None
        assert unit.last is not None
        if unit.hangs and unit.last.error is not None:
            self._fail(unit, unit.last.error, unit.last.at, unit.last.worker)
            return
        unit.again.begin()
        unit.attempt += 1
        unit.alone = True
        self._supply.give_back([unit])

    # Taking back

    def _until_late(self) -> float:
        """Return in how many seconds there may be something to take back."""
        now = time.perf_counter()
        if self._supply.in_order or self._supply.count():
            return SLICE_S
        return min((sent.late - now for sent in self._sent.values() if sent.late > now), default=SLICE_S)

    def _recalled(self, crew: Crew) -> bool:
        """Take back calls that wait behind others for longer than they should, if there is a place where to make them.

        What has ended in the same chunks is settled, as others may wait for it. Return whether anything has changed.
        """
        if self.course.ledger.halted or len(self._sent) - crew.ahead >= self.course.max_workers:
            return False
        now = time.perf_counter()
        late = {chunk for chunk, sent in self._sent.items() if sent.late <= now}
        recalled = crew.recall(late) if late else []
        for chunk, ended, begun in recalled:
            sent = self._sent[chunk]
            units = list(sent.units)
            sent.units, sent.settled = units[len(ended) : begun], len(ended)
            self._ended_units(units, ended, 0.0, sent.seat.worker)
            for unit in sent.units:
                self._follow(unit)
            if begun:
                self._pace.learn(begun, seconds=now - sent.at, way=now - sent.at, size=chunk.size)
            self._supply.give_back([unit for unit in units[begun:] if not unit.follows])
        return bool(recalled)

    # Settling

    def _settle(self, arrival: Arrival) -> None:
        sent = self._sent[arrival.chunk]
        self._settle_units(arrival, sent)
        del self._sent[arrival.chunk]
        self.course.leave(sent.seat)

    def _settle_units(self, arrival: Arrival, sent: _Sent) -> None:
        units, report, lost = sent.units, arrival.report, arrival.lost
        now = time.perf_counter()
        if report is None or report.error is not None:
            self._unmade(arrival, sent, now)
            return
        # Where the worker's clock is another one than ours, its work is taken to have ended when it came back.
        shift = 0.0 if sent.at <= report.began and report.finished <= now else now - report.finished
        if report.ended and not sent.settled:
            took = report.finished - report.began
            self._pace.learn(len(report.ended), seconds=took, way=now - sent.at - took, size=arrival.chunk.size)
        ended = report.ended[sent.settled :]
        if isinstance(units, PlainUnits):
            self._ended_plain(units, ended, shift, report.worker)
        else:
            for unit in units:
                unit.hung = report.hung
            self._ended_units(units, ended, shift, report.worker)
        rest = units[len(ended) :]
        if lost is not None and rest:
            self._follow(rest[0])
            if report.draft is not None and report.draft[0] == (rest[0].index, rest[0].element):
                self.course.logged(*report.draft)
            self._raised(rest[0], lost, sent.at, now, report.worker)
            rest = rest[1:]
        # Those that follow are claimed anew once what they wait for has ended.
        self._supply.give_back([unit for unit in rest if not unit.follows])

    def _unmade(self, arrival: Arrival, sent: _Sent, now: float) -> None:
        """Go on from a chunk of which no call was made, as far as is known."""
        report, lost = arrival.report, arrival.lost
        claimed = [unit for unit in sent.units if not unit.follows]
        if report is not None and report.error is not None:
            self._unread(arrival.chunk, claimed, report.error, sent.at, now)
        elif lost is None:
            self._supply.give_back(claimed)
        else:
            for unit in claimed:
                self._raised(unit, type(lost)(*lost.args), sent.at, now, sent.seat.worker)

    def _unread(self, chunk: Chunk, units: Sequence[Unit], error: BaseException, start: float, end: float) -> None:
        """Go on from calls that the worker could not unpickle: by value, else one by one, else it is that one."""
        if not chunk.whole and by_value() is not None:
            self._whole = True
        elif len(units) == 1:
            why = f"the call could be pickled, but not be unpickled in the worker: {error}"
            self._raised(units[0], TransferError(why), start, end, "")
            return
        for unit in units:
            unit.alone = unit.alone or chunk.whole
        self._supply.give_back(units)

    def _follow(self, unit: Unit) -> None:
        """Claim a call that was begun right after the one that it waits for, now that that one has ended."""
        if unit.follows:
            unit.follows = False
            self._supply.claim(unit)

    def _ended_units(self, units: Sequence[Unit], ended: Sequence[Ended | bytes], shift: float, worker: str) -> None:
        for unit, one in zip(units, ended, strict=False):
            self._follow(unit)
            self._ended(unit, ended_of(one), shift, worker)

    def _ended_plain(self, units: PlainUnits, ends: Sequence[Ended | bytes], shift: float, worker: str) -> None:
        course = self.course
        starts, workers = course.ledger.starts, course.workers
        self._stints.pop(worker, None)
        for place, (index, data) in enumerate(zip(units.indexes, ends, strict=False)):
            ended = ended_of(data)
            returned, start, end, value, _ = ended
            if not returned or course.recorder is not None:
                self._ended(units[place], ended, shift, worker)
                continue
            starts[index] = start + shift
            workers[index] = worker
            course.finished(index, value, end + shift)

    def _ended(self, unit: Unit, ended: Ended, shift: float, worker: str) -> None:
        returned, start, end, value, log = ended
        if log is not None:
            self.course.logged((unit.index, unit.element), log)
        start, end = start + shift, end + shift
        if not start:  # what came back could not be read, and that would have said when it was
            start = end = time.perf_counter()
        if unit.start is None:
            unit.start = start
        self._tell_start(unit)
        if not returned:
            self._raised(unit, value, start, end, worker)
            return
        self._note_busy(unit, start, end, worker)
        if unit.again is None:
            self._finish(unit, value, end, worker)
        else:
            self._judge(unit, returned=True, value=value, start=start, end=end, worker=worker)

    def _raised(self, unit: Unit, error: BaseException, start: float, end: float, worker: str) -> None:
        if unit.start is None:
            unit.start = start
        self._note_busy(unit, start, end, worker)
        if unit.again is None or isinstance(error, TransferError):
            self._fail(unit, error, end, worker)
        else:
            self._judge(unit, returned=False, value=error, start=start, end=end, worker=worker)

    def _note_busy(self, unit: Unit, start: float, end: float, worker: str) -> None:
        """Take note of when a worker was busy with an element of a map, or that it has left one."""
        stint = self._stints.get(worker)
        if unit.job is None:
            self._stints.pop(worker, None)
        elif stint is not None and stint.task == unit.index:
            stint.note(start, end)
        else:
            self._stints[worker] = stint = Stint(unit.index, worker, start, end)
            self.course.stints.append(stint)

    def _count(self, unit: Unit, worker: str, *, failed: bool) -> None:
        """Take note that an element of a map has ended."""
        stint = self._stints.get(worker)
        if stint is not None and stint.task == unit.index:
            stint.count(failed=failed)

    def _judge(self, unit: Unit, *, returned: bool, value: Any, start: float, end: float, worker: str) -> None:
        """Go on from an attempt of a call with retries."""
        assert unit.again is not None
        seconds, returned, value = unit.again.verdict(returned=returned, value=value)
        if unit.job is None and (unit.attempt > 1 or seconds is not None):
            # Nobody is busy with it from one attempt to the next.
            self.course.stints.append(Stint(unit.index, worker, start, end))
        if seconds is None:
            if returned:
                self._finish(unit, value, end, worker)
            else:
                self._fail(unit, value, end, worker)
            return
        unit.last = End(unit.attempt, None if returned else value, end, worker)
        self.course.report("task_retrying", unit.index, unit.attempt, None, unit.last.error)
        self._supply.retry(unit, seconds)

    def _finish(self, unit: Unit, value: Any, end: float, worker: str) -> None:
        course, index = self.course, unit.index
        assert unit.start is not None
        try:
            if unit.job is not None:
                unit.job.returned(unit.element, unit.digest, value, unit.start, end)
                self._count(unit, worker, failed=False)
                return
            course.ledger.starts[index] = unit.start
            course.workers[index] = worker
            if course.verbose:
                course.report("task_completed", index, unit.attempt, end - unit.start)
            course.finished(index, value, end)
        except BaseException as error:  # it cannot be recorded
            self._fail(unit, error, end, worker)

    def _fail(self, unit: Unit, error: BaseException, end: float, worker: str) -> None:
        course, index = self.course, unit.index
        if unit.job is not None:
            unit.job.raised(unit.element, error, end if unit.start is None else unit.start, end)
            self._count(unit, worker, failed=True)
            return
        course.ledger.starts[index] = unit.start
        course.workers[index] = worker
        course.raised(index, error, in_order=self._supply.in_order, end=end)

    def _conclude_maps(self) -> bool:
        """End the maps whose calls have all ended; return whether there were any."""
        done = [job for job in self._supply.open if not job.out and (self.course.ledger.halted or not job.more)]
        for job in done:
            self._supply.open.discard(job)
            stint = next((stint for stint in reversed(self.course.stints) if stint.task == job.index), None)
            if stint is not None:
                stint.drawn = job.drawing_s
            if job.start is not None:  # as its first call did, and not when it was opened
                self.course.ledger.starts[job.index] = job.start
            try:
                self.course.finished(job.index, job.concluded(), job.end)
            except BaseException as error:
                self.course.raised(job.index, error, in_order=self._supply.in_order, end=job.end)
        return bool(done)

    # Stopping

    def _halt(self) -> None:
        """Start nothing new, and drop what waits."""
        ledger = self.course.ledger
        told = (True, ledger.cancelled)
        if told != self._told:
            self._told = told
            for crew in self._crews():
                crew.halt(cancelled=ledger.cancelled)
            if ledger.cancelled and not isinstance(ledger.failure, KeyboardInterrupt):
                self._patience = time.monotonic() + _GRACE_S
        if self._patience is not None and time.monotonic() > self._patience and self._crew is not None:
            self._patience = None
            self._crew.stop()
        for unit in self._supply.drop():
            self._drop(unit)

    def _drop(self, unit: Unit) -> None:
        """Forget a call that was not begun; one whose next attempt was not, ends as the last one did."""
        course, last = self.course, unit.last
        if last is None and unit.job is not None:
            unit.job.dropped(unit.element)
        elif last is None:
            course.ledger.starts[unit.index] = None
            course.attempts.pop(unit.index, None)
        else:
            course.attempts[unit.key] = last.attempt  # another one was sent, perhaps, and not made
            self._fail(unit, last.error or _cancelled(unit.index), last.at, last.worker)

    def _forsake(self) -> None:
        """Close what is still open when there is nobody to hear of it."""
        now = time.perf_counter()
        for sent in self._sent.values():
            self.course.leave(sent.seat)
            for unit in sent.units:
                if unit.follows or (unit.job is None and self.course.ledger.ends[unit.index] is not None):
                    continue
                unit.start = sent.at if unit.start is None else unit.start
                self._fail(unit, _cancelled(unit.index), now, sent.seat.worker)
        self._sent.clear()
        for job in self._supply.open:
            job.close()
            self.course.raised(job.index, _cancelled(job.index), in_order=self._supply.in_order)

    # Events

    def _tell_start(self, unit: Unit) -> None:
        """Tell of the start of a call, once, and keep what observers send along with it."""
        if self.course.verbose and unit.job is None and not unit.told:
            unit.told = True
            context = self.course.context.copy()
            context.run(self.course.report, "task_started", unit.index, 1, None)
            unit.luggage = context.get(LUGGAGE)


def _is_last(unit: Unit) -> bool:
    """Return whether the run is over at once if this attempt fails and failures stop it."""
    return unit.again is None and unit.job is None


def _cancelled(index: int) -> TaskCancelled:
    return TaskCancelled(f"the run ended before task {index} did")
