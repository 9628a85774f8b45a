"""What runs on the workers of a cluster: the calls of a batch, and what is then told of them and handed out.

See `backends.cluster` for the picture.
"""

import io
import pickle
from collections.abc import Sequence
from math import inf
from typing import Any

from procession._remote.wire.batch import Batch, BatchOptions, Report
from procession._remote.wire.result import encode_result, result_of
from procession._remote.wire.serialize import Call
from procession._remote.worker.run_calls import run_batch
from procession._remote.worker.run_stub import RunStub


def run_away(data: bytes, options: BatchOptions, values: Sequence[Any], run_stub: RunStub | None = None) -> Report:
    """Make the calls of a batch, which take some of the values; return how they ended, which stays here."""

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, place: Any) -> Any:
            return values[place]

    def loads(data: bytes) -> Sequence[Call]:
        calls: Sequence[Call] = Unpickler(io.BytesIO(data)).load()
        return calls

    return run_batch(Batch((), options, data=data, loads=loads), run_stub)


def told(report: Report, small_bytes: float) -> tuple[Report, list[int]]:
    """Return a report as the client gets it, with small values in it, and the places of the values that stay."""
    ended: list[bytes] = []
    away: list[int] = []
    for place, one in enumerate(report.ended):
        if small_bytes < inf:
            # As bytes, if the cluster has moved it from the worker that made it.
            result = result_of(one, report.worker)
            if result.returned and not _is_small(result.value, small_bytes):
                away.append(place)
                ended.append(encode_result(result._replace(value=None), None))
                continue
        ended.append(one if isinstance(one, bytes) else encode_result(one, report.encode))
    return Report(report.worker, ended, report.began, report.finished, report.error, bool(report.hung)), away


def value_of(report: Report, place: int) -> Any:
    """Return a value that stayed."""
    result = result_of(report.ended[place], report.worker)
    if result.error is not None:  # it could not be read where the cluster has moved it
        raise result.error
    return result.value


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
