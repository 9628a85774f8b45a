"""Callbacks that end their run with what they raise: their caller, a loop or another run, would only go on."""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar


class Breakable(Protocol):
    """What ends where one of its callbacks raises."""

    def break_down(self, error: BaseException, /) -> object:
        """End with an error that is not from any call: what has come of the calls is not known any more."""
        ...


P = ParamSpec("P")
B = TypeVar("B", bound=Breakable)


def breaks_down(callback: Callable[Concatenate[B, P], object]) -> Callable[Concatenate[B, P], None]:
    """Return a method that breaks its object down where the method raises."""

    @wraps(callback)
    def called(self: B, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            callback(self, *args, **kwargs)
        except BaseException as error:
            self.break_down(error)
            if not isinstance(error, Exception):
                raise  # Ctrl-C ends the loop, too

    return called
