"""Where tasks run: what may be given as an executor."""

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
    """What a `distributed.Client` is known by, without importing it."""

    def get_executor(self) -> "Executor":
        """Return an executor that runs what it is given on the cluster."""
        ...


if TYPE_CHECKING:
    Where = str | Executor | DaskClient
    """Where tasks run: `"threads"`, `"processes"`, `"dask"` or `"ray"`, the address of a Dask scheduler such as
    `tcp://host:8786`, or a Dask client or any other executor, which are the caller's and stay open."""


def check_executor(executor: object, where: str) -> None:
    """Raise for what is no executor; the message lists what is."""
    if isinstance(executor, str) and executor in ("threads", "processes", "ray"):
        return
    # Whoever has one has imported what it derives from, which takes longer than all that a definition needs.
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
    """Return whether tasks are to run on Dask: by name, by address, or by a client."""
    if isinstance(executor, str):
        return executor == "dask" or executor.startswith(_ADDRESSES)
    return not isinstance(executor, type) and callable(getattr(executor, "get_executor", None))
