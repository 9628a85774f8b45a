"""What is done in worker processes and on clusters, which import it from here."""


def same(value: int) -> int:
    """Do next to nothing."""
    return value


def after(value: int) -> int:
    """Do next to nothing with the value of the task before."""
    return value + 1


async def same_awaited(value: int) -> int:
    """Do next to nothing, as a coroutine."""
    return value
