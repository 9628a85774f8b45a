"""What backends on a cluster share: calls whose arguments lie there, and values that stay there.

    client                                             cluster
    calls ──pickled, references apart──▶ run_away(data, *values) ──▶ Report, kept on a worker
                                             └──▶ told(report) ──▶ ends, small values ──▶ client
                                             └──▶ value_of(report, place), for each large value: a reference
    Away(reference) ◀── stands for such a value in the ledger, and as an argument travels as what it stands for

A small value comes with the report, since that has to come anyway. A large one stays where it was made and goes from
worker to worker; the client fetches it once, at the end of the run or when somebody asks for it.
"""

import io
import pickle
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from procession._engine.run_state import RunState
from procession._engine.task_logs import WantedLogs
from procession._model.outcome import Away
from procession._remote.wire.batch import Batch, Report, run_batch
from procession._remote.wire.serialize import Call, by_value, encode_calls, encode_ended, ended_of
from procession._remote.worker.run_stub import RunStub

SMALL_BYTES = 64 * 1024
"""What comes with a report, at most, of one value."""


# In the client


def small_bytes(run_state: RunState) -> float:
    """Return what comes with a report, at most, of one value. What a journal records has to come here anyway."""
    return float("inf") if run_state.recorder is not None else SMALL_BYTES


def packed(calls: Sequence[Call], *, whole: bool) -> tuple[bytes, list[Away]]:
    """Return calls as bytes, and what they take that lies on the cluster, in the order in which the bytes name it."""
    taken: list[Away] = []

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> int | None:
            if not isinstance(value, Away):
                return None
            taken.append(value)
            return len(taken) - 1

    file = io.BytesIO()
    try:
        if whole and by_value() is not None:
            raise TypeError
        Pickler(file, pickle.HIGHEST_PROTOCOL).dump(calls)
        return file.getvalue(), taken
    except Exception:
        # By value, or one by one, as for any other executor; nothing of that knows of what lies elsewhere.
        here = [
            (*call[:5], _fetched(call[5]), {name: _fetched(arg) for name, arg in call[6].items()}) for call in calls
        ]
        return encode_calls(here, whole=whole), []


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
        _, start, end, _, log = ended_of(ended[place])
        ended[place] = True, start, end, reference(place), log
    report.ended = ended


def places_away(values: list[Any]) -> list[tuple[list[Any], int]]:
    """Return in which list, and where in it, references stand among values, one by one in those of a map."""
    holders: list[list[Any]] = [values, *(value for value in values if type(value) is list)]
    return [(holder, place) for holder in holders for place, item in enumerate(holder) if isinstance(item, Away)]


# On the cluster


def run_away(
    data: bytes,
    names: tuple[str, str],
    budget: float,
    stops: bool,
    chained: bool,
    wanted_logs: WantedLogs | None,
    values: Sequence[Any],
    run_stub: RunStub | None = None,
) -> Report:
    """Make the calls of a batch, and keep what came of them."""

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, place: Any) -> Any:
            return values[place]

    def loads(data: bytes) -> Sequence[Call]:
        calls: Sequence[Call] = Unpickler(io.BytesIO(data)).load()
        return calls

    batch = Batch(
        (), None, names, budget=budget, stops=stops, chained=chained, wanted_logs=wanted_logs, data=data, loads=loads
    )
    return run_batch(batch, run_stub)


def told(report: Report, small_bytes: float) -> tuple[Report, list[int]]:
    """Return a report as the client gets it, with small values in it, and the places of those that stay."""
    ended: list[bytes] = []
    away: list[int] = []
    for place, one in enumerate(report.ended):
        # As bytes, if the cluster has moved it from the worker that made it.
        returned, start, end, value, log = ended_of(one)
        if returned and not _is_small(value, small_bytes):
            away.append(place)
            ended.append(encode_ended((True, start, end, None, log)))
        else:
            ended.append(one if isinstance(one, bytes) else encode_ended(one))
    return Report(report.worker, ended, report.began, report.finished, report.error, bool(report.hung)), away


def _is_small(value: Any, limit: float) -> bool:
    try:
        pickle.Pickler(_Small(limit), pickle.HIGHEST_PROTOCOL).dump(value)
    except _LargeError:
        return False
    except Exception:  # by value, or not at all, and then it says so: it has to come here for that
        return True
    return True


class _LargeError(Exception):
    """A value is too large to come with a report."""


class _Small:
    """A file that takes so many bytes and no more, so that a large value is not copied to be measured."""

    def __init__(self, limit: float) -> None:
        self._left = limit

    def write(self, data: Any) -> int:
        """Take some bytes."""
        size = memoryview(data).nbytes
        self._left -= size
        if self._left < 0:
            raise _LargeError
        return size


def value_of(report: Report, place: int) -> Any:
    """Return a value that stayed."""
    returned, _, _, value, _ = ended_of(report.ended[place])
    if not returned:  # it could not be read where the cluster has moved it
        raise value
    return value
