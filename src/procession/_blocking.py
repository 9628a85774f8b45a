"""A warning where a coroutine executes a process without awaiting it, which blocks the event loop."""

import sys
import warnings
from types import FrameType
from typing import Final

from procession._model.text import shown

_FUNCTION: Final = 0x1  # inspect.CO_OPTIMIZED: of a function's code, and not of a script's or a notebook cell's
_COROUTINE: Final = 0x80 | 0x200  # inspect.CO_COROUTINE, CO_ASYNC_GENERATOR


def warn_in_coroutine(process_name: str) -> None:
    """Warn the caller of `Process.execute` if it is in a coroutine of a running event loop.

    At the top level of a notebook a loop runs, too, and waiting there is meant. So the frames are searched outwards for
    the first that is a coroutine, or is in no function. The search ends at a run that goes on in this thread: its
    caller was warned, or meant it.
    """
    running = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)  # imported, where one runs
    if running is None or running() is None:
        return
    frame: FrameType | None = sys._getframe(1)  # inspect takes long to import
    stacklevel = 2
    while frame is not None and _module(frame) == "procession._process":
        frame, stacklevel = frame.f_back, stacklevel + 1
    while frame is not None and frame.f_code.co_flags & _FUNCTION and not _module(frame).startswith("procession."):
        if frame.f_code.co_flags & _COROUTINE:
            where = f"process {shown(process_name)!r}"
            message = f"{where}: execute() holds up the running event loop until all has ended; await execute_async()"
            warnings.warn(message, RuntimeWarning, stacklevel=stacklevel)
            return
        frame = frame.f_back


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))
