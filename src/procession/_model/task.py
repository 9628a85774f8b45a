"""Tasks: calls to make later, and the options of a task."""

import math
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence, Sized
from collections.abc import Set as AbstractSet
from functools import partial, update_wrapper
from itertools import islice
from types import EllipsisType, FunctionType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, ParamSpec, TypeVar, cast, overload

from procession._model.batched import AwaitedBatchFunction, BatchFunction
from procession._model.label import check_parameters, check_template, is_template
from procession._model.limit import Limit, Limits, checked_limits
from procession._model.text import shown, sketch

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from tenacity import Retrying

P = ParamSpec("P")
T = TypeVar("T")

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
"""A task as it stands in `Process.tasks`: the callable, its positional arguments, and its keyword arguments."""


class Options(NamedTuple):
    """The options of a task: see `task` for the meaning of each."""

    retries: "int | Retrying" = 0
    timeout: float | None = None
    name: str | None = None
    retry_on: tuple[type[Exception], ...] = (Exception,)
    limit: Limits = ()
    keep: bool = True
    executor: "Executor | str | None" = None

    def __reduce__(self) -> tuple[type["Options"], tuple[Any, ...]]:
        # With a function that is sent elsewhere, its executor is not: it belongs to this process.
        return Options, self[:-1]


PLAIN = Options()

OPTIONS: Final = "__procession_options__"
"""The attribute of a callable that holds its options."""

OPTION_NAMES: Final = frozenset(Options._fields)

_COROUTINE: Final = 0x80 | 0x100  # inspect.CO_COROUTINE, CO_ITERABLE_COROUTINE
_ASYNC_GENERATOR: Final = 0x200  # inspect.CO_ASYNC_GENERATOR
_VARKEYWORDS: Final = 0x8  # inspect.CO_VARKEYWORDS


class MapFunction:
    """The callable of a `map` task: calls `function` once for each element of the iterables, in order.

    With `batch`, it calls it with lists of so many elements. Called directly, it returns the list of results, or for a
    coroutine function, a coroutine that returns the list. An element that is drawn from an iterator is gone from it:
    `consumed` is set when a run has drawn from an iterator.
    """

    __slots__ = ("batch", "called", "consumed", "function")

    def __init__(self, function: Callable[..., Any], batch: int | None = None) -> None:
        self.function = function
        self.batch = batch
        """How many elements a call gets, at most, in lists; `None` where it gets a single one."""
        self.called: Callable[..., Any] = function
        """What is called, for an element or a list of them, and returns the result or the list of results."""
        if batch is not None:
            kind = AwaitedBatchFunction if is_coroutine_function(function) else BatchFunction
            self.called = kind(function, name_of(function))
        self.consumed = False

    def __call__(self, *iterables: Iterable[Any], **constants: Any) -> "list[Any] | Coroutine[Any, Any, list[Any]]":
        elements = zip(*iterables, strict=True)
        if is_coroutine_function(self.function):
            return self._awaited(elements, constants)
        if self.batch is None:
            return [self.function(*element, **constants) for element in elements]
        return [result for lists in self._batches(elements) for result in self.called(*lists, **constants)]

    async def _awaited(self, elements: Iterable[tuple[Any, ...]], constants: dict[str, Any]) -> list[Any]:
        if self.batch is None:
            return [await self.function(*element, **constants) for element in elements]
        return [result for lists in self._batches(elements) for result in await self.called(*lists, **constants)]

    def _batches(self, elements: Iterable[tuple[Any, ...]]) -> Iterable[tuple[list[Any], ...]]:
        drawn = iter(elements)
        while some := list(islice(drawn, self.batch)):
            yield tuple(map(list, zip(*some, strict=True)))

    def with_constants(self, constants: dict[str, Any]) -> Callable[..., Any]:
        """Return the function to call for an element, with these keyword arguments bound to it."""
        return partial(self.called, **constants) if constants else self.called

    def __repr__(self) -> str:
        return f"MapFunction({self.function!r})"


def check_iterables(iterables: tuple[object, ...], where: str) -> None:
    """Raise `TypeError` if an argument of a map cannot be iterated, `ValueError` if known lengths differ."""
    for place, iterable in enumerate(iterables, start=1):
        if not isinstance(iterable, Iterable) and not hasattr(type(iterable), "__getitem__"):
            raise TypeError(
                f"{where}: argument {place} of map(callable, *iterables) cannot be iterated: {type(iterable).__name__}"
            )
    lengths = {length for length in map(known_length, iterables) if length is not None}
    if len(lengths) > 1:
        raise ValueError(
            f"{where}: the iterables of a map must be equally long; got lengths {', '.join(map(str, sorted(lengths)))}"
        )


