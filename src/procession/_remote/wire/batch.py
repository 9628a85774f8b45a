"""Calls that go to a worker together: one object to send and one report back, for as many calls as are worth it.

coordinator                                 worker
Batch(calls) ──────── as it is ──────────▶ run_batch ──▶ Report(ended)          threads: nothing is pickled
     └──pickled──▶ bytes ──▶ Batch(bytes) ──▶ run_batch ──▶ Report ──▶ bytes     other processes
"""

import pickle
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from procession._engine.run_state import RunState
from procession._engine.task_logs import WantedLogs
from procession._model.text import described
from procession._remote.wire.crash_file import CrashFile
from procession._remote.wire.result import Encode, Result, encode_result
from procession._remote.wire.serialize import Call, encode_calls

if TYPE_CHECKING:
    from procession._model.log import Log


class BatchOptions(NamedTuple):
    """How the calls of a batch are to be made, wherever they are."""

    process_name: str
    run_id: str
    budget: float
    """No call begins after so many seconds: what is left comes back. The first one always begins."""
    stops: bool = False
    """Whether none of its calls follows one that failed."""
    halts: bool = False
    """Whether then no other call of the run begins on the same worker, either."""
    kills: bool = False
    """Whether the backend ends a worker whose call takes longer than its timeout."""
    chained: bool = False
    """Whether each call but the first takes the value of the one before it."""
    wanted_logs: WantedLogs | None = None
    """What is to be done with what the calls log."""
    encode: Encode | None = None
    """What makes the bytes of a value that the journal keeps, if the worker is to do that."""
    found: tuple[str, bytes] | None = None
    """The path and the token of a crash file that both sides see, if there is one for this batch."""


class Batch:
    """Calls to be made one after another, as its options say.

    In the process that made it, `run_state` is there and the calls are as they were given. In another one they arrive
    as `data`, which `loads` reads. `whole` says that functions go by value. `within` is the executor that makes the
    calls, if that may be asked to make others that they wait for.
    """

    __slots__ = (
        "begun",
        "calls",
        "crash_file",
        "data",
        "ended",
        "hung",
        "loads",
        "options",
        "recalled",
        "run_state",
        "shared",
        "size",
        "travelled",
        "whole",
        "within",
    )

    def __init__(
        self,
        calls: Sequence[Call],
        options: BatchOptions,
        run_state: RunState | None = None,
        *,
        whole: bool = False,
        within: object = None,
        data: bytes | None = None,
        loads: Callable[[bytes], Sequence[Call]] = pickle.loads,
    ) -> None:
        self.calls = calls
        self.options = options
        self.run_state = run_state
        self.whole = whole
        self.within = within
        self.data = data
        self.loads = loads
        self.size = 0
        """How many bytes it took, if it was pickled."""
        self.hung: threading.Thread | None = None
        """The thread in which a call goes on that was given up at its timeout."""
        self.ended: list[Result | bytes] = []
        self.begun = self.recalled = self.travelled = False
        self.shared = False
        """Whether the sender is to see each end at once, as it may recall the batch: in `ended`, or, if it goes to
        another process, in a crash file that is made then."""
        self.crash_file: CrashFile | None = None

    def __reduce__(self) -> tuple[Callable[..., "Batch"], tuple[Any, ...]]:
        # A batch that has arrived may go on to another process, as it came.
        data = encode_calls(self.calls, whole=self.whole) if self.data is None else self.data
        self.size = len(data)
        self.travelled = True
        if self.shared and self.crash_file is None and len(self.calls) > 1:
            with suppress(OSError):
                self.crash_file = CrashFile.made()
        options = self.options
        if self.crash_file is not None:
            options = options._replace(found=(self.crash_file.path, self.crash_file.token))
        return _arrived, (data, tuple(options))

    def ended_so_far(self) -> tuple[Sequence[Result | bytes], int]:
        """Return how the first calls have ended, as far as is seen here, and how many have ended in all."""
        seen = list(self.ended) if self.crash_file is None else self.crash_file.read(1, 0)
        return seen[: seen.index(b"")] if b"" in seen else seen, len(seen)


def _arrived(data: bytes, options: tuple[Any, ...]) -> Batch:
    return Batch((), BatchOptions(*options), data=data)


class Report:
    """What a worker made of a batch: how the calls ended that it made, of which there may be none."""

    __slots__ = ("began", "crash_log", "encode", "ended", "error", "finished", "hung", "worker")

    def __init__(
        self,
        worker: str,
        ended: Sequence[Result | bytes],
        began: float,
        finished: float,
        error: BaseException | None = None,
        hung: threading.Thread | bool = False,
        encode: Encode | None = None,
    ) -> None:
        self.worker = worker
        self.ended = ended
        self.began = began
        self.finished = finished
        self.error = error
        """Why the calls could not be read, if so: then none was made."""
        self.hung = hung
        """The thread in which a call goes on that was given up at its timeout, or whether there is one."""
        self.encode = encode
        self.crash_log: tuple[tuple[int, int], Log] | None = None
        """Of a worker that is gone: a call (task and element) and what it had logged."""

    def __reduce__(self) -> tuple[type["Report"], tuple[Any, ...]]:
        ended = [one if isinstance(one, bytes) else encode_result(one, self.encode) for one in self.ended]
        error = None if self.error is None else RuntimeError(described(self.error))
        return Report, (self.worker, ended, self.began, self.finished, error, bool(self.hung))
