"""The logs of calls: the last entries of each call, as lines that cannot harm a terminal or forge another entry."""

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice

from procession._model.text import shown

LIMIT = 16_000
"""About how many characters are kept of the log of one call; when it grows beyond, the oldest entries go."""

_ENTRY = 4_000
"""The most characters of one entry; a longer entry loses its middle."""

_LINE = 2_000

_NEXT = "\n    "
"""The separator between the lines of one entry."""


class Log:
    """The log entries of one call, each with the attempt that logged it; `left_out` counts dropped entries."""

    __slots__ = ("_entries", "_size", "left_out")

    def __init__(self, left_out: int = 0) -> None:
        self.left_out = left_out
        self._entries: deque[tuple[int, str]] = deque()
        self._size = 0

    def add(self, attempt: int, text: str) -> None:
        """Add an entry of an attempt, and drop the oldest entries if the log is too long."""
        self._entries.append((attempt, text))
        self._size += len(text)
        with suppress(IndexError):
            while self._size > LIMIT:
                self._size -= len(self._entries.popleft()[1])
                self.left_out += 1

    def extend(self, later: "Log") -> None:
        """Append a log whose entries are all later than those here."""
        if later.left_out:  # entries here are older than those that were dropped there
            self.left_out += later.left_out + len(self._entries)
            self._entries.clear()
            self._size = 0
        for attempt, text in later._entries:
            self.add(attempt, text)

    def last(self, count: int) -> Sequence[tuple[int, str]]:
        """Return the last `count` entries, or all if there are fewer."""
        return list(islice(self._entries, max(len(self._entries) - count, 0), None))

    def __len__(self) -> int:
        return len(self._entries)

    def text(self) -> str:
        r"""Return the log as text and empty it: a line for each entry, the further lines of an entry indented.

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

    Only one thread at a time adds entries, since all handlers share one lock (`TaskLogHandler.createLock`).
    """

    def add(self, call: tuple[int, int], attempt: int, text: str) -> None:
        """Add an entry to the log of a call."""
        self.setdefault(call, Log()).add(attempt, text)

    def extend(self, call: tuple[int, int], later: Log) -> None:
        """Append the log that a call has written in another process."""
        self.setdefault(call, Log()).extend(later)

    def take(self, call: tuple[int, int]) -> Log | None:
        """Remove and return the log of a call; `None` if the call has logged nothing."""
        return self.pop(call, None)


def harmless(text: str) -> str:
    """Return text as an entry: lines after the first are indented, so that none can pass for another entry."""
    lines = _cut(text, "\n").expandtabs(4).split("\n")
    # Cut once more, since escapes and indents have made the text longer.
    return _cut(_NEXT.join(shown(line, _LINE) for line in lines), _NEXT)


def _cut(text: str, between: str) -> str:
    return text if len(text) <= _ENTRY else f"{text[: _ENTRY // 2]}{between}…{between}{text[-_ENTRY // 2 :]}"