def known_length(iterable: object) -> int | None:
    """Return the number of elements of a sequence, set or mapping; `None` for others, whose `len()` may mean rows."""
    if not isinstance(iterable, Sequence | AbstractSet | Mapping):
        return None
    try:
        return len(cast("Sized", iterable))
    except Exception:
        return None


@overload
def task(function: Callable[P, T], /) -> Callable[P, T]: ...
@overload
def task(
    *,
    retries: "int | Retrying" = ...,
    timeout: float | None = ...,
    name: str | None = ...,
    retry_on: type[Exception] | Iterable[type[Exception]] = ...,
    limit: Limit | tuple[Limit, ...] | None = ...,
    keep: bool = ...,
    executor: "Executor | Literal['processes'] | None" = ...,
) -> Callable[[Callable[P, T]], Callable[P, T]]: ...
def task(
    function: Callable[..., Any] | None = None,
    /,
    *,
    retries: "int | Retrying | EllipsisType" = ...,
    timeout: float | EllipsisType | None = ...,
    name: str | EllipsisType | None = ...,
    retry_on: type[Exception] | Iterable[type[Exception]] | EllipsisType = ...,
    limit: Limit | tuple[Limit, ...] | EllipsisType | None = ...,
    keep: bool | EllipsisType = ...,
    executor: "Executor | Literal['processes'] | EllipsisType | None" = ...,
) -> Any:
    """Return a copy of a function with options that hold where it is used as a task.

    Called directly, the copy is an ordinary function: it is called once, without a timeout. The function that is
    decorated stays as it is and becomes the `__wrapped__` of the copy. A callable that is no function, such as a bound
    method, is wrapped in a `functools.partial` instead. `@task` without brackets sets no options.

    `task` may be applied to a function that has options already: it then changes only the options that are passed.

    Args:
        function (Callable[..., Any] | None): The function, where `@task` is written without brackets.
        retries (int | Retrying): The number of further attempts after a failed attempt, 0 by default, or a
            `tenacity.Retrying`, whose rules then decide. Between attempts there are pauses: 0.1 s before the first
            retry, doubled for each further one, at most 60 s, and made shorter or longer at random (exponential backoff
            with jitter).
        timeout (float | None): The time in seconds that one attempt may take, above 0; `None`, the default, sets no
            limit. An attempt that takes longer fails with `TaskTimeoutError`. A coroutine is then cancelled and a
            worker process ended. A thread cannot be stopped: it is abandoned, and no further attempt is made while it
            still runs.
        name (str | None): The name of the task in logs, notes and tables; `None`, the default, is the name of the
            function. A name may be a template, such as `"fetch {url}"`: it stays the name, and with the arguments of a
            call in place of the parameters it is the *label* of that call, at most 200 characters long, which summary,
            page, terminal and timeline show, and a journal keeps. So put no parameter there whose values are secret.
        retry_on (type[Exception] | Iterable[type[Exception]]): The exceptions that are worth another attempt where
            `retries` is a number: a subclass of `Exception` or several; by default, every `Exception`. With `retries=0`
            it goes back to that.
        limit (Limit | tuple[Limit, ...] | None): The limit that holds for the calls, or several, which then all have to
            have room for a call; `None`, the default, for no limit.
        keep (bool): Whether the values of the task, or of the elements of a map, stay for the results of the run, as
            they do by default. With `keep=False` each is released once the last task that takes it has received it,
            and the results have a `NotKept` in its place, which says how many values there were.
        executor (Executor | Literal["processes"] | None): Where the calls are made: `"processes"` for worker processes
            that the run has for all tasks that say so, or a `WorkerProcesses` or any other
            `concurrent.futures.Executor`; `None`, the default, for where the process makes its calls. It is for plain
            functions in processes with `executor="threads"`. A call holds one of the `max_workers` places of the run
            meanwhile. Its timeout begins when the call does.

    Returns:
        The copy, or, where no function is passed, a decorator that makes it.

    Raises:
        TypeError: An option has a value of a wrong type, or `retry_on` is passed with a `tenacity.Retrying`, or
            `executor` for a coroutine function or a process.
        ValueError: A number is out of its range, `retry_on` is passed without `retries`, or the braces of a name hold
            anything but a parameter of the function.

    Example:
        >>> @task(retries=3, timeout=30.0, name="fetch")
        ... def fetch(url: str) -> str:
        ...     return url.upper()
        >>> fetch("a")
        'A'

    """
    options = {
        "retries": retries,
        "timeout": timeout,
        "name": name,
        "retry_on": retry_on,
        "limit": limit,
        "keep": keep,
        "executor": executor,
    }
    given = {option: _CHECKS[option](value) for option, value in options.items() if value is not ...}
    if "retries" in given:
        _check_retry_on(PLAIN._replace(**given), given.get("name"))
    if given.get("retries") == 0:
        given["retry_on"] = PLAIN.retry_on

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        if not callable(function):
            raise TypeError(f"@task(...) decorates a callable; got {sketch(function)}")
        # A copy, so that the decorated function stays as it is; not a wrapper, which would add a call to each call.
        options = options_of(function)._replace(**given)
        marked = with_options(function, options)
        if is_template(options.name):
            check_parameters(cast("str", options.name), function)
        _check_retry_on(options, name_of(marked))
        _check_place(options, marked)
        return cast("Callable[P, T]", marked)

    return decorate if function is None else decorate(function)


