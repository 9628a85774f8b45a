"""The identity of a task in a journal: its name, and its code where several tasks share a name.

A task with an explicit name is known by that name, whatever module its function is in. Without an explicit name, a task
is known by module and qualified name. Lambdas, and functions that another function made, often share these: then a
digest of their code tells them apart.
"""

import re
from ast import literal_eval
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from types import BuiltinMethodType, CodeType, FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any, NamedTuple, cast

from procession._model.task import Call, MapFunction, drives_tasks, look_up, name_of, options_of, unwrapped
from procession._plan.digest import SIMPLE, Digester, Refused, combined, digest
from procession._plan.parts import named, nameless, place_of, taken_apart, undrawn
from procession.errors import DigestError

_MAPS = re.compile("((?:map of )*)(.*)", re.DOTALL)
_NAMED_ITSELF = re.compile(r"""(?:(.*) \()?[\w.<>]+:[\w.<>]+ ('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")\)?""", re.DOTALL)
"""Matches the full name of a process as a task: its explicit name, if any, and its own name as a Python literal."""


def qualified(function: Callable[..., Any]) -> str:
    """Return the full name of a task: module and name of its callable, after its explicit name if it has one.

    >>> import json
    >>> qualified(json.dumps), qualified(MapFunction(len)), qualified([].append)
    ('json:dumps', 'map of builtins:len', 'builtins:list.append')
    """
    if isinstance(function, MapFunction):
        return f"map of {qualified(function.function)}"
    given = options_of(function).name
    origin = _origin(unwrapped(function))
    return origin if given is None else f"{given} ({origin})"


def called(name: str) -> str:
    """Return the name of a task, as users see it, from its full name.

    >>> [called(name) for name in ("app.pages:fetch", "map of json:dumps", "fetch (app.pages:get)", "app:Step 'load'")]
    ['fetch', 'map of dumps', 'fetch', 'load']
    """
    maps, function = _split(name)
    return f"{maps}{_called(function)}"


def _split(name: str) -> tuple[str, str]:
    """Divide a full name into its leading "map of " words, of which a name may have any number, and the rest."""
    maps, function = _MAPS.fullmatch(name).groups()  # type: ignore[union-attr]  # any text is like that
    return maps, function


def _named_itself(name: str) -> re.Match[str] | None:
    # The ending is tested first, since the expression is slow on a name of millions of characters.
    return _NAMED_ITSELF.fullmatch(name) if name.endswith(("'", '"', "')", '")')) else None


def _called(name: str) -> str:
    named_itself = _named_itself(name)
    if named_itself is not None:
        given, own = named_itself.groups()
        with suppress(ValueError, SyntaxError):  # in a damaged journal
            return str(literal_eval(own)) if given is None else str(given)
    given, bracket, _ = name.rpartition(" (")
    return given if bracket else name.partition(":")[2] or name


def identity(name: str) -> str:
    """Return the part of a full name that identifies its task: an explicit name without the function behind it.

    >>> [identity(name) for name in ("app.pages:fetch", "fetch (app.pages:get)", "map of fetch (app.pages:get)")]
    ['app.pages:fetch', 'fetch (', 'map of fetch (']
    """
    maps, function = _split(name)
    named_itself = _named_itself(function)
    given = named_itself[1] if named_itself is not None else function.rpartition(" (")[0]
    return f"{maps}{given} (" if given else name  # the bracket tells it from a module and name


def moved(was: str, now: str) -> bool:
    """Return whether two names differ only in the folder from which their module was found.

    >>> moved("pages:fetch", "app.pages:fetch"), moved("pages:fetch", "other:fetch"), moved("a:fetch", "a:get")
    (True, False, False)
    """
    was_module, _, was_function = was.removeprefix("map of ").partition(":")
    now_module, _, now_function = now.removeprefix("map of ").partition(":")
    modules = f".{was_module}", f".{now_module}"
    same = was_function == now_function and was.startswith("map of ") == now.startswith("map of ")
    return same and (modules[0].endswith(modules[1]) or modules[1].endswith(modules[0]))


class Unnamed(NamedTuple):
    """A function or class that cannot be found by its module and name."""

    place: str
    """Its module and qualified name."""
    code: bytes
    """A digest of its code and, for a class, of the values that its methods close over."""


def digest_element(element: tuple[Any, ...], where: str, constants: Mapping[str, Any] = MappingProxyType({})) -> bytes:
    """Return the digest of the arguments of one element of a map; `where` names process and task in error messages.

    Functions and classes without a name of their own in it, such as lambdas, count by their code.

    >>> digest_element((1, "a"), "process 'p', task 0 (f)").hex()
    '556b747b6b9d03235dc4f207c16329dc'
    """
    try:
        digester = Digester()
        found = digester.call(element, dict(constants))
        if digester.unnamed:
            given = [*element, *(constants[name] for name in sorted(constants))]
            found = combined(found, *(one.code for one in unnamed_in(given, digester)))
        return found
    except Refused as refused:
        raise DigestError(f"{where}, an element, {refused}") from refused.__cause__


