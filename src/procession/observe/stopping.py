"""What a run that was stopped still waits for, as a line for people."""

import sys
from contextlib import suppress

from procession._engine.run_state import RunState
from procession._model.text import counted


def stopping(run_state: RunState, *, by_key: bool) -> str | None:
    """Return a line that says how many tasks a stopped run waits for; `None` if it waits for none."""
    running = len({context.index for context in list(run_state.call_contexts) if context.index >= 0})
    more = " Ctrl-C again leaves now." if by_key else ""
    return f"Stopping: waiting for {counted(running, 'task')}.{more}" if running else None


def say_stopping(run_state: RunState) -> None:
    """Say on standard error, if that is a terminal, what a run waits for after the first Ctrl-C."""
    with suppress(Exception):  # a terminal that is gone keeps no run from ending
        if sys.stderr.isatty() and (line := stopping(run_state, by_key=True)) is not None:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()
