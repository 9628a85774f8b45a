"""What calls log: of each the last of it, as lines that do no harm."""

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice

from procession._model.text import shown

LIMIT = 16_000
"""Characters kept of what one call logs, about; of more, the oldest go."""

_ENTRY = 4_000
"""Characters of one entry, at most; of a longer one, the middle goes."""

_LINE = 2_000

_NEXT = "\n    "
"""What comes between an entry's lines."""


class Log:
    """The entries of one call, each with the attempt that made it; `left_out` counts those that went."""

    __slots__ = ("_entries", "_size", "left_out")

    def __init__(self, left_out: int = 0) -> None:
        self.left_out = left_out
        self._entries: deque[tuple[int, str]] = deque()
        self._size = 0

    def add(self, attempt: int, text: str) -> None:
        """Add an entry."""
        self._entries.append((attempt, text))
        self._size += len(text)
        with suppress(IndexError):
            while self._size > LIMIT:
                self._size -= len(self._entries.popleft()[1])
                self.left_out += 1

    def extend(self, later: "Log") -> None:
        """Add what was logged later."""
        if later.left_out:  # then so are the older ones here
            self.left_out += later.left_out + len(self._entries)
            self._entries.clear()
            self._size = 0
        for attempt, text in later._entries:
            self.add(attempt, text)

    def last(self, count: int) -> Sequence[tuple[int, str]]:
        """Return the last entries, at most so many."""
        return list(islice(self._entries, max(len(self._entries) - count, 0), None))

    def __len__(self) -> int:
        return len(self._entries)

    def text(self) -> str:
        r"""Return all of it, and let it go: an entry a line, with further lines of its own set in.

        >>> log = Log()
        >>> log.add(1, harmless("INFO asked\nERROR forged"))
        >>> log.add(2, "INFO asked again")
        >>> print(log.text())
        INFO asked
            ERROR forged
        attempt 2:
        INFO asked again
        """
        lines = [f"… {self.left_out:,} earlier entries left out"] if self.left_out else []
        before = 1
        with suppress(IndexError):
            while True:
                attempt, text = self._entries.popleft()
                if attempt != before:
                    lines.append(f"attempt {attempt}:")
                    before = attempt
                lines.append(text)
        return "\n".join(lines)


class Logs(dict[tuple[int, int], Log]):
    """The logs of calls that have not ended, by task and element.

    One thread at a time adds: the lock of the handlers sees to that, which `logging` renews in a child that is forked.
    """

    def add(self, call: tuple[int, int], attempt: int, text: str) -> None:
        """Add an entry to the log of a call."""
        self.setdefault(call, Log()).add(attempt, text)

    def extend(self, call: tuple[int, int], later: Log) -> None:
        """Add what a call has logged elsewhere."""
        self.setdefault(call, Log()).extend(later)

    def take(self, call: tuple[int, int]) -> Log | None:
        """Return the log of a call, and let it go."""
        return self.pop(call, None)


def harmless(text: str) -> str:
    """Return text as an entry: further lines are set in, so that none can pass for another entry."""
    lines = _cut(text, "\n").expandtabs(4).split("\n")
    # Once more, for what is spelt out or set in is longer than it was.
    return _cut(_NEXT.join(shown(line, _LINE) for line in lines), _NEXT)


def _cut(text: str, between: str) -> str:
    return text if len(text) <= _ENTRY else f"{text[: _ENTRY // 2]}{between}…{between}{text[-_ENTRY // 2 :]}"
