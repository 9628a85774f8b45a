"""The engine for coroutines: which loop or thread drives which stage of a run.

execute ───────▶ drive ────────┬─ only plain functions ──▶ ThreadEngine, from this thread
                               └─ coroutines ────────────▶ a loop of its own ──┐
execute_async ─▶ drive_async ──┬─ coroutines ────────────▶ the caller's loop ──┴──▶ StageInLoop
                               └─ only plain functions ──▶ ThreadEngine, in a side thread
"""

import asyncio
import threading
from functools import partial
from typing import Protocol

from procession._engine.run_state import RunState
from procession._engine.threads import ThreadEngine
from procession._loop.own_loop import OwnLoop, own_loop
from procession._loop.side_threads import SideThreads, shield_once
from procession._loop.stage import StageInLoop
from procession._loop.stop import stop
from procession._model.strategy import Stage
from procession._model.text import shown
from procession._plan.plan import segments


class AnyEngine(Protocol):
    """What drives a run for those who wait."""

    run_state: RunState

    def drive(self) -> None:
        """Run every stage."""
        ...


async def drive_async(engine: AnyEngine) -> None:
    """Drive the run of an engine without blocking the running loop.

    A cancellation stops the run, and leaves as itself when what runs has ended; a second one leaves at once.
    """
    run_state = engine.run_state
    run_state.loop_thread = threading.get_ident()
    side_threads = SideThreads(_name(run_state))
    try:
        if isinstance(engine, CoroutineEngine):
            await engine.drive_async()
        else:
            await shield_once(side_threads.call(engine.drive), partial(stop, run_state))
    except asyncio.CancelledError:
        run_state.cancel()
        if isinstance(engine, CoroutineEngine | ThreadEngine):
            engine.leave_behind()  # what still runs: after a first cancellation, there is nothing of the kind
        raise
    except BaseException as error:
        run_state.interrupt(error)
        raise
    finally:
        run_state.loop_thread = None
        side_threads.close()


def _name(run_state: RunState) -> str:
    return f"procession-{shown(run_state.process_name, 40)}"


class CoroutineEngine:
    """Drives the run state of one run in which there is something to await."""

    def __init__(self, run_state: RunState) -> None:
        self.run_state = run_state
        self._name = _name(run_state)
        self._threads = ThreadEngine(run_state)
        self._side_threads = SideThreads(self._name)
        self._commit_thread = run_state.commit_thread()
        self._busy = False

    def leave_behind(self) -> None:
        """Keep the interpreter's exit from waiting for the workers: see `ThreadEngine`."""
        self._threads.leave_behind()

    def drive(self) -> None:
        """Run every stage: coroutines in a loop of their own, plain functions as ever.

        Never raises what a task raised; raises the second `KeyboardInterrupt` at once, with workers still busy.
        """
        run_state = self.run_state
        loop: OwnLoop | None = None
        try:
            for stage, awaited in segments(run_state.plan):
                if not run_state.ledger.well:
                    break
                if awaited:
                    loop = own_loop(self._name, run_state.interrupt) if loop is None else loop
                    self._drive_in(loop, stage)
                else:
                    self._threads.drive_stage(stage)
        except BaseException as error:
            run_state.interrupt(error)
            raise
        finally:
            try:
                if loop is not None:
                    loop.close(hurried=self._busy)
            finally:
                self._close()

    async def drive_async(self) -> None:
        """Run every stage in the running loop, stages of plain functions in a side thread: see `drive_async`."""
        run_state = self.run_state
        try:
            for stage, awaited in segments(run_state.plan):
                if not run_state.ledger.well:
                    break
                if awaited:
                    await self._drive(stage)
                else:
                    await shield_once(
                        self._side_threads.call(self._threads.drive_stage, stage), partial(stop, run_state)
                    )
        finally:
            self._close()

    def _drive_in(self, loop: OwnLoop, stage: Stage) -> None:
        try:
            loop.run(self._drive(stage))
        except BaseException as error:
            self.run_state.interrupt(error)
            if self._busy:
                raise  # the second Ctrl-C

    async def _drive(self, stage: Stage) -> None:
        """Run a stage in the running loop."""
        run_state = self.run_state
        outer, run_state.loop_thread = run_state.loop_thread, threading.get_ident()
        self._busy = True
        driven = StageInLoop(run_state, stage, self._name, self._side_threads, self._commit_thread)
        try:
            await driven.drive()
        finally:
            run_state.loop_thread = outer
            run_state.whereabouts.coroutines = {}
            self._busy = driven.busy

    def _close(self) -> None:
        if self._commit_thread is not None:
            self._commit_thread.close(wait=not self._busy)
        self._side_threads.close()
        self._threads.close()
