"""What an exception is made of, so that it can be made again elsewhere, without its own constructor.

Pickle calls the constructor with `args`; one that takes something else fails then, or words its message anew.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

from procession._model.text import shown, sketch

_HEAP_TYPE = 1 << 9  # of `__flags__`: a class that a program made


class Unsent:
    """Stands for a part of an exception that could not be sent, and looks like it."""

    def __init__(self, looks: str) -> None:
        self._looks = looks

    def __repr__(self) -> str:
        return self._looks


class Recipe(NamedTuple):
    """An exception's type, what the built-in class that it is based on is made with, and its other attributes."""

    type: type[BaseException]
    args: tuple[Any, ...]
    state: dict[str, Any]

    def made(self) -> BaseException:
        """Return the exception, made as its built-in class makes it."""
        base = _base(self.type)
        error = base.__new__(self.type, *self.args)
        base.__init__(error, *self.args)
        for name, value in self.state.items():
            try:
                object.__setattr__(error, name, value)
            except AttributeError:  # a property stands before it
                error.__dict__[name] = value
        return error


def recipe_of(error: BaseException, can_be_sent: Callable[[object], bool]) -> Recipe:
    """Return a recipe of an exception, with texts for arguments that cannot be sent, and without attributes."""
    # An `OSError` keeps its filename apart from `args`, an `ImportError` its name: what is built in knows that.
    _, args, *states = cast("tuple[Any, ...]", _base(type(error)).__reduce__(error))
    args = tuple(arg if can_be_sent(arg) else Unsent(_looks(arg)) for arg in args)
    state: dict[str, Any] = states[0] if states else {}
    return Recipe(type(error), args, {name: value for name, value in state.items() if can_be_sent(value)})


def _looks(arg: object) -> str:
    """Return an argument's text, as it stands in the message of its exception."""
    try:
        return shown(repr(arg))
    except Exception:
        return sketch(arg)


def _base(kind: type[BaseException]) -> type[BaseException]:
    """Return the built-in class whose layout an exception class has: with several bases, not always the first one."""
    built_in = [base for base in kind.__mro__ if issubclass(base, BaseException) and not base.__flags__ & _HEAP_TYPE]
    return max(built_in, key=lambda base: base.__basicsize__)
