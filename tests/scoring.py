"""A module with a model that is loaded at the first call, a lock, and functions in every shape."""

import functools
import os
import threading

from errands import noted

model = None
lock = threading.Lock()


def score(sheet):
    """Load the model where that has not been done; return whose globals these are."""
    global model  # noqa: PLW0603  # as programs do
    if model is None:
        model = "big"
        noted(sheet, f"loads {os.getpid()}")
    with lock:
        return globals() is vars(__import__("sys").modules[__name__])


def scorer():
    """Return a function that is not at the top of the module."""

    def inner(sheet):
        return score(sheet) and globals()["model"] is model

    return inner


def timed(function):
    """Decorate a function, as others do."""

    @functools.wraps(function)
    def wrapper(*args):
        with lock:
            pass
        return function(*args)

    return wrapper


class Scorer:
    def score(self, sheet):
        return score(sheet)


@timed
def decorated(sheet):
    return score(sheet)