def with_options(function: Callable[..., Any], options: Options) -> Callable[..., Any]:
    """Return a copy of a function, or a partial of any other callable, that has these options."""
    marked: Any = _copied(function) if isinstance(function, FunctionType) else partial(function)
    setattr(marked, OPTIONS, options)
    return cast("Callable[..., Any]", marked)


def _copied(function: FunctionType) -> FunctionType:
    copy = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return cast("FunctionType", update_wrapper(copy, function))


def options_of(function: Callable[..., Any]) -> Options:
    """Return the options that `task` set on a callable, or on the function of a partial or bound method."""
    found = look_up(function, OPTIONS)
    if isinstance(found, Options):
        return found
    return options_of(function.func) if isinstance(function, partial) else PLAIN


def unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the callable inside any number of `functools.partial`."""
    while isinstance(function, partial):
        function = function.func
    return function


def callee_of(function: Callable[..., Any]) -> object:
    """Return the object whose method a callable is, or the callable itself, whatever partials they are in."""
    inner = unwrapped(function)
    owner = look_up(inner, "__self__")
    return inner if owner is None else owner


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Return whether the return value of a callable is to be awaited, as far as can be said without calling it.

    This holds for an `async def` function, a partial or bound method of such a function, an instance whose `__call__`
    is such a function, a map of such a function, and for a function that `inspect.markcoroutinefunction` has marked. It
    does not hold for a plain function that happens to return an awaitable: the awaitable is then the value of the task,
    and a task whose value is a coroutine fails.
    """
    inner = unwrapped(function)
    if isinstance(inner, MapFunction):
        return is_coroutine_function(inner.function)
    if _flags_of(inner) & _COROUTINE:
        return True
    # `inspect` takes ten times as long as all the rest, and need not be asked where its mark is absent.
    if look_up(inner, "_is_coroutine_marker") is None:
        return False
    import inspect  # imported already by the code that has set the mark

    return inspect.iscoroutinefunction(inner)


def is_async_generator_function(function: Callable[..., Any]) -> bool:
    """Return whether a callable is an async generator function, whose value would need an `async for`."""
    return bool(_flags_of(unwrapped(function)) & _ASYNC_GENERATOR)


def _flags_of(inner: Callable[..., Any]) -> int:
    code = look_up(look_up(inner, "__func__") or inner, "__code__") or getattr(
        getattr(type(inner).__call__, "__func__", type(inner).__call__), "__code__", None
    )
    flags: object = getattr(code, "co_flags", 0)
    return flags if isinstance(flags, int) else 0


def takes(function: Callable[..., Any], name: str) -> bool:
    """Return whether a callable takes a keyword argument of this name; `True` where its code does not say.

    >>> takes(lambda url: url, "url"), takes(lambda url: url, "retries"), takes(lambda **more: more, "retries")
    (True, False, True)
    """
    inner = unwrapped(function)
    called = look_up(inner, "__func__") or inner
    if not isinstance(called, FunctionType):
        return True
    code = called.__code__
    named = code.co_varnames[code.co_posonlyargcount : code.co_argcount + code.co_kwonlyargcount]
    return bool(code.co_flags & _VARKEYWORDS) or name in named


def is_process(function: Callable[..., Any]) -> bool:
    """Return whether a callable is a process or a method of a process, so that its task runs tasks of its own."""
    return drives_tasks(callee_of(function))


def drives_tasks(value: object) -> bool:
    """Return whether a value is a process."""
    return getattr(type(value), "_drives_tasks", None) is True


