"""What it costs to watch a run.

    pip install -e ".[benchmark]"
    python benchmarks/observed.py                  prints the table
    python benchmarks/observed.py --rounds 3       quicker, and rougher

How the rounds go and what the figures are is said in `compare.py`. Progress is shown on a real pseudo-terminal, from
which another process reads.
"""

import argparse
import os
import pty
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from contestants import WORKERS, same, timed
from measuring import Work, machine, measure, ratio_at_most, table

from procession import Event, Observer, Process

assert sys.platform != "win32"  # which has neither pty nor termios


class Sleeper:
    """An observer that sleeps 1 ms an event."""

    def on_event(self, event: Event) -> None:  # noqa: ARG002
        """Sleep."""
        time.sleep(0.001)


class Counter:
    """An observer that counts events."""

    count = 0

    def on_event(self, event: Event) -> None:  # noqa: ARG002
        """Count."""
        self.count += 1


READ = "import os\ntry:\n while os.read(0, 65536): pass\nexcept OSError: pass"


@contextmanager
def terminal() -> Iterator[None]:
    """Have the standard error stream lead to a terminal."""
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 80))
    with (
        subprocess.Popen(
            [sys.executable, "-c", READ], stdin=leader, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ),
        open(follower, "w", encoding="utf-8") as stream,  # noqa: PTH123
    ):
        os.close(leader)
        before, sys.stderr = sys.stderr, stream
        try:
            yield
        finally:
            sys.stderr = before


def trivial(count: int, *observers: Observer, progress: bool = False) -> float:
    """Execute trivial tasks; building them does not count."""
    made = Process("trivial", "parallel", WORKERS, observers=observers)
    for number in range(count):
        made.add_task(same, number)
    if not progress:
        return timed(made.execute, list(range(count)))
    with terminal():
        return timed(lambda: made.execute(progress=True), list(range(count)))


def dropped(count: int) -> Callable[[object], tuple[bool, str]]:
    """Return the goal that the slow observer is told how many events it missed."""

    class Last(Sleeper):
        missed = 0

        def on_event(self, event: Event) -> None:
            super().on_event(event)
            self.missed = event.dropped or 0

    def check(_: object) -> tuple[bool, str]:
        last = Last()
        trivial(count, last)
        return last.missed > 0, f"{last.missed:,} of {2 * count + 2:,}"

    return check


def works(n: int) -> list[Work]:
    """Return everything that is measured, with `n` tasks."""

    def at(count: int) -> dict[str, Callable[[], float]]:
        return {
            "unobserved": lambda: trivial(count),
            "progress, on a terminal": lambda: trivial(count, progress=True),
            "an observer that sleeps 1 ms an event": lambda: trivial(count, Sleeper()),
            "an observer that counts events": lambda: trivial(count, Counter()),
        }

    return [
        Work(
            f"parallel: {count:,} trivial tasks, {WORKERS} workers",
            count,
            "µs a task",
            at(count),
            {
                "with progress at most 1.3 times": ratio_at_most(1.3, "unobserved", "progress, on a terminal"),
                "with a slow observer at most 1.3 times": ratio_at_most(
                    1.3, "unobserved", "an observer that sleeps 1 ms an event"
                ),
                "what it missed is counted": dropped(count),
            },
        )
        for count in (n, 10 * n)
    ]


def main() -> int:
    """Measure; print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tasks", type=int, default=100_000)
    options = parser.parse_args()
    results = [measure(work, options.rounds) for work in works(options.tasks)]
    print(f"{machine()}\n{table(results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
