"""Functions on their way to another process: by name where that can import them, and only else by value.

pickle takes what stands in a module by name. A copy of a function with options, a decorated function or a lambda is not
what stands there, so pickle refuses it and the batch goes through here:

    options on a function    the function, by name, and the options
    the callable of a call   by name, also from a main module, which cloudpickle would send by value
    any other of a module    by value, but with the globals of its module there, which are loaded once
    the rest                 by value, through cloudpickle, where that is installed

A function with globals of its own would load its module's model again in each batch.
"""

import pickle
import sys
from collections.abc import Callable, Iterable
from functools import cache, partial
from importlib import import_module
from importlib.machinery import PathFinder
from types import FunctionType, MethodType, ModuleType
from typing import Any, cast

from procession._model.task import OPTIONS, with_options

_MAIN = ("__main__", "__mp_main__")


def dump_functions(
    value: object,
    file: Any,
    *,
    named: Iterable[object] = (),
    by_value: bool,
    buffer_callback: Callable[[pickle.PickleBuffer], object] | None = None,
) -> None:
    """Pickle a value into a file. The functions and classes `named` go by name; `by_value` says whether any may not."""
    _pickler(by_value)(file, {id(one) for one in named}, buffer_callback).dump(value)


def named_in_main(functions: Iterable[object]) -> list[object]:
    """Return the functions and classes behind these callables that stand in the main module."""
    inner = [_inner(function) for function in functions]
    return [one for one in inner if getattr(one, "__module__", None) in _MAIN and _is_found(one)]


def _inner(function: object) -> object:
    """Return the function or class of which a callable is made: for a bound method or another object, its class."""
    while True:
        if isinstance(function, partial):
            function = function.func  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        elif isinstance(function, MethodType):
            owner = function.__self__
            return owner if isinstance(owner, type) else type(owner)
        elif isinstance(function, FunctionType):
            original = None if _is_found(function) else _original(function)
            if original is None:
                return function
            function = original
        elif (wrapped := getattr(function, "function", None)) is not None:  # what a coordinator has put around it
            function = wrapped
        else:
            return function if isinstance(function, type) else type(function)


def _original(function: FunctionType) -> FunctionType | None:
    """Return the function of which this one is a copy with options."""
    original = function.__dict__.get("__wrapped__")
    if OPTIONS not in function.__dict__ or not isinstance(original, FunctionType):
        return None
    return original if original.__code__ is function.__code__ else None


def _is_found(value: Any) -> bool:
    """Return whether a function or class is what stands in its module under its name."""
    try:
        found: Any = sys.modules[value.__module__]
        for name in value.__qualname__.split("."):
            found = getattr(found, name)
    except (AttributeError, KeyError, TypeError):
        return False
    return found is value


def _is_attribute(method: MethodType) -> bool:
    """Return whether a bound method is what its object has under the name of the method."""
    try:
        return bool(getattr(method.__self__, method.__name__) == method)
    except Exception:
        return False


@cache
def _pickler(by_value: bool) -> Callable[[Any, set[int], Any], pickle.Pickler]:
    """Return the class of pickler, which is made of cloudpickle's if anything may go by value."""
    cloudpickle: Any = import_module("cloudpickle") if by_value else None
    base: Any = pickle.Pickler if cloudpickle is None else cloudpickle.Pickler

    class Pickler(base):  # type: ignore[misc]  # known only now
        def __init__(self, file: Any, named: set[int], buffer_callback: Any) -> None:
            super().__init__(file, pickle.HIGHEST_PROTOCOL, buffer_callback=buffer_callback)  # pyright: ignore[reportUnknownMemberType]
            self._named = named

        def reducer_override(self, value: Any) -> Any:
            if id(value) in self._named:
                return NotImplemented
            if isinstance(value, MethodType) and _is_attribute(value):  # cloudpickle would take its function by value
                return getattr, (value.__self__, value.__name__)
            if isinstance(value, FunctionType) and not _is_found(value):
                original = _original(value)
                if original is not None:
                    return with_options, (original, getattr(value, OPTIONS))
            if cloudpickle is None:
                return NotImplemented
            reduced: Any = super().reducer_override(value)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
            if isinstance(value, FunctionType) and isinstance(reduced, tuple):
                module = _module_of(value)
                if module is not None and not _by_value_on_request(module.__name__, cloudpickle):
                    return _with_globals_of(module, reduced)  # pyright: ignore[reportUnknownArgumentType]
            return cast("Any", reduced)

    return cast("Callable[[Any, set[int], Any], pickle.Pickler]", Pickler)


def _module_of(function: FunctionType) -> ModuleType | None:
    """Return the module whose globals a function has, if another process can import it."""
    name = function.__globals__.get("__name__")
    if not isinstance(name, str) or name in _MAIN or not _can_be_imported(name.partition(".")[0]):
        return None
    module = sys.modules.get(name)
    return module if module is not None and vars(module) is function.__globals__ else None


@cache
def _can_be_imported(package: str) -> bool:
    return package in sys.builtin_module_names or PathFinder.find_spec(package) is not None


def _by_value_on_request(module: str, cloudpickle: Any) -> bool:
    names: set[str] = cloudpickle.list_registry_pickle_by_value()
    return any(module == name or module.startswith(f"{name}.") for name in names)


def _with_globals_of(module: ModuleType, reduced: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the parts cloudpickle makes a function of, with the globals of a module in place of copies of some."""
    try:
        make, (code, globals_, *rest), (attributes, slots), *others = reduced
        if not isinstance(globals_, dict) or "__globals__" not in slots:
            return reduced
    except (TypeError, ValueError):  # another version makes it of other things
        return reduced
    no_globals: dict[str, Any] = {}
    state = attributes, {**slots, "__globals__": no_globals}
    return (make, (code, _Globals(module.__name__), *rest), state, *others)


class _Globals:
    """Stands for the globals of a module, until it is unpickled."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __reduce__(self) -> tuple[Callable[[str], dict[str, Any]], tuple[str]]:
        return globals_of, (self._module,)


def globals_of(module: str) -> dict[str, Any]:
    """Return the globals of a module, imported if it is not there yet."""
    return vars(import_module(module))
