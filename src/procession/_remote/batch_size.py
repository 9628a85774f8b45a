"""How many calls travel together: decided from how long the calls of a run took so far. Pure.

With too few in a batch, the way there and back costs more than the calls. With too many, one worker holds calls that
another one, which is free, could make.
"""

_BATCH_S = 0.03
"""How long a batch should take, in seconds, if the way is short."""
_LONGEST_S = 1.0
_WORTH = 20
"""How many times longer than the way there and back a batch should take: it costs at most 5 % then."""
_GROWTH = 8
_LATE, _LATE_S = 2, 0.01
"""A batch is late after twice the time that it should take, but no sooner than after this many seconds."""
MOST_BYTES = 1 << 20
"""Calls of more bytes than this do not travel together."""
_MANY = 2_000
"""Calls in a batch, at most, unless the way is long: with more, sender and receiver keep each other waiting."""


class BatchSize:
    """What is known of how long the calls of a run take, and of the way to a worker and back.

    Example:
        >>> batch_size = BatchSize()
        >>> batch_size.size(left=10_000, workers=2)
        1
        >>> batch_size.learn(1, seconds=1e-6, way=1e-4, size=100)
        >>> batch_size.size(left=10_000, workers=2)
        8

    """

    __slots__ = ("_bytes", "_last", "_way", "call_s")

    def __init__(self) -> None:
        self.call_s: float | None = None
        """How long a call takes, in seconds, as far as is known: the newest batch counts half."""
        self._bytes = 0.0
        self._way = _LONGEST_S
        self._last = 1

    @property
    def batch_s(self) -> float:
        """How long a batch should take, in seconds."""
        return _BATCH_S if self.call_s is None else min(max(_BATCH_S, _WORTH * self._way), _LONGEST_S)

    def late_s(self, calls: int) -> float:
        """Return after how many seconds a batch of so many calls has taken longer than it should."""
        should = 0.0 if self.call_s is None else self._way + calls * self.call_s
        return max(_LATE * should, _LATE_S)

    def learn(self, calls: int, *, seconds: float, way: float, size: int) -> None:
        """Learn from a batch that came back.

        `calls` is how many it had, `seconds` how long all of them took, `way` how long the way there and back took, in
        seconds, and `size` how many bytes were sent.
        """
        call_s = seconds / calls
        self.call_s = call_s if self.call_s is None else (self.call_s + call_s) / 2
        self._bytes = (self._bytes + size / calls) / 2
        # Only the shortest way says what a way costs: longer ones include waiting in a queue of the executor.
        self._way = min(self._way, max(way, 1e-6))

    def weigh(self, calls: int, size: int) -> None:
        """Take note that so many calls took so many bytes, which was too much to send."""
        self._bytes = size / calls

    def size(self, left: int, workers: int) -> int:
        """Return how many calls the next batch should have, with so many left for so many workers."""
        if self.call_s is None:
            return 1
        call_s = max(self.call_s, 1e-7)
        size = min(self.batch_s / call_s, self._last * _GROWTH, MOST_BYTES / max(self._bytes, 1.0))
        size = min(size, max(_MANY, _WORTH * self._way / call_s))
        # Towards the end each worker gets a share of what is left, large enough to be worth its way.
        self._last = max(int(min(size, max(left / (2 * workers), min(self._way / call_s, left / workers)))), 1)
        return self._last
