"""A task: one call to make later, and the options that go with it."""

import math
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence, Sized
from collections.abc import Set as AbstractSet
from functools import partial, update_wrapper
from types import EllipsisType, FunctionType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, ParamSpec, TypeVar, cast, overload

from procession._model.text import shown, sketch

if TYPE_CHECKING:
    from tenacity import Retrying

P = ParamSpec("P")
T = TypeVar("T")

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
"""What a process keeps of a task: callable, positional and keyword arguments."""


class Options(NamedTuple):
    """How a task is to be attempted. See `task` for the meaning of each."""

    retries: "int | Retrying" = 0
    timeout: float | None = None
    name: str | None = None
    retry_on: tuple[type[Exception], ...] = (Exception,)


PLAIN = Options()

OPTION_NAMES: Final = frozenset(Options._fields)

_COROUTINE: Final = 0x80 | 0x100  # inspect.CO_COROUTINE, CO_ITERABLE_COROUTINE
_ASYNC_GENERATOR: Final = 0x200  # inspect.CO_ASYNC_GENERATOR
_VARKEYWORDS: Final = 0x8  # inspect.CO_VARKEYWORDS


class MapFunction:
    """The callable of a `map` task: calls `function` once for each element of the iterables, in order.

    It is an ordinary callable too, and then gives the same list, or with a coroutine function, what to await for it.
    An element that is drawn from an iterator is gone from it, so `spent` remembers that a run has drawn from one that
    can be drawn only once.
    """

    __slots__ = ("function", "spent")

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.spent = False

    def __call__(self, *iterables: Iterable[Any]) -> "list[Any] | Coroutine[Any, Any, list[Any]]":
        elements = zip(*iterables, strict=True)
        if is_coroutine_function(self.function):
            return self._awaited(elements)
        return [self.function(*element) for element in elements]

    async def _awaited(self, elements: Iterable[tuple[Any, ...]]) -> list[Any]:
        return [await self.function(*element) for element in elements]

    def __repr__(self) -> str:
        return f"Each({self.function!r})"


def check_iterables(iterables: tuple[object, ...], where: str) -> None:
    """Raise `TypeError` for an argument that cannot be iterated, `ValueError` for known lengths that differ."""
    for place, iterable in enumerate(iterables, start=1):
        if not isinstance(iterable, Iterable) and not hasattr(type(iterable), "__getitem__"):
            raise TypeError(
                f"{where}: argument {place} of map(callable, *iterables) cannot be iterated: {type(iterable).__name__}"
            )
    lengths = {length for length in map(_known_length, iterables) if length is not None}
    if len(lengths) > 1:
        raise ValueError(
            f"{where}: the iterables of a map must be equally long; got lengths {', '.join(map(str, sorted(lengths)))}"
        )


def _known_length(iterable: object) -> int | None:
    """Return how many elements there are, where `len()` says so. Of a table, it may be the number of rows."""
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
) -> Callable[[Callable[P, T]], Callable[P, T]]: ...
def task(
    function: Callable[..., Any] | None = None,
    /,
    *,
    retries: "int | Retrying | EllipsisType" = ...,
    timeout: float | EllipsisType | None = ...,
    name: str | EllipsisType | None = ...,
    retry_on: type[Exception] | Iterable[type[Exception]] | EllipsisType = ...,
) -> Any:
    """Give a function the options it has as a task; called directly, it stays an ordinary function.

    `retries` is how many more attempts follow a first that failed, with exponential backoff and jitter between them
    (0.1 s at first, at most 60 s), or a `tenacity.Retrying`, whose rules then hold. `retry_on` says which exceptions
    are worth another attempt when `retries` is a number; one that is no `Exception` never is. `timeout` is the
    time in seconds that one attempt may take: after it the attempt fails with `TaskTimeoutError`. A coroutine is
    cancelled then; the thread that a plain function runs in is abandoned, since threads cannot be stopped, and no other
    attempt is made beside it. `name` is how the task is called in logs, notes and tables.

    Without options a task has one attempt, for any length of time, and is called as its function is. Given to a
    function that has options, `task` changes those it names, and `retries=0`, `timeout=None`, `name=None` or
    `retry_on=Exception` takes one back; what was worth a retry goes with the retries.

    What was decorated stays without these options, and is the result's `__wrapped__` if it is a function; any other
    callable is wrapped in a `functools.partial`. `@task` without brackets gives none.

    Raises `TypeError` and `ValueError` for options that cannot be meant, and for a `retry_on` without `retries`.

    >>> @task(retries=3, timeout=30.0, name="fetch")
    ... def fetch(url: str) -> str:
    ...     return url.upper()
    >>> fetch("a")
    'A'
    """
    options = {"retries": retries, "timeout": timeout, "name": name, "retry_on": retry_on}
    given = {option: _CHECKS[option](value) for option, value in options.items() if value is not ...}
    if "retries" in given:
        _check_retry_on(PLAIN._replace(**given), given.get("name"))
    if given.get("retries") == 0:
        given["retry_on"] = PLAIN.retry_on

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        if not callable(function):
            raise TypeError(f"@task(...) decorates a callable; got {sketch(function)}")
        # A copy, so that the function that was given keeps what it had; and not a wrapper, which would cost a call.
        marked: Any = _copied(function) if isinstance(function, FunctionType) else partial(function)
        marked.__procession_options__ = options = options_of(function)._replace(**given)
        _check_retry_on(options, name_of(marked))
        return cast("Callable[P, T]", marked)

    return decorate if function is None else decorate(function)


