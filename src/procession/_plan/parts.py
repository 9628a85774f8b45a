"""What a value is made of, told so that every interpreter tells the same: the one place that knows types.

value ──▶ label (what it is) + parts (values again) + width (0: their order counts; 1, 2: singles or pairs in any order)

Bytes of pickle would not do: they depend on which equal strings are one object, on the order of sets, and on the
version of Python. What a class says to pickle about its instances does: it is asked for and taken apart in its turn.
"""

import copyreg
import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cached_property, lru_cache, partial
from itertools import chain
from types import BuiltinMethodType, FunctionType, MethodType, ModuleType
from typing import Any, Final, NamedTuple, cast

from procession._model.handle import Handle, index_of
from procession._model.task import MapFunction, look_up
from procession._model.text import described
from procession._plan.content import FAMILIES, array_content

_MAIN: Final = frozenset({"__main__", "__mp_main__"})
"""What the main module calls itself, in a program and in a child of multiprocessing."""


_HEAP: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class that was made while the program ran


class Parts(NamedTuple):
    """A value taken apart."""

    label: str
    parts: Iterable[Any] = ()
    width: int = 0


class Opaque(Exception):
    """The value has nothing that another interpreter could recognise; says why."""


class Drawn:
    """Stands for an iterable that cannot be looked at without drawing it: only its type counts."""

    __slots__ = ("type",)

    def __init__(self, iterable: object) -> None:
        self.type = type(iterable)


def place_of(value: Any) -> str:
    """Return module and qualified name of a function or class; `__main__` is the file that it was.

    >>> import json
    >>> place_of(json.JSONDecoder.decode)
    'json.decoder:JSONDecoder.decode'
    """
    module = _module_of(value)
    if module in _MAIN:
        module = main_module()
    if module.startswith("numpy._core"):
        module = module.replace("_core", "core", 1)  # as it was called before NumPy 2
    if module.startswith(("pathlib._", "procession._")):  # where things lie that are known by another name
        module = module.partition(".")[0]
    return f"{module}:{look_up(value, '__qualname__') or type(value).__qualname__}"


def main_module() -> str:
    """Return what the program's main module is called where it is imported; as it is, if it was read from no file."""
    main = sys.modules.get("__main__")
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None:
        return str(spec.name)
    # Not by pathlib, which takes long to import.
    return os.path.splitext(os.path.basename(file))[0] if file else "__main__"  # noqa: PTH119, PTH122


def _module_of(value: Any) -> str:
    owner = look_up(value, "__objclass__")  # of a method of a builtin type
    return str(look_up(value, "__module__") or getattr(owner, "__module__", None) or "builtins")


def named(value: Any) -> bool:
    """Return whether module and name lead to the value, or to a function that it is a copy of."""
    place = look_up(value, "__qualname__")
    if not isinstance(place, str):
        return False
    found: Any = sys.modules.get(_module_of(value))
    for name in place.split("."):
        found = look_up(found, name)
    copied = isinstance(found, FunctionType) and isinstance(value, FunctionType)
    return found is value or (copied and found.__code__ is value.__code__ and found.__closure__ is value.__closure__)


def nameless(value: object) -> bool:
    """Return whether the value is a function or class, written in Python, that module and name do not lead to."""
    written = isinstance(value, FunctionType) or (isinstance(value, type) and value.__flags__ & _HEAP)
    return bool(written) and not named(value)


def taken_apart(value: Any) -> Parts:
    """Return what the value is made of; raise `Opaque` if that cannot be told."""
    return _teller(cast("Any", type(value)))(value)


