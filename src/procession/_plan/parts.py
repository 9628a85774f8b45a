"""Taking values apart into a label and parts, in the same way in every interpreter; the only module that knows types.

value ──▶ label (its type) + parts (values again) + width (0: their order counts; 1, 2: singles or pairs in any order)

The bytes of a pickle would not do: they depend on which equal strings are one object, on the order of sets, and on the
version of Python. The state that a class hands to pickle does: it is asked for and taken apart in turn.
"""

import copyreg
import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sized
from contextlib import suppress
from functools import cached_property, lru_cache, partial
from itertools import chain
from types import BuiltinMethodType, FunctionType, MethodType, ModuleType
from typing import Any, Final, NamedTuple, cast

from procession._model.handle import Handle, Stream, index_of
from procession._model.task import MapFunction, look_up
from procession._model.text import described
from procession._model.unrecorded import is_unrecorded
from procession._plan.content import FAMILIES, array_content

_MAIN: Final = frozenset({"__main__", "__mp_main__"})
"""The names of the main module, in a program and in a child process of multiprocessing."""

_BEHAVIOUR: Final = "__code__", "__closure__", "__globals__", "__defaults__", "__kwdefaults__"
"""The attributes of a function that say what it does."""

_HEAP: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class that was made while the program ran


class Parts(NamedTuple):
    """A value taken apart."""

    label: str
    """The kind of the value, in words that are the same in every interpreter."""
    parts: Iterable[Any] = ()
    """The values that it holds."""
    width: int = 0
    """0 if the order of the parts counts; 1 or 2 if they are single parts or pairs whose order does not count."""


class Opaque(Exception):
    """A value cannot be taken apart so that another interpreter would recognise it; the message says why."""


class Drawn:
    """Stands for an iterable whose elements cannot be read without drawing them: only its type counts."""

    __slots__ = ("type",)

    def __init__(self, iterable: object) -> None:
        self.type = type(iterable)


def undrawn(iterable: Any) -> Any:
    """Return an iterable of a map as it counts in a fingerprint: itself, or its type if it has no length.

    Of a mapping the keys count, in their order, as these are what a map draws.
    """
    if isinstance(iterable, Mapping):
        return tuple(cast("Mapping[Any, Any]", iterable))  # type: ignore[redundant-cast]  # pyright sees it as partly unknown
    if type(iterable) is Handle or (isinstance(iterable, Sized) and not hasattr(type(iterable), "__next__")):
        return iterable
    return Drawn(iterable)


def place_of(value: Any) -> str:
    """Return the module and qualified name of a function or class; the name of its file stands for `__main__`.

    >>> import json
    >>> place_of(json.JSONDecoder.decode)
    'json.decoder:JSONDecoder.decode'
    """
    module = _module_of(value)
    if module in _MAIN:
        module = main_module()
    if module.startswith("numpy._core"):
        module = module.replace("_core", "core", 1)  # as it was called before NumPy 2
    if module.startswith(("pathlib._", "procession._")):  # public names of these packages lie in private modules
        module = module.partition(".")[0]
    return f"{module}:{look_up(value, '__qualname__') or type(value).__qualname__}"


def main_module() -> str:
    """Return the name that the program's main module has when it is imported; `__main__` if it comes from no file."""
    main = sys.modules.get("__main__")
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None:
        return str(spec.name)
    # Not by pathlib, which takes long to import.
    return os.path.splitext(os.path.basename(file))[0] if file else "__main__"  # noqa: PTH119, PTH122


def _module_of(value: Any) -> str:
    owner = look_up(value, "__objclass__")  # a method of a builtin type has a class instead of a module
    return str(look_up(value, "__module__") or getattr(owner, "__module__", None) or "builtins")


def named(value: Any) -> bool:
    """Return whether its module and name lead to the value, or to a function of which it is a copy."""
    place = look_up(value, "__qualname__")
    if not isinstance(place, str):
        return False
    found: Any = sys.modules.get(_module_of(value))
    for name in place.split("."):
        found = look_up(found, name)
    return found is value or _copied(found, value)


def _copied(function: Any, value: Any) -> bool:
    """Return whether a value is a copy of a function that does the same: one with other defaults does not."""
    if not (isinstance(function, FunctionType) and isinstance(value, FunctionType)):
        return False
    return all(getattr(function, name) is getattr(value, name) for name in _BEHAVIOUR)


def nameless(value: object) -> bool:
    """Return whether a value is a function or class written in Python to which its module and name do not lead."""
    written = isinstance(value, FunctionType) or (isinstance(value, type) and value.__flags__ & _HEAP)
    return bool(written) and not named(value)