def _copied(function: FunctionType) -> FunctionType:
    copy = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return cast("FunctionType", update_wrapper(copy, function))


def options_of(function: Callable[..., Any]) -> Options:
    """Return the options that `task` gave the callable, or the one that a partial or a bound method stands for."""
    found = look_up(function, "__procession_options__")
    if isinstance(found, Options):
        return found
    return options_of(function.func) if isinstance(function, partial) else PLAIN


def unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the callable inside any number of `functools.partial`."""
    while isinstance(function, partial):
        function = function.func
    return function


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Return whether what a call gives is there to be awaited, as far as can be said without calling.

    That holds for an `async def` function, a partial or a bound method of one, an instance whose `__call__` is one, a
    map of one, and for what `inspect.markcoroutinefunction` has marked. It does not for a plain function that happens
    to return something awaitable: that is its value, and one that returns a coroutine has failed.
    """
    inner = unwrapped(function)
    if isinstance(inner, MapFunction):
        return is_coroutine_function(inner.function)
    if _flags_of(inner) & _COROUTINE:
        return True
    # To ask `inspect` costs ten times as much as all the rest; it need not be asked where its mark is not.
    if look_up(inner, "_is_coroutine_marker") is None:
        return False
    import inspect  # which whoever has marked something has imported

    return inspect.iscoroutinefunction(inner)


def is_async_generator_function(function: Callable[..., Any]) -> bool:
    """Return whether what a call gives is there for an `async for`."""
    return bool(_flags_of(unwrapped(function)) & _ASYNC_GENERATOR)


def _flags_of(inner: Callable[..., Any]) -> int:
    code = look_up(look_up(inner, "__func__") or inner, "__code__") or getattr(
        getattr(type(inner).__call__, "__func__", type(inner).__call__), "__code__", None
    )
    flags: object = getattr(code, "co_flags", 0)
    return flags if isinstance(flags, int) else 0


def takes(function: Callable[..., Any], name: str) -> bool:
    """Return whether the callable takes a keyword argument of that name, as far as its code says; else `True`.

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
    """Return whether the callable is a process, or one of its methods: a task that drives tasks of its own."""
    inner = unwrapped(function)
    owner: object = look_up(inner, "__self__")
    return getattr(type(inner if owner is None else owner), "_drives_tasks", None) is True


def name_of(function: Callable[..., Any]) -> str:
    """Return how a task is called: by its option, else as its callable is, else by the type of that.

    >>> name_of(len), name_of(Each(len))
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
    """Return an attribute, or `None` where there is none or the callable's own code fails to give it."""
    try:
        return getattr(function, attribute, None)
    except Exception:
        return None


def _checked_retries(retries: Any) -> Any:
    if isinstance(retries, int) and not isinstance(retries, bool):
        if retries < 0:
            raise ValueError(f"task(retries=...) takes a number of at least 0; got {sketch(retries)}")
        return retries
    tenacity = sys.modules.get("tenacity")  # whoever has a Retrying has imported it
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


def _check_retry_on(options: Options, name: str | None) -> None:
    """Raise where there is nothing for `retry_on` to say."""
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


_CHECKS: Final[dict[str, Callable[[Any], Any]]] = {
    "retries": _checked_retries,
    "timeout": _checked_timeout,
    "name": _checked_name,
    "retry_on": _checked_retry_on,
}
