"""Calls that go to a worker together: one object to send and one report back, for as many calls as are worth it.

coordinator                                 worker
Batch(calls) ──────── as it is ──────────▶ run_batch ──▶ Report(ended)          threads: nothing is pickled
     └──pickled──▶ bytes ──▶ Batch(bytes) ──▶ run_batch ──▶ Report ──▶ bytes     other processes
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from procession._model.text import described
from procession._remote.wire.crash_file import CrashFile
from procession._remote.wire.packed import Packed, unpack
from procession._remote.wire.result import Encode, Result, encode_result
from procession._remote.wire.serialize import Call, encode_calls, pack_calls

if TYPE_CHECKING:
    from procession._engine.run_state import RunState
    from procession._engine.task_logs import WantedLogs
    from procession._model.log import Log
    from procession._remote.wire.handed_on import HandedOn
    from procession._remote.wire.snapshots import Snapshots


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
    wanted_logs: "WantedLogs | None" = None
    """What is to be done with what the calls log."""
    encode: Encode | None = None
    """What makes the bytes of a value that the journal keeps, if the worker is to do that."""
    found: tuple[str, bytes] | None = None
    """The path and the token of a crash file that both sides see, if there is one for this batch."""
    recorded: bool = False
    """Whether the run has a journal."""
    allow_changes: bool = False
    """Whether calls that are other ones than those it has are made."""


class Batch:
    """Calls to be made one after another, as its options say.

    In the process that made it, `run_state` is there and the calls are as they were given. In another one they arrive
    as `data`, which `loads` reads. `whole` says that functions go by value. `within` is the executor that makes the
    calls, if that may be asked to make others that they wait for. With `snapshots`, large parts of the arguments do not
    travel in it, but as files of `data`.
    """

    __slots__ = (
        "begun",
        "calls",
        "crash_file",
        "data",
        "ended",
        "handed_on",
        "hung",
        "loads",
        "options",
        "packed",
        "recalled",
        "run_state",
        "shared",
        "size",
        "snapshots",
        "travelled",
        "whole",
        "within",
    )

    def __init__(
        self,
        calls: Sequence[Call],
        options: BatchOptions,
        run_state: "RunState | None" = None,
        *,
        whole: bool = False,
        within: object = None,
        data: bytes | Packed | None = None,
        loads: Callable[[Any], Sequence[Call]] = unpack,
    ) -> None:
        self.calls = calls
        self.options = options
        self.run_state = run_state
        self.whole = whole
        self.within = within
        self.data = data
        self.loads = loads
        self.snapshots: Snapshots | None = None
        self.handed_on: HandedOn | None = None
        """Values of the run that go on as the bytes in which they came."""
        self.packed: bytes | Packed = b""
        """What the calls were sent as, with the files that go behind the message."""
        self.size = 0
        """How many bytes were written for it, if it was pickled."""
        self.hung: threading.Thread | None = None
        """The thread in which a call goes on that was given up at its timeout."""
        self.ended: list[Result | bytes | Packed] = []
        self.begun = self.recalled = self.travelled = False
        self.shared = False
        """Whether the sender is to see each end at once, as it may recall the batch: in `ended`, or, if it goes to
        another process, in a crash file that is made then."""
        self.crash_file: CrashFile | None = None

    def __reduce__(self) -> tuple[Callable[..., "Batch"], tuple[Any, ...]]:
        # A batch that has arrived may go on to another process, as it came.
        data = self._packed() if self.data is None else self.data
        self.travelled = True
        if self.shared and self.crash_file is None and len(self.calls) > 1:
            with suppress(OSError):
                self.crash_file = CrashFile.made()
        options = self.options
        if self.crash_file is not None:
            options = options._replace(found=(self.crash_file.path, self.crash_file.token))
        return _arrived, (data, tuple(options))

    def _packed(self) -> bytes | Packed:
        calls = self.calls if self.handed_on is None else self.handed_on.within(self.calls, self.snapshots)
        if self.snapshots is None:
            data = encode_calls(calls, whole=self.whole)
            self.size = len(data)
            return data
        self.packed, copied = pack_calls(calls, self.snapshots, whole=self.whole)
        self.size = copied + (self.packed.size if isinstance(self.packed, Packed) else len(self.packed))
        return self.packed

    def ended_so_far(self) -> tuple[Sequence[Result | bytes | Packed], int]:
        """Return how the first calls have ended, as far as is seen here, and how many have ended in all."""
        seen = list(self.ended) if self.crash_file is None else self.crash_file.read(1, 0)
        return seen[: seen.index(b"")] if b"" in seen else seen, len(seen)


def _arrived(data: bytes | Packed, options: tuple[Any, ...]) -> Batch:
    return Batch((), BatchOptions(*options), data=data)


class Report:
    """What a worker made of a batch: how the calls ended that it made, of which there may be none."""

    __slots__ = ("began", "crash_log", "encode", "ended", "error", "finished", "hung", "worker")

    def __init__(
        self,
        worker: str,
        ended: Sequence[Result | bytes | Packed],
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
        ended = [encode_result(one, self.encode) if isinstance(one, Result) else one for one in self.ended]
        error = self.error
        if error is not None:
            error = (MemoryError if isinstance(error, MemoryError) else RuntimeError)(described(error))
        return Report, (self.worker, ended, self.began, self.finished, error, bool(self.hung))
