"""A call that may be made again: which attempt it is at, and how the last one ended."""

from typing import TYPE_CHECKING, Any, NamedTuple

from procession._engine.retry_state import RetryState
from procession._model.task import Call, Options

if TYPE_CHECKING:
    import threading
    from contextvars import Context


class Abandoned(BaseException):
    """The call that a worker makes took too long: it was given up, and the worker with it."""


class Straggler:
    """A call that was given up and goes on in the thread that was left behind with it."""

    __slots__ = ("over",)

    def __init__(self) -> None:
        self.over = False

    def is_alive(self) -> bool:
        """Return whether the call goes on."""
        return not self.over


class Late(NamedTuple):
    """A call that was given up at its timeout, until a worker sees to what follows."""

    error: BaseException
    start: float
    """When the attempt began, as a reading of the clock."""
    worker: str
    straggler: Straggler
    digest: bytes = b""
    """Of an element of a map, its digest."""


class Retry:
    """The attempts of one call of which at least one has failed, or whose rules want to see each of them."""

    __slots__ = ("context", "digest", "error", "hung", "made", "start", "state")

    def __init__(self, options: Options, call: Call, start: float, digest: bytes = b"") -> None:
        self.state = RetryState(options, call)
        self.digest = digest
        """Of an element of a map, its digest."""
        self.start = start
        """When the first attempt began, as a reading of the clock."""
        self.context: Context | None = None
        """The context in which each further attempt is made; `None` for that of the worker."""
        self.made = 1
        """How many attempts have begun."""
        self.error: BaseException | None = None
        """What the last one raised; `None` where its rules did not like the value that it returned."""
        self.hung: Straggler | threading.Thread | None = None
        """Where an attempt that took too long may still go on."""

    def begin(self) -> None:
        """Take note that another attempt begins."""
        self.made += 1
        self.error = None
        self.state.begin()

    def judge(self, *, returned: bool, value: Any) -> tuple[float | None, bool, Any]:
        """Return in how many seconds there is to be another attempt, or `None` and the value or error that stands."""
        seconds, returned, value = self.state.verdict(returned=returned, value=value)
        if seconds is not None and not returned:
            self.error = value
        return seconds, returned, value

    @property
    def hangs(self) -> bool:
        """Whether the attempt before still goes on, so that no other may be made beside it."""
        return self.hung is not None and self.hung.is_alive()
