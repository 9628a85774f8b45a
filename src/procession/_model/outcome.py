"""How one task of a run ended, or how it stands."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final, cast, overload

from procession._model.states import TaskState
from procession._model.text import described, shown
from procession.errors import ValueUnavailableError

_SHOWN: Final = 10
"""Outcomes in the `repr` of many."""


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
    """Stands for a value that is kept elsewhere, such as on a cluster."""

    __slots__ = ()

    @abstractmethod
    def fetch(self) -> Any:
        """Return the value."""


def at_hand(value: Any) -> Any:
    """Return a value, or the one that it stands for; the values of a map may be kept elsewhere one by one."""
    if isinstance(value, Away):
        return value.fetch()
    if isinstance(value, list):
        items = cast("list[Any]", value)  # type: ignore[redundant-cast]  # pyright sees it as partly unknown
        if any(isinstance(item, Away) for item in items):
            return [item.fetch() if isinstance(item, Away) else item for item in items]
        return items
    return value


class Outcome:
    """How one task of a run ended, or how it stands if it has not.

    `index` is its place in the process, `name` its name, `state` one of `TaskState`, `error` the exception it ended
    with or `None`, `attempts` how many times it was called (of a map, the element that took most), `start` when its
    first attempt began in seconds since the run did, `duration` how long it took in seconds, waits between attempts
    included, `worker` the name of the thread or asyncio task; the last three are `None` where there is nothing to say
    yet. `recorded` says that it ended in an earlier execution of the run, and this one read it from the journal; it has
    no `start`.
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
        again: Callable[[], Any],
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
        """What the task returned. `ValueUnavailableError` says why there is none."""
        if isinstance(self._value, _Missing):
            raise ValueUnavailableError(
                f"task {self.index} ({shown(self.name)}, {self.state}) has no value: {self._value.why}"
            )
        return at_hand(self._value)

    def task(self) -> Any:
        """Make the very same call again, here and now, and return what it returns; for a debugger."""
        return self._again()

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
    """The outcomes of a run, in the order its tasks were added. Each is made when it is asked for."""

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
