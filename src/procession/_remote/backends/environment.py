"""The environment of a worker process: how many threads libraries like NumPy may start in each call.

Such libraries (BLAS, OpenMP) start a thread for each core. In several workers at once these threads get into each
other's way: 60 products of NumPy took several times as long on two workers as with one thread in each. The libraries
read the environment as they are loaded, which may be as soon as a worker imports the program.
"""

import operator
import os
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any, Final, Self

_DEPENDENT: Final = (
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
)
"""The libraries behind most of these go by `OMP_NUM_THREADS` where their own is not set."""
_GENERAL: Final = "OMP_NUM_THREADS"


def thread_variables(threads: int, *, firm: bool) -> dict[str, str]:
    """Return the variables to set for so many threads. Unless it is `firm`, what the user has set stays."""
    names: Iterable[str] = (_GENERAL, *_DEPENDENT)
    if not firm:
        names = () if _GENERAL in os.environ else [name for name in names if name not in os.environ]
    return dict.fromkeys(names, str(threads))


class NameWithEnvironment(str):
    """The name of a process, which sets environment variables where it is unpickled.

    The name is part of what `multiprocessing` sends ahead, before the new process imports the program. So the variables
    are there in time, and nothing is changed in this process, where other threads may be loading a library.
    """

    __slots__ = ("_variables",)
    _variables: Mapping[str, str]

    def __new__(cls, name: str, variables: Mapping[str, str]) -> Self:
        """Make the name."""
        made = super().__new__(cls, name)
        made._variables = variables
        return made

    def __reduce__(self) -> Any:
        # Made of the standard library alone, since nothing else can be imported there yet.
        return operator.getitem, ((str(self), _Variables(self._variables)), 0)


class _Variables:
    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    def __reduce__(self) -> Any:
        return operator.attrgetter("environ"), (_Os(),), None, None, iter(self._variables.items())


class _Os:
    def __reduce__(self) -> Any:
        return import_module, ("os",)
