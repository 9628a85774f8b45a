"""What one call logged: the last of it, as lines that do no harm."""

from collections import deque
from contextlib import suppress

from procession._model.text import shown

LIMIT = 16_000
"""Characters kept of what one call logs, about; of more, the oldest go."""

_ENTRY = 4_000
"""Characters of one entry, at most; of a longer one, the middle goes."""

_LINE = 2_000


class Log:
    """The entries of one call, each with the attempt that made it.

    Without a lock, since it is written to where a child may be forked that would find it held for ever: what two
    threads do here at the same time comes out in some order, and nothing breaks.
    """

    __slots__ = ("_entries", "_last", "_left_out", "_size")

    def __init__(self) -> None:
        self._entries: deque[tuple[int, str]] = deque()
        self._left_out = 0
        self._size = 0
        self._last: object = None

    def add(self, attempt: int, text: str, once: object = None) -> None:
        """Add an entry. What is known by the same `once` as the one before is that one, seen again."""
        if once is not None and once == self._last:
            return
        self._last = once
        self._put(attempt, _harmless(text))

    def extend(self, later: "Log") -> None:
        """Add what was logged in another process."""
        self._left_out += later._left_out
        for attempt, text in later._entries:
            self._put(attempt, text)

    def text(self) -> str:
        r"""Return all of it, and let it go: an entry a line, with further lines of its own set in.

        >>> log = Log()
        >>> log.add(1, "INFO asked\nERROR forged")
        >>> log.add(2, "INFO asked again")
        >>> print(log.text())
        INFO asked
            ERROR forged
        attempt 2:
        INFO asked again
        """
        lines = [f"… {self._left_out:,} earlier entries left out"] if self._left_out else []
        before = 1
        with suppress(IndexError):
            while True:
                attempt, text = self._entries.popleft()
                if attempt != before:
                    lines.append(f"attempt {attempt}:")
                    before = attempt
                lines.append(text)
        return "\n".join(lines)

    def _put(self, attempt: int, text: str) -> None:
        self._entries.append((attempt, text))
        self._size += len(text)
        with suppress(IndexError):
            while self._size > LIMIT:
                self._size -= len(self._entries.popleft()[1])
                self._left_out += 1


def _harmless(text: str) -> str:
    if len(text) > _ENTRY:
        text = f"{text[: _ENTRY // 2]}\n…\n{text[-_ENTRY // 2 :]}"
    # What is set in cannot be taken for an entry.
    return "\n    ".join(shown(line, _LINE) for line in text.expandtabs(4).split("\n"))