@lru_cache(maxsize=256)
def _teller(kind: Any) -> Callable[[Any], Parts]:
    """Return what takes values of a type apart."""
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
    """Take an object apart by what its class tells pickle of it."""
    if callable(value) and named(value):
        return Parts(f"function {place_of(value)}")
    kind = cast("Any", type(value))
    # Some libraries, once imported, have all exceptions pickled with their traceback.
    reduce = None if issubclass(kind, BaseException) else copyreg.dispatch_table.get(kind)
    try:
        told: Any = reduce(value) if reduce else value.__reduce_ex__(4)
        if isinstance(told, str):
            return Parts(f"global {place_of(kind)} {told}")
        function, args, *more = told
        state, items, pairs = (*more, None, None, None)[:3]
        if reduce is None and isinstance(value, BaseException) and isinstance(state, dict):
            # What was noted of an exception on its way is no part of it.
            state = {name: part for name, part in cast("dict[str, Any]", state).items() if name != "__notes__"} or None
        if function is copyreg.__newobj__:  # type: ignore[attr-defined]  # what pickle gets of most objects
            function, args = args[0], args[1:]
        if kind.__reduce__ in _SETS:
            args = (set(args[0]),)  # told as a list, in an order that differs from one interpreter to the next
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
    """Leave out of a state what is no part of the value: caches, and what a dataclass does not compare."""
    kind = cast("Any", type(value))
    told_by: Any = kind.__getstate__
    fields: dict[str, Any] = getattr(kind, "__dataclass_fields__", {})
    if getattr(told_by, "__module__", None) == "dataclasses":  # of a frozen one with slots: a list without names
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
    """Tell a function by its name, and if that does not lead to it, by what it closes over; never by its body."""
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
    # By hand, as its state has the options of a task too, which are no part of what is called with what.
    return Parts("partial", [call.func, call.args, call.keywords])


def _range(numbers: range) -> Parts:
    return Parts("range", [len(numbers), *numbers[:1], *([numbers.step] if len(numbers) > 1 else [])])


def _pairs(items: dict[Any, Any]) -> Parts:
    return Parts("dict", chain.from_iterable(cast("Iterable[Iterable[Any]]", items.items())), width=2)


def _enum(member: Any) -> Parts:
    flag = _imported("enum:Flag")
    combined = flag is not None and isinstance(member, flag)  # of a combination, only the value is always there
    return Parts("enum", [type(member), member.value if combined else member.name])


def _path(path: Any) -> Parts:
    return Parts("path", [type(path), str(path)])


def _attrs(value: Any) -> Parts:
    """Take an object of a class that attrs made apart by what it compares, unless its class says itself what it is."""
    kind = cast("Any", type(value))
    told_by: Any = kind.__getstate__
    if told_by is not object.__getstate__ and not str(getattr(told_by, "__module__", None)).startswith("attr."):
        return _reduced(value)
    compared = {field.name: getattr(value, field.name, None) for field in kind.__attrs_attrs__ if field.eq}
    return Parts(f"object {place_of(kind)}", [(), compared, None, None])


def _mock(mock: Any) -> Parts:
    # Its type and name: what it recorded is no value, and changes when it is called. There is no public name of it.
    return Parts(f"mock {place_of(type(mock))} {mock._extract_mock_name()}")


def _imported(name: str) -> Any:
    """Return what is called so if its module is loaded: if not, nothing of it can be here."""
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
    Drawn: lambda value: Parts("drawn", [value.type]),
    MapFunction: lambda value: Parts("map", [value.function]),
    FunctionType: _function,
    BuiltinMethodType: _builtin,
    MethodType: lambda value: Parts("method", [value.__func__, value.__self__]),
    ModuleType: lambda value: Parts(f"module {value.__name__}"),
    partial: _partial,
    range: _range,
}
"""By exact type."""

_ELSEWHERE: Final[dict[str, Callable[[Any], Iterable[Any]]]] = {
    "fractions:Fraction": lambda value: (value.numerator, value.denominator),  # tells pickle otherwise in 3.11
    "uuid:UUID": lambda value: (value.int,),
    "builtins:mappingproxy": lambda value: (dict(value),),
    "builtins:dict_keys": list,
    "builtins:dict_values": list,
    "builtins:dict_items": list,
    "numpy:ndarray": array_content,
}
"""By the place of the exact type, which need not be imported. Views in their order: a map takes them so."""

_FAMILIES: Final[dict[str, Callable[[Any], Parts]]] = {
    "enum:Enum": _enum,
    "pathlib:PurePath": _path,
    "unittest.mock:NonCallableMock": _mock,
}
"""By a class and its subclasses."""
