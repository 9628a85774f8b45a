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


class Log:
    """The entries of one call, each with the attempt that made it; `left_out` counts those that went."""

    __slots__ = ("_entries", "_last", "_size", "left_out")

    def __init__(self, left_out: int = 0) -> None:
        self.left_out = left_out
        self._entries: deque[tuple[int, str]] = deque()
        self._size = 0
        self._last: object = None

    def add(self, attempt: int, text: str, once: object = None) -> bool:
        """Add an entry; return whether it was not there: known by the same `once` as the last, it is that one again."""
        if once is not None and once == self._last:
            return False
        self._last = once
        self._entries.append((attempt, text))
        self._size += len(text)
        with suppress(IndexError):
            while self._size > LIMIT:
                self._size -= len(self._entries.popleft()[1])
                self.left_out += 1
        return True

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
        >>> log.add(1, harmless("INFO asked\nERROR forged")), log.add(2, "INFO asked again")
        (True, True)
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

    Without a lock, since a child that is forked meanwhile would find it held for ever: what two threads do here at the
    same time comes out in some order, and nothing breaks.
    """

    def add(self, call: tuple[int, int], attempt: int, text: str, once: object = None) -> None:
        """Add an entry to the log of a call."""
        self.setdefault(call, Log()).add(attempt, text, once)

    def extend(self, call: tuple[int, int], later: Log) -> None:
        """Add what a call has logged elsewhere."""
        self.setdefault(call, Log()).extend(later)

    def take(self, call: tuple[int, int]) -> Log | None:
        """Return the log of a call, and let it go."""
        return self.pop(call, None)


def harmless(text: str) -> str:
    """Return text as an entry: further lines are set in, so that none can pass for another entry."""
    if len(text) > _ENTRY:
        text = f"{text[: _ENTRY // 2]}\n…\n{text[-_ENTRY // 2 :]}"
    return "\n    ".join(shown(line, _LINE) for line in text.expandtabs(4).split("\n"))
