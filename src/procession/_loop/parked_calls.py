"""Calls of coroutines that are parked, and have no slot: between two attempts, or held back by their limits.

park, hold ──▶ waiting ──its pause is over, or its limits admit it──▶ due ──▶ the stage starts it
                  └──the run is halted──▶ it ends as its last attempt did
"""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

from procession._engine.callbacks import breaks_down
from procession._engine.run_state import RunState
from procession._loop.attempt import PendingCall
from procession._loop.side_threads import hand_over


class Stage(Protocol):
    """The stage that makes the calls."""

    def fill(self) -> None:
        """Fill the free slots: there may be something for them."""
        ...

    def break_down(self, error: BaseException) -> None:
        """End the stage with an error of its own."""
        ...


class ParkedCalls:
    """The parked calls of one stage. Where not said otherwise, all is called in the loop's thread."""

    __slots__ = ("_loop", "_run_state", "_stage", "due", "waiting")

    def __init__(self, run_state: RunState, stage: Stage) -> None:
        self._run_state = run_state
        self._stage = stage
        self._loop = asyncio.get_running_loop()
        self.waiting: set[PendingCall] = set()
        """Calls between two attempts, or held back."""
        self.due: deque[PendingCall] = deque()
        """Calls that wait for nothing but a slot."""

    def park(self, call: PendingCall, seconds: float) -> None:
        """Schedule the next attempt of a call after a pause in seconds."""
        if self._run_state.ledger.halted:
            call.give_up()
        else:
            self.waiting.add(call)
            call.timer = self._loop.call_later(seconds, self._resume, call)

    def hold(self, call: PendingCall) -> Callable[[], object]:
        """Keep a call that its limits hold back; return what makes it due, from any thread."""
        self.waiting.add(call)
        return partial(hand_over, self._loop, self._resume, call)

    def end_pauses(self) -> None:
        """Let no pause end any more by itself."""
        for call in self.waiting:
            call.end_pause()

    def give_up(self) -> None:
        """End all calls as their last attempts did."""
        parked = [*self.waiting, *self.due]
        self.waiting.clear()
        self.due.clear()
        for call in parked:
            call.end_pause()
            call.give_up()

    def break_down(self, error: BaseException) -> None:
        """End the stage with an error of its own."""
        self._stage.break_down(error)

    @breaks_down
    def _resume(self, call: PendingCall) -> None:
        if call in self.waiting:  # else the run was halted meanwhile
            self.waiting.discard(call)
            self.due.append(call)
            self._stage.fill()