def taken_apart(value: Any) -> Parts:
    """Take a value apart; raise `Opaque` if that is not possible. Of an object that is not recorded, nothing counts."""
    if is_unrecorded(value):
        return Parts("unrecorded")
    return _teller(cast("Any", type(value)))(value)


@lru_cache(maxsize=256)
def _teller(kind: Any) -> Callable[[Any], Parts]:
    """Return the function that takes values of a type apart."""
    if kind in _KNOWN:
        return _KNOWN[kind]
    place = place_of(kind)
    if issubclass(kind, type):
        return lambda value: Parts(f"class {place_of(value)}")
    if place in _ELSEWHERE:
        return lambda value: Parts(place, _ELSEWHERE[place](value))
    if hasattr(kind, "__procession_digest__"):
        return lambda value: Parts(place, [value.__procession_digest__()])
    for name, special in _FAMILIES.items():
        if _is_of(kind, name):
            return special
    for name, rule in FAMILIES.items():
        if _is_of(kind, name):
            return _by_content(kind, name, rule)
    if hasattr(kind, "__attrs_attrs__"):
        return _attrs
    return _iterator if hasattr(kind, "__next__") else _reduced


def _is_of(kind: Any, name: str) -> bool:
    family = _imported(name)
    return family is not None and issubclass(kind, family)


def _by_content(kind: Any, family: str, rule: Callable[[Any], Iterable[Any]]) -> Callable[[Any], Parts]:
    library, _, _ = family.partition(":")
    own = kind.__module__.partition(".")[0] == library.partition(".")[0]
    label = family if own else f"{family} {place_of(kind)}"  # where a library keeps its classes differs by version

    def told(value: Any) -> Parts:
        try:
            return Parts(label, rule(value))
        except Exception as error:
            raise Opaque(described(error)) from error

    return told


def _iterator(_: Any) -> Parts:
    raise Opaque("an iterator can be drawn only once")


def _reduced(value: Any) -> Parts:
    """Take an object apart by the state that its class hands to pickle."""
    if callable(value) and named(value):
        return Parts(f"function {place_of(value)}")
    kind = cast("Any", type(value))
    # Some libraries, once imported, make pickle include the traceback of exceptions.
    reduce = None if issubclass(kind, BaseException) else copyreg.dispatch_table.get(kind)
    try:
        told: Any = reduce(value) if reduce else value.__reduce_ex__(4)
        if isinstance(told, str):
            inner = look_up(value, "__wrapped__") if callable(value) else None
            # A cache says that it is a global, and is one only if its name leads to it.
            return Parts(f"global {place_of(kind)} {told}", () if inner is None else [inner])
        function, args, *more = told
        state, items, pairs = (*more, None, None, None)[:3]
        if reduce is None and isinstance(value, BaseException) and isinstance(state, dict):
            # The notes that were added to an exception are no part of it.
            state = {name: part for name, part in cast("dict[str, Any]", state).items() if name != "__notes__"} or None
        if function is copyreg.__newobj__:  # type: ignore[attr-defined]  # what most objects hand to pickle
            function, args = args[0], args[1:]
        if kind.__reduce__ in _SETS:
            args = (set(args[0]),)  # handed over as a list, in an order that differs between interpreters
        items = None if items is None else list(items)
        if pairs is not None:
            pairs = list(pairs) if isinstance(value, OrderedDict) else dict(pairs)
    except Exception as error:
        raise Opaque(described(error)) from error
    parts = [args, state_of(value, state), items, pairs]
    if isinstance(function, type):
        return Parts(f"object {place_of(function)}", parts)
    return Parts("object", [function, *parts])


def state_of(value: Any, state: Any) -> Any:
    """Return a state without cached properties, and without the fields that a dataclass does not compare."""
    kind = cast("Any", type(value))
    told_by: Any = kind.__getstate__
    fields: dict[str, Any] = getattr(kind, "__dataclass_fields__", {})
    if getattr(told_by, "__module__", None) == "dataclasses":  # a frozen dataclass with slots has a list without names
        state = dict(zip((field.name for field in _imported("dataclasses:fields")(value)), state, strict=True))
    elif told_by is not object.__getstate__:
        return state
    apart = {name for name, field in fields.items() if not field.compare}

    def kept(attributes: Any) -> Any:
        if not isinstance(attributes, dict):
            return attributes
        return {
            name: attribute
            for name, attribute in cast("dict[str, Any]", attributes).items()
            if name not in apart and not isinstance(getattr(kind, name, None), cached_property)
        }

    if type(state) is tuple:  # with slots, a pair of dicts
        halves = cast("tuple[Any, ...]", state)  # type: ignore[redundant-cast]  # pyright sees it as partly unknown
        return tuple(map(kept, halves))
    return kept(state)


