"""Outcomes: how the tasks of a run ended, or how they stand while the run goes on."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast, overload

from procession._model.states import TaskState
from procession._model.text import counted, described, in_a_line, shown
from procession.errors import ValueUnavailableError

_SHOWN: Final = 10
"""How many outcomes the `repr` of `Outcomes` shows."""


class _Missing:
    __slots__ = ("why",)

    def __init__(self, why: str) -> None:
        self.why = why


NO_VALUE: Final = _Missing("it has not completed")
HANDED_OVER: Final = _Missing(
    "it belongs to the caller of execute(), and a run keeps no second reference to it; "
    "read it from the list that execute() returned, or use start(), whose run keeps every value"
)


class NotKept:
    """Stands in the results for the value of a task, or the values of a map, with `keep=False`.

    Attributes:
        count (int): How many values there were.

    """

    __slots__ = ("count",)

    def __init__(self, count: int) -> None:
        self.count = count

    def __eq__(self, other: object) -> bool:
        return self.count == other.count if isinstance(other, NotKept) else NotImplemented

    def __hash__(self) -> int:
        return hash((NotKept, self.count))

    def __repr__(self) -> str:
        return f"<{counted(self.count, 'value')}, not kept>"


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
        label (str | None): The name with the arguments of the task filled in, if it is a template such as
            `"fetch {url}"`; `None` if it is none, or the arguments are not known.
        state (TaskState): How the task stands. Between two attempts it is `"waiting"`, as before the first one.
        error (BaseException | None): The exception that the task ended with, if it failed.
        attempts (int): How many times the task was called, 0 if it has not started; of a map, how many times the
            element with the most attempts was called. Each execution of a recorded run counts from 1.
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
        "label",
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
        label: str | None = None,
    ) -> None:
        self.index: Final = index
        self.name: Final = name
        self.label: Final = label
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

        After `execute()` a completed task has none: `execute()` has returned the values, and a run that kept them as
        well would hold them twice as long. A run of `start()` has them all.

        Raises:
            ValueUnavailableError: The task has not completed, or its value was handed to the caller of `execute()`.
                Of a failed task, what the task raised is the cause.

        """
        if isinstance(self._value, _Missing):
            why = self._value.why if self.error is None else f"it raised {in_a_line(self.error)}"
            raise ValueUnavailableError(
                f"task {self.index} ({shown(self.name)}, {self.state}) has no value: {why}"
            ) from self.error
        return at_hand(self._value)

    @property
    def has_value(self) -> bool:
        """Whether `value` returns one."""
        return not isinstance(self._value, _Missing)

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
        parts = [f"Outcome {self.index} {shown(self.label or self.name)}: {self.state}"]
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

    __slots__ = ("_count", "_outcome", "_rows")

    def __init__(
        self, outcome: Callable[[int], Outcome], count: int, rows: Callable[[Outcome], Iterable[dict[str, Any]]]
    ) -> None:
        self._outcome = outcome
        self._count = count
        self._rows = rows

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return a row for each task, and one for each element of a map whose results are there.

        Returns:
            Dictionaries with the keys `index`, `name`, `element`, `state`, `value`, `error`, `attempts`, `start` and
            `duration`, as the attributes of `Outcome`. `element` is `None` for a task. `value` is `None` for a task
            without one, and missing where it was handed to the caller of `execute()`: `start()` keeps it for both.
            `start` and `duration` are `None` for elements, which are not timed one by one.

        Example:
            >>> from procession import Process
            >>> process = Process("two")
            >>> process.add_task(len, "abc")
            >>> doubled = process.map(abs, [-1, 2])
            >>> run = process.start()
            >>> run.wait()
            True
            >>> [(row["name"], row["element"], row["value"]) for row in run.outcomes.to_dicts()]
            [('len', None, 3), ('map of abs', 0, 1), ('map of abs', 1, 2)]

        """
        return [row for outcome in self for row in self._rows(outcome)]

    def to_frame(self) -> Any:
        """Return the rows of `to_dicts()` as a data frame, in which errors are text.

        Returns:
            A `DataFrame` of pandas or polars: of the one that the program has imported, else of the one installed.

        Raises:
            ImportError: Neither is installed.

        """
        from procession._model.frame import frame_of  # asked for by few

        return frame_of(self.to_dicts())

    @overload
    def __getitem__(self, place: int) -> Outcome: ...
    @overload
    def __getitem__(self, place: slice) -> list[Outcome]: ...
    def __getitem__(self, place: int | slice) -> Outcome | list[Outcome]:
        places = range(self._count)[place]
        return [self._outcome(index) for index in places] if isinstance(places, range) else self._outcome(places)

    def __len__(self) -> int:
        return self._count

    if not TYPE_CHECKING:  # a checker would take every attribute for there

        def __getattr__(self, name: str) -> object:
            # pandas asks for `ndim` where it cannot make columns of what it got.
            raise AttributeError(
                f"outcomes have no attribute {name!r}: they are a sequence of objects; run.to_frame() returns a data "
                "frame with a row for each task and element, and run.to_dicts() the rows"
            )

    def __repr__(self) -> str:
        head = ", ".join(map(repr, self[:_SHOWN]))
        return f"[{head}{', …' if self._count > _SHOWN else ''}]"
