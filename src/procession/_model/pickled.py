"""A value as a journal keeps it by default: in a module that imports little, as every worker process imports it."""

import pickle

LIMIT = 500_000_000
"""Bytes of one value, at most: what every supported database takes in one piece."""


def pickled(value: object) -> bytes:
    """Return a value pickled, having seen that it can be unpickled. Raises what pickle raises."""
    data = pickle.dumps(value, 5)
    # All that can go wrong on the way back is a class or function that is looked up and called. Every pickle of
    # protocol 4 or 5 that does so has this opcode; if the byte is there by chance, that costs a look and no more.
    if pickle.STACK_GLOBAL in data:
        pickle.loads(data)  # noqa: S301  # it was made in the line above
    return data
