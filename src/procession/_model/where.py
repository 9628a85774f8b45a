"""The values that the option `executor` takes: where tasks run."""

import os
import sys
from typing import TYPE_CHECKING, Any, Protocol

from procession._model.text import sketch

if TYPE_CHECKING:
    from concurrent.futures import Executor

_ADDRESSES = ("tcp://", "tls://", "ws://", "wss://", "ucx://", "inproc://")


def usable_cores() -> int:
    """Return how many processors this program may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class DaskClient(Protocol):
    """A `distributed.Client`, as far as Procession needs to know it without importing Dask."""

    def get_executor(self) -> "Executor":
        """Return an executor that runs calls on the cluster."""
        ...


if TYPE_CHECKING:
    ExecutorLike = str | Executor | DaskClient
    """The values of the option `executor`, which says where tasks run.

    `"threads"`, `"processes"`, `"dask"` or `"ray"`; the address of a Dask scheduler, such as `tcp://host:8786`; a Dask
    client; or any `concurrent.futures.Executor`. A client or executor stays the caller's and is not shut down."""
else:

    def __getattr__(name: str) -> object:
        if name == "ExecutorLike":
            from concurrent.futures import Executor  # only here, since its import takes long

            return str | Executor | DaskClient
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def check_executor(executor: object, where: str) -> None:
    """Raise `ValueError` or `TypeError`, with a list of all known executors, unless `executor` is one of them."""
    if isinstance(executor, str) and executor in ("threads", "processes", "ray"):
        return
    # A caller who has an executor has imported `concurrent.futures`, which takes longer than the rest of a definition.
    kind: Any = getattr(sys.modules.get("concurrent.futures"), "Executor", ())
    if isinstance(executor, kind) or is_dask(executor):
        return
    known = (
        "known are 'threads', 'processes', 'dask', 'ray', a Dask client or its scheduler's address (tcp://host:port), "
        "and any concurrent.futures.Executor"
    )
    if isinstance(executor, str):
        raise ValueError(f"{where}: unknown executor {sketch(executor)}; {known}")  # noqa: TRY004
    raise TypeError(f"{where}: executor is {sketch(executor)}; {known}")


def is_dask(executor: object) -> bool:
    """Return whether an executor stands for Dask: by its name, a scheduler's address, or a client."""
    if isinstance(executor, str):
        return executor == "dask" or executor.startswith(_ADDRESSES)
    return not isinstance(executor, type) and callable(getattr(executor, "get_executor", None))
