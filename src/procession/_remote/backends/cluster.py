"""What the client's side of a cluster shares: calls whose arguments lie there, and values that stay there.

    client                                             cluster
    calls ──pickled, references apart──▶ run_away(data, *values) ──▶ Report, kept on a worker
                                             └──▶ told(report) ──▶ ends, small values ──▶ client
                                             └──▶ value_of(report, place), for each large value: a reference
    Away(reference) ◀── stands for such a value in the ledger, and as an argument travels as what it stands for

A small value comes with the report, which has to come anyway. A large value stays where it was made, and other workers
get it from there; the client fetches it once, at the end of the run or when an outcome is asked for it.
"""

import io
import pickle
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from procession._engine.run_state import RunState
from procession._model.outcome import Away
from procession._plan.pipelines import elements_come_here
from procession._remote.wire.batch import Report
from procession._remote.wire.result import result_of
from procession._remote.wire.serialize import Call, by_value, encode_calls, may_share

SMALL_BYTES = 64 * 1024
"""A value of at most so many bytes comes to the client with the report; a larger one stays on the cluster."""


def small_bytes(run_state: RunState) -> float:
    """Return up to how many bytes a value comes with the report.

    In a recorded run every value has to come here, and in one whose elements are taken here.
    """
    comes = run_state.recorder is not None or elements_come_here(run_state.plan)
    return float("inf") if comes else SMALL_BYTES


def packed(calls: Sequence[Call], *, whole: bool) -> tuple[bytes, list[Away]]:
    """Return calls as bytes, and the values on the cluster that they take, in the order that the bytes use."""
    taken: list[Away] = []

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> int | None:
            if not isinstance(value, Away):
                return None
            taken.append(value)
            return len(taken) - 1

    def dumped(calls: Sequence[Call]) -> bytes:
        file = io.BytesIO()
        Pickler(file, pickle.HIGHEST_PROTOCOL).dump(calls)
        return file.getvalue()

    try:
        if whole and by_value() is not None:
            raise TypeError
        parts = [[call] for call in calls] if may_share(calls) else [calls]
        return pickle.dumps(list(map(dumped, parts)), pickle.HIGHEST_PROTOCOL), taken
    except Exception:
        # By value, or one by one, as for any other executor: that way takes no references to the cluster.
        here = [
            (*call[:5], _fetched(call[5]), {name: _fetched(arg) for name, arg in call[6].items()}) for call in calls
        ]
        return pickle.dumps([encode_calls(here, whole=whole)], pickle.HIGHEST_PROTOCOL), []


def _fetched(value: Any) -> Any:
    if isinstance(value, Away):
        return value.fetch()
    if type(value) in (list, tuple):
        return type(value)(map(_fetched, value))
    if type(value) is dict:
        items = cast("dict[Any, Any]", value)  # type: ignore[redundant-cast]  # pyright sees it as partly unknown
        return {key: _fetched(item) for key, item in items.items()}
    return value


def refer(report: Report, away: Iterable[int], reference: Callable[[int], Away]) -> None:
    """Put references into a report in place of the values that stayed on the cluster."""
    ended = list(report.ended)
    for place in away:
        ended[place] = result_of(ended[place], report.worker)._replace(value=reference(place))
    report.ended = ended


def places_away(values: list[Any]) -> list[tuple[list[Any], int]]:
    """Return each list and place in it where a reference stands, among the values and in the list of each map."""
    holders: list[list[Any]] = [values, *(value for value in values if type(value) is list)]
    return [(holder, place) for holder in holders for place, item in enumerate(holder) if isinstance(item, Away)]
