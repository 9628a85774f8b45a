"""Outcomes: how the tasks of a run ended, or how they stand while the run goes on."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final, cast, overload

from procession._model.states import TaskState
from procession._model.text import described, shown
from procession.errors import ValueUnavailableError

_SHOWN: Final = 10
"""How many outcomes the `repr` of `Outcomes` shows."""


class _Missing:
    __slots__ = ("why",)

    def __init__(self, why: str) -> None:
        self.why = why


NO_VALUE: Final = _Missing("it did not end well")
HANDED_OVER: Final = _Missing(
    "it belongs to the caller of execute(), and a run keeps no second reference to it; "
    "read it from the list that execute() returned, or use start(), whose run keeps every value"
)


class Away(ABC):
    """Stands for a value that is kept on another machine, such as a worker of a cluster."""

    __slots__ = ()

    @abstractmethod
    def fetch(self) -> Any:
        """Bring the value here and return it."""


def at_hand(value: Any) -> Any:
    """Return a value itself, fetched if it is kept elsewhere; in the list of a map, each element may be."""
    if isinstance(value, Away):
        return value.fetch()
    if isinstance(value, list):
        items = cast("list[Any]", value)  # type: ignore[redundant-cast]  # pyright sees it as partly unknown
        if any(isinstance(item, Away) for item in items):
            return [item.fetch() if isinstance(item, Away) else item for item in items]
        return items
    return value


class Outcome:
    """How one task of a run ended, or how it stands if it has not ended.

    Attributes:
        index (int): The place of the task in its process, from 0.
        name (str): The name of the task.
        state (TaskState): How the task stands.
        error (BaseException | None): The exception that the task ended with, if it failed.
        attempts (int): How many times the task was called, 0 if it has not started; of a map, how many times the
            element with the most attempts was called.
        start (float | None): When the first attempt began, in seconds since the run began; `None` if it has not started
            or was recorded by an earlier execution.
        duration (float | None): How long the task took, in seconds, pauses between attempts included; `None` until it
            has ended.
        worker (str | None): The name of the thread, asyncio task or worker process that made the call; `None` if the
            task has not started.
        recorded (bool): Whether an earlier execution of the run completed the task, so that its value comes from the
            journal and it was not called in this one.

    Example:
        >>> from procession import Process
        >>> process = Process("sum")
        >>> process.add_task(sum, [1, 2])
        >>> run = process.start()
        >>> run.wait()
        True
        >>> outcome = run.outcomes[0]
        >>> outcome.name, outcome.state, outcome.value, outcome.attempts
        ('sum', 'completed', 3, 1)

    """

    __slots__ = (
        "_again",
        "_value",
        "attempts",
        "duration",
        "error",
        "index",
        "name",
        "recorded",
        "start",
        "state",
        "worker",
    )

    def __init__(
        self,
        *,
        index: int,
        name: str,
        state: TaskState,
        value: object,
        error: BaseException | None,
        attempts: int,
        start: float | None,
        duration: float | None,
        worker: str | None,
        recorded: bool,
        again: Callable[[int], Any],
    ) -> None:
        self.index: Final = index
        self.name: Final = name
        self.state: Final[TaskState] = state
        self.error: Final = error
        self.attempts: Final = attempts
        self.start: Final = start
        self.duration: Final = duration
        self.worker: Final = worker
        self.recorded: Final = recorded
        self._value = value
        self._again = again

    @property
    def value(self) -> Any:
        """The return value of the task.

        Raises:
            ValueUnavailableError: The task has not completed, or its value was handed to the caller of `execute()`.

        """
        if isinstance(self._value, _Missing):
            raise ValueUnavailableError(
                f"task {self.index} ({shown(self.name)}, {self.state}) has no value: {self._value.why}"
            )
        return at_hand(self._value)

    def call_again(self) -> Any:
        """Call the function of the task again with the same arguments, in this thread; meant for a debugger.

        Returns:
            The return value of this call. The run and its outcomes stay as they are.

        Raises:
            BaseException: The exception of this call, if it raises.
            ValueUnavailableError: The value of a task that this one takes is not available.

        """
        return self._again(self.index)

    def __repr__(self) -> str:
        parts = [f"Outcome {self.index} {shown(self.name)}: {self.state}"]
        if self.duration is not None:
            parts.append(f"in {self.duration:.3g} s")
        if self.attempts > 1:
            parts.append(f"after {self.attempts} attempts")
        if self.error is not None:
            parts.append(described(self.error))
        return f"<{', '.join(parts)}>"


class Outcomes(Sequence[Outcome]):
    """The outcomes of a run, in the order in which its tasks were added: a sequence, as `Run.outcomes` returns it.

    Each outcome is made when it is asked for and describes the task at that moment.

    >>> from procession import Process
    >>> process = Process("two")
    >>> process.add_task(len, "abc")
    >>> process.add_task(len, "abcd")
    >>> process.execute()
    [3, 4]
    >>> [outcome.state for outcome in process.last_run.outcomes]
    ['completed', 'completed']
    """

    __slots__ = ("_count", "_outcome")

    def __init__(self, outcome: Callable[[int], Outcome], count: int) -> None:
        self._outcome = outcome
        self._count = count

    @overload
    def __getitem__(self, place: int) -> Outcome: ...
    @overload
    def __getitem__(self, place: slice) -> list[Outcome]: ...
    def __getitem__(self, place: int | slice) -> Outcome | list[Outcome]:
        places = range(self._count)[place]
        return [self._outcome(index) for index in places] if isinstance(places, range) else self._outcome(places)

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        head = ", ".join(map(repr, self[:_SHOWN]))
        return f"[{head}{', …' if self._count > _SHOWN else ''}]"
