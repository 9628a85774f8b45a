"""For tests: the writes to all journals of this process, counted, and made to fail."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Literal

from procession._model.states import RunStatus
from procession.errors import JournalError
from procession.journal import Recorder
from procession.journal.calls import CallRecords
from procession.journal.waits import WaitRecords

Write = Callable[..., Any]

Failure = Literal["once", "unanswered", "for good"]
"""How a write to a journal fails.

`"once"`: this write is lost. `"unanswered"`: the write succeeds, but raises as if it were lost. `"for good"`: this
write and all later ones are lost."""


@contextmanager
def failing(at: int, way: Failure) -> "Generator[Writes]":
    """Make write number `at` fail, for as long as the `with` statement lasts; yield the count of the writes."""
    writes, close = Writes(), Recorder.close

    def fails() -> bool:
        number = writes.next()
        return number == at or (number > at and way == "for good")

    def refuse(*_: object, **__: object) -> None:
        raise JournalError(f"write {at} was made to fail ({way})")

    def disturbed(write: Write) -> Write:
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

    with with_writes(disturbed):
        Recorder.close = disturbed_close  # type: ignore[assignment,method-assign]
        try:
            yield writes
        finally:
            Recorder.close = close  # type: ignore[method-assign]


class Writes:
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
def with_writes(wrap: Callable[["Write"], "Write"]) -> Generator[None]:
    """Replace what records tasks, calls that they make themselves, and waits, by what `wrap` makes of it."""
    commit, commit_calls, begin = Recorder.commit, CallRecords.commit, WaitRecords.begin
    Recorder.commit, CallRecords.commit = wrap(commit), wrap(commit_calls)  # type: ignore[method-assign]
    WaitRecords.begin = wrap(begin)  # type: ignore[method-assign]
    try:
        yield
    finally:
        Recorder.commit, CallRecords.commit = commit, commit_calls  # type: ignore[method-assign]
        WaitRecords.begin = begin  # type: ignore[method-assign]
