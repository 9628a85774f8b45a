"""What observers look at: the books that are kept of a run in any case."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol

from procession._model.progress import Progress
from procession._model.strategy import Stage
from procession.observe.column import Readings


class Part(Protocol):
    """A task that counts as several in the progress of a run."""

    @property
    def progress(self) -> Progress:
        """How far it has come."""
        ...


class Planned(Protocol):
    """What was planned for a run."""

    @property
    def stages(self) -> Sequence[Stage]:
        """Ranges of tasks that run in order, or at once."""
        ...


class Ledger(Protocol):
    """How the tasks of a run stand."""

    @property
    def starts(self) -> Readings:
        """When each task was first called."""
        ...

    @property
    def ends(self) -> Readings:
        """When each task ended."""
        ...

    @property
    def errors(self) -> Mapping[int, BaseException]:
        """What tasks raised."""
        ...

    @property
    def stopped(self) -> AbstractSet[int]:
        """Tasks that were told to stop before they could end."""
        ...

    @property
    def over(self) -> bool:
        """Whether nothing will start any more."""
        ...

    @property
    def well(self) -> bool:
        """Whether nothing has gone wrong: if the run is over, every task has ended."""
        ...


class Books(Protocol):
    """What is known of a run while it goes on. Times are readings of `time.perf_counter`."""

    @property
    def process_name(self) -> str:
        """The name of the process."""
        ...

    @property
    def run_id(self) -> str:
        """The id of the run."""
        ...

    @property
    def plan(self) -> Planned:
        """What was planned."""
        ...

    @property
    def ledger(self) -> Ledger:
        """How its tasks stand."""
        ...

    @property
    def edges(self) -> Mapping[int, Sequence[int]]:
        """Which tasks that run at once with others wait for which of those."""
        ...

    @property
    def workers(self) -> Sequence[str | None]:
        """The name of the thread in which each task runs, or ran."""
        ...

    @property
    def attempts(self) -> Mapping[int | tuple[int, int], int]:
        """How many attempts were made, where that is not 1: of a task, or of an element of a map."""
        ...

    @property
    def maps(self) -> Mapping[int, Part]:
        """The maps that have begun."""
        ...

    def name(self, index: int) -> str:
        """Return a task's name."""
        ...

    def moment(self, reading: float) -> float:
        """Return the seconds since the epoch that a reading of the clock stands for."""
        ...