def _function(function: FunctionType) -> Parts:
    """Take a function apart into its name and, unless that leads to it, the values it closes over; never its body."""
    label = f"function {place_of(function)}"
    if named(function):
        return Parts(label)
    held: dict[str, Any] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # not assigned yet
            held[name] = cell.cell_contents
    code, defaults = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount]
    return Parts(label, [held, {**dict(zip(names, defaults, strict=True)), **(function.__kwdefaults__ or {})}])


def _builtin(function: BuiltinMethodType) -> Parts:
    owner = function.__self__
    if owner is None or isinstance(owner, ModuleType):
        return Parts(f"function {place_of(function)}")
    return Parts(f"method {function.__name__}", [owner])


def _partial(call: "partial[Any]") -> Parts:
    # Not by its state, which has the options of a task, too: these are no part of the call.
    return Parts("partial", [call.func, call.args, call.keywords])


def _range(numbers: range) -> Parts:
    return Parts("range", [len(numbers), *numbers[:1], *([numbers.step] if len(numbers) > 1 else [])])


def _pairs(items: dict[Any, Any]) -> Parts:
    return Parts("dict", chain.from_iterable(cast("Iterable[Iterable[Any]]", items.items())), width=2)


def _enum(member: Any) -> Parts:
    flag = _imported("enum:Flag")
    combined = flag is not None and isinstance(member, flag)  # a combination of flags may have no name
    return Parts("enum", [type(member), member.value if combined else member.name])


def _path(path: Any) -> Parts:
    return Parts("path", [type(path), str(path)])


def _attrs(value: Any) -> Parts:
    """Take an object of an attrs class apart by the attributes it compares, unless the class defines `__getstate__`."""
    kind = cast("Any", type(value))
    told_by: Any = kind.__getstate__
    if told_by is not object.__getstate__ and not str(getattr(told_by, "__module__", None)).startswith("attr."):
        return _reduced(value)
    compared = {field.name: getattr(value, field.name, None) for field in kind.__attrs_attrs__ if field.eq}
    return Parts(f"object {place_of(kind)}", [(), compared, None, None])


def _mock(mock: Any) -> Parts:
    # By its type and name, since the calls that a mock records change it. There is no public way to get the name.
    return Parts(f"mock {place_of(type(mock))} {mock._extract_mock_name()}")


def _imported(name: str) -> Any:
    """Return the object of this name if its module is loaded; else `None`, since then no value can be of that type."""
    module, _, attribute = name.partition(":")
    return getattr(sys.modules.get(module), attribute, None)


_SETS: Final = tuple(cast("Any", kind).__reduce__ for kind in (set, frozenset))

_KNOWN: Final[dict[Any, Callable[[Any], Parts]]] = {
    list: lambda value: Parts("list", value),
    tuple: lambda value: Parts("tuple", value),
    dict: _pairs,
    set: lambda value: Parts("set", value, width=1),
    frozenset: lambda value: Parts("frozenset", value, width=1),
    Handle: lambda value: Parts(f"handle {index_of(value)}"),
    Stream: lambda value: Parts(f"stream {index_of(value)}"),
    Drawn: lambda value: Parts("drawn", [value.type]),
    MapFunction: lambda value: Parts("map", [value.function]),
    FunctionType: _function,
    BuiltinMethodType: _builtin,
    MethodType: lambda value: Parts("method", [value.__func__, value.__self__]),
    ModuleType: lambda value: Parts(f"module {value.__name__}"),
    partial: _partial,
    range: _range,
}
"""The functions that take values apart, by exact type."""

_ELSEWHERE: Final[dict[str, Callable[[Any], Iterable[Any]]]] = {
    "fractions:Fraction": lambda value: (value.numerator, value.denominator),  # has another state for pickle in 3.11
    "uuid:UUID": lambda value: (value.int,),
    "builtins:mappingproxy": lambda value: (dict(value),),
    "builtins:dict_keys": list,
    "builtins:dict_values": list,
    "builtins:dict_items": list,
    "numpy:ndarray": array_content,
}
"""The parts of values, by module and name of the exact type, which need not be imported.

The order of dict views counts, since a map draws from them in that order."""

_FAMILIES: Final[dict[str, Callable[[Any], Parts]]] = {
    "enum:Enum": _enum,
    "pathlib:PurePath": _path,
    "unittest.mock:NonCallableMock": _mock,
}
"""The functions that take values apart, by module and name of a class of which they are instances."""
