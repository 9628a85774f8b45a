"""What one limit holds back in one run: how many calls wait now, how many did, and for how long any of them did."""

from procession._model.held_back import HeldBack


class Holding:
    """What one limit holds back in a run."""

    __slots__ = ("_calls", "_seconds", "_since", "_waiting")

    def __init__(self) -> None:
        self._waiting = self._calls = 0
        self._since = self._seconds = 0.0

    def begin(self, now: float) -> None:
        """Count a call that is held back."""
        if not self._waiting:
            self._since = now
        self._waiting += 1
        self._calls += 1

    def end(self, now: float) -> None:
        """Count a call that is held back no longer."""
        self._waiting -= 1
        if not self._waiting:
            self._seconds += now - self._since

    def told(self, name: str, now: float) -> HeldBack:
        """Return how that stands."""
        seconds = self._seconds + (now - self._since if self._waiting else 0.0)
        return HeldBack(name, self._waiting, self._calls, seconds)
