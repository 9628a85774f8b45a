"""What is done in worker processes and on clusters, which import it from here."""

import time


def same(value: int) -> int:
    """Do next to nothing."""
    return value


def after(value: int) -> int:
    """Do next to nothing with the value of the task before."""
    return value + 1


def busy(seconds: float) -> float:
    """Compute in Python for so many seconds of this process's own time."""
    until = time.process_time() + seconds
    rounds = 0
    while time.process_time() < until:
        rounds += 1
    return rounds


async def same_awaited(value: int) -> int:
    """Do next to nothing, as a coroutine."""
    return value
