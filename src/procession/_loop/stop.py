"""The stop of a run whose coroutine is cancelled, which may be because Ctrl-C came."""

import asyncio
import signal
from typing import Final

from procession._engine.run_state import RunState

_SOON_S: Final = 0.1
"""How long coroutines have to end before people are told that they are waited for."""


def stop(run_state: RunState) -> None:
    """Cancel a run in the running loop. After Ctrl-C, say soon what is still waited for."""
    loop = asyncio.get_running_loop()
    by_key = _ctrl_c_came_to(loop)
    run_state.cancel(by_key=by_key)
    if by_key:
        loop.call_later(_SOON_S, run_state.say_stopping)


def _ctrl_c_came_to(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether the handler that asyncio has for Ctrl-C has cancelled what runs in a loop; it raises the second.

    Where a program handles the signal itself, nobody knows what another one does.
    """
    runner = getattr(getattr(signal.getsignal(signal.SIGINT), "func", None), "__self__", None)
    if not isinstance(runner, asyncio.Runner) or runner.get_loop() is not loop:
        return False
    return bool(getattr(runner, "_interrupt_count", 0))
