"""What a process knows of its tasks besides their calls; callables and arguments are checked as tasks are added."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from procession._arguments import warn_of_thread
from procession._model.handle import Handle, Owner, Stream, index_of, owner_of
from procession._model.limit import Limit, check_agreement
from procession._model.strategy import Hybrid, Strategy
from procession._model.task import (
    OPTION_NAMES,
    PLAIN,
    Call,
    MapFunction,
    Options,
    callee_of,
    is_async_generator_function,
    is_coroutine_function,
    look_up,
    name_of,
    options_of,
    takes,
)
from procession._model.text import shown, sketch
from procession._plan.plan import Plan, plan_of
from procession._plan.wiring import Hidden, handles_in, searched_as
from procession.errors import HandleError, NestingError

_NOTHING: Final = object()  # and not None, which print("too soon") returns


class Definition:
    """What one process knows of its tasks besides their calls.

    Its list of calls is the public `Process.tasks`, which is passed where it is needed, as a program may replace it.

    Attributes:
        owner: The identity of the process, for its handles and runs.
        options: The options of each task that has any, and of each map, by index.
        needs: For each task that takes values: the tasks whose values it takes.
        plain: The callable that was checked last and is nothing but a call: to be added again, it needs no check.
        plain_types: The types of arguments that were checked and hold no handles.

    """

    __slots__ = (
        "_awaits",
        "_handled",
        "_limits",
        "_nested",
        "_placed",
        "needs",
        "options",
        "owner",
        "plain",
        "plain_types",
    )

    def __init__(self, process_name: str) -> None:
        self.owner: Final = Owner(process_name)
        self.options: Final[dict[int, Options]] = {}
        self.needs: Final[dict[int, tuple[int, ...]]] = {}
        self.plain: object = _NOTHING
        self.plain_types: Final[set[type]] = set()
        self._awaits = False  # whether a coroutine function was ever added: if not, a plan need not look for them
        self._handled: set[int] = set()
        self._limits: dict[str, Limit] = {}  # by name
        self._nested: list[Definition] = []
        self._placed: dict[int, Call] = {}  # the tasks that must stay where they were added

    # Checks of a task that is to be added, at an index

    def is_plain(self, index: int, function: Callable[..., Any]) -> bool:
        """Return whether a callable is nothing but a call: no options, no process. Raises for what cannot be a task."""
        if not callable(function):
            raise TypeError(f"{self.where(index)}: a task is something to call; got {sketch(function)}")
        if isinstance(function, Handle):
            raise HandleError(
                f"{self.where(index)}: {function!r} stands for a value and cannot be called here; pass it to a "
                "function as an argument"
            )
        if searched_as(type(function)) is not None and (hidden := handles_in((function,), {})[1]) is not None:
            raise self._hidden(index, function, "the callable", hidden)
        if is_async_generator_function(function):
            raise TypeError(
                f"{self.where(index, function)}: it is an async generator function, and nobody here would iterate over "
                "what it gives; make it a coroutine function that does"
            )
        if is_coroutine_function(function):
            self._awaits = True
        inside = _definition_in(function)
        if inside is not None and inside._contains(self):
            raise NestingError(f"{self.where(index, function)}: the process would contain itself")
        if inside is not None or options_of(function) is not PLAIN:
            return False
        self.plain = function
        return True

    def is_of_plain_type(self, value: object) -> bool:
        """Return whether an argument need not be searched for handles."""
        if searched_as(type(value)) is not None:
            return False
        self.plain_types.add(type(value))
        return True

    def check_keywords(self, index: int, function: Callable[..., Any], kwargs: dict[str, Any]) -> None:
        """Raise for an option of a task that is passed as an argument, where the function does not take it."""
        for name in OPTION_NAMES.intersection(kwargs):
            if not takes(function, name):
                raise TypeError(
                    f"{self.where(index, function)}: the function takes no argument {name!r}. As an option of the "
                    f"task it goes with the function: add_task(task({name}=...)(function), ...), or "
                    f"@task({name}=...) above it"
                )

    def handles(self, index: int, call: Call) -> list[Handle]:
        """Return the handles among the arguments. Raises for a handle whose value could not take its place."""
        function, args, kwargs = call
        handles, hidden = handles_in(args, kwargs)
        if hidden is not None:
            raise self._hidden(index, function, f"argument {hidden.argument!r}", hidden)
        for handle in handles:
            if owner_of(handle) is not self.owner:
                raise HandleError(
                    f"{self.where(index, function)}: {handle!r} is of another process; its value can be no argument "
                    "here"
                )
        return handles

    def check_takers(self, index: int, call: Call) -> None:
        """Raise `TypeError` for a function that cannot take a stream as it is given one. May run code of the user."""
        if isinstance(call[0], MapFunction):
            return
        from procession._plan.takers import objection  # imports inspect, which takes long

        if (words := objection(call)) is not None:
            raise TypeError(f"{self.where(index, call[0])}: {words}")

    def check_limits(self, index: int, function: Callable[..., Any], options: Options) -> None:
        """Raise for a limit that has the name of another limit of this process and allows something else."""
        if options.limit:
            check_agreement(self._limits, options.limit, self.where(index, function))

    def check_streams(self, index: int, function: Callable[..., Any], options: Options, stream: Stream) -> None:
        """Raise for a map that takes a stream, or a task that does and may be called in another process."""
        if options.executor is not None:
            raise HandleError(
                f"{self.where(index, function)}: with an executor of its own it may be called in another process, "
                f"and elements come only to where the run is: leave task(executor=...) out, or take {stream!r} in "
                "another task"
            )
        if isinstance(function, MapFunction):
            raise HandleError(
                f"{self.where(index, function)}: a map takes the handle itself, and begins with each element as "
                f"soon as that has ended; leave stream(...) out around {stream!r}"
            )

    # Tasks that are added, and their plan

    def add(self, index: int, call: Call, options: Options, handles: list[Handle], *, handled: bool) -> None:
        """Note what there is to a task besides its call; `handled` says whether it has a handle of its own."""
        function = call[0]
        if function is not self.plain and (inside := _definition_in(function)) is not None:
            self._nested.append(inside)
        if len(handles) == 1:
            self.needs[index] = (index_of(handles[0]),)
        elif handles:
            self.needs[index] = tuple(dict.fromkeys(map(index_of, handles)))
        if options is not PLAIN or isinstance(function, MapFunction):
            self.options[index] = options
        if handled:
            self._handled.add(index)
        if handled or handles or options is not PLAIN:
            self._placed[index] = call

    def plan(self, tasks: list[Call], strategy: Strategy) -> Plan:
        """Return the plan of a run.

        Raises for tasks that were moved, for iterators that another run has used up, and for limits of one name that
        differ, where one is of a process among the tasks.
        """
        if self._nested:
            limits: dict[str, Limit] = {}
            for definition in self._with_nested():  # this one first
                where = f"process {shown(definition.owner.process_name)!r}"
                check_agreement(limits, tuple(definition._limits.values()), where)
        for index, call in self._placed.items():
            if index >= len(tasks) or tasks[index] is not call:
                raise HandleError(
                    f"{self.where(index)}: it is no longer where it was added; handles and options go by place, so "
                    "leave `tasks` as it is, or make a new process"
                )
            function = call[0]
            if isinstance(function, MapFunction) and function.consumed:
                raise ValueError(
                    f"{self.where(index, function)}: the run before has drawn from an iterator that can be drawn only "
                    "once; give map a list, or an iterable that starts afresh"
                )
        return plan_of(
            tasks, strategy, options=self.options, needs=self.needs, handled=self._handled, awaits=self._awaits
        )

    def check_executors(self, tasks: list[Call], executor: object) -> None:
        """Raise for tasks that have an executor of their own, in a process whose calls are all made elsewhere."""
        for index, options in self.options.items():
            own = options.executor
            if own is not None and own is not executor and own != executor:
                raise ValueError(
                    f"{self.where(index, tasks[index][0])}: task(executor=...) is for processes with "
                    f'executor="threads"; this one has {sketch(executor)}, where all of its calls are made'
                )

    def maps_among(self, tasks: list[Call], handles: Iterable[object]) -> frozenset[int]:
        """Return the indexes of maps, from their handles. Raises `HandleError` for what is no handle of a map."""
        indexes: set[int] = set()
        for handle in handles:
            if (
                not isinstance(handle, Handle)
                or owner_of(handle) is not self.owner
                or (not isinstance(tasks[index_of(handle)][0], MapFunction))
            ):
                given = repr(handle) if isinstance(handle, Handle) else sketch(handle)
                process = shown(self.owner.process_name)
                raise HandleError(f"start(streams=...) takes handles of maps of process {process!r}; got {given}")
            indexes.add(index_of(handle))
        return frozenset(indexes)

    def warn_of_threads(self, tasks: list[Call], strategy: Strategy, indexes: Iterable[int]) -> None:
        """Warn of those tasks that the strategy has called in the caller's thread, and their timeout in another."""
        in_order = [stage.stop for stage in strategy.stages(len(tasks)) if not stage.at_once]
        for index in indexes if in_order else ():
            options = self.options[index]
            if options.timeout is not None and options.executor is None and index < in_order[0]:
                function = tasks[index][0]
                if not is_coroutine_function(function):
                    warn_of_thread(self.where(index, function))

    # Inside

    def where(self, index: int, function: Callable[..., Any] | None = None) -> str:
        """Return words for the process and a task of it, to begin a message with."""
        name = "" if function is None else f" ({shown(name_of(function))})"
        return f"process {shown(self.owner.process_name)!r}, task {index}{name}"

    def _contains(self, wanted: "Definition") -> bool:
        """Return whether the process is the wanted one, or has it among its tasks at any depth."""
        return any(definition is wanted for definition in self._with_nested())

    def _with_nested(self) -> "Iterator[Definition]":
        """Yield the process and those among its tasks, at any depth."""
        pending, seen = [self], {id(self)}
        while pending:
            definition = pending.pop()
            yield definition
            new = [nested for nested in definition._nested if id(nested) not in seen]
            seen.update(map(id, new))
            pending += new

    def _hidden(self, index: int, function: Callable[..., Any], what: str, hidden: Hidden) -> HandleError:
        return HandleError(
            f"{self.where(index, function)}: {what} has {hidden.handle!r} in {hidden.holder}, where it would stay a "
            "handle; it becomes the value only as an argument of the task, or directly inside a list, tuple or dict "
            "argument"
        )


def is_by_halves(strategy: object) -> bool:
    """Return whether the tasks that run in order are known only when all tasks are added."""
    return strategy == "hybrid" or (isinstance(strategy, Hybrid) and strategy.first is None)


def _definition_in(function: Callable[..., Any]) -> Definition | None:
    found = look_up(callee_of(function), "_definition")
    return found if isinstance(found, Definition) else None