def digest_call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """Return the digest of the arguments of a call, and of what the function itself holds. Raises `Refused`.

    Functions and classes without a name of their own count by their code, as in `digest_element`.

    >>> digest_call(len, ("abc",), {}) == digest_call(len, ("abc",), {}) != digest_call(len, ("abd",), {})
    True
    """
    digester = Digester()
    found = digester.call(args, kwargs)
    if not said(function):
        found = combined(found, digester.callable(holding(function)))
    if digester.unnamed:
        found = combined(found, *(one.code for one in unnamed_in((function, *args, *kwargs.values()), digester)))
    return found


def is_fixed(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether no call can change what it is given, as that is all of simple types.

    >>> is_fixed(len, ("abc",), {}), is_fixed(len, (["abc"],), {})
    (True, False)
    """
    simple = SIMPLE.issuperset(map(type, args)) and SIMPLE.issuperset(map(type, kwargs.values()))
    return simple and said(function)


def unnamed_in(values: Sequence[object], digester: Digester) -> list[Unnamed]:
    """Return the unnamed functions and classes in callables and arguments, at any depth, in a fixed order."""
    found: list[Unnamed] = []
    waiting: list[Any] = [*reversed(values)]
    seen: dict[int, object] = {}
    while waiting:
        value = waiting.pop()
        if type(value) in SIMPLE or id(value) in seen:
            continue
        seen[id(value)] = value  # kept alive, so that no other value gets its id
        if isinstance(value, type):
            if nameless(value):
                found.append(Unnamed(place_of(value), _class_digest(value)))
            continue
        waiting.append(cast("Any", type(value)))
        if isinstance(value, FunctionType) and nameless(value):
            found.append(Unnamed(place_of(value), _code_digest(value.__code__)))
        if drives_tasks(value):
            waiting += reversed(list(_in_calls(cast("Any", value).tasks)))
            continue
        _, parts, width = taken_apart(value)
        inside = list(parts)
        if width > 1:
            pairs = sorted(zip(inside[::2], inside[1::2], strict=True), key=lambda pair: digester.value(pair[0]))
            inside = [part for pair in pairs for part in pair]
        elif width:
            inside.sort(key=digester.value)
        waiting += reversed(inside)
    return found


def _in_calls(calls: Sequence[Call]) -> Iterator[object]:
    """Yield the callables and arguments of the tasks of a process; of what would have to be drawn, a stand-in."""
    for function, args, kwargs in calls:
        yield function
        yield from map(undrawn, args) if type(function) is MapFunction else args
        yield from (kwargs[name] for name in sorted(kwargs))


def _class_digest(kind: type) -> bytes:
    """Return a digest of the functions of a class, the values they close over, and its attributes with a digest."""
    found: list[bytes] = []
    for name, attribute in sorted(vars(kind).items()):
        function = look_up(attribute, "__func__") or look_up(attribute, "fget") or attribute
        if isinstance(function, FunctionType):
            found.append(_code_digest(function.__code__))
        elif name.startswith("__"):
            continue  # the interpreter adds some of these, and each version adds others
        with suppress(DigestError):
            found.append(digest([name, function]))
    return combined(*found)


@lru_cache(maxsize=1024)
def _code_digest(code: CodeType) -> bytes:
    """Return a digest of names, constants and instructions, without line numbers, so that code may move in its file."""
    return digest(tuple(_content(code)))


def _content(code: CodeType) -> Iterator[object]:
    yield from (code.co_code, code.co_names, code.co_varnames, code.co_freevars)
    for constant in code.co_consts:
        yield tuple(_content(constant)) if isinstance(constant, CodeType) else constant


def _origin(function: Any) -> str:
    if isinstance(function, MethodType):
        return _origin(function.__func__)
    if isinstance(function, BuiltinMethodType) and not _of_module(function):
        owner = function.__self__
        return f"{place_of(owner if isinstance(owner, type) else type(owner))}.{function.__name__}"
    if isinstance(look_up(function, "__qualname__"), str):
        return place_of(function)
    # An object that defines its own digest, such as a process, is known by its own name, too: see _NAMED_ITSELF.
    origin = place_of(type(function))
    return f"{origin} {name_of(function)!r}" if look_up(function, "__procession_digest__") else origin


def said(function: Any) -> bool:
    """Return whether a callable is fully described by its name: it holds no arguments, no object and no variables."""
    if isinstance(function, MapFunction):
        return said(function.function)
    return _of_module(function) if isinstance(function, BuiltinMethodType) else named(function)


def holding(function: Any) -> object:
    """Return the part of a callable that its name does not describe, to be digested.

    An explicit name stands for the function itself; the rest is then the values that the function closes over, or
    `None` if there are none.
    """
    inner = function.function if isinstance(function, MapFunction) else function
    if isinstance(inner, FunctionType) and options_of(inner).name is not None:
        parts = list(taken_apart(inner).parts)
        return parts if any(parts) else None
    return function


def _of_module(function: BuiltinMethodType) -> bool:
    return function.__self__ is None or isinstance(function.__self__, ModuleType)
