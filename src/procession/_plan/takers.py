"""Whether a function can take a stream as it is given one, as far as its code and its annotations say.

Only what can be told without a doubt is an error: what a decorator has put around a function may take anything, and so
may a parameter whose annotation is missing, is unknown here, or leaves it open.
"""

import types
import typing
from collections.abc import Callable
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, Final, Union

from procession._model.handle import Stream
from procession._model.task import Call, is_coroutine_function, look_up, unwrapped
from procession._model.text import shown
from procession._plan.wiring import ListedElements

_BY_FOR: Final = frozenset({"__iter__", "__next__", "__getitem__"})
_BY_ASYNC_FOR: Final = _BY_FOR | {"__aiter__", "__anext__"}
"""A coroutine function may iterate by `async for` over what it calls an `Iterable`."""
_SINGLE: Final = (str, bytes, bytearray, memoryview)
"""Types that can be iterated over, and are single values to whoever annotates a parameter with them."""
_GIVEN: Final[dict[frozenset[str], type]] = {_BY_FOR: type(iter(())), _BY_ASYNC_FOR: ListedElements}
"""Types of iterators such as streams are."""
_ANYTHING: Final[tuple[Any, ...]] = (Any, typing.Protocol)
"""Base classes of types that objects may be of which are no instances of them."""


def objection(call: Call) -> str | None:
    """Return in words why a function cannot take the streams among its arguments; `None` where nothing says so.

    >>> from procession._model.handle import Owner
    >>> from procession._model.task import MapFunction
    >>> pages = Stream(Owner("p"), 0, MapFunction(len))
    >>> def parse(page: str) -> int: ...
    >>> objection((parse, (pages,), {})).partition(", and")[0]
    "its parameter 'page' is annotated with str"
    >>> def total(numbers): ...
    >>> objection((total, (pages,), {}))
    """
    function, args, kwargs = call
    inner = unwrapped(function)
    code = look_up(inner, "__func__") or inner
    if not isinstance(code, types.FunctionType) or look_up(code, "__signature__") is not None:
        return None
    known = _signature_of(function)
    if known is None:
        return None
    try:
        given = known.bind(*args, **kwargs).arguments
    except TypeError as error:
        return f"it cannot be called with these arguments, a stream among them: {error}"
    if not _has_own_annotations(code):
        return None
    wanted = _BY_ASYNC_FOR if is_coroutine_function(function) else _BY_FOR
    for name, value in given.items():
        parameter = known.parameters[name]
        if isinstance(value, Stream):  # that of *args would be in a tuple, of **kwargs in a dict
            annotation = _resolved(parameter.annotation, code)
            if _excludes(annotation, wanted):
                return _words(parameter, annotation, value, wanted)
    return None


def _words(parameter: Parameter, annotation: object, stream: Stream, wanted: frozenset[str]) -> str:
    said = shown(annotation.__name__ if isinstance(annotation, type) else str(annotation))
    what = "an iterator" if wanted is _BY_FOR else "an async iterator, for `async for`,"
    return (
        f"its parameter {shown(parameter.name)!r} is annotated with {said}, and gets {what} for {stream!r}: "
        f"annotate it with {'Iterable' if wanted is _BY_FOR else 'AsyncIterable'}[...] if it iterates; to call the "
        "function once for each element, take process.map"
    )


def _signature_of(function: Callable[..., Any]) -> Signature | None:
    """Return the signature of a function itself, and not of what a decorator has wrapped in it."""
    try:
        return signature(function, follow_wrapped=False)
    except Exception:  # to read annotations may run any code
        return None


def _has_own_annotations(code: types.FunctionType) -> bool:
    """Return whether no decorator has given a function the annotations of another one."""
    inner: object = code
    while (wrapped := look_up(inner, "__wrapped__")) is not None:
        if look_up(wrapped, "__code__") is not code.__code__:
            return False
        inner = wrapped
    return True


def _resolved(annotation: object, code: types.FunctionType) -> object:
    """Return what an annotation that was written as a string stands for; `Any` where that is not known here."""
    if not isinstance(annotation, str):
        return annotation
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        return typing.get_type_hints(holder, code.__globals__, {})["it"]
    except Exception:  # as above; it may also be known to type checkers alone, or be no type
        return Any


def _excludes(annotation: object, wanted: frozenset[str]) -> bool:
    """Return whether an annotation leaves no doubt that the value has none of the methods that are wanted."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _excludes(typing.get_args(annotation)[0], wanted)
    if origin is Union or origin is types.UnionType:
        return all(_excludes(each, wanted) for each in typing.get_args(annotation))
    if annotation is None:
        return True
    kind = annotation if origin is None else origin
    if not isinstance(kind, type) or kind is Parameter.empty or any(each in kind.__mro__ for each in _ANYTHING):
        return False
    if issubclass(kind, _SINGLE):
        return True
    return not (any(wanted & vars(base).keys() for base in kind.__mro__) or issubclass(_GIVEN[wanted], kind))