def name_of(function: Callable[..., Any]) -> str:
    """Return the name of a task: its option `name`, else the name of its callable, else that of the callable's type.

    >>> name_of(len), name_of(MapFunction(len))
    ('len', 'map of len')
    """
    given = options_of(function).name
    if given is not None:
        return given
    inner = unwrapped(function)
    if isinstance(inner, MapFunction):
        return f"map of {name_of(inner.function)}"
    for attribute in "__qualname__", "__name__", "name":
        found = look_up(inner, attribute)
        if isinstance(found, str):
            return found
    return type(inner).__name__


def look_up(function: object, attribute: str) -> object:
    """Return an attribute, or `None` if there is none or the code of the object raises while it is looked up."""
    try:
        return getattr(function, attribute, None)
    except Exception:
        return None


def _checked_retries(retries: Any) -> Any:
    if isinstance(retries, int) and not isinstance(retries, bool):
        if retries < 0:
            raise ValueError(f"task(retries=...) takes a number of at least 0; got {sketch(retries)}")
        return retries
    tenacity = sys.modules.get("tenacity")  # imported already by a caller who has a Retrying
    if tenacity is not None and isinstance(retries, tenacity.Retrying):
        return retries
    raise TypeError(f"task(retries=...) takes a number as an int, or a tenacity.Retrying; got {sketch(retries)}")


def _checked_timeout(timeout: Any) -> float | None:
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"task(timeout=...) takes a number of seconds, or None; got {sketch(timeout)}")
    try:
        seconds = float(timeout)
    except OverflowError:
        seconds = math.inf
    if not (0 < seconds < math.inf):
        raise ValueError(f"task(timeout=...) takes a finite number of seconds above 0; got {sketch(timeout)}")
    return seconds


def _checked_name(name: Any) -> str | None:
    if name is None or isinstance(name, str):
        if is_template(name):
            check_template(cast("str", name))
        return name
    raise TypeError(f"task(name=...) takes a str; got {sketch(name)}")


def _checked_retry_on(retry_on: Any) -> tuple[type[Exception], ...]:
    try:
        types: tuple[Any, ...] = (retry_on,) if isinstance(retry_on, type | str) else tuple(retry_on)
    except TypeError:
        types = (retry_on,)
    for each in types:
        if not (isinstance(each, type) and issubclass(each, Exception)):
            given = sketch(cast("object", each))
            raise TypeError(f"task(retry_on=...) takes a subclass of Exception, or several; got {given}")
    return types


def _checked_keep(keep: Any) -> bool:
    if isinstance(keep, bool):
        return keep
    raise TypeError(f"task(keep=...) takes True or False; got {sketch(keep)}")


def _check_retry_on(options: Options, name: str | None) -> None:
    """Raise if `retry_on` has no effect beside the other options."""
    if options.retry_on == PLAIN.retry_on:
        return
    task = "" if name is None else f" of task {shown(name)!r}"
    if not isinstance(options.retries, int):
        raise TypeError(f"task(retry_on=...){task} goes with a number of retries; a Retrying has a retry= of its own")
    if not options.retries:
        raise ValueError(
            f"task(retry_on=...){task} says which failures are worth another attempt, but retries=0 makes none: give "
            "both, as in task(retries=3, retry_on=...)"
        )


def _checked_executor(executor: Any) -> Any:
    # A caller who has an executor has imported `concurrent.futures`, which takes longer than all the rest.
    kind: Any = getattr(sys.modules.get("concurrent.futures"), "Executor", ())
    if executor is None or executor == "processes" or isinstance(executor, kind):
        return executor
    raise (ValueError if isinstance(executor, str) else TypeError)(
        "task(executor=...) takes 'processes', a WorkerProcesses or another concurrent.futures.Executor, or None for "
        f"where the process makes its calls; got {sketch(executor)}"
    )


def _check_place(options: Options, function: Callable[..., Any]) -> None:
    """Raise for what cannot be called on an executor of its own."""
    if options.executor is None:
        return
    if is_coroutine_function(function):
        raise TypeError(
            f"task(executor=...) of task {shown(name_of(function))!r} is for plain functions: a coroutine function is "
            "awaited in the event loop of the run; make it a plain function, or leave the executor out"
        )
    if is_process(function):
        raise TypeError(
            f"task(executor=...) of task {shown(name_of(function))!r}: a process says itself where its tasks run, by "
            "Process(..., executor=...)"
        )


_CHECKS: Final[dict[str, Callable[[Any], Any]]] = {
    "retries": _checked_retries,
    "timeout": _checked_timeout,
    "name": _checked_name,
    "retry_on": _checked_retry_on,
    "limit": checked_limits,
    "keep": _checked_keep,
    "executor": _checked_executor,
}
