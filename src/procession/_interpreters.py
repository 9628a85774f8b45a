"""For tests: runs of a module with arguments, each in a process of its own, which may be killed.

    Interpreters ──arguments──▶ an interpreter that has imported what all need ──fork──▶ the process that runs
         ▲                                       │
         └────────────its exit code──────────────┘

So it is on Linux, as importing the library takes most of the time that a fresh interpreter needs. Elsewhere forks are
missing, or harm libraries of the system, and each process is a fresh interpreter.
"""

import gc
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self, cast

_SERVE: Final = "--serve"
_KILL: Final = 9

_Run = Callable[[Sequence[str], float], tuple[int, str]]
"""Runs the module once, with arguments, for so many seconds at most; returns what `Interpreters.run` does."""


class Interpreters:
    """Runs a module, which gets its arguments from `arguments_of_run`, as often as it is asked to.

    Two interpreters are forked in turn. Each hashes strings in its own way, so that results which depend on the order
    of a set differ from one run to the next, as they do in fresh interpreters.
    """

    def __init__(self, module: str, folder: Path) -> None:
        self._forked = [_Forked(module, folder) for _ in range(2)] if sys.platform == "linux" else []
        self._next: list[_Run] = [forked.run for forked in self._forked] or [_Fresh(module).run]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for forked in self._forked:
            forked.close()

    def run(self, *arguments: str, timeout: float) -> tuple[int, str]:
        """Run the module with arguments; return the exit code and what was written to standard error.

        Raises `TimeoutError` if that takes more than `timeout` seconds.
        """
        self._next.append(self._next.pop(0))
        return self._next[-1](arguments, timeout)


class _Fresh:
    """Runs a module in a fresh interpreter each time."""

    def __init__(self, module: str) -> None:
        self._command = [sys.executable, "-m", module]

    def run(self, arguments: Sequence[str], timeout: float) -> tuple[int, str]:
        """Run the module with arguments."""
        command = [*self._command, *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)  # noqa: S603
        except subprocess.TimeoutExpired as error:
            raise _late(timeout) from error
        return done.returncode, done.stderr


class _Forked:
    """Runs a module in forks of one interpreter."""

    def __init__(self, module: str, folder: Path) -> None:
        self._server = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", module, _SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        self._requests = cast("IO[bytes]", self._server.stdin)
        self._answers = cast("IO[bytes]", self._server.stdout)
        self._complaints = folder / f"complaints-{self._server.pid}"

    def run(self, arguments: Sequence[str], timeout: float) -> tuple[int, str]:
        """Run the module with arguments."""
        self._requests.write(json.dumps([str(self._complaints), *arguments]).encode() + b"\n")
        pid = self._answer()
        try:
            if not select.select([self._answers], [], [], timeout)[0]:
                raise _late(timeout)
        except BaseException:
            with suppress(ProcessLookupError):  # it has ended just now
                os.kill(pid, _KILL)
            self._answer()
            raise
        return self._answer(), self._complaints.read_text(errors="replace")

    def close(self) -> None:
        """End the interpreter that is forked."""
        self._requests.close()
        self._answers.close()
        self._server.wait()

    def _answer(self) -> int:
        return int(self._answers.readline())


def _late(timeout: float) -> TimeoutError:
    return TimeoutError(f"a run of the process took more than {timeout:g} s")


def arguments_of_run(load: Callable[[], object]) -> list[str]:
    """Return the arguments of a run of the calling module, in the process that is to run with them.

    In an interpreter that is to be forked, this calls `load`, which imports what runs need and starts no thread, and
    returns in each fork.
    """
    if sys.argv[1:] != [_SERVE] or sys.platform == "win32":
        return sys.argv[1:]
    load()
    gc.collect()
    gc.freeze()  # so that no fork copies what is loaded in order to look through it
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the forks, and for those who wait
    for request in sys.stdin:
        complaints, *arguments = cast("list[str]", json.loads(request))
        pid = os.fork()
        if not pid:
            signal.signal(signal.SIGINT, interrupt)
            _redirect(complaints)
            return arguments
        _say(pid)
        _say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    sys.exit()


def _say(number: int) -> None:
    with suppress(BrokenPipeError):  # nobody waits for it any more
        os.write(1, f"{number}\n".encode())


def _redirect(complaints: str) -> None:
    """Write standard error to a file, and discard standard output."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    file = os.open(complaints, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(file, 2)
    os.close(file)
