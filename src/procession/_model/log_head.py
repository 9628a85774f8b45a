r"""What a journal keeps of a call in front of its log, in the same column: its label, and its failed attempts.

Each stands on a line of its own that begins with a character that no log begins with.

>>> with_head("fetch a.org", (FailedAttempt(0.0, 0.5, 1.0, "OSError: no"),), "INFO asked")
'\x1ffetch a.org\n\x1e[[0.0, 0.5, 1.0, "OSError: no"]]\nINFO asked'
>>> head_of(_)
Head(label='fetch a.org', failed_attempts=(FailedAttempt(start=0.0, duration=0.5, pause=1.0, error='OSError: no'),))
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, cast

from procession._model.attempt import ATTEMPTS, FailedAttempt
from procession._model.label import LABEL_LIMIT
from procession._model.text import shown

LABEL_MARK: Final = "\x1f"
"""What a text with a label begins with."""
_ATTEMPTS: Final = "\x1e"
_ERROR: Final = 120
_TIMES: Final = 3
LABEL_SPACE: Final = LABEL_LIMIT + 2
"""The characters of a text among which its label is, at most."""
HEAD_SPACE: Final = LABEL_SPACE + 12 * _ERROR * ATTEMPTS
"""The characters before a log, at most; letters that are no ASCII take six."""


class Head(NamedTuple):
    """What stands in front of a log."""

    label: str | None
    failed_attempts: tuple[FailedAttempt, ...]


def with_head(label: str | None, failed_attempts: Sequence[FailedAttempt], log: str | None) -> str | None:
    """Return the log of a call with its label and its failed attempts in front, as far as there are any."""
    head = "" if label is None else f"{LABEL_MARK}{label}\n"
    if failed_attempts:
        import json  # few calls fail before they succeed

        few = [(*(round(time, 6) for time in one[:3]), one.error[:_ERROR]) for one in failed_attempts[:ATTEMPTS]]
        head += f"{_ATTEMPTS}{json.dumps(few)}\n"
    return f"{head}{log or ''}" if head else log


def without_head(text: str | None) -> str | None:
    """Return the log of a call; `None` if there is none."""
    for mark in LABEL_MARK, _ATTEMPTS:
        if text is not None and text.startswith(mark):
            text = text.partition("\n")[2] or None
    return text


def head_of(text: str | None) -> Head:
    """Parse the head of a log that `with_head` has written; the first characters of the text are enough."""
    label: str | None = None
    if text is not None and text.startswith(LABEL_MARK):
        label, _, text = text[1:].partition("\n")
    found: Any = ()
    if text is not None and text.startswith(_ATTEMPTS):
        import json

        try:
            found = json.loads(text[1:].partition("\n")[0])
        except (ValueError, RecursionError):  # it goes on beyond the text
            found = ()
    attempts = tuple(one for said in _list(found)[:ATTEMPTS] if (one := _attempt(said)) is not None)
    return Head(None if label is None else shown(label, LABEL_LIMIT), attempts)


def _attempt(said: object) -> FailedAttempt | None:
    *times, error = [*_list(said), None][:4]
    if isinstance(error, str) and len(times) == _TIMES and all(isinstance(time, float | int) for time in times):
        start, duration, pause = (max(0.0, cast("float", time)) for time in times)
        return FailedAttempt(start, duration, pause, shown(error))
    return None


def _list(said: object) -> list[object]:
    return cast("list[object]", said) if isinstance(said, list) else []
