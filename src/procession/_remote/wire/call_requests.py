"""What a task in a worker process asks of the journal, which only the coordinator reaches, for its recorded calls.

task ──RecordedCalls──▶ CallLink ══ work ══▶ WorkerProcess ──▶ answer ──▶ RunCalls ──▶ journal
▲                                     │
└═══════ word ══ watcher ◀════════════┘ once it is committed
"""

import pickle
import threading
from collections.abc import Callable, Collection, Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from procession._model.pickled import LIMIT, pickled
from procession._model.record import CallRecord, WaitKind, WaitRecord
from procession._remote.wire.result import error_of, failure_of
from procession._remote.wire.serialize import dumps_home

if TYPE_CHECKING:
    from procession._engine.run_state import RunState

Asked = Literal["commit", "read", "forget", "go_on_from", "encode", "decode", "wait", "forget_answer", "forget_but"]
"""What a worker asks for."""


class CallRequest(NamedTuple):
    """A question of a worker."""

    number: int
    what: Asked
    args: tuple[Any, ...]


class CallLink:
    """The worker's side: asks, and waits for the answer. `send` takes the bytes of a question."""

    def __init__(self, send: Callable[[bytes], object]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._number = 0
        self._waiting: dict[int, SimpleQueue[tuple[bool, Any]]] = {}

    def ask(self, what: Asked, *args: Any) -> Any:
        """Return the answer, or raise what was raised instead."""
        answer: SimpleQueue[tuple[bool, Any]] = SimpleQueue()
        with self._lock:
            self._number += 1
            request = CallRequest(self._number, what, args)
            self._waiting[request.number] = answer
            self._send(dumps_home(request))
        returned, value = answer.get()
        if returned:
            return value
        raise error_of(value)

    def take(self, data: bytes) -> None:
        """Take an answer. In the watcher's thread."""
        number, returned, value = pickle.loads(data)  # noqa: S301  # from our coordinator
        answer = self._waiting.pop(number, None)
        if answer is not None:
            answer.put((returned, value))


class LinkedRecorder:
    """Stands in a worker for the way into the journal. It is also the records of calls that it has."""

    executions = 2
    """More than one: whether there is a record is for the coordinator to say."""

    def __init__(self, link: CallLink, *, allow_changes: bool, here: bool) -> None:
        self._link = link
        self._here = here
        """Whether values become bytes here, as pickles."""
        self.allow_changes = allow_changes

    @property
    def calls(self) -> "LinkedRecorder":
        """The records of the calls."""
        return self

    def commit(self, group: Sequence[CallRecord], /, *, again: bool = False) -> None:  # noqa: ARG002 - the other side knows
        """Return when these are committed; raise what kept them from it."""
        self._link.ask("commit", [tuple(record) for record in group])

    def read(self, index: int, element: int) -> Sequence[CallRecord]:
        """Return the recorded calls of a task, or of an element of a map, by their places."""
        return [CallRecord(*record) for record in self._link.ask("read", index, element)]

    def forget(self, index: int, element: int, start: int) -> None:
        """Delete the recorded calls of a task, or of an element of a map, from a place on."""
        self._link.ask("forget", index, element, start)

    def go_on_from(self, index: int, element: int, failed: Collection[int]) -> None:
        """Record that a task, or element, has gone on after these calls have failed."""
        self._link.ask("go_on_from", index, element, failed)

    @property
    def waits(self) -> "LinkedRecorder":
        """What tasks wait for."""
        return self

    def begin(
        self, index: int, element: int, kind: WaitKind, name: str, seconds: float | None, element_digest: bytes | None
    ) -> WaitRecord:
        """Return how it stands with what a task, or element, waits for; record that it waits, `seconds` at most."""
        return WaitRecord(*self._link.ask("wait", index, element, kind, name, seconds, element_digest))

    def forget_answer(self, index: int, element: int, name: str) -> None:
        """Forget the answer that a task, or element, has been given, so that it waits for it anew."""
        self._link.ask("forget_answer", index, element, name)

    def forget_but(self, index: int, element: int, passed: Collection[tuple[WaitKind, str]]) -> None:
        """Forget what a task, or element, has waited for, but for these."""
        self._link.ask("forget_but", index, element, passed)

    def ready(self) -> Sequence[tuple[int, int]]:
        """Return none: the coordinator sees to tasks that were left."""
        return ()

    def encode(self, value: object) -> bytes:
        """Return a value as it will be recorded."""
        if self._here:
            try:
                data = pickled(value)
            except Exception:
                data = b""  # the coordinator says why
            # The main module has another name in a worker: see `encode_result`.
            if data and b"__mp_main__" not in data and len(data) <= LIMIT:
                return data
        return cast("bytes", self._link.ask("encode", value))

    def decode(self, data: bytes, where: str) -> object:
        """Return a value that was recorded."""
        return self._link.ask("decode", data, where)


def answer(run_state: "RunState", request: CallRequest, reply: Callable[[bytes], object]) -> None:
    """Answer a question of a worker by `reply`, at once or, if it is to record something, when that is committed."""
    calls = run_state.run_calls()

    def send(value: Any, error: BaseException | None = None) -> None:
        said = (request.number, True, value) if error is None else (request.number, False, failure_of(error))
        reply(pickle.dumps(said, pickle.HIGHEST_PROTOCOL))

    recorder, records = run_state.recorder, calls.records
    assert recorder is not None
    assert records is not None
    value: Any = None
    try:
        match request.what:
            case "commit":
                group = [CallRecord(*record) for record in request.args[0]]
                calls.commit_later(group, lambda error: send(None, error))
                return
            case "read":
                value = [tuple(record) for record in calls.recorded(*request.args).values()]
            case "forget" | "go_on_from" as what:
                getattr(records, what)(*request.args)
            case "encode":
                value = recorder.encode(*request.args)
            case "wait":
                index, element, kind, name, seconds, _ = request.args
                digest = calls.element_digest(index, element)
                value = tuple(recorder.waits.begin(index, element, kind, name, seconds, digest))
            case "forget_answer" | "forget_but" as what:
                getattr(recorder.waits, what)(*request.args)
            case "decode":
                value = recorder.decode(*request.args)
        send(value)
    except Exception as error:
        send(None, error)
