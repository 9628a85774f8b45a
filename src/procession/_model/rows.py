"""The outcomes of a run as rows, for programs that take tables."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

from procession._model.outcome import Outcome

Row = dict[str, Any]


def rows_of(outcome: Outcome, elements: Sequence[Any] | None, attempts: Callable[[int], int]) -> Iterator[Row]:
    """Yield the row of a task; of a map whose `elements` are known, with the failed ones as exceptions, one for each.

    `attempts` says how many times an element was called.
    """
    if elements is None:
        row = _row(outcome, None, outcome.state, outcome.attempts, outcome.start, outcome.duration)
        if outcome.state == "completed" and not outcome.has_value:
            del row["value"]  # it belongs to the caller of `execute`
        else:
            row["value"] = outcome.value if outcome.has_value else None
        row["error"] = outcome.error
        yield row
        return
    failed = set(map(id, _failures(outcome.error)))
    for place, value in enumerate(elements):
        bad = id(value) in failed
        row = _row(outcome, place, "failed" if bad else "completed", attempts(place), None, None)
        row["error" if bad else "value"] = value
        yield row


def _row(
    outcome: Outcome, element: int | None, state: str, attempts: int, start: float | None, duration: float | None
) -> Row:
    return {
        "index": outcome.index,
        "name": outcome.name,
        "element": element,
        "state": state,
        "value": None,
        "error": None,
        "attempts": attempts,
        "start": start,
        "duration": duration,
    }


def _failures(error: BaseException | None) -> tuple[BaseException, ...]:
    if isinstance(error, BaseExceptionGroup):
        return cast("BaseExceptionGroup[BaseException]", error).exceptions
    return ()
