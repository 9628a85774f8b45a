"""What is recorded of one run while it goes on: a record of each call that has ended, committed in groups.

    run state ──record──▶ CallRecording ──Record──▶ GroupCommit ──▶ recorder, which writes to the journal
        ▲                       ▲                        │
        │                what the call logged            │
        └──────── `then`: the task has ended ◀───────────┘

A run without a journal has no such object. All records are made here, from the same facts about a call's end.
"""

import time
import traceback
from collections.abc import Callable, Sequence
from typing import Protocol

from procession._engine.commit import GroupCommit, Recorder
from procession._engine.failed_attempts import FailedAttempts
from procession._engine.labels import Labels
from procession._model.log import Logs
from procession._model.log_head import with_head
from procession._model.record import WHOLE, Record
from procession._model.text import described

_ERROR_LIMIT = 20_000


class RecordedRun(Protocol):
    """What a recording asks of the run, and tells it."""

    epoch: float
    """When the run began, in seconds since the epoch."""
    began: float
    """The same moment as a reading of the clock."""
    labels: Labels | None
    """What makes the labels of its calls, if any has one."""
    failed_attempts: FailedAttempts
    """The attempts that were followed by others."""
    refusals: dict[tuple[int, int], BaseException]
    """How tasks and elements end, whatever they return: they were refused a call, or are left, as they wait."""

    def name(self, index: int) -> str:
        """Return a task's name."""
        ...

    def worker_at(self, index: int) -> str:
        """Return which worker is at a task just here."""
        ...

    def interrupt(self, error: BaseException) -> None:
        """Stop the run, because of an error that is not a task's."""
        ...

    def lose(self, index: int, error: BaseException) -> None:
        """Fail a task that succeeded, but could not be recorded."""
        ...


class CallRecording:
    """Records how the calls of one run end, through `recorder`."""

    __slots__ = ("_run", "commits", "logs", "recorder")

    def __init__(self, recorder: Recorder, run: RecordedRun) -> None:
        self._run = run
        self.recorder = recorder
        self.logs = Logs()
        self.commits = GroupCommit(recorder.commit, run.interrupt, self._lose)

    def record(
        self,
        index: int,
        element: int,
        attempts: int,
        start: float | None,
        end: float,
        *,
        value: object = None,
        encoded: bytes | None = None,
        error: BaseException | None = None,
        digest: bytes = b"",
        then: Callable[[], object] | None = None,
    ) -> None:
        """Queue the record of a call that has ended: with `error` if there is one, else with `value`.

        A value that comes `encoded` is recorded as it is. `start` and `end` are readings of the clock; a call that
        never started has no `start`. `then` is called once the record is committed.

        Raises `ResultError` for a value that cannot be recorded, and in place of a value what ends its call whatever
        that returns.
        """
        run = self._run
        start = end if start is None else start
        if run.refusals:
            refusal = run.refusals.pop((index, element), None)
            if refusal is not None and error is None:
                raise refusal
        if error is None and encoded is None:
            encoded = self.recorder.encode(value)
        log = self.logs.take((index, element)) if self.logs else None
        label = None if run.labels is None else run.labels.take(index, element)
        failed = run.failed_attempts.take(index, element, start)[: attempts - 1] if attempts > 1 else ()
        self.commits.add(
            Record(
                index=index,
                element=element,
                state="completed" if error is None else "failed",
                name=run.name(index),
                digest=digest,
                value=encoded,
                error=None if error is None else error_text(error),
                attempts=attempts,
                started_at=run.epoch + start - run.began,
                duration=end - start,
                worker=run.worker_at(index),
                log=with_head(label, failed, None if log is None else log.text()),
            ),
            then,
        )

    def element_returned(
        self,
        index: int,
        element: int,
        digest: bytes,
        value: object,
        start: float,
        attempts: int,
        encoded: bytes | None = None,
        then: Callable[[], object] | None = None,
        end: float | None = None,
    ) -> None:
        """Record that an element of a map returned, now or at `end`. `encoded` and `then` are as for `record`."""
        end = time.perf_counter() if end is None else end
        self.record(index, element, attempts, start, end, value=value, encoded=encoded, digest=digest, then=then)

    def element_raised(
        self, index: int, element: int, error: BaseException, start: float, attempts: int, end: float
    ) -> None:
        """Record that an element of a map raised. `end` is a reading of the clock, as `start` is."""
        self.record(index, element, attempts, start, end, error=error)

    def _lose(self, error: BaseException, records: Sequence[Record]) -> None:
        """Fail the tasks whose records were never committed."""
        for record in records:
            if record.element == WHOLE and record.state == "completed":
                self._run.lose(record.index, error)


def error_text(error: BaseException) -> str:
    """Return an error in a line, and its traceback below it, of bounded length."""
    try:
        text = "".join(traceback.format_exception(error))
    except Exception as failure:
        text = f"<no traceback: {type(failure).__name__}>"
    if len(text) > _ERROR_LIMIT:
        text = f"{text[: _ERROR_LIMIT // 2]}\n…\n{text[-_ERROR_LIMIT // 2 :]}"
    return f"{described(error)}\n\n{text}"
